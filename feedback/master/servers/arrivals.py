"""Arrivals: a service's new connections per second, as fresh as the agents' counts and as reliable as the director's.

The kernel's counters are the director's own, and change every 2 s. Agents count continuously, but their reports are
unverified. So an agent's rate counts as far as the kernel confirms it: between half and twice the kernel's last count
there, times the change of traffic that most agents have seen since. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

from feedback.master.pool import COUNTS_MOST

COUNTED_SECONDS = 2.0  # the kernel counts so often (ip_vs_est.c); so long is "lately" wherever a mean is taken
REFRESH_SECONDS = 1.25 * COUNTED_SECONDS  # without a change for so long, it has counted nothing new
CHANGED_MOST = 16.0  # times since the last count
UNCOUNTED = 4.0  # times the usual rate: of one that the kernel has not counted yet, which may be a large one


class Arrivals:
    """The kernel's count of one destination. `rate`: new connections a second from one move of the counter to the next,
    None before there were two."""

    __slots__ = ("_at", "_counted", "_moves", "rate")

    def __init__(self) -> None:
        self._counted, self._at, self._moves = -1, 0.0, 0
        self.rate: float | None = None

    def look(self, connections: int, now: float) -> float | None:
        """Take a count. Returns the rate of `now`."""
        before = self._counted
        if connections == before:
            rate, quiet = self.rate, now - self._at
            return rate if quiet < REFRESH_SECONDS or rate is None else min(rate, 1 / quiet)
        if connections < before or before < 0:
            self._moves, self.rate = 0, None
        elif now > self._at:
            self._moves += 1
            if self._moves > 1:  # the first one came so soon as it happened to
                self.rate = (connections - before) / (now - self._at)
        self._counted, self._at = connections, now
        return self.rate

    def now(self, now: float) -> float | None:
        """The rate; of one that gets nothing any more, what it can be at most."""
        rate, quiet = self.rate, now - self._at
        return rate if quiet < REFRESH_SECONDS or rate is None else min(rate, 1 / quiet)


def flow(said: Sequence[float], counted: Sequence[float | None]) -> float:
    """New connections a second of all servers, each of which has an agent that was heard: `said` by that, and
    `counted` by the kernel, None where it has not yet."""
    grown = sorted([a / k for a, k in zip(said, counted, strict=True) if k])
    change = min(CHANGED_MOST, max(1 / COUNTS_MOST, grown[(len(grown) - 1) // 2])) if grown else 1.0
    most, least = change * COUNTS_MOST, change / COUNTS_MOST
    if len(grown) == len(said) and least <= grown[0] and grown[-1] <= most:
        return sum(said)
    uncounted = UNCOUNTED * median_low(said)
    total = 0.0
    for a, k in zip(said, counted, strict=True):
        low, high = (0.0, uncounted) if k is None else (k * least, k * most)
        total += low if a < low else high if a > high else a
    return total
