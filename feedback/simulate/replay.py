"""Replay: a recording fed to a controller with another law, and the weights that it would have written.

The controller sees the first recorded weights and then those that it wrote itself, so that it does not take the
recorded law for somebody else's edits; but a recorded weight of 0 is kept, whoever wrote it. It cannot show what the
traffic would have done: connections and load are those of the weights that were in force.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from feedback.config import MasterConfig
from feedback.master import Controller
from feedback.model import DestinationEntry, DestinationKey, ServiceEntry, ServiceKey, SetDestination, Snapshot
from feedback.simulate.recording import Entry
from feedback.wire import Report

RECORDED = "recorded"
Key = tuple[ServiceKey, DestinationKey]


class History(msgspec.Struct, frozen=True):
    """Of one law: the weight of each destination whenever it changed, as (moment, weight)."""

    law: str
    weights: dict[Key, list[tuple[float, int]]]

    @property
    def writes(self) -> int:
        """Changes after the first look."""
        return sum(len(changes) - 1 for changes in self.weights.values())


def recorded(entries: Iterable[Entry]) -> History:
    """The weights that were in force."""
    history = History(RECORDED, {})
    for entry in entries:
        if isinstance(entry.what, Snapshot):
            _note(history, entry.at, entry.what)
    return history


def replay(entries: Iterable[Entry], law: str) -> History:
    """Decides at each look at the kernel, as the master does. Raises UnknownLawError."""
    controller = Controller(MasterConfig(ownership="weights", law=law))
    history = History(law, {})
    written: dict[Key, tuple[int, int, int]] = {}  # weight, upper, lower
    for entry in entries:
        if isinstance(entry.what, Report):
            controller.receive_report(entry.what, entry.at)
            continue
        seen = _overlaid(entry.what, written)
        _note(history, entry.at, seen)
        controller.receive_kernel(seen, entry.at)
        controller.foreign_edits.clear()
        for edit in controller.decide(entry.at).edits:
            if isinstance(edit, SetDestination):
                made = edit.destination
                written[edit.service, made.key] = made.weight, made.upper, made.lower
    return history


def _overlaid(snapshot: Snapshot, written: dict[Key, tuple[int, int, int]]) -> Snapshot:
    return Snapshot(
        tuple(
            ServiceEntry(s.service, tuple(_ours(s.service.key, e, written) for e in s.destinations), s.counters)
            for s in snapshot.services
        )
    )


def _ours(service: ServiceKey, entry: DestinationEntry, written: dict[Key, tuple[int, int, int]]) -> DestinationEntry:
    have = entry.destination
    if not have.weight:
        return entry
    weight, upper, lower = written.setdefault((service, have.key), (have.weight, have.upper, have.lower))
    destination = msgspec.structs.replace(have, weight=weight, upper=upper, lower=lower)
    return msgspec.structs.replace(entry, destination=destination)


def _note(history: History, at: float, snapshot: Snapshot) -> None:
    for service in snapshot.services:
        for entry in service.destinations:
            changes = history.weights.setdefault((service.service.key, entry.destination.key), [])
            if not changes or changes[-1][1] != entry.destination.weight:
                changes.append((at, entry.destination.weight))
