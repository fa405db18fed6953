"""The last fifteen minutes of every service and destination, for the page. Pure.

The figures are sampled once a second; the means of ten seconds are kept as one step, 4 bytes for each figure. So a
destination costs 1.8 kB, and PLACES_MAX of them 3.6 MB; with more, no history is kept. A finished step never changes,
so it may be drawn in another thread.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from math import nan
from typing import Any, TypeAlias

import msgspec

LOOK_SECONDS = 1.0
STEP_SECONDS = 10.0
STEPS = 90
PLACES_MAX = 2000

FIGURES = ("share", "load", "open", "flow", "latency")

Place: TypeAlias = tuple[str, str]  # virtual and address; of a service itself the address is ''
Figures: TypeAlias = tuple[float | None, ...]  # in the order of FIGURES; None: not known


class Step(msgspec.Struct, frozen=True):
    """`at` is when it ended, in seconds of the monotonic clock; `values` has the figures of each place in a row."""

    at: float
    places: dict[Place, int]
    values: array[float]

    def value(self, place: Place, figure: int) -> float:
        """NaN where it is not known."""
        row = self.places.get(place)
        return nan if row is None else self.values[row * len(FIGURES) + figure]


class Past:
    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=STEPS)
        self._places: dict[Place, int] = {}
        self._sums: list[float] = []
        self._counts: list[int] = []
        self._looked_at = float("-inf")
        self._ends_at = float("inf")

    def due(self, now: float) -> bool:
        return now - self._looked_at >= LOOK_SECONDS

    def look(self, now: float, seen: Sequence[tuple[Place, Figures]]) -> None:
        """Everything that is there at this moment."""
        self._looked_at = now
        if len(seen) > PLACES_MAX:
            return
        places = [place for place, _ in seen]
        if self._ends_at == float("inf") or places != list(self._places):
            self._close(now)
            self._places = {place: row for row, place in enumerate(places)}
            self._begin(now)
        at = 0
        for _, figures in seen:
            for value in figures:
                if value is not None:
                    self._sums[at] += value
                    self._counts[at] += 1
                at += 1
        if now >= self._ends_at:
            self._close(now)
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._ends_at = now + STEP_SECONDS
        self._sums = [0.0] * (len(self._places) * len(FIGURES))
        self._counts = [0] * len(self._sums)

    def _close(self, now: float) -> None:
        """Make one step of everything since the last one, even if destinations came or went before its time was
        over."""
        if any(self._counts):
            means = [s / n if n else nan for s, n in zip(self._sums, self._counts, strict=True)]
            self._steps.append(Step(now, self._places, array("f", means)))

    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)


class Story(msgspec.Struct, frozen=True):
    """What the page shows beside the present: `now` is of the monotonic clock, as the steps are; `events` are those of
    the control socket, `pair` is the sync daemon's status, None without a pair."""

    now: float = 0.0
    steps: tuple[Step, ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    pair: dict[str, Any] | None = None
    pair_problem: str = ""
