"""Reconcile: settings against what the kernel has -> the smallest plan of edits.

Each edit carries the whole record, made from desired state or from what was read, never from defaults: the kernel
replaces a destination as a whole. With ownership `table` services and destinations of the configuration are made, set
and (destinations only) removed; services that are not ours are never touched. With `weights` nothing but weight and
thresholds of what is there is changed. Invariant: applying the plan to the table and reconciling again gives no edits.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from feedback.ipvs.difference import differs
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    RemoveDestination,
    Service,
    ServiceEntry,
    SetDestination,
    SetService,
    Setting,
)


def with_setting(base: Destination, setting: Setting) -> Destination:
    return msgspec.structs.replace(base, weight=setting.weight, upper=setting.upper, lower=setting.lower)


def reconcile_owned(
    service: Service,
    destinations: Mapping[DestinationKey, Destination],
    settings: Mapping[DestinationKey, Setting],
    entry: ServiceEntry | None,
) -> list[Edit]:
    """Edits that make one service of ours what the configuration and the settings say. `destinations` is the
    configured record of each (forwarding, tunnel); `settings` has a setting for each of them."""
    edits: list[Edit] = []
    if entry is None:
        edits.append(AddService(service))
    elif differs(service, entry.service):
        edits.append(SetService(service))
    there = {e.destination.key: e.destination for e in entry.destinations} if entry else {}
    for key, base in destinations.items():
        wanted = with_setting(base, settings[key])
        if key not in there:
            edits.append(AddDestination(service.key, wanted))
        elif there[key] != wanted:
            edits.append(SetDestination(service.key, wanted))
    edits.extend(RemoveDestination(service.key, key) for key in there if key not in destinations)
    return edits


def reconcile_weights(entry: ServiceEntry, settings: Mapping[DestinationKey, Setting]) -> list[Edit]:
    """Edits of weights and thresholds of a service that somebody else owns."""
    edits: list[Edit] = []
    for have in (e.destination for e in entry.destinations):
        setting = settings.get(have.key)
        if setting is not None and with_setting(have, setting) != have:
            edits.append(SetDestination(entry.service.key, with_setting(have, setting)))
    return edits
