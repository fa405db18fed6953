"""`twos`: two servers are drawn with probabilities by weight, and the one with less overhead/weight is taken.

Closed connections count in the comparison, but not in the draw: a server with a rising weight wins all its comparisons
and gets at most twice its share. So the memory need not be cancelled; the weight only must not jump.

The kernel multiplies overhead and weight as ints. A weight is therefore at most 256, and less where so many
connections are open that the product would pass 2**31. Source: ip_vs_twos.c, ip_vs.h.
"""

from __future__ import annotations

from feedback.master.actuate.weight import ACTIVE, PEAK, banded, scaled
from feedback.master.pool import Pool
from feedback.master.traits import TRAITS
from feedback.model import WEIGHT_MAX


class Draw:
    LIMIT = TRAITS["twos"].weight_max
    MEAN = LIMIT // PEAK
    HEADROOM = 2  # connections may double before the next look

    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band

    def aim(self, pool: Pool) -> None:
        rows = pool.rows
        overhead = max((row.active * ACTIVE + row.inactive for row in rows), default=0)
        limit = max(1, min(self.LIMIT, WEIGHT_MAX // (self.HEADROOM * overhead + 1)))
        parts = scaled(rows, [row.part for row in rows], self.MEAN, limit, keep=True)
        banded(rows, parts, self._dead_band, limit)
