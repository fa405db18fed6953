"""The packets of a firewall mark: `203.0.113.0/24 tcp 80,443,8000-8100`. Pure.

Owns the written form and its bounds. A match knows no mark: the service says which mark it gets. Networks nest or are
disjoint, so of several matches that take a packet one is the most specific, unless two are `rivals`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeAlias

import msgspec

from feedback.config.strict import ConfigError, Network
from feedback.model import Family, Protocol

PORTS_MAX = 64  # ports and ranges in one match
TEXT_MAX = 1024  # characters, of which 64 ranges of ports and a network take 815
SLOTS = 15  # in one rule of a firewall, as xt_multiport has them: a port takes one, a range two
# Of a file: every packet walks past all of them, and they are read back every second: 3,072 take nft 1.5 s, 512 0.25 s.
RULES_MAX = 512

Span: TypeAlias = tuple[int, int]  # from a port to a port, both taken in

# Nobody sends a packet for these to a router. A network that contains one of them, as 0.0.0.0/0, is something else.
NEVER = tuple(
    ip_network(text)
    for text in ("127.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16", "::1/128", "fe80::/10", "ff00::/8", "::ffff:0:0/96")
)


class Match(msgspec.Struct, frozen=True):
    """Packets to `network` by `protocol` to one of `ports`: sorted, no two of them touch."""

    network: Network
    protocol: Protocol
    ports: tuple[Span, ...]

    @property
    def family(self) -> Family:
        return Family.IPV4 if self.network.version == 4 else Family.IPV6

    @property
    def single(self) -> bool:
        """It names one address."""
        return self.network.prefixlen == self.network.max_prefixlen

    @property
    def parts(self) -> tuple[tuple[Span, ...], ...]:
        """The ports, in parts that one rule can hold."""
        made: list[tuple[Span, ...]] = [()]
        room = SLOTS
        for first, last in self.ports:
            takes = 1 if first == last else 2
            if takes > room:
                made.append(())
                room = SLOTS
            made[-1] += ((first, last),)
            room -= takes
        return tuple(made)

    def rivals(self, other: Match) -> bool:
        """Both take some packet, and neither is more specific than the other."""
        same = self.network == other.network and self.protocol == other.protocol
        return same and any(a <= d and c <= b for a, b in self.ports for c, d in other.ports)

    def takes(self, protocol: Protocol, port: int) -> bool:
        return protocol == self.protocol and any(first <= port <= last for first, last in self.ports)

    def __str__(self) -> str:
        return f"{self.network} {self.protocol} {','.join(map(span_text, self.ports))}"


def span_text(span: Span, dash: str = "-") -> str:
    first, last = span
    return str(first) if first == last else f"{first}{dash}{last}"


def parse_match(text: str, where: str) -> Match:
    """Raises ConfigError."""
    words = text.split(" ")
    if len(text) > TEXT_MAX:
        raise ConfigError(f"{where}: {len(text)} characters: at most {TEXT_MAX}")
    if len(words) != 3:
        raise ConfigError(
            f"{where}: {text[:80]!r}: expected NETWORK PROTOCOL PORTS, as 203.0.113.0/24 tcp 80,8000-8100"
        )
    network = _network(words[0], where)
    if words[1] not in set(Protocol):
        raise ConfigError(f"{where}: {words[1]!r}: expected one of {', '.join(sorted(Protocol))}")
    return Match(network, Protocol(words[1]), _ports(words[2], where))


def _network(text: str, where: str) -> Network:
    try:
        if "%" in text:
            raise ValueError(f"{text!r} has a scope")
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}: expected a network like 203.0.113.0/24 or one address") from None
    if "/" in text and str(network.network_address) != str(ip_network(text.partition("/")[0]).network_address):
        raise ConfigError(f"{where}: {text} has bits behind its prefix: did you mean {network}?")
    for never in NEVER:
        if network.version == never.version and network.subnet_of(never):  # type: ignore[arg-type]
            raise ConfigError(f"{where}: {network}: no router gets packets for an address of {never}")
    return network


def _ports(text: str, where: str) -> tuple[Span, ...]:
    parts = text.split(",")
    if len(parts) > PORTS_MAX:
        raise ConfigError(f"{where}: {len(parts)} ports and ranges: at most {PORTS_MAX}, the rest in another match")
    merged: list[Span] = []
    for first, last in sorted(_span(part, where) for part in parts):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def _span(text: str, where: str) -> Span:
    first, dash, last = text.partition("-")
    ends = [first, last if dash else first]
    if not all(end.isascii() and end.isdecimal() and len(end) <= 5 for end in ends):
        raise ConfigError(f"{where}: {text[:40]!r}: expected a port or a range of ports, as 80 or 8000-8100")
    low, high = int(ends[0]), int(ends[1])
    if not 1 <= low <= high <= 65535:
        raise ConfigError(f"{where}: {text!r}: ports are 1 to 65535, a range from the lower to the higher one")
    return low, high
