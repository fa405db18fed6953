"""Listing: the TCP flows of destinations in the kernel's table of connections, from the text of /proc. Pure.

Those that are established and spoke last come first: the kernel shows when an entry would expire, which is its timeout
after its last packet. Templates, UDP and what is closed are left out. The table is read whole, so that one reading
serves all destinations of a server. Source: net/netfilter/ipvs/ip_vs_conn.c (ip_vs_conn_seq_show).
"""

from __future__ import annotations

from collections.abc import Iterable

from feedback.master.cuts.segments import Flow
from feedback.model import Address, DestinationKey, ServiceKey

OVER = {b"CLOSE", b"TIME_WAIT", b"NONE", b"LISTEN", b"ERR!"}

Place = tuple[ServiceKey, DestinationKey]
Words = tuple[
    bytes, bytes, bytes, bytes, bytes
]  # protocol, virtual address, port, destination, port, as /proc has them


def words_of(place: Place) -> Words:
    service, destination = place
    assert service.address is not None and service.protocol is not None
    protocol = service.protocol.upper().encode()
    return (
        protocol,
        _address(service.address),
        _port(service.port),
        _address(destination.address),
        _port(destination.port),
    )


def _address(address: Address) -> bytes:
    if address.version == 4:
        return address.packed.hex().upper().encode()
    return address.packed.hex(":", 2).encode()


def _port(port: int) -> bytes:
    return f"{port:04X}".encode()


class Listing:
    """One reading of the table: lines in, flows out."""

    def __init__(self, places: Iterable[Place]) -> None:
        self._found: dict[Words, dict[tuple[bool, int], list[Flow]]] = {words_of(place): {} for place in places}
        self._counts = dict.fromkeys(self._found, 0)

    def take(self, line: bytes) -> None:
        """Take one whole line. Lines of other connections are skipped."""
        words = line.split()
        if len(words) < 9:
            return
        key = words[0], words[3], words[4], words[5], words[6]
        found = self._found.get(key)
        if found is None:
            return
        self._counts[key] += 1
        if words[0] != b"TCP" or words[7] in OVER:
            return
        try:
            flow = Flow(_packed(words[1]), int(words[2], 16), _packed(words[3]), int(words[4], 16))
            expires = int(words[8])
        except ValueError:
            return
        if flow.client_port:  # a template has none
            found.setdefault((words[7] != b"ESTABLISHED", -expires), []).append(flow)

    def count(self, place: Place) -> int:
        """All that the kernel has of it, whatever their state."""
        return self._counts[words_of(place)]

    def flows(self, place: Place) -> list[Flow]:
        found = self._found[words_of(place)]
        # Not one sort of all: that is a long stretch in which no other thread runs.
        return [flow for key in sorted(found) for flow in found[key]]


def _packed(word: bytes) -> bytes:
    return bytes.fromhex(word.replace(b":", b"").decode())
