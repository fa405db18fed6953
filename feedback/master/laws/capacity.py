"""`capacity`: shares in proportion to what each server can complete per second.

It supplies what the kernel cannot know, and leaves to the kernel's scheduler what that does better: reacting to
connections in flight. Limits other than CPU (memory, signs of overload) are a further factor (`strain`). When the whole
pool is hot, capacities freeze, since saturation of the pool is not one server's fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Annotated

import msgspec

from feedback.master.laws.options import Options
from feedback.master.laws.strain import Strain
from feedback.master.outcome import Fact
from feedback.master.pool import SATURATED, Pool, Row, Share, Shares, estimates
from feedback.master.servers.capacity import SETTLED_SAMPLES
from feedback.master.servers.window import Window


class Frozen(msgspec.Struct, frozen=True, gc=False):
    hot: float

    def __str__(self) -> str:
        return f"the whole pool is over {100 * self.hot:.0f} % used: capacities stay as they were"


AVERAGE = "no report yet: assumed to be average"
NO_REPORT = "no report yet: static weight"


class CapacityOptions(Options, frozen=True):
    """Over this mean utilisation of the pool, capacities freeze."""

    hot_utilisation: Annotated[float, msgspec.Meta(ge=0.5, le=1)] = SATURATED


DEFAULTS = CapacityOptions()


class Known(Strain):
    """What the law remembers of one row: its strain, and its share before the pool was hot."""

    __slots__ = ("share",)

    def __init__(self) -> None:
        super().__init__()
        self.share: float | None = None


class Capacity:
    Options = CapacityOptions

    def __init__(self, options: CapacityOptions = DEFAULTS) -> None:
        self._hot = options.hot_utilisation
        self._count = 0  # rows at the last decision
        self._is_hot = False

    def observe(self, row: Row, window: Window) -> None:
        known = row.law
        if known is None:
            known = row.law = Known()
        known.follow(window, self._is_hot)

    def shares(self, pool: Pool, now: float) -> Shares:
        self.put(pool, now)
        rows = pool.rows
        return {row.key: Share(row.wanted, row.why or "", 0, row.of, tuple(row.said or ())) for row in rows}

    def put(self, pool: Pool, now: float) -> None:
        """Like `shares`, but writes straight into the rows."""
        rows = pool.rows
        self._is_hot = hot = pool.utilisation > self._hot
        average = _average(rows)
        frozen = hot and self._count == len(rows)
        self._count = len(rows)
        for row in rows:
            known, estimate = row.law, row.estimate
            if known is None:
                known = row.law = Known()
            row.said, row.tier = None, 0
            if estimate is None:
                row.wanted, row.why = _unknown(row, average)
            else:
                row.wanted, row.why = estimate.capacity, estimate
            row.of = row.wanted
            if frozen and known.share is not None:
                row.wanted = known.share
                row.say("law", Frozen(self._hot), row.wanted)
            elif estimate is not None and estimate.samples >= SETTLED_SAMPLES:  # a first guess is not frozen
                known.share = row.wanted
            if known.why is not None:
                row.wanted *= known.factor
                row.say("law", known.why, row.wanted)


def _unknown(row: Row, average: float | None) -> tuple[float, Fact]:
    value, why = (float(row.base.weight), NO_REPORT) if average is None else (average, AVERAGE)
    return (value, why) if row.seen is None else (value * row.seen.factor, row.seen)


def _average(rows: Sequence[Row]) -> float | None:
    """The capacity of the usual one of those that are known: of a mean, one agent could make anything."""
    known = estimates(rows)
    return median_low([of.capacity for of in known]) if known and len(known) < len(rows) else None
