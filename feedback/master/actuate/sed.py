"""`sed` and `nq`: a weight is a stock. Active connections go in proportion to it, at once.

Source: ip_vs_sed.c, ip_vs_nq.c: the least (active + 1) / weight.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import ceil, sqrt

import msgspec

from feedback.master.actuate.weight import CATCH_UP, LOOK_SECONDS, banded, scaled, surviving
from feedback.master.pool import Pool, Row

UDP = "this scheduler counts active connections, and UDP has none: the largest weight takes all (use wrr or mh)"

LASTING = 0.5  # of the open connections are still there at the next look: below this sed levels them by itself


class CatchingUp(msgspec.Struct, frozen=True, gc=False):
    active: int

    def __str__(self) -> str:
        return f"{self.active} active: catching up at its share of the arrivals"


class Stock:
    """sed, nq: cost (active + 1) / weight. Mean 1000, so that one unit is less than a connection of any server."""

    MEAN, LIMIT = 1000, 65535  # the most that every ipvsadm can show

    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band
        self._at: float | None = None

    def aim(self, pool: Pool) -> None:
        rows, now = pool.rows, pool.now
        tick = pool.interval_seconds if self._at is None else min(1.0, max(LOOK_SECONDS, now - self._at))
        self._at = now
        parts = scaled(rows, [row.part for row in rows], self.MEAN, self.LIMIT, keep=True)
        banded(rows, parts, self._dead_band, self.LIMIT)
        if pool.udp:
            for row in rows:
                row.note = UDP if row.aim else row.note
            return
        staying = surviving(pool, tick)
        if staying >= LASTING:
            serving = [(row, part) for row, part in zip(rows, parts, strict=True) if part > 0.0]
            if len(serving) > 1:
                self._catch_up(serving, staying, pool.flow * tick)

    def _catch_up(self, serving: list[tuple[Row, float]], staying: float, arriving: float) -> None:
        """A server far below its part would get everything until it has caught up: its weight becomes what lets it have
        its share of this tick's arrivals and a little more."""
        costs, total = sum(row.active + 1 for row, _ in serving), sum(part for _, part in serving)
        levels: _Levels | None = None
        for place, (row, part) in enumerate(serving):
            others = total - part
            if others <= 0:  # theirs vanish beside this one's
                continue
            mean = (costs - row.active - 1) / others  # what the others cost, per unit of weight
            if not _far_below(row.active, mean * part):
                continue
            levels = levels or _Levels(serving)
            level = levels.without(place)
            arrivals = row.part * arriving
            limit = max(1, ceil((row.active * staying + 1 + arrivals * (1 + CATCH_UP)) / level))
            if _far_below(row.active, level * part) and limit < row.aim:
                row.aim, row.note = limit, CatchingUp(row.active)


def _far_below(active: int, part: float) -> bool:
    return part - active >= max(4.0, 2 * sqrt(part))


class _Levels:
    """The cost over weight at which the kernel chooses among the others: what half of their weight has at most. One
    whose part has just shrunk costs more, gets nothing, and must not count."""

    def __init__(self, serving: list[tuple[Row, float]]) -> None:
        ranked = sorted(((row.active + 1) / part, place, part) for place, (row, part) in enumerate(serving))
        self._costs = [cost for cost, _, _ in ranked]
        self._sums = list(accumulate(part for _, _, part in ranked))
        self._at = [0] * len(ranked)
        for at, (_, place, _) in enumerate(ranked):
            self._at[place] = at

    def without(self, place: int) -> float:
        """Of all but the one at this place of `serving`."""
        at, sums = self._at[place], self._sums
        own = sums[at] - (sums[at - 1] if at else 0.0)
        half = (sums[-1] - own) / 2
        level = bisect_left(sums, half, 0, at)
        if level == at:  # those before it have less than half; the sums behind it have its own in them
            level = bisect_left(sums, half + own, at + 1, len(sums))
        last = len(sums) - 1 if at != len(sums) - 1 else len(sums) - 2
        return self._costs[min(level, last)]
