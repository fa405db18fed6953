"""`wrr`: a weight is a flow, and each write puts the cursor back to the head of the list.

Source: ip_vs_wrr.c.
"""

from __future__ import annotations

from math import exp, sqrt

import msgspec

from feedback.master.actuate.weight import (
    LOOK_SECONDS,
    Wanted,
    Weight,
    Weights,
    active,
    banded,
    current,
    never_active,
    scaled,
)
from feedback.master.pool import Member, Pool, Share, normalised
from feedback.model import DestinationKey

TINY = 1e-9  # a share that is not 0 stays so


def _waiting(pool: Pool, member: Member) -> float:
    """What a server has on its hands: open connections, live; for UDP, which the kernel never counts as active, the
    run queue of the last report."""
    if not never_active(pool):
        return float(active(member))
    window = member.window
    return 0.0 if window is None or window.runnable is None else window.runnable * window.cores


class Flow:
    """wrr: connections in proportion to the weight, in bursts of their differences: mean 16, 1..64. All edits at once.

    With C connections a server between writes, the reset of the cursor misplaces 1 / (2 C) of a share, in favour of the
    head of the list. So weights rest until a write mends more than it costs: the worse they are, the sooner.
    """

    MEAN, LIMIT = 16, 64
    REST_LEAST, REST_MOST, SECONDS_MAX = 5.0, 50.0, 30.0  # connections a server

    FEW = 1.0  # below about so many, their number says nothing
    CHANCE = 4.0  # of the square root: where clients keep connections, their number varies by chance
    LEAST = 0.2
    # By the time between looks: what waits is averaged over so long, and answered with this power of its excess, up to
    # this factor. Old news wants a weak answer, or the correction itself makes the next excess.
    CLOSE, FAR = (LOOK_SECONDS, 0.1, 2.0, 1.5), (0.2, 0.3, 1.0, 1.2)

    def __init__(self, dead_band: float) -> None:
        self._at: float | None = None
        self._between = self.FAR[0]  # seconds between looks, over the last ones
        self._open: dict[DestinationKey, float] = {}
        self._dead_band = dead_band
        self._written_at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        parts = scaled(pool, self._corrected(pool, wanted, now), self.MEAN, self.LIMIT, keep=False)
        aims = {m.key: banded(m, parts[m.key], self._dead_band, self.LIMIT) for m in pool.members}
        changed = [m for m in pool.members if current(m) != aims[m.key].value]
        if not changed:
            return aims
        switch = any(not current(m) or not aims[m.key].value for m in changed)
        if not switch and not self._rested(pool, aims, now):
            return {m.key: Weight(current(m) or 0, "resting: a write resets the round robin") for m in pool.members}
        self._written_at = now
        return aims

    def _corrected(self, pool: Pool, wanted: Wanted, now: float) -> Wanted:
        """The shares, less where more waits than a server's part of it.

        The round robin does not look at what waits, so we do: it shows a server in trouble before its capacity is
        learned anew, and makes small ones run cooler, which have fewer cores to share a queue.
        """
        seconds = None if self._at is None else max(0.0, now - self._at)
        self._at = now
        if seconds is not None:
            self._between += 0.2 * (seconds - self._between)
        over, gain, most = self._answer()
        blend = 1.0 if seconds is None else 1 - exp(-seconds / over)
        serving = [m for m in pool.members if wanted.share(m) > 0]
        waiting = {m.key: _waiting(pool, m) for m in serving}
        means = {k: self._open.get(k, now_waiting) for k, now_waiting in waiting.items()}
        self._open = {k: means[k] + blend * (waiting[k] - means[k]) for k in waiting}
        total = sum(self._open.values())
        shares = dict(wanted.shares)
        for m in serving:
            part = wanted.share(m) * total
            slack = self.FEW + self.CHANCE * sqrt(part)
            factor = ((part + slack) / (self._open[m.key] + slack)) ** gain
            value = wanted.share(m) * min(most, max(self.LEAST, factor))
            shares[m.key] = Share(max(TINY, value), wanted.shares[m.key].reasons)
        return msgspec.structs.replace(wanted, shares=normalised(shares))

    def _answer(self) -> tuple[float, float, float]:
        """Seconds to average over, gain and largest factor for the present time between looks."""
        (near, *close), (wide, *far) = self.CLOSE, self.FAR
        part = min(1.0, max(0.0, (self._between - near) / (wide - near)))
        over, gain, most = (a + part * (b - a) for a, b in zip(close, far, strict=True))
        return over, gain, most

    def _rested(self, pool: Pool, aims: Weights, now: float) -> bool:
        if self._written_at is None:
            return True
        seconds = now - self._written_at
        rest = min(self.REST_MOST, max(self.REST_LEAST, 0.5 / max(1e-9, _misplaced(pool, aims))))
        return seconds >= self.SECONDS_MAX or seconds * pool.flow >= rest * len(pool.members)


def _misplaced(pool: Pool, aims: Weights) -> float:
    """The part of the connections that goes to the wrong server under the weights in force."""
    have = {m.key: float(current(m) or 0) for m in pool.members}
    total, wanted = sum(have.values()) or 1.0, sum(w.value for w in aims.values()) or 1
    return sum(abs(have[k] / total - w.value / wanted) for k, w in aims.items()) / 2
