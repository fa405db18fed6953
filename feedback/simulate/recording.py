"""Recording: what a controller was told, as JSON lines: `{"at": 1.5, "report": ...}` or `{"at": 1.6, "kernel": ...}`.

A report is as on the wire; of the kernel's table what the pipeline reads is kept. Moments are the director's monotonic
seconds and never run backwards. Pure: lines in, lines out. Invariant: reading what was written gives the same entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from feedback.model import (
    Counters,
    Destination,
    DestinationEntry,
    DestinationKey,
    Forward,
    Service,
    ServiceEntry,
    ServiceFlags,
    ServiceKey,
    Snapshot,
)
from feedback.wire import Report


class RecordingError(ValueError):
    """One line: where, and what was wrong."""


class Entry(msgspec.Struct, frozen=True):
    """What came at a moment: a report or a look at the kernel."""

    at: float
    what: Report | Snapshot


class _Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: str
    weight: int
    forward: int
    upper: int
    lower: int
    active: int
    inactive: int
    connections: int


class _Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    virtual: str
    scheduler: str
    flags: int
    destinations: tuple[_Destination, ...]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: float
    report: Report | None = None
    kernel: tuple[_Service, ...] | None = None


def line(entry: Entry) -> str:
    """Without the newline."""
    if isinstance(entry.what, Report):
        found: Any = {"at": entry.at, "report": msgspec.to_builtins(entry.what)}
    else:
        found = {"at": entry.at, "kernel": [msgspec.to_builtins(_plain(s)) for s in entry.what.services]}
    return json.dumps(found, separators=(",", ":"))


def read(lines: Iterable[str], source: str) -> Iterator[Entry]:
    """Raises RecordingError."""
    before = float("-inf")
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            entry = _entry(msgspec.json.decode(text, type=_Line))
        except (msgspec.MsgspecError, ValueError) as error:
            raise RecordingError(f"{source}: line {number}: {error}") from None
        if entry.at < before:
            raise RecordingError(f"{source}: line {number}: {entry.at:g} comes after {before:g}")
        before = entry.at
        yield entry


def _plain(entry: ServiceEntry) -> _Service:
    service = entry.service
    destinations = tuple(
        _Destination(
            address=str(e.destination.key),
            weight=e.destination.weight,
            forward=int(e.destination.forward),
            upper=e.destination.upper,
            lower=e.destination.lower,
            active=e.active,
            inactive=e.inactive,
            connections=e.counters.connections,
        )
        for e in entry.destinations
    )
    return _Service(str(service.key), service.scheduler, int(service.flags), destinations)


def _entry(found: _Line) -> Entry:
    if found.report is not None and found.kernel is None:
        return Entry(found.at, found.report)
    if found.kernel is None or found.report is not None:
        raise ValueError("expected one of report and kernel")
    return Entry(found.at, Snapshot(tuple(_service(s) for s in found.kernel)))


def _service(found: _Service) -> ServiceEntry:
    service = Service(ServiceKey.parse(found.virtual), scheduler=found.scheduler, flags=ServiceFlags(found.flags))
    entries = tuple(
        DestinationEntry(
            Destination(
                key=DestinationKey.parse(d.address),
                weight=d.weight,
                forward=Forward(d.forward),
                upper=d.upper,
                lower=d.lower,
            ),
            d.active,
            d.inactive,
            0,
            Counters(connections=d.connections),
        )
        for d in found.destinations
    )
    return ServiceEntry(service, entries)
