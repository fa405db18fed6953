"""Actuate: shares -> integer weights, in the way of the scheduler that this service uses.

A weight is a stock in `sed` (active connections go in proportion to it, at once), a flow in `wrr` (and each write
resets the cursor to the head of the list), and under `wlc` a stock with two minutes of memory: closed connections
count until their FIN time-out, so that a weight raised by 10 % floods the server for seconds.

For `wlc` the memory is cancelled instead of waited for: at each tick the weight is the overhead that the server should
have at the end of the tick, i.e. what it has (inactive), what it should have (active) and what it should get (its share
of the arrivals). The kernel, filling the least overhead/weight, then sends each server just that.

Knows no law. Source: ip_vs_sed.c, ip_vs_wlc.c, ip_vs_wrr.c; the overhead of wlc is active * 256 + inactive.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from statistics import median_low
from typing import Protocol, TypeAlias

import msgspec

from feedback.master.guard import Guarded
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey

ACTIVE = 256  # what an active connection counts in wlc, in inactive ones
CATCH_UP = 0.15  # a server below its part may get this much more than its share of the arrivals


class Weight(msgspec.Struct, frozen=True):
    value: int
    text: str = ""


Weights: TypeAlias = Mapping[DestinationKey, Weight]


class Actuator(Protocol):
    """One instance serves one service."""

    def weights(self, pool: Pool, guarded: Guarded, now: float) -> Weights:
        """A weight for every member. A share of 0 is a weight of 0, any other at least 1."""
        ...


def for_scheduler(scheduler: str, dead_band: float) -> Actuator:
    match scheduler:
        case "sed" | "nq":
            return Stock(dead_band)
        case "wlc":
            return Memory()
        case "wrr":
            return Flow(dead_band)
        case _:
            return Hold(scheduler)


def _current(member: Member) -> int | None:
    return member.kernel.destination.weight if member.kernel else None


def _active(member: Member) -> int:
    return member.kernel.active if member.kernel else 0


def _inactive(member: Member) -> int:
    return member.kernel.inactive if member.kernel else 0


def _surviving(pool: Pool, seconds: float) -> float:
    """The part of the open connections that is still open after so many seconds (residence by Little's law)."""
    active = sum(_active(m) for m in pool.members)
    residence = active / pool.flow if pool.flow > 0 else 0.0
    return max(0.0, 1 - seconds / residence) if residence > 0 else 0.0


def _scaled(pool: Pool, guarded: Guarded, mean: int, limit: int, *, keep: bool) -> dict[DestinationKey, float]:
    """Shares times a scale. With `keep` it is that of the weights in force while it fits, so that one server's change
    is one write."""
    shares = {m.key: guarded.shares[m.key].value for m in pool.members}
    serving = [s for s in shares.values() if s > 0]
    if not serving:
        return shares
    scale = float(mean * len(serving))
    ratios = [w / shares[m.key] for m in pool.members if (w := _current(m)) and shares[m.key] > 0]
    if keep and ratios:
        current = median_low(ratios)
        if scale / 3 <= current <= scale * 3 and max(serving) * current <= limit:
            scale = current
    scale = min(scale, limit / max(serving))
    return {k: s * scale for k, s in shares.items()}


def _banded(member: Member, value: float, dead_band: float, limit: int) -> Weight:
    """The weight in force stays while the wanted one is within the dead band of it."""
    if value <= 0:
        return Weight(0)
    wanted = min(limit, max(1, round(value)))
    current = _current(member)
    if current and abs(value - current) <= max(dead_band * current, 0.6):
        return Weight(current, f"{value:.1f} is within the dead band of {current}")
    return Weight(wanted)


class Stock:
    """sed, nq: cost (active + 1) / weight. Mean 100, 1..1000."""

    MEAN, LIMIT = 100, 1000

    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band
        self._at: float | None = None

    def weights(self, pool: Pool, guarded: Guarded, now: float) -> Weights:
        tick = 0.2 if self._at is None else min(1.0, max(0.05, now - self._at))
        self._at = now
        scaled = _scaled(pool, guarded, self.MEAN, self.LIMIT, keep=True)
        out = {m.key: _banded(m, scaled[m.key], self._dead_band, self.LIMIT) for m in pool.members}
        costs = sum(_active(m) + 1 for m in pool.members if scaled[m.key] > 0)
        total = sum(scaled.values())
        staying = _surviving(pool, tick)
        for m in pool.members:
            others = total - scaled[m.key]
            if not others or scaled[m.key] <= 0:
                continue
            level = (costs - _active(m) - 1) / others  # what the others cost, per unit of weight
            arrivals = guarded.shares[m.key].value * pool.flow * tick
            limit = _catching_up(_active(m), level * scaled[m.key], level, staying, arrivals)
            if limit is not None and limit < out[m.key].value:
                out[m.key] = Weight(limit, f"{_active(m)} active: catching up at its share of the arrivals")
        return out


def _catching_up(active: int, part: float, level: float, staying: float, arrivals: float) -> int | None:
    """With long connections, a server far below its part gets everything until it has caught up: a weight that lets it
    have its share of this tick's arrivals and a little more, or None where this does not matter."""
    if part - active < max(4.0, 2 * sqrt(part)):
        return None
    return max(1, int((active * staying + 1 + arrivals * (1 + CATCH_UP)) / level))


class Flow:
    """wrr: connections in proportion to the weight, in bursts of their differences: mean 16, 1..64. All edits at once,
    and only after so many connections that the reset of the cursor does not show."""

    MEAN, LIMIT = 16, 64
    CONNECTIONS_PER_SERVER, SECONDS_MAX = 50, 30.0

    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band
        self._written_at: float | None = None

    def weights(self, pool: Pool, guarded: Guarded, now: float) -> Weights:
        scaled = _scaled(pool, guarded, self.MEAN, self.LIMIT, keep=False)
        wanted = {m.key: _banded(m, scaled[m.key], self._dead_band, self.LIMIT) for m in pool.members}
        changed = [m for m in pool.members if _current(m) != wanted[m.key].value]
        if not changed:
            return wanted
        switch = any(not _current(m) or not wanted[m.key].value for m in changed)
        if not switch and not self._rested(pool, now):
            return {m.key: Weight(_current(m) or 0, "resting: a write resets the round robin") for m in pool.members}
        self._written_at = now
        return wanted

    def _rested(self, pool: Pool, now: float) -> bool:
        if self._written_at is None:
            return True
        seconds = now - self._written_at
        return seconds >= self.SECONDS_MAX or seconds * pool.flow >= self.CONNECTIONS_PER_SERVER * len(pool.members)


class Memory:
    """wlc: overhead (active * 256 + inactive) / weight, with the memory of closed connections cancelled each tick."""

    MEAN, RESOLUTION = 1000, 20_000
    HEAL_SECONDS = 10.0  # the stock of closed connections is drawn towards its part over this time
    ARRIVALS_PER_SERVER = 4.0  # a tick lasts until this many connections are expected for an average server
    TICK_MAX_SECONDS = 5.0

    def __init__(self) -> None:
        self._written_at: float | None = None

    def weights(self, pool: Pool, guarded: Guarded, now: float) -> Weights:
        serving = [m for m in pool.members if guarded.shares[m.key].value > 0]
        if not serving:
            return {m.key: Weight(0) for m in pool.members}
        tick = self._tick(pool, len(serving))
        switch = any((not _current(m)) != (guarded.shares[m.key].value <= 0) for m in pool.members)
        if self._written_at is not None and now - self._written_at < 0.9 * tick and not switch:
            return {m.key: Weight(_current(m) or 0, "until the next tick") for m in pool.members}
        self._written_at = now
        arrivals = self._arrivals(pool, guarded, tick)
        cost = 1 + (ACTIVE - 1) * _surviving(pool, tick)
        overheads = {m.key: _inactive(m) + cost * (_active(m) + arrivals[m.key]) for m in serving}
        for m in serving:  # decides where nothing is open and nothing comes
            overheads[m.key] += guarded.shares[m.key].value
        scale = self._scale(overheads)
        return {m.key: self._weight(overheads.get(m.key), scale) for m in pool.members}

    def _tick(self, pool: Pool, serving: int) -> float:
        """Seconds between writes: as short as the loop is, longer where few connections arrive."""
        if pool.flow <= 0:
            return self.TICK_MAX_SECONDS
        return min(self.TICK_MAX_SECONDS, max(0.2, self.ARRIVALS_PER_SERVER * serving / pool.flow))

    def _arrivals(self, pool: Pool, guarded: Guarded, tick: float) -> dict[DestinationKey, float]:
        """How many connections each should get in this tick: its share, less where it is above its part of what is
        open, and at most a little more where it is below. What that leaves over goes to those above."""
        active, inactive = (sum(f(m) for m in pool.members) for f in (_active, _inactive))
        wanted: dict[DestinationKey, float] = {}
        below = 0.0
        for m in pool.members:
            share = guarded.shares[m.key].value
            fair, part = share * pool.flow * tick, share * active
            behind = (part - _active(m)) / max(part, 4.0)
            pull = tick / self.HEAL_SECONDS * (share * inactive - _inactive(m))
            got = fair * max(0.0, 1 + behind) + min(CATCH_UP * fair, max(-CATCH_UP * fair, pull))
            wanted[m.key] = min(fair * (1 + CATCH_UP), max(0.0, got))
            below += fair - wanted[m.key]
        above = {k: w for k, w in wanted.items() if w < guarded.shares[k].value * pool.flow * tick}
        spare = max(0.0, below) / (sum(above.values()) or 1.0)
        return {k: w * (1 + spare) if k in above else w for k, w in wanted.items()}

    def _scale(self, overheads: Mapping[DestinationKey, float]) -> float:
        return max(1.0, self.RESOLUTION / max(1e-6, *overheads.values()))

    def _weight(self, overhead: float | None, scale: float) -> Weight:
        if overhead is None:
            return Weight(0)
        return Weight(max(1, round(overhead * scale)), "its share of the arrivals on top of what it carries")


class Hold:
    """A scheduler that this version does not drive: what is in force stays, but for zero or not."""

    def __init__(self, scheduler: str) -> None:
        self._text = f"scheduler {scheduler} is not driven: only zero or not"

    def weights(self, pool: Pool, guarded: Guarded, now: float) -> Weights:
        return {m.key: self._weight(m, guarded.shares[m.key].value) for m in pool.members}

    def _weight(self, member: Member, share: float) -> Weight:
        if share <= 0:
            return Weight(0, self._text)
        return Weight(_current(member) or max(1, member.base.weight), self._text)
