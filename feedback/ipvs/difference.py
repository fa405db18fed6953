"""The difference between a wanted table and the kernel's, as edits. Pure.

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
    """The table that rules of -A and -a make in an empty kernel, which keeps the first of two with the same key. Raises
    ValueError at any other edit, and at a destination whose service is not there before it."""
    seen: dict[ServiceKey | tuple[ServiceKey, DestinationKey], Edit] = {}
    for edit in edits:
        if isinstance(edit, AddService):
            seen.setdefault(edit.service.key, edit)
        elif isinstance(edit, AddDestination):
            seen.setdefault((edit.service, edit.destination.key), edit)
        else:
            raise ValueError("a saved table has only services (-A) and destinations (-a)")
    return applied({}, seen.values())


def applied(table: Table, edits: Iterable[Edit]) -> Table:
    """What the table becomes. Raises ValueError where an edit names a service or destination that is not there."""
    result = dict(table)
    for edit in edits:
        if isinstance(edit, AddService | SetService):
            known = result.get(edit.service.key, Rules(edit.service))
            result[edit.service.key] = msgspec.structs.replace(known, service=edit.service)
        elif edit.service not in result:
            raise ValueError(f"{edit.service}: a rule comes before its service's")
        elif isinstance(edit, RemoveService):
            del result[edit.service]
        else:
            rules = result[edit.service]
            result[edit.service] = msgspec.structs.replace(rules, destinations=_edited(rules.destinations, edit))
    return result


def _edited(
    destinations: tuple[Destination, ...], edit: AddDestination | SetDestination | RemoveDestination
) -> tuple[Destination, ...]:
    key = edit.destination if isinstance(edit, RemoveDestination) else edit.destination.key
    if isinstance(edit, AddDestination):
        return (edit.destination, *(d for d in destinations if d.key != key))
    if all(d.key != key for d in destinations):
        raise ValueError(f"{edit.service}: there is no destination {key}")
    if isinstance(edit, RemoveDestination):
        return tuple(d for d in destinations if d.key != key)
    return tuple(edit.destination if d.key == key else d for d in destinations)


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
