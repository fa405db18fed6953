"""The place of a virtual_server: an address and a port, a firewall mark, or everything that a group names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from feedback.importers.draft import Remark
from feedback.importers.keepalived.blocks import GROUP, Node
from feedback.importers.keepalived.words import number
from feedback.model import Address, Family

GROUP_MAX = 1024  # addresses; keepalived has no bound


@dataclass(frozen=True, slots=True)
class Place:
    """What a service is at. `grouped` says that keepalived leaves a real server's port as it is written."""

    address: Address | None
    port: int = 0
    fwmark: int = 0
    family: Family | None = None
    grouped: bool = False


def places(node: Node, groups: dict[str, Node], remarks: list[Remark]) -> Iterator[Place]:
    if node.word(1) != "group":
        yield from _one(node, node.words[1:], remarks)
    elif node.word(2) not in groups:
        remarks.append(node.remark(f"{node.text}: left out: there is no such {GROUP}"))
    else:
        for n in groups[node.word(2)].block:
            yield from _several(n, remarks)


def _one(node: Node, words: list[str], remarks: list[Remark]) -> Iterator[Place]:
    """A mask or a range behind the address says nothing here."""
    if words[:1] == ["fwmark"]:
        yield from _fwmark(node, words, remarks)
        return
    address, port = address_of(words[0] if words else ""), port_of(words[1] if len(words) > 1 else "")
    if address is None or port is None:
        remarks.append(node.remark(f"{node.text}: left out: expected ADDRESS PORT, or fwmark NUMBER"))
        return
    if not plain(words[0]):
        remarks.append(node.remark(f"{node.text}: read as {address}: only a {GROUP} has ranges", note=True))
    yield Place(address, port, family=Family.of(address))


def _several(node: Node, remarks: list[Remark]) -> Iterator[Place]:
    """`10.0.0.1`, `10.0.0.1-9`, `10.0.0.1-10.0.0.9`, `10.0.0.8/29`, with a port or without; or a mark."""
    if node.name == "fwmark":
        yield from _fwmark(node, node.words, remarks)
        return
    first, port = address_of(node.name), port_of(node.word(1))
    last = _last(node.name, first) if first is not None else None
    count = int(last) - int(first) + 1 if first is not None and last is not None else 0
    if first is None or port is None or not 1 <= count <= GROUP_MAX:
        text = f"{node.text}: left out: expected ADDRESS or a range of at most {GROUP_MAX}, and a port"
        remarks.append(node.remark(text))
        return
    for i in range(count):
        yield Place(first + i, port, family=Family.of(first), grouped=True)


def _fwmark(node: Node, words: list[str], remarks: list[Remark]) -> Iterator[Place]:
    mark = number(words[1] if len(words) > 1 else "", 0, 2**32 - 1)
    family = {"inet": Family.IPV4, "inet6": Family.IPV6}.get(words[2]) if len(words) > 2 else None
    grouped = node.name == "fwmark"
    if not mark.value or (grouped and len(words) > 2 and family is None):
        remarks.append(node.remark(f"{node.text}: left out: expected fwmark NUMBER"))
        return
    yield Place(None, 0, mark.value, family if grouped else None, grouped)


def address_of(text: str) -> Address | None:
    """Up to a mask or the end of a range."""
    plain = text.partition("-")[0] if "-" in text else text.partition("/")[0]
    try:
        return ip_address(plain) if "%" not in plain else None
    except ValueError:
        return None


def plain(text: str) -> bool:
    return "-" not in text and "/" not in text


def port_of(text: str) -> int | None:
    """0 where there is none; None where it is no port."""
    if not text.strip("0"):
        return 0
    return number(text, 1, 65535).value


def _last(text: str, first: Address) -> Address | None:
    """The end of a range; None where it is none."""
    if plain(text):
        return first
    if "-" not in text:
        try:
            return ip_network(text).broadcast_address
        except ValueError:
            return None
    end = text.partition("-")[2]
    try:
        if (":" if first.version == 6 else ".") in end:
            last = ip_address(end)
            return last if last.version == first.version and int(last) >= int(first) else None
        bits = 16 if first.version == 6 else 8
        part = int(end, 16 if first.version == 6 else 10)
    except ValueError:
        return None
    kind = IPv6Address if first.version == 6 else IPv4Address
    return kind(int(first) >> bits << bits | part) if int(first) % (1 << bits) < part < 1 << bits else None
