"""`sed` and `nq`: a weight is a stock. Active connections go in proportion to it, at once.

Source: ip_vs_sed.c, ip_vs_nq.c: the least (active + 1) / weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

from feedback.master.actuate.weight import (
    CATCH_UP,
    Wanted,
    Weight,
    Weights,
    active,
    banded,
    never_active,
    scaled,
    surviving,
)
from feedback.master.pool import Pool

UDP = "this scheduler counts active connections, and UDP has none: the largest weight takes all (use wrr or mh)"

LASTING = 0.5  # of the open connections are still there at the next look: below this sed levels them by itself


class Stock:
    """sed, nq: cost (active + 1) / weight. Mean 1000, so that one unit is less than a connection of any server."""

    MEAN, LIMIT = 1000, 65535  # the most that every ipvsadm can show

    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band
        self._at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        tick = 0.2 if self._at is None else min(1.0, max(0.05, now - self._at))
        self._at = now
        parts = scaled(pool, wanted, self.MEAN, self.LIMIT, keep=True)
        out = {m.key: banded(m, parts[m.key], self._dead_band, self.LIMIT) for m in pool.members}
        if never_active(pool):
            return {k: Weight(w.value, UDP if w.value else w.text) for k, w in out.items()}
        staying = surviving(pool, tick)
        serving = [m for m in pool.members if parts[m.key] > 0]
        if staying < LASTING or len(serving) < 2:
            return out
        full = sorted(((active(m) + 1) / parts[m.key], m.key, parts[m.key]) for m in serving)
        costs, total = sum(active(m) + 1 for m in serving), sum(parts.values())
        for m in serving:
            others = total - parts[m.key]
            if others <= 0:  # theirs vanish beside this one's
                continue
            mean = (costs - active(m) - 1) / others  # what the others cost, per unit of weight
            if not _far_below(active(m), mean * parts[m.key]):
                continue
            level = _level([(cost, part) for cost, key, part in full if key != m.key])
            arrivals = wanted.share(m) * pool.flow * tick
            limit = max(1, ceil((active(m) * staying + 1 + arrivals * (1 + CATCH_UP)) / level))
            if _far_below(active(m), level * parts[m.key]) and limit < out[m.key].value:
                out[m.key] = Weight(limit, f"{active(m)} active: catching up at its share of the arrivals")
        return out


def _far_below(active: int, part: float) -> bool:
    """With long connections such a server gets everything until it has caught up. Its weight is then what lets it have
    its share of this tick's arrivals and a little more."""
    return part - active >= max(4.0, 2 * sqrt(part))


def _level(others: Sequence[tuple[float, float]]) -> float:
    """The cost over weight at which the kernel chooses among them: what half of their weight has at most. One whose
    part has just shrunk costs more, gets nothing, and must not count. `others`, ascending: (that cost, weight)."""
    half = sum(weight for _cost, weight in others) / 2
    for cost, weight in others:
        half -= weight
        if half <= 0:
            return cost
    return others[-1][0]
