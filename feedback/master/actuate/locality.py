"""`lblc` and `lblcr`: an address keeps its server until that has more active connections than its weight, while another
has fewer than half of its own.

So a weight is a limit in active connections as much as a proportion: on the scale of `sed` every server would be
overloaded at once, on that of `wlc` none ever. The weights are the shares of what all of them can hold together. The
choice for a new address is `wlc`'s, memory included; but an address comes once, so the memory is left alone and edits
are rare. Source: ip_vs_lblc.c, ip_vs_lblcr.c: is_overloaded().
"""

from __future__ import annotations

from feedback.master.actuate.weight import Wanted, Weights, banded, resting, scaled, switched
from feedback.master.pool import Pool


class Locality:
    MEAN, LIMIT = 100, 1_000_000
    DEAD_BAND, SECONDS_MIN = 0.10, 5.0

    def __init__(self) -> None:
        self._written_at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        parts = scaled(pool, wanted, self._mean(pool, wanted), self.LIMIT, keep=True)
        weights = {m.key: banded(m, parts[m.key], self.DEAD_BAND, self.LIMIT) for m in pool.members}
        rested = self._written_at is None or now - self._written_at >= self.SECONDS_MIN
        if not rested and not switched(pool, weights):
            return resting(pool, "resting: a weight is also a limit")
        self._written_at = now
        return weights

    def _mean(self, pool: Pool, wanted: Wanted) -> float:
        """How many active connections an average server of these can hold; a fixed scale if nobody knows."""
        limits = [wanted.limits[m.key] for m in pool.members if wanted.share(m) > 0 and m.key in wanted.limits]
        rooms = [limit.room for limit in limits if limit.room]
        return sum(rooms) / len(rooms) if rooms else self.MEAN
