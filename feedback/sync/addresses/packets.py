"""Frames that ask who has an address, or announce that we have it: ARP and IPv6 neighbour discovery. Pure.

This module owns the layouts, the checksum, and the socket filter that admits only statements about given addresses. It
owns no socket and knows of no role. MAC addresses are text in lower case, "02:00:00:00:00:01". Invariant: no bytes make
`parse_frame` raise; a malformed frame gives None.

Sources: RFC 826 (ARP), RFC 5227 (probe: sender 0.0.0.0; announcement: sender = target), RFC 4861 (neighbour discovery,
4.3, 4.4, 7.1), RFC 2464 (multicast MAC), net/ipv4/arp.c, Documentation/networking/filter.rst.

Trap: Linux takes a gratuitous *reply* for one only if its target MAC is the sender's own (arp_is_garp()). With any
other it keeps the old entry for `locktime`, 1 s.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY = "00:00:00:00:00:00"
ALL_NODES = IPv6Address("ff02::1")
UNSPECIFIED = IPv4Address("0.0.0.0"), IPv6Address("::")

_REQUEST, _REPLY = 1, 2
_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_KIND = (1, 0x0800, 6, 4)  # Ethernet, IPv4, and the length of their addresses
_IPV6 = struct.Struct("!IHBB16s16s")
_DISCOVERY = struct.Struct("!BBHI16s")  # type, code, checksum, flags, target
_ECHO = struct.Struct("!BBHHH")
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ROUTER, _SOLICITED, _OVERRIDE = 0x8000_0000, 0x4000_0000, 0x2000_0000
_SOURCE_MAC, _TARGET_MAC = 1, 2  # options
_HOP_LIMIT = 255  # a packet that crossed no router
_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))


@dataclass(frozen=True, slots=True)
class Answer:
    """Somebody was asked for the address and says that it is at this MAC."""

    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody announces, without being asked, that the address is at this MAC."""

    address: Address
    mac: str


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody asks for the address; `asker` is None if it has no address itself (a probe)."""

    address: Address
    asker: Address | None
    mac: str


@dataclass(frozen=True, slots=True)
class Echo:
    """A host behind a router has answered an ICMP echo."""

    address: Address


# --- ARP -------------------------------------------------------------------------------------------------------------


def arp_request(mac: str, asker: IPv4Address, target: IPv4Address) -> bytes:
    """To everybody: who has `target`? Those who have an entry for `asker` renew it."""
    return _arp(BROADCAST, _REQUEST, mac, asker, NOBODY, target)


def arp_probe(mac: str, target: IPv4Address) -> bytes:
    """The same without an address of our own. It changes nobody's cache, and no reverse path filter drops it."""
    return arp_request(mac, UNSPECIFIED[0], target)


def gratuitous_request(mac: str, address: IPv4Address) -> bytes:
    """The announcement of RFC 5227: to everybody, sender and target are the address."""
    return arp_request(mac, address, address)


def gratuitous_reply(mac: str, address: IPv4Address) -> bytes:
    """The other form, for hosts that heed only replies."""
    return _arp(BROADCAST, _REPLY, mac, address, mac, address)


def _arp(to: str, operation: int, mac: str, sender: IPv4Address, target_mac: str, target: IPv4Address) -> bytes:
    own = mac_bytes(mac)
    body = _ARP.pack(*_ARP_KIND, operation, own, sender.packed, mac_bytes(target_mac), target.packed)
    return _ETHERNET.pack(mac_bytes(to), own, ETH_P_ARP) + body


# --- neighbour discovery ---------------------------------------------------------------------------------------------


def neighbour_solicitation(mac: str, asker: IPv6Address, target: IPv6Address) -> bytes:
    """Who has `target`? An `asker` of `::` (no address of our own) is answered to all nodes, as a Claim."""
    option = b"" if asker.is_unspecified else _option(_SOURCE_MAC, mac)
    return _discovery(mac, asker, solicited_node(target), _SOLICITATION, 0, target, option)


