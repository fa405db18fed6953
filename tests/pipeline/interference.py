"""Interference: what one agent's lies do to the others. Two masters hear the same, but for one agent.

To one it tells the truth, to the other it lies. Connections go by what the servers can do, so that whatever differs of
an honest server between the two masters is the lie's doing. The liar may draw what docs/security.md allows, and all
honest servers then give up the same part: their shares of what is left, their thresholds and levels stay.

What is no interference: A server whose agent was not heard yet keeps its share as it is, and comes to its part at a
bounded pace when it is (guard.py), so its share counts from FOLLOWS_SECONDS on; one that is not known yet follows its
estimate at that pace too, all of which a lie may use up while it begins, at first or anew. Its first threshold may rest
on others' word, and stands for a second, so thresholds count from RESTS_SECONDS on. A weight is a whole number: where
the liar draws so much that the others have few of `wrr`'s 64, a GRAIN is their rounding and dead band. Under `wlc` a
weight counts open connections, which are whole, too: it is compared from OPEN on. Under `sed` one that is catching up
has a weight for its part of the arrivals (sed.py), so weights are compared again after it. A threshold counts the
closed connections of the moment when it was written. Levels in the state are rounded to a twentieth. And where the lie
made the pool look saturated, or not, capacities are frozen here and not there: shares then differ by what each server's
own estimate has changed since (HOT).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp, nextafter
from pathlib import Path
from typing import Any

import msgspec

from feedback import wire
from feedback.config import parse
from feedback.config.master import MasterConfig
from feedback.master import Decision
from feedback.master.actuate.sed import CatchingUp
from feedback.master.bounds.guard import Bounded
from feedback.master.pool import SATURATED
from feedback.master.servers.capacity import LEARNED_STEP
from feedback.model import DestinationEntry, DestinationKey, ServiceKey, Setting
from feedback.simulate.lies import Lie, told
from feedback.wire import Report
from tests.pipeline.hostile import Liar, framed
from tests.pipeline.master import Master
from tests.pipeline.servers import Server, Servers
from tests.pipeline.stage import rip, service
from tests.pipeline.storm import Broken

TURN_SECONDS, REPORT_SECONDS = 0.2, 0.2
RESIDENCE_SECONDS = (0.02, 0.02, 0.2, 4.0)  # of an idle server: connections that end, that are kept, that last
LASTS_SECONDS = 1.0  # from here on a capacity is counted in open connections
CALM_SECONDS, LIE_SECONDS = (0.0, 2.0, 12.0), 25.0
FOLLOWS_SECONDS = 3.0  # after an agent's first report: two for a sample of two seconds, and a change of 4 in a second
RESTS_SECONDS = 2.0  # after an agent's first report: a few reports, and what passes between two thresholds
BEGINS_SECONDS = 3.0  # a lie's change of share, from an equal one to the ceiling at 4 in a second, and to spare
SETTLED_SECONDS = 12.0  # after an agent's first report its server counts as known
# The most that the two may differ by, as a factor: a known server, and one that is not yet.
SHARE, WEIGHT, THRESHOLD, LEVEL = (1.10, 2.0), (1.25, 3.0), (1.25, 2.0), (1.15, 2.0)
OPEN, GRAIN, HOT = 10, 1.5, 1.25
CEILING = 4.0  # docs/security.md: times its static share

Both = tuple[Mapping[DestinationKey, Setting], Mapping[DestinationKey, Setting]]  # of the truth, and of the lie
Tell = Callable[[Report, Report], Report]  # the truth and what was said last -> what is said
replace = msgspec.structs.replace


def _cores(report: Report, last: Report) -> Report:
    """Hardly any processor, and much of it used."""
    return replace(report, cpu=replace(report.cpu, cores=1e-300, busy_seconds=last.cpu.busy_seconds + 1e8))


def _ulp(report: Report, last: Report) -> Report:
    """From an agent that has just begun: one unit in the last place after the one before."""
    return replace(report, boot="new", sampled_at=nextafter(last.sampled_at, 1e12) if last.boot == "new" else 0.0)


def _busy(report: Report, last: Report) -> Report:
    """More than any processor can be, in hardly any time: an infinite part of it."""
    cpu = replace(report.cpu, cores=5e-324, busy_seconds=last.cpu.busy_seconds + 1e9)
    return replace(report, cpu=cpu)


def _flood(report: Report, last: Report) -> Report:
    """10^12 connections more than the truth, from one report on."""
    if report.connections is None:
        return report
    return replace(report, connections=replace(report.connections, opened=report.connections.opened + 10**12))


ATTACKS: dict[str, Tell] = {"cores": _cores, "ulp": _ulp, "busy": _busy, "flood": _flood}
LIES = tuple(str(lie) for lie in Lie)


class Pair:
    """`lie`: one of ATTACKS or LIES, or `random`. The last server is the liar's."""

    def __init__(self, lie: str, scheduler: str, honest: int, seed: int, directory: Path, thresholds: str = "") -> None:
        draw = random.Random(seed)
        self.lie, self.honest, self._scheduler = lie, honest, scheduler
        extra = f'scheduler = "{scheduler}"\n' + (f'thresholds = "{thresholds}"\n' if thresholds else "")
        self.config = parse(service(honest + 1, extra=extra), MasterConfig)
        self.key = ServiceKey.parse(self.config.service[0].virtual)
        per_core = draw.choice((5.0, 20.0, 100.0))
        self.servers = [Server(rip(i), f"rs{i}", draw.choice((1, 2, 4)), per_core, draw) for i in range(honest + 1)]
        rate = draw.choice((0.5, 0.7, 0.9)) * sum(s.capacity for s in self.servers)
        self.flow = Servers(self.key, self.servers, rate, follow=False)
        self.truth, self.deceived = (Master(self.config, directory / f"{n}.json") for n in ("truth", "deceived"))
        self._liar = Liar(self.servers[-1], draw)
        self._lying, self._began = False, 0.0
        self._last: Report | None = None
        self._froze = False  # one of the two, and the other not
        self._times: dict[DestinationKey, float] = {}  # how much larger a share is to the deceived
        self._calm = draw.choice(CALM_SECONDS)
        self._late = {s: draw.uniform(2.0, 20.0) for s in draw.sample(self.servers[:-1], honest // 3)}  # agents
        residence = draw.choice(RESIDENCE_SECONDS)
        self._weighs = thresholds != "learned" and residence < LASTS_SECONDS
        for server in self.servers:
            server.residence = residence

    def run(self) -> Iterator[tuple[int, str]]:
        """(turn, what differs)."""
        for number in range(round((self._calm + LIE_SECONDS) / TURN_SECONDS)):
            self._lying = number * TURN_SECONDS >= self._calm
            self._turn()
            yield from ((number, f"fault: {fault.text}") for fault in self.deceived.faults)
            if self._lying:
                yield from ((number, text) for text in self.differences())

    def _turn(self) -> None:
        for master in (self.truth, self.deceived):
            master.wait(TURN_SECONDS)
        now = self.truth.now
        self._began = self._began or now
        self.flow.step(self.truth.table, now, TURN_SECONDS)
        self._copy_counts()
        for server in self.servers:
            report = server.report(now, REPORT_SECONDS)
            if now - self._began < self._late.get(server, 0.0):
                continue
            self.truth.hear(wire.encode(report))
            liar = self._lying and server is self.servers[-1]
            self.deceived.hear(self._told(report) if liar else wire.encode(report))
        here, there = (_shares(master.turn()) for master in (self.truth, self.deceived))
        here_hot, there_hot = (_hot(master, self.key) for master in (self.truth, self.deceived))
        self._froze = self._froze or here_hot is not there_hot
        self._times = {k: there[k] / here[k] for k in here if here[k] and k in there}

    def _copy_counts(self) -> None:
        """Weights count what is open. So where they are compared, so much is open as the shares would have brought;
        where thresholds and capacities count it, the same."""
        for entry in self.truth.table.rows.get(self.key, {}).values():
            key = entry.destination.key
            times = self._times.get(key, 1.0) if self._weighs else 1.0
            counts = (round(entry.active * times), round(entry.inactive * times), entry.counters.connections)
            self.deceived.table.count(self.key, key, *counts)

    def _told(self, report: Report) -> bytes:
        if self.lie == "random":
            return self._liar.changed(report)
        tell = ATTACKS.get(self.lie) or (lambda truth, last: told(Lie(self.lie), truth))
        self._last = tell(report, self._last or report)
        return framed(self._last)

    def differences(self) -> Iterator[str]:
        assert self.truth.decision is not None and self.deceived.decision is not None
        here = {s.destination: s for s in self.truth.decision.settings}
        there = {s.destination: s for s in self.deceived.decision.settings}
        heard = {s.key: self.truth.now - self._began - self._late.get(s, 0.0) for s in self.servers[:-1]}
        yield from self._apart([k for k, seconds in heard.items() if seconds > SETTLED_SECONDS], (here, there), 0)
        if self.truth.now - self._began > self._calm + BEGINS_SECONDS and not _moves(self.deceived, self.key):
            yield from self._apart([k for k, seconds in heard.items() if seconds > FOLLOWS_SECONDS], (here, there), 1)
        yield from self._learned([k for k, seconds in heard.items() if seconds > SETTLED_SECONDS], (here, there), 0)
        yield from self._learned([k for k, seconds in heard.items() if seconds > RESTS_SECONDS], (here, there), 1)
        liar = there[self.servers[-1].key]
        if liar.share > CEILING / len(there) + 1e-6:
            yield f"ceiling: the liar has {liar.share:.3f}"

    def _apart(self, keys: Sequence[DestinationKey], settings: Both, bound: int) -> Iterator[str]:
        shares = [_parts({k: d[k].share for k in keys}) for d in settings]
        totals = [sum(d[k].weight for k in keys) for d in settings]
        weights = [_parts({k: d[k].weight for k in keys}) for d in settings]
        word = ("", " of one not known yet")[bound]
        weighs = self._weighs and not any(_catches_up(m, self.key) for m in (self.truth, self.deceived))
        for k in keys:
            most = max(HOT, SHARE[bound]) if self._froze else SHARE[bound]
            if not within(shares[0][k], shares[1][k], most):
                yield f"share{word}: {k} has {shares[1][k]:.4f} of what honest ones have, not {shares[0][k]:.4f}"
            most *= WEIGHT[bound] / SHARE[bound]  # what its share may differ by, and its rounding
            rounded = min(abs(weights[0][k] - weights[1][k]) * total for total in totals) <= GRAIN
            few = self._scheduler == "wlc" and self._counts(k).active < OPEN
            if weighs and not rounded and not few and not within(weights[0][k], weights[1][k], most):
                yield f"weight{word}: {k} has {weights[1][k]:.4f} of what honest ones have, not {weights[0][k]:.4f}"

    def _learned(self, keys: Sequence[DestinationKey], settings: Both, bound: int) -> Iterator[str]:
        levels = [self._levels(m) for m in (self.truth, self.deceived)]
        word = ("", " of one not known yet")[bound]
        for k in keys:
            uppers, closed = [d[k].upper for d in settings], self._counts(k).inactive
            if all(uppers) and abs(uppers[0] - uppers[1]) > closed and not within(*uppers, THRESHOLD[bound]):
                yield f"threshold{word}: {k} has {uppers[1]}, not {uppers[0]}"
            apart = LEVEL[bound] * exp(LEARNED_STEP)
            if k in levels[0] and k in levels[1] and not within(levels[0][k], levels[1][k], apart):
                yield f"level{word}: {k} has {levels[1][k]:.4g}, not {levels[0][k]:.4g}"

    def _counts(self, key: DestinationKey) -> DestinationEntry:
        return self.truth.table.rows[self.key][key]

    def _levels(self, master: Master) -> dict[DestinationKey, float]:
        """Completions a second and core, as the state says."""
        learned: dict[str, Any] = dict(master.controller.state().services[str(self.key)].learned)
        return {DestinationKey.parse(k): exp(min(700.0, known.level)) for k, known in learned.items()}


def _shares(decision: Decision) -> dict[DestinationKey, float]:
    return {s.destination: s.share for s in decision.settings}


def _hot(master: Master, key: ServiceKey) -> bool:
    return master.controller._pipelines[key].pool.utilisation > SATURATED


def _catches_up(master: Master, key: ServiceKey) -> bool:
    return any(isinstance(row.note, CatchingUp) for row in master.controller._pipelines[key].pool.rows)


def _moves(master: Master, key: ServiceKey) -> bool:
    """Whether shares move as fast as they may."""
    rows = master.controller._pipelines[key].pool.rows
    return any(isinstance(step.fact, Bounded) for row in rows for step in row.said or ())


def _parts(values: Mapping[DestinationKey, float]) -> dict[DestinationKey, float]:
    """Each one's part of the sum."""
    total = sum(values.values()) or 1
    return {k: v / total for k, v in values.items()}


def within(a: float, b: float, factor: float) -> bool:
    return a <= b * factor + 1e-9 and b <= a * factor + 1e-9


def play(seed: int, directory: Path) -> tuple[list[Broken], int]:
    """One pair, drawn from the seed; what differed, the first of each sort, and how many reports were said."""
    draw = random.Random(f"pair {seed}")
    lie = draw.choice((*ATTACKS, *LIES, "random", "random", "random"))
    scheduler, thresholds = draw.choice(("sed", "wlc", "wrr")), draw.choice(("", "learned"))
    for name in ("truth", "deceived"):
        (directory / f"{name}.json").unlink(missing_ok=True)
    pair = Pair(lie, scheduler, draw.randrange(3, 10), seed, directory, thresholds)
    found: dict[str, Broken] = {}
    for turn, text in pair.run():
        kind = f"{lie}: {text.partition(':')[0]}"
        found.setdefault(kind, Broken(kind, seed, turn, f"{text}; {scheduler} {thresholds}, {pair.honest} honest"))
    return list(found.values()), sum(pair.deceived.counters.values())
