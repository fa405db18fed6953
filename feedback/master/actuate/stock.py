"""`sed` and `nq`: a weight is a stock. Active connections go in proportion to it, at once.

Source: ip_vs_sed.c, ip_vs_nq.c: the least (active + 1) / weight.
"""

from __future__ import annotations

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
        costs = sum(active(m) + 1 for m in pool.members if parts[m.key] > 0)
        total = sum(parts.values())
        staying = surviving(pool, tick)
        if staying < LASTING:
            return out
        for m in pool.members:
            others = total - parts[m.key]
            if not others or parts[m.key] <= 0:
                continue
            level = (costs - active(m) - 1) / others  # what the others cost, per unit of weight
            arrivals = wanted.share(m) * pool.flow * tick
            limit = _catching_up(active(m), level * parts[m.key], level, staying, arrivals)
            if limit is not None and limit < out[m.key].value:
                out[m.key] = Weight(limit, f"{active(m)} active: catching up at its share of the arrivals")
        return out


def _catching_up(active: int, part: float, level: float, staying: float, arrivals: float) -> int | None:
    """With long connections, a server far below its part gets everything until it has caught up: a weight that lets it
    have its share of this tick's arrivals and a little more, or None where this does not matter."""
    if part - active < max(4.0, 2 * sqrt(part)):
        return None
    return max(1, ceil((active * staying + 1 + arrivals * (1 + CATCH_UP)) / level))
