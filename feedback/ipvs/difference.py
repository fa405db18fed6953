"""The difference between a wanted table and the one that the kernel has, as edits. Pure.

A table is never flushed and made again: between the flush and the last addition the kernel drops the packets of every
connection, and deleted destinations come back with their old counts. Invariant: applying the difference and taking it
again gives none. Services are made before their destinations, and removed last. A new destination goes to the head of
the kernel's list, so those that are missing are added backwards and a fresh copy has the order of the original.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    Snapshot,
)


class Rules(msgspec.Struct, frozen=True):
    """A service and its destinations without what the kernel counts, in the kernel's order."""

    service: Service
    destinations: tuple[Destination, ...] = ()


Table = dict[ServiceKey, Rules]


def of_snapshot(snapshot: Snapshot) -> Table:
    return {
        entry.service.key: Rules(entry.service, tuple(d.destination for d in entry.destinations))
        for entry in snapshot.services
    }


def of_edits(edits: Iterable[Edit]) -> Table:
    """The table that rules of -A and -a make in an empty kernel. Raises ValueError at any other edit, and at a
    destination whose service is not there before it."""
    table: Table = {}
    for edit in edits:
        match edit:
            case AddService(service):
                table[service.key] = Rules(service)
            case AddDestination(key, destination) if key in table:
                rules = table[key]
                table[key] = msgspec.structs.replace(rules, destinations=(destination, *rules.destinations))
            case AddDestination(key, destination):
                raise ValueError(f"{key}: the rule of destination {destination.key} comes before its service's")
            case _:
                raise ValueError("a saved table has only services (-A) and destinations (-a)")
    return table


def difference(wanted: Table, have: Table, *, remove_services: bool = True) -> tuple[Edit, ...]:
    """Edits that turn `have` into `wanted`. Without `remove_services`, services that are not wanted are left alone."""
    edits: list[Edit] = []
    for key, rules in wanted.items():
        edits += _of_service(rules, have.get(key))
    if remove_services:
        edits += [RemoveService(key) for key in have if key not in wanted]
    return tuple(edits)


def _of_service(wanted: Rules, have: Rules | None) -> list[Edit]:
    key = wanted.service.key
    edits: list[Edit] = []
    if have is None:
        edits.append(AddService(wanted.service))
    elif differs(wanted.service, have.service):
        edits.append(SetService(wanted.service))
    there: dict[DestinationKey, Destination] = {d.key: d for d in have.destinations} if have else {}
    for destination in reversed(wanted.destinations):
        if destination.key not in there:
            edits.append(AddDestination(key, destination))
        elif there[destination.key] != destination:
            edits.append(SetDestination(key, destination))
    staying = {d.key for d in wanted.destinations}
    edits += [RemoveDestination(key, gone) for gone in there if gone not in staying]
    return edits


def differs(wanted: Service, have: Service) -> bool:
    """HASHED is the kernel's own flag, and a whole-address netmask can be written in two ways."""
    return _comparable(wanted) != _comparable(have)


def _comparable(service: Service) -> Service:
    whole = 32 if service.key.family == "ipv4" else 128
    return msgspec.structs.replace(
        service,
        flags=service.flags & ~ServiceFlags.HASHED,
        netmask=service.netmask if service.netmask not in (None, whole) else None,
    )
