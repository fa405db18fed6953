"""CPU time: as a number of turns of a loop, or by the clock of the process.

Where the guest's kernel accounts CPU by ticks of 10 ms, a few milliseconds of CPU time cannot be measured: they are
counted as turns. One calibration, made while the guest is quiet, serves all servers of a run. What a server does beside
that (accept, read, answer) comes on top, and costs more on a busy host; a meter counts it in.
"""

from __future__ import annotations

import time
from collections.abc import Callable

SAMPLES = 40
SAMPLE_TURNS = 20_000


def burn(turns: int) -> int:
    total = 0
    for i in range(turns):
        total += i & 7
    return total


class Meter:
    """What a request costs is all that this process uses for it, its own work included: so its capacity is exactly its
    quota over the cost, whatever the host does. What it used beyond that is forgotten, not charged to the next one."""

    SLICE_MS = 0.1

    def __init__(self, turns_per_ms: float, clock: Callable[[], float] = time.process_time) -> None:
        self._slice, self._clock = max(1, int(turns_per_ms * self.SLICE_MS)), clock
        self._due = clock()

    def burn(self, cost_ms: float) -> None:
        self._due = max(self._due + cost_ms / 1000, self._clock())
        while self._clock() < self._due:
            burn(self._slice)


def calibrate() -> float:
    """Turns in one millisecond. The fastest sample is the one that nothing disturbed."""
    best = float("inf")
    for _ in range(SAMPLES):
        before = time.perf_counter()
        burn(SAMPLE_TURNS)
        best = min(best, time.perf_counter() - before)
    return SAMPLE_TURNS / best / 1000
