"""Tiers: a tier gets nothing while the one before it has room (pool.Share says what a tier is).

There are three ways, depending on the scheduler. `fo` and `ovf` are made for it (fo.py, ovf.py). Under `sed` the kernel
does it too: the cost is (active + 1) / weight, so a server with a weight larger than any number of connections that it
can have always costs less than an idle one of the tier behind, until the kernel itself marks it overloaded. The switch
is then atomic: no connection too early, none refused. All others (`Stepped`) are switched by us: later tiers have
weight 0 until the earlier ones are full, or will be before the next look.

Invariant: while one server of a tier is in service and not full, no server of a later tier is chosen.
Source: ip_vs_sed.c; the products are taken in 64 bits, so weights up to 2**31 - 1 are safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from statistics import median_low
from typing import TypeAlias

import msgspec

from feedback.master.actuate.weight import Actuator, band, out
from feedback.master.pool import Pool, Row
from feedback.model import WEIGHT_MAX

Tier: TypeAlias = list[Row]
NOT_OPEN = "not open: the tiers before have room (this scheduler cannot hold it back: switched by the master)"


class OfFirst(msgspec.Struct, frozen=True, gc=False):
    part: float

    def __str__(self) -> str:
        return f"first tier: {100 * self.part:.1f} % of it"


class OfLater(msgspec.Struct, frozen=True, gc=False):
    number: int

    def __str__(self) -> str:
        return f"tier {self.number}: nothing until the tiers before it are full"


def in_order(rows: Sequence[Row]) -> list[Tier]:
    """The tiers with somebody in service, the first to be used first. A tier that has only servers in slow start waits
    at the end: a part of the load cannot be given to one that gets all or nothing."""
    tiers: dict[int, Tier] = {}
    for row in rows:
        if row.part > 0:
            tiers.setdefault(row.tier, []).append(row)
    ordered = [tiers[number] for number in sorted(tiers)]
    warm = [any(row.ramp is None for row in tier) for tier in ordered]
    return [t for t, w in zip(ordered, warm, strict=True) if w] + [
        t for t, w in zip(ordered, warm, strict=True) if not w
    ]


def is_tiered(rows: Sequence[Row]) -> bool:
    return bool(rows) and any(row.tier != rows[0].tier for row in rows)


class Stepped:
    """For schedulers that cannot hold a tier back: another actuator, which sees only the tiers that are open."""

    def __init__(self, inner: Actuator) -> None:
        self._inner = inner
        self._open = 1

    def aim(self, pool: Pool) -> None:
        rows = pool.rows
        if not is_tiered(rows):
            self._inner.aim(pool)
            return
        tiers = in_order(rows)
        self._open = self._opened(tiers, 1.25 * pool.interval_seconds * pool.flow)
        closed = [row for tier in tiers[self._open :] for row in tier]
        for row in closed:
            row.part = 0.0
        self._inner.aim(pool)
        total = sum(row.part for row in rows) or 1.0
        for row in rows:
            row.stands = row.part / total
        out(closed, NOT_OPEN)

    def _opened(self, tiers: Sequence[Tier], arrivals: float) -> int:
        """How many are open: as many as could get something before we look again. One that is open stays so until
        those before it have twice the room that opened it."""
        ahead, free = 1 + arrivals + sqrt(arrivals), 0.0
        for n in range(1, len(tiers)):
            free += sum(_free(row) for row in tiers[n - 1])
            if free > (2 * ahead if n < self._open else ahead):
                return n
        return max(1, len(tiers))


def _free(row: Row) -> float:
    """How many connections the kernel will still take; without a threshold there is no end to it."""
    upper = row.kernel.destination.upper if row.kernel and row.weight else row.base.upper
    return max(0, upper - row.active - row.inactive) if upper else inf


class Cascade:
    """sed with tiers: the kernel holds the tiers behind back. Without tiers, the plain way."""

    LOWEST = 16  # of the last tier with several servers: enough to say their proportions
    MARGIN = 1.25
    UNBOUNDED = 1000  # connections beyond those open now, where there is no threshold

    def __init__(self, inner: Actuator, dead_band: float) -> None:
        self._inner, self._dead_band = inner, dead_band

    def aim(self, pool: Pool) -> None:
        rows = pool.rows
        if not is_tiered(rows):
            self._inner.aim(pool)
            return
        tiers = in_order(rows)
        out(rows)
        floor = 1.0
        for n, tier in reversed(list(enumerate(tiers))):
            if n == len(tiers) - 1 and len(tier) > 1:
                floor = self.LOWEST
            scale, whole = self._scale(tier, floor), sum(row.part for row in tier)
            for row in tier:
                band(row, row.part * scale, self._dead_band, WEIGHT_MAX)
                row.note, row.stands = (OfLater(n + 1), 0.0) if n else (OfFirst(row.part / whole), row.part / whole)
            # A server of an earlier tier, however full, must cost less than the cheapest idle server of this tier.
            floor = max(row.aim for row in tier) * self._reach(tiers[n - 1] if n else [])
        if any(row.aim >= WEIGHT_MAX for row in rows):
            for row in rows:
                row.note = row.stands = None
            Stepped(self._inner).aim(pool)

    def _scale(self, tier: Tier, floor: float) -> float:
        """Weight for each unit of share, so that the smallest is at least the floor; that in force while it will do."""
        lowest = floor / min(row.part for row in tier)
        ratios = [row.weight / row.part for row in tier if row.weight]
        have = median_low(ratios) if ratios else 0.0
        return have if lowest <= have <= 4 * lowest else lowest

    def _reach(self, tier: Tier) -> float:
        """A number of connections, plus one, that no server of the tier can reach."""
        most = 0
        for row in tier:
            upper = row.limit.upper
            in_force = row.kernel.destination.upper if row.kernel and row.weight else 0
            most = max(most, upper, in_force, row.active + (0 if upper else max(row.active, self.UNBOUNDED)))
        return self.MARGIN * (most + 2)
