"""`wrr`: a weight is a flow, and each write puts the cursor back to the head of the list.

Source: ip_vs_wrr.c.
"""

from __future__ import annotations

from feedback.master.actuate.weight import Wanted, Weight, Weights, banded, current, scaled
from feedback.master.pool import Pool


class Flow:
    """wrr: connections in proportion to the weight, in bursts of their differences: mean 16, 1..64. All edits at once,
    and only after so many connections that the reset of the cursor does not show."""

    MEAN, LIMIT = 16, 64
    CONNECTIONS_PER_SERVER, SECONDS_MAX = 50, 30.0

    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band
        self._written_at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        parts = scaled(pool, wanted, self.MEAN, self.LIMIT, keep=False)
        aims = {m.key: banded(m, parts[m.key], self._dead_band, self.LIMIT) for m in pool.members}
        changed = [m for m in pool.members if current(m) != aims[m.key].value]
        if not changed:
            return aims
        switch = any(not current(m) or not aims[m.key].value for m in changed)
        if not switch and not self._rested(pool, now):
            return {m.key: Weight(current(m) or 0, "resting: a write resets the round robin") for m in pool.members}
        self._written_at = now
        return aims

    def _rested(self, pool: Pool, now: float) -> bool:
        if self._written_at is None:
            return True
        seconds = now - self._written_at
        return seconds >= self.SECONDS_MAX or seconds * pool.flow >= self.CONNECTIONS_PER_SERVER * len(pool.members)
