"""`linear`: the weight is the health that the server reports, 100 less its CPU load in per cent. feedbackd's law.

Source: J. Kerr, Dynamic feedback in network load balancers (feedbackd), linux.conf.au 2003, and the documentation of
feedbackd 0.4. Its master asks each agent for a health of 0..100 and writes it as the weight: no filter, no dead band,
nothing remembered, CPU only. Its figures were never published in a form that we could read; the shape was.

Ours: the interval, of which nothing was found; a server that is wholly busy gets 1, not 0, because in feedbackd 0 means
out of service; one that has not reported is taken for an average one, where feedbackd would not have it in the table.

The trap: at rest the load follows from the weight and the weight from the load. On unequal servers the two meet at a
point where the small one is hotter than the large one, and with any delay they first swing around it.
"""

from __future__ import annotations

from feedback.master.laws.field.cycle import Cycle, mean
from feedback.master.laws.options import Options, Seconds
from feedback.master.pool import Pool, Row, Share, Shares
from feedback.model import DestinationKey

INTERVAL_SECONDS = 1.0
HEALTH_MAX, HEALTH_MIN = 100.0, 1.0


class LinearOptions(Options, frozen=True):
    interval_seconds: Seconds = INTERVAL_SECONDS


DEFAULTS = LinearOptions()


class Linear:
    Options = LinearOptions

    def __init__(self, options: LinearOptions = DEFAULTS) -> None:
        self._cycle = Cycle(options.interval_seconds)
        self._busy: dict[DestinationKey, float] = {}

    def shares(self, pool: Pool, now: float) -> Shares:
        seen = self._cycle.turn(pool, now) or {}
        busy = self._busy | {k: o.busy for k, o in seen.items()}
        self._busy = {row.key: busy[row.key] for row in pool.rows if row.key in busy}
        average = mean([health(b) for b in self._busy.values()])
        return {row.key: self._share(row, average) for row in pool.rows}

    def _share(self, row: Row, average: float) -> Share:
        busy = self._busy.get(row.key)
        if busy is not None:
            return Share(health(busy)).because("law", f"health {health(busy):.0f}: {100 * busy:.0f} % of the CPU used")
        if average:
            return Share(average).because("law", "no health reported yet: assumed to be average")
        return Share(float(row.base.weight)).because("law", "no health reported yet: static weight")


def health(busy: float) -> float:
    """The weight for the used part of the CPU (0..1): 100 when idle, 1 when fully busy."""
    return max(HEALTH_MIN, HEALTH_MAX * (1 - busy))
