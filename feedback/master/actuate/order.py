"""`fo`: the highest weight takes all, and the kernel itself goes on to the next when that is full or quiesced.

A weight is a rank. With tiers (pool.Share) the ranks are theirs. Without, the first place goes to the largest share,
and changes hands only if another was larger by a fifth for ten seconds on end: everything moves with it. As long as the
weights in force stand in the wanted order they stay, whatever their numbers. Source: ip_vs_fo.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from feedback.master.actuate.tiers import in_order
from feedback.master.actuate.weight import Wanted, Weight, Weights, current
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey


class Order:
    BETTER, SECONDS = 1.2, 10.0

    def __init__(self) -> None:
        self._first: DestinationKey | None = None
        self._challenged: tuple[DestinationKey, float] | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        ranked: list[Member] = []
        for tier in in_order(pool, wanted):
            ranked += sorted(tier, key=wanted.share, reverse=True)
        if wanted.tiers:
            self._first = ranked[0].key if ranked else None
        else:
            ranked = self._lead(ranked, wanted, now)
        out = {m.key: Weight(0, "out of service", 0.0) for m in pool.members}
        for place, (m, weight) in enumerate(zip(ranked, _ranks(ranked), strict=True)):
            text = "takes all" if place == 0 else f"number {place + 1} in the order"
            out[m.key] = Weight(weight, text, float(place == 0))
        return out

    def _lead(self, ranked: list[Member], wanted: Wanted, now: float) -> list[Member]:
        """The same with the leader of now in front, unless somebody was better for long enough."""
        if not ranked:
            return ranked
        leader = next((m for m in ranked if m.key == self._incumbent(ranked)), ranked[0])
        best = ranked[0]
        if wanted.share(best) <= self.BETTER * wanted.share(leader):
            self._challenged = None
        elif self._challenged is None:
            self._challenged = (best.key, now)
        elif now - self._challenged[1] >= self.SECONDS:
            leader, self._challenged = best, None
        self._first = leader.key
        return [leader, *(m for m in ranked if m is not leader)]

    def _incumbent(self, ranked: Sequence[Member]) -> DestinationKey | None:
        """Who takes all now; at the start the kernel knows, if its weights differ."""
        if self._first is None:
            weights = sorted(((current(m) or 0, m.key) for m in ranked), reverse=True)
            if len(weights) > 1 and weights[0][0] > weights[1][0]:
                self._first = weights[0][1]
        return self._first


def _ranks(ranked: Sequence[Member]) -> list[int]:
    """The weights in force where they say this order already, else 1 for the last, 2 for the one before..."""
    have = [current(m) or 0 for m in ranked]
    if all(a > b for a, b in pairwise(have)) and all(have):
        return have
    return list(range(len(ranked), 0, -1))