def neighbour_advertisement(mac: str, address: IPv6Address, router: bool = False) -> bytes:
    """Unsolicited, to all nodes, overriding their entries. `router` must be as in this host's own advertisements: hosts
    drop their routes through a router that says it is none."""
    flags = _OVERRIDE | (_ROUTER if router else 0)
    return _discovery(mac, address, ALL_NODES, _ADVERTISEMENT, flags, address, _option(_TARGET_MAC, mac))


def solicited_node(address: IPv6Address) -> IPv6Address:
    """The multicast group of all who may have the address."""
    return IPv6Address(_SOLICITED_NODE | (int(address) & 0xFF_FFFF))


def _option(kind: int, mac: str) -> bytes:
    return bytes((kind, 1)) + mac_bytes(mac)


def _discovery(
    mac: str, source: IPv6Address, to: IPv6Address, kind: int, flags: int, target: IPv6Address, option: bytes
) -> bytes:
    blank = _DISCOVERY.pack(kind, 0, 0, flags, target.packed) + option
    body = blank[:2] + struct.pack("!H", _checksum(source.packed, to.packed, blank)) + blank[4:]
    header = _IPV6.pack(6 << 28, len(body), _ICMPV6, _HOP_LIMIT, source.packed, to.packed)
    return _ETHERNET.pack(b"\x33\x33" + to.packed[-4:], mac_bytes(mac), ETH_P_IPV6) + header + body


def _checksum(source: bytes, to: bytes, body: bytes) -> int:
    """The ICMPv6 checksum, with its pseudo header. It is 0 for a body whose own checksum is right."""
    return internet_checksum(source + to + struct.pack("!II", len(body), _ICMPV6) + body)


def internet_checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# --- echo, for targets behind a router -------------------------------------------------------------------------------


def echo_request(target: Address, identifier: int, sequence: int) -> bytes:
    """An ICMP message for a raw socket. For IPv6 the kernel adds the checksum."""
    if isinstance(target, IPv6Address):
        return _ECHO.pack(128, 0, 0, identifier, sequence)
    return _ECHO.pack(8, 0, internet_checksum(_ECHO.pack(8, 0, 0, identifier, sequence)), identifier, sequence)


# --- what others say -------------------------------------------------------------------------------------------------


def parse_frame(frame: bytes) -> Answer | Claim | Question | None:
    """One Ethernet frame, padding allowed."""
    if len(frame) < _ETHERNET.size:
        return None
    to, _, kind = _ETHERNET.unpack_from(frame)
    if kind == ETH_P_ARP:
        return _parse_arp(frame, bool(to[0] & 1))
    if kind == ETH_P_IPV6:
        return _parse_discovery(frame)
    return None


def _parse_arp(frame: bytes, to_many: bool) -> Answer | Claim | Question | None:
    if len(frame) < _ETHERNET.size + _ARP.size:
        return None
    *kind, operation, sender_mac, sender, _, target = _ARP.unpack_from(frame, _ETHERNET.size)
    if tuple(kind) != _ARP_KIND or not _is_unicast(sender_mac):
        return None
    mac, said, asked = mac_text(sender_mac), IPv4Address(sender), IPv4Address(target)
    if operation == _REQUEST and said != asked:
        return Question(asked, None if said.is_unspecified else said, mac)
    if operation not in (_REQUEST, _REPLY) or said.is_unspecified:
        return None
    return Claim(said, mac) if to_many or said == asked else Answer(said, mac)


def _parse_discovery(frame: bytes) -> Answer | Claim | Question | None:
    start = _ETHERNET.size + _IPV6.size
    if len(frame) < start + _DISCOVERY.size:
        return None
    version, length, following, hops, source, to = _IPV6.unpack_from(frame, _ETHERNET.size)
    body = frame[start : start + length]
    if version >> 28 != 6 or following != _ICMPV6 or hops != _HOP_LIMIT or not _DISCOVERY.size <= length <= len(body):
        return None
    kind, code, _, flags, packed = _DISCOVERY.unpack_from(body)
    options = _mac_options(body[_DISCOVERY.size :])
    if code or packed[0] == 0xFF or options is None or _checksum(source, to, body):
        return None
    target, asker = IPv6Address(packed), IPv6Address(source)
    if kind == _SOLICITATION:
        sender = options.get(_SOURCE_MAC, frame[6:12])
        return Question(target, None if asker.is_unspecified else asker, mac_text(sender))
    if kind != _ADVERTISEMENT or (flags & _SOLICITED and to[0] == 0xFF):
        return None
    sender = options.get(_TARGET_MAC, frame[6:12])
    if not _is_unicast(sender):
        return None
    return Answer(target, mac_text(sender)) if flags & _SOLICITED else Claim(target, mac_text(sender))


