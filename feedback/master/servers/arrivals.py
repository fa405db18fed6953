"""Arrivals: a service's new connections per second, as lively as the agents' counts and as true as the director's.

The kernel's counters are the director's own, and move every 2 s. The agents count all the time, but what they say is
their word. So an agent's rate counts as far as the kernel's bears it out: within half and twice what the kernel counted
there last, times what most agents have seen the traffic change since then. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feedback.master.pool import Row

REFRESH_SECONDS = 2.5  # without a change for so long, the kernel has counted nothing new (ip_vs_est.c: every 2 s)
BORNE_OUT = 2.0  # times what is expected, either way
CHANGED_LEAST, CHANGED_MOST = 0.5, 16.0  # since the last count
UNCOUNTED = 4.0  # times the usual rate: of one that the kernel has not counted yet


class Arrivals:
    """The kernel's count of one destination. `rate`: new connections a second from one move of the counter to the next,
    None before there were two."""

    __slots__ = ("_at", "_counted", "_moves", "rate")

    def __init__(self) -> None:
        self._counted, self._at, self._moves = -1, 0.0, 0
        self.rate: float | None = None

    def look(self, connections: int, now: float) -> None:
        before = self._counted
        if connections == before:
            return
        if connections < before or before < 0:
            self._moves, self.rate = 0, None
        elif now > self._at:
            self._moves += 1
            if self._moves > 1:  # the first one came so soon as it happened to
                self.rate = (connections - before) / (now - self._at)
        self._counted, self._at = connections, now

    def now(self, now: float) -> float | None:
        """The rate; of one that gets nothing any more, what it can be at most."""
        quiet = now - self._at
        return self.rate if self.rate is None or quiet < REFRESH_SECONDS else min(self.rate, 1 / quiet)


def flow(rows: Sequence[Row], now: float) -> float:
    """New connections a second of all these, each of which has an agent that was heard."""
    said = [row.capacity.rate for row in rows]
    counted = [row.arrivals.now(now) for row in rows]
    grown = [a / k for a, k in zip(said, counted, strict=True) if k]
    change = min(CHANGED_MOST, max(CHANGED_LEAST, median_low(grown))) if grown else 1.0
    most = UNCOUNTED * median_low(said)
    total = 0.0
    for a, k in zip(said, counted, strict=True):
        if k is None:
            total += min(a, most)
        else:
            expected = k * change
            total += min(expected * BORNE_OUT, max(expected / BORNE_OUT, a))
    return total
