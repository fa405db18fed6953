"""One stage of the pipeline alone. A test writes its rows anew for each turn; what the stages remember of a row goes on
from one turn to the next, as it does in a pool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from feedback.config import Guards
from feedback.master.actuate import Actuator
from feedback.master.actuate import for_scheduler as make_actuator
from feedback.master.actuate.hashed import Buckets as RealBuckets
from feedback.master.actuate.hashed import Permuted as RealPermuted
from feedback.master.actuate.sed import Stock as RealStock
from feedback.master.actuate.wlc import Memory as RealMemory
from feedback.master.actuate.wrr import Flow as RealFlow
from feedback.master.actuate.zero import Presence as RealPresence
from feedback.master.bounds.doubt import Doubt as RealDoubt
from feedback.master.bounds.eject import Ejector as RealEjector
from feedback.master.bounds.eject import Failures, Trial
from feedback.master.bounds.guard import Guard as RealGuard
from feedback.master.bounds.limits import Limit
from feedback.master.bounds.limits import Limits as RealLimits
from feedback.master.bounds.sizing import Room
from feedback.master.bounds.sizing import Sizing as RealSizing
from feedback.master.laws import Law
from feedback.master.pool import Pool, Row, Share, Shares
from feedback.master.servers.arrivals import Arrivals
from feedback.master.servers.capacity import Capacity, Learned
from feedback.master.servers.prior import Prior
from feedback.master.servers.window import Window
from feedback.model import DestinationEntry, DestinationKey, Protocol
from tests.master.builders import member

REMEMBERED = ("before", "ramp", "heard", "failures", "suspect", "doubt", "law", "size", "thresholds", "actuator", "out")


class Turns:
    """The rows of the last turn."""

    def __init__(self) -> None:
        self._rows: dict[DestinationKey, Row] = {}
        self._at: float | None = None

    def begin(self, pool: Pool, now: float) -> list[Row]:
        for row in pool.rows:
            old = self._rows.get(row.key)
            if old is not None and old is not row:
                for name in REMEMBERED:
                    setattr(row, name, getattr(old, name))
                row.arrivals = old.arrivals
            row.arrivals = row.arrivals or Arrivals()
            if row.kernel is not None:  # the pipeline's look
                row.arrivals.look(row.kernel.counters.connections, now)
            row.said = row.told = None
        self._rows = {row.key: row for row in pool.rows}
        pool.now, pool.seconds = now, 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        return pool.rows


class Told(msgspec.Struct):
    """A share, and why."""

    value: float
    reasons: tuple[str, ...]


class Guarded(msgspec.Struct):
    shares: dict[DestinationKey, Told]
    ramp: dict[DestinationKey, float]
    held: str
    trials: dict[DestinationKey, Trial]


class _Failing(Turns):
    """Failures are counted from windows, before a turn."""

    def observe(self, key: DestinationKey, window: Window, protocol: Protocol | None) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = member(1)
        if row.failures is None:
            row.failures = Failures()
        row.failures.count(window, row.key.port, protocol is Protocol.UDP)
        row.suspect = row.suspect or row.failures.failed > 0


class Guard(_Failing):
    def __init__(self, guards: Guards) -> None:
        super().__init__()
        self.guard = RealGuard(guards)

    def apply(self, pool: Pool, wanted: Mapping[DestinationKey, Share], now: float) -> Guarded:
        for row in self.begin(pool, now):
            row.wanted = wanted[row.key].value
        self.guard.apply(pool, lambda row: None)
        return Guarded(
            {r.key: Told(r.share, tuple(str(s.fact) for s in r.said or ())) for r in pool.rows},
            {r.key: r.ramp for r in pool.rows if r.ramp is not None},
            str(pool.held or ""),
            {r.key: r.failures.trial for r in pool.rows if r.failures is not None and r.failures.trial is not None},
        )


class Ejector(_Failing):
    def __init__(self) -> None:
        super().__init__()
        self.ejector = RealEjector()

    def ejected(self, pool: Pool, now: float) -> dict[DestinationKey, str]:
        rows = self.begin(pool, now)
        self.ejector.judge(rows, now)
        return {r.key: str(r.failures.ejected) for r in rows if r.failures is not None and r.failures.ejected}


class Doubt(Turns):
    def __init__(self) -> None:
        super().__init__()
        self.doubt = RealDoubt()

    def doubted(self, pool: Pool, now: float) -> dict[DestinationKey, Any]:
        self.begin(pool, now)
        return dict(self.doubt.doubted(pool))


class Bound(msgspec.Struct):
    upper: int
    lower: int
    room: int
    text: str


class Sizing(Turns):
    def __init__(self, latency: float, sizing: RealSizing | None = None) -> None:
        super().__init__()
        self.sizing = sizing or RealSizing(latency)

    def observe(self, pool: Pool, now: float) -> None:
        self.begin(pool, now)
        self.sizing.observe(pool)

    def room(self, row: Row, *, exact: bool = False, alone: bool = False) -> Room | None:
        known = self._rows.get(row.key)
        if known is not None:
            row.size = known.size
        return self.sizing.room(row, exact=exact, alone=alone)


class Limits(Turns):
    def __init__(self, mode: str, latency: float) -> None:
        super().__init__()
        self.limiting = RealLimits(mode, latency)
        self.sizing = Sizing(latency, self.limiting._sizing)
        self._rows = self.sizing._rows

    def limits(
        self,
        pool: Pool,
        now: float,
        *,
        exact: bool = False,
        counted: Mapping[DestinationKey, int] | None = None,
        ramping: Collection[DestinationKey] = (),
    ) -> dict[DestinationKey, Bound]:
        self._rows |= self.sizing._rows
        for row in self.begin(pool, now):
            row.ramp = 0.5 if row.key in ramping else None
            row.tier = (counted or {}).get(row.key, 0)
        if exact and not counted:  # somebody comes behind it
            behind = member(200, capacity=None)
            behind.tier = 1
            pool.rows.append(behind)
        self.limiting.limit(pool, exact=exact, by_weight=counted is not None)
        return {r.key: _bound(r.limit) for r in pool.rows}


def _bound(limit: Limit) -> Bound:
    return Bound(limit.upper, limit.lower, limit.room, str(limit.why or ""))


class Wanted(msgspec.Struct):
    """What an actuator is asked for."""

    shares: dict[DestinationKey, Share]
    tiers: Mapping[DestinationKey, int] = {}
    limits: Mapping[DestinationKey, Limit] = {}


class Weight(msgspec.Struct):
    value: int
    text: str


Weights = dict[DestinationKey, Weight]


class Acting(Turns):
    def __init__(self, actuator: Actuator) -> None:
        super().__init__()
        self.actuator = actuator

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        for row in self.begin(pool, now):
            row.part = row.share = wanted.shares[row.key].value
            row.tier, row.limit = wanted.tiers.get(row.key, 0), wanted.limits.get(row.key, Limit())
            row.note = row.stands = None
        self.actuator.aim(pool)
        return {r.key: Weight(r.aim, str(r.note or "")) for r in pool.rows}


def _acting(make: Callable[..., Actuator]) -> Callable[..., Acting]:
    return lambda *args, **named: Acting(make(*args, **named))


Stock, Flow, Memory, Presence = _acting(RealStock), _acting(RealFlow), _acting(RealMemory), _acting(RealPresence)
Permuted, Buckets, for_scheduler = _acting(RealPermuted), _acting(RealBuckets), _acting(make_actuator)


class Estimator:
    """The capacities of one pool's destinations."""

    def __init__(self) -> None:
        self.prior = Prior()
        self._now = 0.0
        self._rows: dict[DestinationKey, Row] = {}

    def row(self, key: DestinationKey) -> Row:
        if key not in self._rows:
            row = self._rows[key] = member(1)
            row.key, row.capacity = key, Capacity(self.prior)
            self.prior.adopt(row.capacity)
            self.prior.follow(list(self._rows.values()))
        return self._rows[key]

    def capacity(self, key: DestinationKey) -> Capacity:
        return self.row(key).capacity

    def residence(self, seconds: float) -> None:
        """A minute after the last time."""
        self._now += 60.0
        self.prior.residence(seconds, self._now)

    def seed(self, weights: Mapping[DestinationKey, float]) -> None:
        for key, weight in weights.items():
            self.row(key).weight = round(weight)
        self.prior.seed([self.row(key) for key in weights])

    def learned(self) -> dict[DestinationKey, Learned]:
        return {k: known for k, row in self._rows.items() if (known := row.capacity.learned()) is not None}

    def resume(self, learned: Mapping[DestinationKey, Learned]) -> None:
        for key, known in learned.items():
            self.capacity(key).resume(known)


def look(capacity: Capacity, entry: DestinationEntry, now: float) -> None:
    capacity.observe_kernel(entry.active, entry.counters.connections, now)


class Ruled(Turns):
    """A law over a pool whose rows are written anew."""

    def __init__(self, law: Law) -> None:
        super().__init__()
        self.law = law

    def shares(self, pool: Pool, now: float) -> Shares:
        for row in self.begin(pool, now):
            for window in row.latest if hasattr(self.law, "observe") else ():
                self.law.observe(row, window)
        return self.law.shares(pool, now)
