"""Firewall rules as data: the output of iptables-save and `nft -j list ruleset`, as far as a finding needs it. Pure.

Owns the parsing of both texts. Of a rule it keeps the states that it checks, whether it excludes packets from the
tracking, and their destinations. A condition that is not understood (an interface, a set by its name) counts as met:
what is not seen here is never reported as missing. Invariant: no text makes a reader here raise.
Source: iptables-save(8), libnftables-json(5).
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import msgspec

from feedback.model import ServiceKey

Network = IPv4Network | IPv6Network
Ports = tuple[int, int]  # the first and the last


class Rule(msgspec.Struct, frozen=True):
    """`family` is 4, 6, or 0: both. Empty conditions are met by every packet."""

    family: int
    text: str
    states: frozenset[str] = frozenset()
    notrack: bool = False
    networks: tuple[Network, ...] = ()
    protocols: frozenset[str] = frozenset()
    ports: tuple[Ports, ...] = ()

    def covers(self, key: ServiceKey) -> bool:
        """Whether it is met by what is sent to a service."""
        if key.address is None or key.protocol is None:
            return False
        if self.family not in (0, key.address.version):
            return False
        if self.networks and not any(key.address in network for network in self.networks):
            return False
        if self.protocols and key.protocol.value not in self.protocols:
            return False
        return not self.ports or any(first <= key.port <= last for first, last in self.ports)


def stateful(rules: Iterable[Rule]) -> Rule | None:
    """The first rule that looks at a state of the tracking."""
    return next((rule for rule in rules if rule.states - {"untracked"}), None)


def untracked(rules: Iterable[Rule], key: ServiceKey) -> bool:
    return any(rule.notrack and rule.covers(key) for rule in rules)


# --- iptables --------------------------------------------------------------------------------------------------------


def of_iptables(text: str, family: int) -> tuple[Rule, ...]:
    """What iptables-save or iptables-legacy-save printed (6: ip6tables-save)."""
    return tuple(_line(line, family) for line in text.splitlines() if line.startswith("-A "))


def _line(line: str, family: int) -> Rule:
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    states = _after(words, "--ctstate", "--state")
    return Rule(
        family,
        line,
        states=frozenset(state.lower() for word in states for state in word.split(",")),
        notrack="--notrack" in words or "NOTRACK" in words,
        networks=tuple(_networks(_after(words, "-d", "--destination"))),
        protocols=frozenset(_after(words, "-p", "--protocol")),
        ports=tuple(_ports(_after(words, "--dport", "--dports", "--destination-port", "--destination-ports"))),
    )


def _after(words: Sequence[str], *names: str) -> list[str]:
    """The values of these options. A negated option (`! -d ...`) gives nothing."""
    found = []
    for at, word in enumerate(words[:-1]):
        if word in names and (at == 0 or words[at - 1] != "!"):
            found.append(words[at + 1])
    return found


def _networks(words: Iterable[str]) -> Iterator[Network]:
    for word in words:
        with contextlib.suppress(ValueError):
            yield ip_network(word, strict=False)


def _ports(words: Iterable[str]) -> Iterator[Ports]:
    for part in (part for word in words for part in word.split(",")):
        first, colon, last = part.partition(":")
        with contextlib.suppress(ValueError):
            yield int(first or 0), int(last or 0xFFFF) if colon else int(first)


# --- nftables --------------------------------------------------------------------------------------------------------

_FAMILIES = {"ip": 4, "ip6": 6, "inet": 0}


def of_nftables(text: str) -> tuple[Rule, ...]:
    """What `nft -j list ruleset` printed. Rules that iptables made are in the words of iptables-save instead."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return ()
    things = _list(found.get("nftables")) if isinstance(found, dict) else []
    rules = [thing["rule"] for thing in things if isinstance(thing, dict) and isinstance(thing.get("rule"), dict)]
    return tuple(_rule(rule) for rule in rules if str(rule.get("family")) in _FAMILIES)


def _rule(rule: dict[str, Any]) -> Rule:
    expressions = [each for each in _list(rule.get("expr")) if isinstance(each, dict)]
    networks: list[Network] = []
    ports: list[Ports] = []
    states: list[str] = []
    protocols: list[str] = []
    for match in (each["match"] for each in expressions if isinstance(each.get("match"), dict)):
        if match.get("op") not in ("==", "in"):
            continue
        left, values = match.get("left"), list(_values(match.get("right")))
        if _is(left, "ct", key="state"):
            states += [value for value in values if isinstance(value, str)]
        elif _is(left, "payload", field="daddr"):
            networks += filter(None, map(_network, values))
        elif _is(left, "payload", field="dport"):
            ports += filter(None, map(_range, values))
            protocols += [str(left["payload"].get("protocol", ""))]
        elif _is(left, "meta", key="l4proto") or _is(left, "payload", field="protocol"):
            protocols += [value for value in values if isinstance(value, str)]
    return Rule(
        _FAMILIES[str(rule["family"])],
        f"{rule.get('table')} {rule.get('chain')}",
        states=frozenset(states),
        notrack=any("notrack" in each for each in expressions),
        networks=tuple(networks),
        protocols=frozenset(protocols) - {"th", ""},
        ports=tuple(ports),
    )


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _is(left: Any, kind: str, **wanted: str) -> bool:
    found = left.get(kind) if isinstance(left, dict) else None
    return isinstance(found, dict) and all(found.get(name) == value for name, value in wanted.items())


def _values(right: Any) -> Iterator[Any]:
    """One value, a list, or an anonymous set."""
    if isinstance(right, dict) and isinstance(right.get("set"), list):
        yield from right["set"]
    elif isinstance(right, list):
        yield from right
    else:
        yield right


def _network(value: Any) -> Network | None:
    if isinstance(value, dict) and isinstance(prefix := value.get("prefix"), dict):
        value = f"{prefix.get('addr')}/{prefix.get('len')}"
    try:
        return ip_network(value, strict=False) if isinstance(value, str) else None
    except ValueError:
        return None


def _range(value: Any) -> Ports | None:
    if isinstance(value, dict) and isinstance(ends := value.get("range"), list) and len(ends) == 2:
        first, last = ends
    else:
        first = last = value
    return (first, last) if isinstance(first, int) and isinstance(last, int) else None
