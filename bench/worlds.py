"""Worlds of `feedback simulate` as recordings: what their master heard and saw, to be played to another one.

What connections did is recorded and the same for everybody; weights and thresholds in the table are those of who is
played to, with the edits of others (health checks) laid over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from feedback import wire
from feedback.config import MasterConfig, ServiceConfig
from feedback.model import AddService, DestinationKey, Edit, Service, ServiceKey, SetDestination, Snapshot
from feedback.simulate.draws import generator
from feedback.simulate.policy import Nobody, Policy
from feedback.simulate.suite import CASES, named
from feedback.simulate.traffic import make
from feedback.simulate.world import World
from feedback.wire import Report
from tests.pipeline.master import Master
from tests.pipeline.stage import Note, Place
from tests.pipeline.table import Table

SEED = 1
WORLDS = tuple(f"world-{case.name}-{s}" for case in CASES for s in case.schedulers)


class Recording(msgspec.Struct):
    """`entries` are (moment, a report's frame) or (moment, rows): each destination's key, weight, thresholds where
    somebody else changed them (else None), active, inactive and opened connections."""

    service: str
    scheduler: str
    thresholds: str | None
    options: dict[str, Any]
    entries: list[tuple[float, Any]]


class _Listener(Nobody):
    """Between the world and its master."""

    listens = True

    def __init__(self, master: Any, entries: list[tuple[float, Any]]) -> None:
        self._master, self._entries = master, entries
        self._have: dict[DestinationKey, tuple[int, int, int]] = {}

    def receive(self, report: Report, now: float) -> None:
        self._entries.append((now, wire.encode(report)))
        self._master.receive(report, now)

    def changed(self, director: Any, capacities: Sequence[float]) -> None:
        self._master.changed(director, capacities)

    def next_timer(self, now: float) -> float:
        return float(self._master.next_timer(now))

    def decide(self, snapshot: Snapshot, now: float) -> tuple[Sequence[Edit], Sequence[float] | None]:
        rows = []
        for e in snapshot.services[0].destinations:
            d = e.destination
            set_to = (d.weight, d.upper, d.lower)
            theirs = None if self._have.get(d.key) == set_to else set_to
            self._have[d.key] = set_to
            rows.append((str(d.key), theirs, e.active, e.inactive, e.counters.connections))
        self._entries.append((now, rows))
        edits, shares = self._master.decide(snapshot, now)
        for edit in edits:
            if isinstance(edit, SetDestination):
                made = edit.destination
                self._have[made.key] = (made.weight, made.upper, made.lower)
        return edits, shares


def record(name: str) -> Recording:
    """`world-CASE-SCHEDULER`, run under this checkout's master."""
    case_name, _, scheduler = name.removeprefix("world-").rpartition("-")
    case, policy = named(case_name), Policy("capacity", scheduler)
    world = World(case, policy, make(case, generator(SEED, "traffic")), generator(SEED, "world"))
    entries: list[tuple[float, Any]] = []
    world.driver = _Listener(world.driver, entries)
    world.run()
    options = case.law_options.get("capacity", {})
    return Recording(str(world.director.service.key), scheduler, case.thresholds, options, entries)


def replay(recording: Recording, place: Place) -> None:
    key = ServiceKey.parse(recording.service)
    service = ServiceConfig(virtual=str(key), law_options=recording.options, thresholds=recording.thresholds)
    table = Table()
    table.apply([AddService(Service(key, recording.scheduler))])
    config = MasterConfig(ownership="weights", service=(service,))
    master, note = Master(config, place.directory / "state.json", table), Note(place.turns)
    for at, what in recording.entries:
        master.now = at
        if isinstance(what, bytes):
            master.hear(what)
            continue
        for text, theirs, active, inactive, opened in what:
            row = DestinationKey.parse(text)
            if theirs is not None:
                table.put(key, row, weight=theirs[0], upper=theirs[1], lower=theirs[2])
            table.count(key, row, active, inactive, opened)
        master.turn()
        note(master)
