"""Reconcile: wanted settings and the kernel's table -> the smallest plan of edits.

Each edit carries the whole record, made from desired state or from what was read, never from defaults: the kernel
replaces a destination as a whole. With ownership `table` services and destinations of the configuration are made, set
and (destinations only) removed; services that are not ours are never touched. With `weights` only weights and
thresholds of existing destinations are changed. Invariant: applying the plan to the table and reconciling again gives
no edits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from feedback.ipvs.difference import differs
from feedback.master.claims.claims import same_way
from feedback.master.pool import Row
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    RemoveDestination,
    Service,
    ServiceEntry,
    ServiceKey,
    SetDestination,
    SetService,
)


def wanted(row: Row, base: Destination) -> Destination:
    """The whole record that a row should have, made from `base`."""
    return msgspec.structs.replace(base, weight=row.aim, upper=row.upper, lower=row.lower)


def reconcile_owned(service: Service, rows: Mapping[DestinationKey, Row], entry: ServiceEntry | None) -> list[Edit]:
    """Edits that make one service of ours what the configuration and the decision say; the base of each row is the
    configured record (forwarding, tunnel)."""
    edits: list[Edit] = []
    if entry is None:
        edits.append(AddService(service))
    elif differs(service, entry.service):
        edits.append(SetService(service))
    # First of all: whoever takes the place of one that goes must not serve beside it.
    edits.extend(RemoveDestination(service.key, r.key) for r in rows.values() if r.gone and r.kernel is not None)
    there = 0
    for row in rows.values():
        base, kernel = row.base, row.kernel
        there += kernel is not None
        if row.gone:
            continue
        if kernel is None:
            edits.append(AddDestination(service.key, wanted(row, base)))
            continue
        have = kernel.destination
        if row.aim != have.weight or row.upper != have.upper or row.lower != have.lower or not same_way(base, have):
            edits.append(SetDestination(service.key, wanted(row, base)))
    if entry is not None and len(entry.destinations) > there:
        edits.extend(
            RemoveDestination(service.key, e.destination.key)
            for e in entry.destinations
            if e.destination.key not in rows
        )
    return edits


def reconcile_weights(service: ServiceKey, rows: Iterable[Row]) -> list[Edit]:
    """Edits of weights and thresholds of what is there, and nothing else."""
    edits: list[Edit] = []
    for row in rows:
        if row.kernel is not None:
            have = row.kernel.destination
            if row.aim != have.weight or row.upper != have.upper or row.lower != have.lower:
                edits.append(SetDestination(service, wanted(row, have)))
    return edits
