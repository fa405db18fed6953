"""Passages: how the master's own packet reaches one real server as a client's does. Pure.

Each passage has a virtual service in the kernel with a firewall mark from our range, and that one destination. A packet
from the master to the VIP with that mark is forwarded by the same code as clients' packets. A route by the mark could
not do it: the routing table of local addresses comes before every rule, and the VIP is local. The service has a mark
and no address, so no client's packet meets it.

Owns the range. Invariants: only services with the shape of ours are edited; a mark is handed out only after the kernel
was seen to have its destination, since a packet with an unknown mark is scheduled as a client's.

Source: net/netfilter/ipvs/ip_vs_core.c (ip_vs_local_request4) and ip_vs_ctl.c (ip_vs_service_find: marks first).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from feedback.master.claims.asking import Passage
from feedback.model import (
    CHECK_MARKS,
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    RemoveService,
    Service,
    ServiceEntry,
    ServiceFlags,
    ServiceKey,
    Snapshot,
)

SCHEDULER = "rr"  # of one destination
# A datagram leaves no entry behind: one would stand for five minutes after each check. TCP does not look at it.
FLAGS = ServiceFlags.ONE_PACKET


class _Seen(NamedTuple):
    key: ServiceKey
    passage: Passage | None  # None: a mark of ours without its destination, or with another's


class Passages:
    def __init__(self) -> None:
        self._wanted: frozenset[Passage] = frozenset()
        self._there: dict[Passage, int] = {}
        self._ours: list[_Seen] = []
        self._taken: set[int] = set()  # marks of the range, whoever has them

    def look(self, snapshot: Snapshot) -> None:
        """What the kernel has of it."""
        entries = [entry for entry in snapshot.services if entry.service.key.fwmark in CHECK_MARKS]
        self._taken = {entry.service.key.fwmark for entry in entries}
        self._ours = [_Seen(entry.service.key, _passage(entry)) for entry in entries if _is_ours(entry)]
        self._there = {seen.passage: seen.key.fwmark for seen in self._ours if seen.passage is not None}

    def edits(self, wanted: Iterable[Passage]) -> list[Edit]:
        """The edits after which exactly these exist, of ours."""
        self._wanted = frozenset(wanted)
        keep = self._wanted & self._there.keys()
        edits: list[Edit] = [
            RemoveService(seen.key)
            for seen in self._ours
            if seen.passage not in keep or self._there[seen.passage] != seen.key.fwmark
        ]
        free = (mark for mark in CHECK_MARKS if mark not in self._taken)
        for passage, mark in zip(sorted(self._wanted - keep), free, strict=False):
            key = ServiceKey.marked(mark, passage.family)
            edits += [AddService(Service(key, SCHEDULER, FLAGS)), AddDestination(key, _destination(passage))]
        return edits

    def mark(self, passage: Passage) -> int | None:
        """With which a packet goes that way; None while it does not."""
        return self._there.get(passage) if passage in self._wanted else None


def _destination(passage: Passage) -> Destination:
    return Destination(
        DestinationKey(passage.address, 0),
        1,
        passage.forward,
        tunnel_type=passage.tunnel_type,
        tunnel_port=passage.tunnel_port,
        tunnel_flags=passage.tunnel_flags,
    )


def _is_ours(entry: ServiceEntry) -> bool:
    service = entry.service
    shape = service.scheduler == SCHEDULER and service.flags & ~ServiceFlags.HASHED == FLAGS
    return shape and not service.timeout_seconds and len(entry.destinations) <= 1


def _passage(entry: ServiceEntry) -> Passage | None:
    for each in entry.destinations:
        passage = Passage.of(entry.service.key.family, each.destination)
        if each.destination == _destination(passage):
            return passage
    return None
