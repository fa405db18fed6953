"""`fo`: the highest weight takes all, and the kernel itself moves on to the next when that one is full or quiesced.

A weight is a rank. With tiers (pool.Share) the tiers give the ranks. Without tiers the first place goes to the largest
share. It changes only if another share was larger by a fifth for ten seconds, because all connections move with it.
Weights in force stay as long as they have the wanted order, whatever their numbers. Source: ip_vs_fo.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from feedback.master.actuate.tiers import in_order
from feedback.master.actuate.weight import MOVE_SECONDS, out
from feedback.master.pool import Pool, Row
from feedback.model import DestinationKey

FIRST = "takes all"


class Place(msgspec.Struct, frozen=True, gc=False):
    number: int

    def __str__(self) -> str:
        return f"number {self.number} in the order"


class Order:
    BETTER = 1.2  # times the first share, for MOVE_SECONDS

    def __init__(self) -> None:
        self._first: DestinationKey | None = None
        self._challenged_at: float | None = None

    def aim(self, pool: Pool) -> None:
        ranked: list[Row] = []
        for tier in in_order(pool.rows):
            ranked += sorted(tier, key=_share, reverse=True)
        if any(row.tier for row in pool.rows):
            self._first = ranked[0].key if ranked else None
        else:
            ranked = self._lead(ranked, pool.now)
        out(pool.rows)
        for place, (row, weight) in enumerate(zip(ranked, _ranks(ranked), strict=True)):
            row.aim, row.note, row.stands = weight, Place(place + 1) if place else FIRST, float(place == 0)

    def _lead(self, ranked: list[Row], now: float) -> list[Row]:
        """The same with the leader of now in front, unless somebody was better for long enough."""
        if not ranked:
            return ranked
        incumbent, best = self._incumbent(ranked), ranked[0]
        leader = next((row for row in ranked if row.key == incumbent), best)
        if best.part <= self.BETTER * leader.part:
            self._challenged_at = None
        elif self._challenged_at is None:
            self._challenged_at = now
        elif now - self._challenged_at >= MOVE_SECONDS:
            leader, self._challenged_at = best, None
        self._first = leader.key
        return [leader, *(row for row in ranked if row is not leader)]

    def _incumbent(self, ranked: Sequence[Row]) -> DestinationKey | None:
        """The server that takes all now. At the start the kernel's weights show it, if they differ."""
        if self._first is None:
            best = sorted(ranked, key=lambda row: (row.weight, row.key), reverse=True)[:2]
            if len(best) > 1 and best[0].weight > best[1].weight:
                self._first = best[0].key
        return self._first


def _share(row: Row) -> float:
    return row.part


def _ranks(ranked: Sequence[Row]) -> list[int]:
    """The weights in force where they say this order already, else 1 for the last, 2 for the one before..."""
    have = [row.weight for row in ranked]
    if all(a > b for a, b in pairwise(have)) and all(have):
        return have
    return list(range(len(ranked), 0, -1))
