"""`capacity`: shares in proportion to what each server can complete per second.

It supplies what the kernel cannot know, and leaves to the kernel's scheduler what that does better: reacting to
connections in flight. What holds a server back although its CPU does not (memory, signs of drowning) is a factor on top
(`strain`). When the whole pool is hot, capacities freeze: one server's fault and everybody's saturation are different
things.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Annotated

import msgspec

from feedback.master.laws.options import Options
from feedback.master.laws.strain import Strain
from feedback.master.pool import SATURATED, Pool, Row, Share, Shares
from feedback.master.servers.capacity import SETTLED_SAMPLES
from feedback.model import DestinationKey


class Frozen(msgspec.Struct, frozen=True, gc=False):
    hot: float

    def __str__(self) -> str:
        return f"the whole pool is over {100 * self.hot:.0f} % used: capacities stay as they were"


AVERAGE = "no report yet: taken for an average server"
NO_REPORT = "no report yet: static weight"


class CapacityOptions(Options, frozen=True):
    """Over this mean utilisation of the pool, capacities freeze."""

    hot_utilisation: Annotated[float, msgspec.Meta(ge=0.5, le=1)] = SATURATED


DEFAULTS = CapacityOptions()


class Known:
    """What the law remembers of one row: its strain, and its share before the pool was hot."""

    __slots__ = ("share", "strain")

    def __init__(self) -> None:
        self.strain = Strain()
        self.share: float | None = None


class Capacity:
    Options = CapacityOptions

    def __init__(self, options: CapacityOptions = DEFAULTS) -> None:
        self._hot = options.hot_utilisation
        self._count = 0  # rows at the last decision

    def shares(self, pool: Pool, now: float) -> Shares:
        rows = pool.rows
        hot = pool.utilisation > self._hot
        average = _average(rows)
        frozen = hot and self._count == len(rows)
        self._count = len(rows)
        shares: dict[DestinationKey, Share] = {}
        for row in rows:
            known, estimate = row.law, row.estimate
            if known is None:
                known = row.law = Known()
            share = Share(estimate.capacity, estimate) if estimate is not None else _unknown(row, average)
            if frozen and known.share is not None:
                share = share.because("law", Frozen(self._hot), known.share)
            elif estimate is not None and estimate.samples >= SETTLED_SAMPLES:  # a first guess is not frozen
                known.share = share.value
            strain = known.strain
            if row.windows or strain.unseen:
                strain.follow(row, now, hot)
            if strain.why is not None:
                share = share.because("law", strain.why, share.value * strain.factor)
            shares[row.key] = share
        return shares


def _unknown(row: Row, average: float | None) -> Share:
    if average is None:
        return Share(float(row.base.weight), NO_REPORT)
    return Share(average, AVERAGE)


def _average(rows: Sequence[Row]) -> float | None:
    """The capacity of the usual one of those that are known: of a mean, one agent could make anything."""
    known = [row.estimate.capacity for row in rows if row.estimate is not None]
    return median_low(known) if known else None
