"""Tiers: a tier gets nothing while the one before it has room (pool.Share says what a tier is).

Three ways, after what the scheduler can do. `fo` and `ovf` are made for it (order.py, count.py). Under `sed` the kernel
does it too: the cost is (active + 1) / weight, so a server with a weight larger than any number of connections that it
can have always costs less than an idle one of the tier behind, until the kernel itself marks it overloaded. The switch
is then atomic: no connection too early, none refused. All others (`Stepped`) are switched by us: the tiers behind have
weight 0 until those before are full, or will be before we look again.

Invariant: while one server of a tier is in service and not full, no server of a later tier is chosen.
Source: ip_vs_sed.c; the products are taken in 64 bits, so weights up to 2**31 - 1 are safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import median_low
from typing import TypeAlias

import msgspec

from feedback.master.actuate.weight import Actuator, Wanted, Weight, Weights, active, banded, current, inactive
from feedback.master.pool import Member, Pool, Share
from feedback.model import WEIGHT_MAX

Tier: TypeAlias = Sequence[Member]


def in_order(pool: Pool, wanted: Wanted) -> list[list[Member]]:
    """The tiers with somebody in service, the first to be used first. A tier that has only servers in slow start waits
    at the end: a part of the load cannot be given to one that gets all or nothing."""
    serving = [m for m in pool.members if wanted.share(m) > 0]
    numbers = sorted({wanted.tiers.get(m.key, 0) for m in serving})
    tiers = [[m for m in serving if wanted.tiers.get(m.key, 0) == n] for n in numbers]
    warm = [t for t in tiers if any(m.key not in wanted.ramping for m in t)]
    return warm + [t for t in tiers if t not in warm]


def is_tiered(wanted: Wanted) -> bool:
    return len({wanted.tiers.get(k, 0) for k in wanted.shares}) > 1


class Stepped:
    """For schedulers that cannot hold a tier back: another actuator, which sees only the tiers that are open."""

    AHEAD_SECONDS = 0.25  # a tier opens if those before it could be full within this time, before we look again
    TEXT = "not open: the tiers before have room (this scheduler cannot hold it back: switched by the master)"

    def __init__(self, inner: Actuator) -> None:
        self._inner = inner
        self._open = 1

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        if not is_tiered(wanted):
            return self._inner.weights(pool, wanted, now)
        tiers = in_order(pool, wanted)
        self._open = self._opened(tiers, pool)
        closed = {m.key for tier in tiers[self._open :] for m in tier}
        shares = {k: Share(0.0) if k in closed else s for k, s in wanted.shares.items()}
        total = sum(s.value for s in shares.values()) or 1.0
        weights = self._inner.weights(pool, msgspec.structs.replace(wanted, shares=shares), now)
        return {
            k: Weight(0, self.TEXT, 0.0) if k in closed else Weight(w.value, w.text, shares[k].value / total)
            for k, w in weights.items()
        }

    def _opened(self, tiers: Sequence[Tier], pool: Pool) -> int:
        """How many are open. One that is open stays so until those before it have twice the room that opened it."""
        arrivals = pool.flow * self.AHEAD_SECONDS
        ahead = 1 + arrivals + sqrt(arrivals)
        for n in range(1, len(tiers)):
            free = sum(_free(m) for tier in tiers[:n] for m in tier)
            if free > (2 * ahead if n < self._open else ahead):
                return n
        return max(1, len(tiers))


def _free(member: Member) -> float:
    """How many connections the kernel will still take; without a threshold there is no end to it."""
    upper = member.kernel.destination.upper if member.kernel else member.base.upper
    return max(0, upper - active(member) - inactive(member)) if upper else float("inf")


class Cascade:
    """sed with tiers: the kernel holds the tiers behind back. Without tiers, the plain way."""

    LOWEST = 16  # of the last tier with several servers: enough to say their proportions
    MARGIN = 1.25
    UNBOUNDED = 1000  # connections beyond those open now, where there is no threshold

    def __init__(self, inner: Actuator, dead_band: float) -> None:
        self._inner, self._dead_band = inner, dead_band

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        if not is_tiered(wanted):
            return self._inner.weights(pool, wanted, now)
        tiers = in_order(pool, wanted)
        out = {m.key: Weight(0, "out of service", 0.0) for m in pool.members}
        floor = 1.0
        for n, tier in reversed(list(enumerate(tiers))):
            if n == len(tiers) - 1 and len(tier) > 1:
                floor = self.LOWEST
            scale = self._scale(tier, wanted, floor)
            aims = {m.key: banded(m, wanted.share(m) * scale, self._dead_band, WEIGHT_MAX) for m in tier}
            for m in tier:
                out[m.key] = self._explained(m, aims[m.key].value, n, tier, wanted)
            # Whoever is before this tier must cost less than its cheapest idle server, however full it is itself.
            floor = max(w.value for w in aims.values()) * self._reach(tiers[n - 1] if n else (), wanted)
        return out if self._fits(out) else Stepped(self._inner).weights(pool, wanted, now)

    def _scale(self, tier: Tier, wanted: Wanted, floor: float) -> float:
        """Weight for each unit of share, so that the smallest is at least the floor; that in force while it will do."""
        lowest = floor / min(wanted.share(m) for m in tier)
        ratios = [w / wanted.share(m) for m in tier if (w := current(m))]
        have = median_low(ratios) if ratios else 0.0
        return have if lowest <= have <= 4 * lowest else lowest

    def _reach(self, tier: Tier, wanted: Wanted) -> float:
        """A number of connections, plus one, that no server of the tier can reach."""
        most = 0
        for m in tier:
            upper = wanted.limits[m.key].upper if m.key in wanted.limits else m.base.upper
            in_force = m.kernel.destination.upper if m.kernel else 0
            most = max(most, upper, in_force, active(m) + (0 if upper else max(active(m), self.UNBOUNDED)))
        return self.MARGIN * (most + 2)

    def _fits(self, weights: Weights) -> bool:
        return all(w.value < WEIGHT_MAX for w in weights.values())

    def _explained(self, member: Member, weight: int, n: int, tier: Tier, wanted: Wanted) -> Weight:
        part = wanted.share(member) / sum(wanted.share(m) for m in tier)
        if n == 0:
            return Weight(weight, f"first tier: {100 * part:.1f} % of it", part)
        return Weight(weight, f"tier {n + 1}: nothing before the tiers before it are full", 0.0)
