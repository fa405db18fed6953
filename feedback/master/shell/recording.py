"""Recording: a controller's input, as JSON lines: `{"at": 1.5, "report": ...}` or `{"at": 1.6, "kernel": ...}`.

A report is as on the wire; of the kernel's table what the pipeline reads is kept. Moments are the director's monotonic
seconds and never run backwards. The master writes it while somebody asks for it (`feedback record`), `feedback simulate
--replay` reads it. Pure: lines in, lines out. Invariant: reading what was written gives the same entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
from feedback.refusals import RefusalError
from feedback.wire import Report, named


class RecordingError(RefusalError):
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


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    at: float
    report: Report | None = None
    kernel: tuple[_Service, ...] | None = None


def line(at: float, what: Report | Snapshot) -> bytes:
    """With the newline."""
    if isinstance(what, Report):
        found = _Line(at, report=what)
    else:
        found = _Line(at, kernel=tuple(_plain(s) for s in what.services))
    return msgspec.json.encode(found) + b"\n"


def read(lines: Iterable[str | bytes], source: str) -> Iterator[Entry]:
    """Raises RecordingError."""
    before = float("-inf")
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            entry = _entry(msgspec.json.decode(text, type=_Line))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
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
        wrong = named(found.report)
        if wrong:
            raise ValueError(wrong)
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
