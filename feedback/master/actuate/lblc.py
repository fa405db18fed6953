"""`lblc` and `lblcr`: an address keeps its server until that has more active connections than its weight, while another
has fewer than half of its own.

So a weight is a limit in active connections as much as a proportion: on the scale of `sed` every server would be
overloaded at once, on that of `wlc` never. The weights are the shares of what all servers can hold together. The choice
for a new address is `wlc`'s, memory included; but an address is new only once, so the memory is left alone and edits
are rare. Source: ip_vs_lblc.c, ip_vs_lblcr.c: is_overloaded().
"""

from __future__ import annotations

from statistics import median_low

from feedback.master.actuate.weight import REST_SECONDS, banded, rest, scaled, switched
from feedback.master.bounds.limits import REWRITE
from feedback.master.pool import Pool
from feedback.model import WEIGHT_MAX


class Locality:
    MEAN = 100  # where nobody knows

    def __init__(self) -> None:
        self._written_at: float | None = None

    def aim(self, pool: Pool) -> None:
        rows = pool.rows
        parts = scaled(rows, [row.part for row in rows], self._mean(pool), WEIGHT_MAX, keep=True)
        banded(rows, parts, REWRITE, WEIGHT_MAX)
        rested = self._written_at is None or pool.now - self._written_at >= REST_SECONDS
        if not rested and not switched(rows):
            rest(rows, "resting: a weight is also a limit")
        else:
            self._written_at = pool.now

    def _mean(self, pool: Pool) -> float:
        """How many active connections an average server of these can hold; a fixed scale if nobody knows. By the usual
        one's room and part: of a sum of rooms, one agent could make anything."""
        serving = [row for row in pool.rows if row.part > 0]
        ratios = [row.limit.room / row.part for row in serving if row.limit.room]
        return median_low(ratios) / len(serving) if ratios else self.MEAN
