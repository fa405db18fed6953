"""Shared by all actuators: from parts to weights, and the kernel's present counts.

Owns the scale, the dead band and the more frequent look. Knows no scheduler. Invariant: a part of 0 is a weight of 0,
any other at least 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Protocol

import msgspec

from feedback.master.outcome import Fact
from feedback.master.pool import Pool, Row

LOOK_SECONDS = 0.05  # between looks, where an actuator gains by a closer one
ACTIVE = 256  # what an open connection counts in the kernel's overhead, in closed ones (ip_vs.h)
PEAK = 4  # times the mean: the largest weight of a scale that is bounded, as of the shares by their ceiling
REST_SECONDS = 5.0  # between edits that can wait
MOVE_SECONDS = 10.0  # where an edit moves clients to other servers
CATCH_UP = 0.15  # a server below its part may get this much more than its share of the arrivals
OUT_OF_SERVICE = "out of service"


class Actuator(Protocol):
    """One instance serves one service."""

    def aim(self, pool: Pool) -> None:
        """Set each row's `aim`, its `note` where there is something to say, and `stands`, the share that the weight
        stands for, where that is not the row's. A `part` of 0 is a weight of 0, any other at least 1. Row's `note` and
        `stands` are None before."""
        ...


class Within(msgspec.Struct, frozen=True, gc=False):
    """The weight in force stays."""

    value: float
    have: int

    def __str__(self) -> str:
        return f"{self.value:.1f} is within the dead band of {self.have}"


class WithinPart(msgspec.Struct, frozen=True, gc=False):
    part: float

    def __str__(self) -> str:
        return f"within {100 * self.part:.0f} % of what is wanted"


def surviving(pool: Pool, seconds: float) -> float:
    """The part of the open connections that is still open after so many seconds (residence by Little's law)."""
    opened = sum([row.active for row in pool.rows])
    residence = opened / pool.flow if pool.flow > 0 else 0.0
    return max(0.0, 1 - seconds / residence) if residence > 0 else 0.0


def scaled(rows: Sequence[Row], parts: Sequence[float], mean: float, limit: int, *, keep: bool) -> list[float]:
    """Parts times a scale. With `keep` it is that of the weights in force while it fits, so that one server's change
    is one write."""
    largest = max(parts, default=0.0)
    if largest <= 0:
        return list(parts)
    scale = mean * len([part for part in parts if part > 0.0])
    if keep:
        ratios = [row.weight / part for row, part in zip(rows, parts, strict=True) if row.weight and part > 0.0]
        if ratios:
            have = median_low(ratios)
            if scale / 3 <= have <= scale * 3 and largest * have <= limit:
                scale = have
    scale = min(scale, limit / largest)
    return [part * scale for part in parts]


def band(row: Row, value: float, dead_band: float, limit: int) -> None:
    """Aim at the value. The weight in force stays while that is within the dead band of it."""
    if value <= 0:
        row.aim = 0
        return
    have = row.weight
    if have and abs(value - have) <= max(dead_band * have, 0.6):
        row.aim = have
        row.note = Within(value, have)
    else:
        row.aim = min(limit, max(1, round(value)))


def banded(rows: Sequence[Row], values: Sequence[float], dead_band: float, limit: int) -> None:
    """`band` for each row and its value."""
    for row, value in zip(rows, values, strict=True):
        have = row.weight
        slack = dead_band * have
        if have and value > 0.0 and -slack <= value - have <= slack:
            row.aim, row.note = have, Within(value, have)
        else:
            band(row, value, dead_band, limit)


def switched(rows: Sequence[Row]) -> bool:
    """Whether somebody comes into service or goes out of it: that is never put off."""
    return any((not row.weight) != (not row.aim) for row in rows)


def rest(rows: Sequence[Row], why: Fact) -> None:
    """The setting in force, and why nothing is written now."""
    for row in rows:
        row.aim, row.note = row.weight, why


def out(rows: Sequence[Row], why: Fact = OUT_OF_SERVICE) -> None:
    for row in rows:
        row.aim, row.note, row.stands = 0, why, 0.0
