"""Replay: a recording fed to a controller with another law: the weights that it would have written, and their effect.

The controller sees the first recorded weights and afterwards its own, so that it does not take the recorded law's
weights for somebody else's edits. A recorded weight of 0 is kept, whoever wrote it. Connections and load are those
under the recorded weights: nobody can know what other weights would have made of them. What can be computed is how much
of each server a law would have used: its part of the recorded flow, over the capacity that the recorded reports show.
`Ruler` measures that capacity once for all laws, by the product's own estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import nan

import msgspec

from feedback.config import MasterConfig
from feedback.master import Controller
from feedback.master.account import ServiceStatus
from feedback.master.shell.recording import Entry
from feedback.model import DestinationEntry, DestinationKey, ServiceEntry, ServiceKey, SetDestination, Snapshot
from feedback.wire import Report

RECORDED, LAW = "recorded", "capacity"
COUNTED_SECONDS = 4.0  # the kernel's counters move every 2 s
Key = tuple[ServiceKey, DestinationKey]
Parts = Mapping[Key, float]


class Moment(msgspec.Struct, frozen=True):
    """From `at` on: each destination's part of its service, and the part of its capacity that this would use (1:
    all)."""

    at: float
    parts: dict[Key, float]
    used: dict[Key, float]


class History(msgspec.Struct, frozen=True):
    """One law's history: the weight of each destination whenever it changed, as (moment, weight), and its effect."""

    law: str
    weights: dict[Key, list[tuple[float, int]]]
    moments: list[Moment]

    @property
    def writes(self) -> int:
        """Changes after the first look."""
        return sum(len(changes) - 1 for changes in self.weights.values())

    @property
    def seconds(self) -> float:
        return self.moments[-1].at - self.moments[0].at if self.moments else 0.0

    def part(self, key: Key) -> float:
        """The mean over the time. NaN if nothing is known."""
        return self._mean([m.parts.get(key, nan) for m in self.moments])

    @property
    def hottest(self) -> float:
        """The utilisation of the busiest server, as a mean over the time."""
        return self._mean([max(m.used.values(), default=nan) for m in self.moments])

    @property
    def overloaded(self) -> float:
        """The part of the time in which some server would get more than it can complete."""
        return self._mean([float(any(u > 1 for u in m.used.values())) if m.used else nan for m in self.moments])

    def _mean(self, values: list[float]) -> float:
        spans = [b.at - a.at for a, b in zip(self.moments, self.moments[1:], strict=False)]
        known = [(v, s) for v, s in zip(values, spans, strict=False) if v == v]
        total = sum(s for _, s in known)
        return sum(v * s for v, s in known) / total if total else nan


class Ruler:
    """What each server could complete and how much came, according to the recording."""

    def __init__(self) -> None:
        self._controller = Controller(MasterConfig(ownership="weights", law=LAW))

    def receive(self, report: Report, at: float) -> None:
        self._controller.receive_report(report, at)

    def used(self, snapshot: Snapshot, at: float, parts: Parts) -> dict[Key, float]:
        self._controller.receive_kernel(snapshot, at)
        self._controller.foreign_edits.clear()
        found = {}
        for service in self._controller.decide(at).services:
            for d in service.destinations:
                key, estimate = (service.service.key, d.key), d.estimate
                if estimate is not None and estimate.samples and not estimate.held and key in parts:
                    found[key] = parts[key] * service.flow / max(1e-9, estimate.capacity)
        return found


def recorded(entries: Iterable[Entry]) -> History:
    """The recorded weights, and where connections really went."""
    history, ruler = History(RECORDED, {}, []), Ruler()
    counted = _Counted()
    for entry in entries:
        if isinstance(entry.what, Report):
            ruler.receive(entry.what, entry.at)
            continue
        _note(history, entry.at, entry.what)
        parts = counted.parts(entry.what, entry.at)
        history.moments.append(Moment(entry.at, parts, ruler.used(entry.what, entry.at, parts)))
    return history


def configured(config: MasterConfig, law: str) -> MasterConfig:
    """A master's configuration under one law, with its options for this law. A recording answers no checks, and the
    table is the recorded one."""
    services = tuple(
        msgspec.structs.replace(
            s, law=law, law_options=s.law_options if s.law == law else {}, check=None, agent_check=None
        )
        for s in config.service
    )
    return msgspec.structs.replace(config, ownership="weights", law=law, service=services)


def replay(entries: Iterable[Entry], law: str, config: MasterConfig | None = None) -> History:
    """Decides at each look at the kernel, as the master does: with the options, guards and thresholds of `config`, or
    all by default. Raises UnknownLawError, ConfigError."""
    controller = Controller(configured(config or MasterConfig(), law))
    ruler = Ruler()
    history = History(law, {}, [])
    written: dict[Key, tuple[int, int, int]] = {}  # weight, upper, lower
    for entry in entries:
        if isinstance(entry.what, Report):
            controller.receive_report(entry.what, entry.at)
            ruler.receive(entry.what, entry.at)
            continue
        seen = _overlaid(entry.what, written)
        _note(history, entry.at, seen)
        controller.receive_kernel(seen, entry.at)
        controller.foreign_edits.clear()
        decision = controller.decide(entry.at)
        parts = _shares(decision.services)
        history.moments.append(Moment(entry.at, parts, ruler.used(entry.what, entry.at, parts)))
        for edit in decision.edits:
            if isinstance(edit, SetDestination):
                made = edit.destination
                written[edit.service, made.key] = made.weight, made.upper, made.lower
    return history


def _shares(services: Iterable[ServiceStatus]) -> dict[Key, float]:
    """The part of the service that each setting stands for. A weight alone says that only under some schedulers."""
    found: dict[Key, float] = {}
    for service in services:
        total = sum(d.setting.share for d in service.destinations) or 1.0
        found |= {(service.service.key, d.key): d.share / total for d in service.destinations}
    return found


class _Counted:
    """Where connections went, by the kernel's counters over the last seconds."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, dict[Key, int]]] = []

    def parts(self, snapshot: Snapshot, at: float) -> dict[Key, float]:
        counts = {
            (s.service.key, e.destination.key): e.counters.connections
            for s in snapshot.services
            for e in s.destinations
        }
        self._looks.append((at, counts))
        while len(self._looks) > 1 and self._looks[1][0] <= at - COUNTED_SECONDS:
            self._looks.pop(0)
        before = self._looks[0][1]
        grown = {k: max(0, n - before.get(k, n)) for k, n in counts.items()}
        totals: dict[ServiceKey, int] = {}
        for (service, _), n in grown.items():
            totals[service] = totals.get(service, 0) + n
        return {k: n / totals[k[0]] for k, n in grown.items() if totals[k[0]]}


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
