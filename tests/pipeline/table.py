"""The kernel's table as records: performs edits, refuses what a kernel refuses, keeps counts over an edit.

Connections are not modelled: who drives it says how many there are.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

import msgspec

from feedback.ipvs.encoding import encode_edit
from feedback.ipvs.errors import Unencodable
from feedback.ipvs.types import EditError
from feedback.model import (
    AddDestination,
    AddService,
    Counters,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceEntry,
    ServiceKey,
    SetDestination,
    SetService,
    Snapshot,
)


class Table:
    """`rows` of a service are in the order of their adding."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self.rows: dict[ServiceKey, dict[DestinationKey, DestinationEntry]] = {}

    def apply(self, edits: Sequence[Edit]) -> tuple[EditError, ...]:
        """Each edit by itself, as netlink does. What has no place in a message is refused before it is sent."""
        failed = []
        for edit in edits:
            try:
                encode_edit(edit)
                code = self._perform(edit)
            except Unencodable as error:
                failed.append(EditError(edit, errno.EINVAL, str(error)))
                continue
            if code:
                failed.append(EditError(edit, code, errno.errorcode[code]))
        return tuple(failed)

    def _perform(self, edit: Edit) -> int:
        match edit:
            case SetDestination(service, destination):
                have = self.rows.get(service, {}).get(destination.key)
                if have is None:
                    return errno.ENOENT
                self.rows[service][destination.key] = msgspec.structs.replace(have, destination=destination)
            case AddDestination(service, destination):
                there = self.rows.get(service)
                if there is None or destination.key in there:
                    return errno.ESRCH if there is None else errno.EEXIST
                there[destination.key] = DestinationEntry(destination)
            case RemoveDestination(service, key):
                return 0 if self.rows.get(service, {}).pop(key, None) else errno.ENOENT
            case AddService(service):
                if service.key in self.services:
                    return errno.EEXIST
                self.services[service.key], self.rows[service.key] = service, {}
            case SetService(service):
                if service.key not in self.services:
                    return errno.ESRCH
                self.services[service.key] = service
            case RemoveService(key):
                if self.services.pop(key, None) is None:
                    return errno.ESRCH
                del self.rows[key]
        return 0

    def put(self, service: ServiceKey, key: DestinationKey, **changes: Any) -> None:
        """Somebody else's edit of a destination, or one that they add."""
        have = self.rows[service].get(key) or DestinationEntry(Destination(key))
        destination = msgspec.structs.replace(have.destination, **changes)
        self.rows[service][key] = msgspec.structs.replace(have, destination=destination)

    def count(self, service: ServiceKey, key: DestinationKey, active: int, inactive: int, opened: int) -> None:
        have = self.rows[service][key].destination
        self.rows[service][key] = DestinationEntry(have, active, inactive, 0, Counters(connections=opened))

    def snapshot(self) -> Snapshot:
        return Snapshot(tuple(ServiceEntry(s, tuple(self.rows[k].values())) for k, s in self.services.items()))

    def destinations(self, service: ServiceKey) -> tuple[DestinationEntry, ...]:
        return tuple(self.rows.get(service, {}).values())

    def weights(self, service: ServiceKey) -> dict[DestinationKey, int]:
        return {k: e.destination.weight for k, e in self.rows.get(service, {}).items()}
