"""`wlc`: a stock with two minutes of memory. Closed connections count until their FIN time-out, so that a weight raised
by 10 % floods the server for seconds.

The memory is cancelled instead of waited for. At each tick a weight is the overhead that the server should have when
the tick ends: the closed connections that it has, its share of the arrivals, and 256 for each connection that it should
have open. The kernel, filling the least overhead/weight, then sends each server just that.

What it should have open is, for long connections, what it has and what comes. For short ones, which come and go within
a tick, it is its share of all that are open on the mean, and that term does the work: a connection too many weighs as
much as 256 closed ones, so the kernel itself levels the open ones to the shares, within microseconds, as it does under
`sed`. (With the term of the arrivals alone it levels them to the closed ones, which are the shares of two minutes ago.)

Source: ip_vs_wlc.c, ip_vs.h: the overhead is active * 256 + inactive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

from feedback.master.actuate.weight import CATCH_UP, Wanted, Weight, Weights, active, current, inactive, surviving
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey

ACTIVE = 256  # what an active connection counts in wlc, in inactive ones
GROWTH, GROWTH_FROM = 1.5, 0.25  # a server comes up to its share of the open connections by this in MEAN_SECONDS


class Memory:
    """wlc: overhead (active * 256 + inactive) / weight, with the memory of closed connections cancelled each tick."""

    RESOLUTION = 20_000
    MEAN_SECONDS = 2.0
    HEAL_SECONDS = 10.0  # the stock of closed connections is drawn towards its part over this time
    ARRIVALS_PER_SERVER = 4.0  # a tick lasts until this many connections are expected for an average server
    TICK_MAX_SECONDS = 5.0

    def __init__(self) -> None:
        self._written_at: float | None = None
        self._at: float | None = None
        self._active: dict[DestinationKey, float] = {}  # how many are open, on the mean

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        serving = [m for m in pool.members if wanted.share(m) > 0]
        if not serving:
            return {m.key: Weight(0) for m in pool.members}
        self._observe(serving, now)
        tick = self._tick(pool, len(serving))
        switch = any((not current(m)) != (wanted.share(m) <= 0) for m in pool.members)
        if self._written_at is not None and now - self._written_at < 0.9 * tick and not switch:
            return {m.key: Weight(current(m) or 0, "until the next tick") for m in pool.members}
        self._written_at = now
        arrivals = self._arrivals(pool, wanted, tick)
        staying = surviving(pool, tick)
        overheads = {}
        for m in serving:
            count = active(m) + arrivals[m.key]
            opened = staying * count + (1 - staying) * self._usual(m, wanted)
            overheads[m.key] = inactive(m) + count + (ACTIVE - 1) * opened
        for m in serving:  # decides where nothing is open and nothing comes
            overheads[m.key] += wanted.share(m)
        scale = self._scale(overheads)
        return {m.key: self._weight(overheads.get(m.key), scale) for m in pool.members}

    def _tick(self, pool: Pool, serving: int) -> float:
        """Seconds between writes: as short as the loop is, longer where few connections arrive."""
        if pool.flow <= 0:
            return self.TICK_MAX_SECONDS
        return min(self.TICK_MAX_SECONDS, max(0.2, self.ARRIVALS_PER_SERVER * serving / pool.flow))

    def _observe(self, serving: Sequence[Member], now: float) -> None:
        blend = 0.0 if self._at is None else 1 - exp(-max(0.0, now - self._at) / self.MEAN_SECONDS)
        self._at = now
        means = {m.key: self._active.get(m.key, 0.0) for m in serving}
        self._active = {m.key: means[m.key] + blend * (active(m) - means[m.key]) for m in serving}

    def _usual(self, member: Member, wanted: Wanted) -> float:
        """How many short connections it should have open on the mean: its share of those of all, coming up from what
        it has. Where servers are mostly idle a choice meets none of them open, and they must not be counted on."""
        total = sum(self._active.values())
        busy = 1 - exp(-total / len(self._active))  # how likely an average server is not idle
        return busy * min(wanted.share(member) * total, GROWTH * self._active[member.key] + GROWTH_FROM)

    def _arrivals(self, pool: Pool, wanted: Wanted, tick: float) -> dict[DestinationKey, float]:
        """How many connections each should get in this tick: its share, less where it is above its part of what is
        open, and at most a little more where it is below. What that leaves over goes to those above."""
        opened, closed = (sum(f(m) for m in pool.members) for f in (active, inactive))
        aims: dict[DestinationKey, float] = {}
        below = 0.0
        for m in pool.members:
            share = wanted.share(m)
            fair, part = share * pool.flow * tick, share * opened
            behind = (part - active(m)) / max(part, 4.0)
            pull = tick / self.HEAL_SECONDS * (share * closed - inactive(m))
            got = fair * max(0.0, 1 + behind) + min(CATCH_UP * fair, max(-CATCH_UP * fair, pull))
            aims[m.key] = min(fair * (1 + CATCH_UP), max(0.0, got))
            below += fair - aims[m.key]
        above = {k: w for k, w in aims.items() if w < wanted.shares[k].value * pool.flow * tick}
        spare = max(0.0, below) / (sum(above.values()) or 1.0)
        return {k: w * (1 + spare) if k in above else w for k, w in aims.items()}

    def _scale(self, overheads: Mapping[DestinationKey, float]) -> float:
        return max(1.0, self.RESOLUTION / max(1e-6, *overheads.values()))

    def _weight(self, overhead: float | None, scale: float) -> Weight:
        if overhead is None:
            return Weight(0)
        return Weight(max(1, round(overhead * scale)), "its share of the arrivals on top of what it carries")
