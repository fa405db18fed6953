"""`wlc`: a stock with two minutes of memory. Closed connections count until their FIN time-out, so that a weight raised
by 10 % floods the server for seconds.

The memory is cancelled instead of waited for: at each tick the weight is the overhead that the server should have at
the end of the tick, i.e. what it has (inactive), what it should have (active) and what it should get (its share of the
arrivals). The kernel, filling the least overhead/weight, then sends each server just that.

Source: ip_vs_wlc.c, ip_vs.h: the overhead is active * 256 + inactive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feedback.master.actuate.weight import CATCH_UP, Wanted, Weight, Weights, active, current, inactive, surviving
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey

ACTIVE = 256  # what an active connection counts in wlc, in inactive ones
NEW, BEHIND = 0.3, 0.9  # of its part of the pool's overhead: what a server carries that is new, and that is behind


def _dearer(serving: Sequence[Member], wanted: Wanted) -> list[float]:
    """What makes wlc count the connection to come, as sed does with its `active + 1`: by how much each server's present
    overhead must look dearer. A small server without connections otherwise beats a large one with idle cores. It fades
    where less than one connection is open. A server that is behind its part is let catch up; a new one looks as dear as
    the dearest, so that it gets its share of the arrivals and no more."""
    opened, closed = (sum(f(m) for m in serving) for f in (active, inactive))
    found, carried = [], []
    for m in serving:
        share = wanted.share(m)
        stock = share * (closed + ACTIVE * opened)
        found.append(1 + ACTIVE * min(1.0, share * opened) / (stock + ACTIVE * share))
        carried.append((inactive(m) + ACTIVE * active(m)) / stock if stock else 1.0)
    dearest = max(found)
    return [dearest if c < NEW else 1.0 if c < BEHIND else f for f, c in zip(found, carried, strict=True)]


class Memory:
    """wlc: overhead (active * 256 + inactive) / weight, with the memory of closed connections cancelled each tick."""

    MEAN, RESOLUTION = 1000, 20_000
    HEAL_SECONDS = 10.0  # the stock of closed connections is drawn towards its part over this time
    ARRIVALS_PER_SERVER = 4.0  # a tick lasts until this many connections are expected for an average server
    TICK_MAX_SECONDS = 5.0

    def __init__(self) -> None:
        self._written_at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        serving = [m for m in pool.members if wanted.share(m) > 0]
        if not serving:
            return {m.key: Weight(0) for m in pool.members}
        tick = self._tick(pool, len(serving))
        switch = any((not current(m)) != (wanted.share(m) <= 0) for m in pool.members)
        if self._written_at is not None and now - self._written_at < 0.9 * tick and not switch:
            return {m.key: Weight(current(m) or 0, "until the next tick") for m in pool.members}
        self._written_at = now
        arrivals = self._arrivals(pool, wanted, tick)
        cost = 1 + (ACTIVE - 1) * surviving(pool, tick)
        overheads = {m.key: inactive(m) + cost * (active(m) + arrivals[m.key]) for m in serving}
        for m in serving:  # decides where nothing is open and nothing comes
            overheads[m.key] += wanted.share(m)
        for m, dearer in zip(serving, _dearer(serving, wanted), strict=True):
            overheads[m.key] /= dearer
        scale = self._scale(overheads)
        return {m.key: self._weight(overheads.get(m.key), scale) for m in pool.members}

    def _tick(self, pool: Pool, serving: int) -> float:
        """Seconds between writes: as short as the loop is, longer where few connections arrive."""
        if pool.flow <= 0:
            return self.TICK_MAX_SECONDS
        return min(self.TICK_MAX_SECONDS, max(0.2, self.ARRIVALS_PER_SERVER * serving / pool.flow))

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
