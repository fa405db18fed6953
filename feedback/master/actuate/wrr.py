"""`wrr`: a weight is a flow, and each write resets the cursor to the head of the list.

Source: ip_vs_wrr.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt
from statistics import median_low

from feedback.master.actuate.weight import LOOK_SECONDS, PEAK, banded, scaled
from feedback.master.pool import COUNTS_MOST, Pool, Row

TINY = 1e-9  # a share that is not 0 stays so
RESTING = "resting: a write resets the round robin"


class Flow:
    """wrr: connections in proportion to the weight, in bursts of their differences: mean 16, 1..64. All edits at once.

    With C connections a server between writes, the reset of the cursor misplaces 1 / (2 C) of a share, in favour of the
    head of the list. So weights rest until a write mends more than it costs: the worse they are, the sooner.
    """

    MEAN = 16  # more: longer bursts on one server (300: p99 three times that); 2 is too coarse
    LIMIT = PEAK * MEAN
    REST_LEAST, REST_MOST, SECONDS_MAX = 5.0, 50.0, 30.0  # connections a server

    CHANCE = 4.0  # of the square root: where clients keep connections, their number varies by chance
    LEAST = 0.2  # of a part: a server in trouble still shows when it is over
    # By the time between looks: what waits is averaged over so long, and answered with this power of its excess, up to
    # this factor. Old news wants a weak answer, or the correction itself makes the next excess.
    CLOSE, FAR = (LOOK_SECONDS, 0.1, 2.0, 1.5), (0.2, 0.3, 1.0, 1.2)

    def __init__(self, dead_band: float) -> None:
        self._at: float | None = None
        self._between = self.FAR[0]  # seconds between looks, over the last ones
        self._dead_band = dead_band
        self._written_at: float | None = None

    def aim(self, pool: Pool) -> None:
        rows = pool.rows
        parts = scaled(rows, self._corrected(pool), self.MEAN, self.LIMIT, keep=False)
        banded(rows, parts, self._dead_band, self.LIMIT)
        changed = [row for row in rows if row.kernel is None or row.weight != row.aim]
        if not changed:
            return
        switch = any(not row.weight or not row.aim for row in changed)
        if not switch and not self._rested(pool):
            for row in rows:
                row.aim, row.note = row.weight, RESTING
            return
        self._written_at = pool.now

    def _corrected(self, pool: Pool) -> list[float]:
        """The parts, less where more waits than a server's part of it.

        The round robin does not look at what waits, so we do: it shows a server in trouble before its capacity is
        learned anew, and makes small ones run cooler, which have fewer cores to share a queue.
        """
        rows = pool.rows
        seconds = None if self._at is None else max(0.0, pool.now - self._at)
        self._at = pool.now
        if seconds is not None:
            self._between += 0.2 * (seconds - self._between)
        over, gain, most = self._answer()
        blend = 1.0 if seconds is None else 1 - exp(-seconds / over)
        for row in rows:  # `actuator` is what waits there, on the mean
            if row.part <= 0:
                row.actuator = None
                continue
            waiting = _waiting(row, udp=pool.udp)
            mean = waiting if row.actuator is None else row.actuator
            row.actuator = mean + blend * (waiting - mean)
        total = self._total([row for row in rows if row.actuator is not None], udp=pool.udp)
        parts = []
        for row in rows:
            if row.actuator is None:
                parts.append(row.part)
                continue
            part = row.part * total
            slack = 1 + self.CHANCE * sqrt(part)
            factor = ((part + slack) / (row.actuator + slack)) ** gain
            parts.append(max(TINY, row.part * min(most, max(self.LEAST, factor))))
        whole = sum(parts)
        return [part / whole for part in parts] if whole > 0 else parts

    def _total(self, rows: Sequence[Row], *, udp: bool) -> float:
        """What waits in the pool. A run queue is an agent's word: it counts up to COUNTS_MOST times what is usual for
        such a part."""
        if not udp or not rows:
            return float(sum(row.actuator for row in rows))
        usual = median_low(row.actuator / row.part for row in rows)
        return float(sum(min(row.actuator, COUNTS_MOST * usual * row.part + 1) for row in rows))

    def _answer(self) -> tuple[float, float, float]:
        """Seconds to average over, gain and largest factor for the present time between looks."""
        (near, *close), (wide, *far) = self.CLOSE, self.FAR
        part = min(1.0, max(0.0, (self._between - near) / (wide - near)))
        over, gain, most = (a + part * (b - a) for a, b in zip(close, far, strict=True))
        return over, gain, most

    def _rested(self, pool: Pool) -> bool:
        if self._written_at is None:
            return True
        seconds = pool.now - self._written_at
        rest = min(self.REST_MOST, max(self.REST_LEAST, 0.5 / max(1e-9, _misplaced(pool.rows))))
        return seconds >= self.SECONDS_MAX or seconds * pool.flow >= rest * len(pool.rows)


def _waiting(row: Row, *, udp: bool) -> float:
    """What a server has on its hands: open connections, live; for UDP, which the kernel never counts as active, the
    run queue of the last report."""
    if not udp:
        return float(row.active)
    window = row.window
    return 0.0 if window is None or window.runnable is None else window.runnable * window.cores


def _misplaced(rows: Sequence[Row]) -> float:
    """The part of the connections that goes to the wrong server under the weights in force."""
    total, wanted = float(sum(row.weight for row in rows)) or 1.0, sum(row.aim for row in rows) or 1
    return sum(abs(row.weight / total - row.aim / wanted) for row in rows) / 2