def _mac_options(data: bytes) -> dict[int, bytes] | None:
    """MACs by the kind of their option. None if the options are malformed."""
    found: dict[int, bytes] = {}
    while data:
        size = data[1] * 8 if len(data) > 1 else 0
        if not 0 < size <= len(data):
            return None
        if size == 8:
            found[data[0]] = data[2:8]
        data = data[size:]
    return found


def _is_unicast(mac: bytes) -> bool:
    return not mac[0] & 1 and any(mac)


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def mac_bytes(mac: str) -> bytes:
    """Raises ValueError."""
    data = bytes.fromhex(mac.replace(":", ""))
    if len(data) != 6:
        raise ValueError(f"{mac!r} is not a MAC address, which is 6 bytes: 02:00:00:00:00:01")
    return data


# --- what a socket lets through --------------------------------------------------------------------------------------

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _IF_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
_TAKE: Instruction = (_RETURN, 0, 0, 0xFFFF)
_DROP: Instruction = (_RETURN, 0, 0, 0)
_AT_ARP_SENDER = _ETHERNET.size + 14
_AT_NEXT_HEADER, _AT_TYPE, _AT_TARGET = _ETHERNET.size + 6, _ETHERNET.size + 40, _ETHERNET.size + 48
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


def arp_filter(addresses: Collection[IPv4Address]) -> list[Instruction]:
    """For a socket that gets ARP only: statements whose sender has one of the addresses. All ARP if there are too many
    addresses for a filter."""
    program: list[Instruction] = [(_LOAD_WORD, 0, 0, _AT_ARP_SENDER)]
    for address in sorted(addresses):
        program += [(_IF_EQUAL, 0, 1, int(address)), _TAKE]
    program.append(_DROP)
    return program if len(program) <= MAX_INSTRUCTIONS else [_TAKE]


def advertisement_filter(addresses: Collection[IPv6Address]) -> list[Instruction]:
    """For a socket that gets IPv6 only: neighbour advertisements of one of the addresses. All of them if there are too
    many addresses."""
    head: list[Instruction] = [
        *((_LOAD_BYTE, 0, 0, _AT_NEXT_HEADER), (_IF_EQUAL, 1, 0, _ICMPV6), _DROP),
        *((_LOAD_BYTE, 0, 0, _AT_TYPE), (_IF_EQUAL, 1, 0, _ADVERTISEMENT), _DROP),
    ]
    program = list(head)
    for address in sorted(addresses):
        for index, word in enumerate(struct.unpack("!4I", address.packed)):
            past = 7 - 2 * index  # a jump over the rest of this address
            program += [(_LOAD_WORD, 0, 0, _AT_TARGET + 4 * index), (_IF_EQUAL, 0, past, word)]
        program.append(_TAKE)
    program.append(_DROP)
    return program if len(program) <= MAX_INSTRUCTIONS else [*head, _TAKE]


def echo_filter(identifier: int, ipv6: bool) -> list[Instruction]:
    """For a raw ICMP socket: answers to our own echo requests. (A raw socket's filter sees the IPv4 header, without
    options in all that answers an echo, and not the IPv6 header.)"""
    start, kind = (0, 129) if ipv6 else (20, 0)
    return [
        *((_LOAD_BYTE, 0, 0, start), (_IF_EQUAL, 1, 0, kind), _DROP),
        *((_LOAD_HALF, 0, 0, start + 4), (_IF_EQUAL, 0, 1, identifier), _TAKE, _DROP),
    ]


def pack_filter(program: Collection[Instruction]) -> bytes:
    """The array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
