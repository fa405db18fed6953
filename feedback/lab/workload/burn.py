"""CPU time: as a number of turns of a loop, or by the clock of the process.

If the guest's kernel accounts CPU by ticks of 10 ms, a few milliseconds of CPU time cannot be measured, so they are
counted as turns. One calibration, made while the guest is quiet, serves all servers of a run. A server's own work
(accept, read, answer) comes in addition, and costs more on a busy host. A meter includes it.
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
    """A request costs all the CPU that this process uses for it, including its own work. So its capacity is exactly its
    quota over the cost, whatever the host does. CPU used beyond the cost is not charged to the next request."""

    SLICE_MS = 0.1

    def __init__(self, turns_per_ms: float, clock: Callable[[], float] = time.process_time) -> None:
        self._slice, self._clock = max(1, int(turns_per_ms * self.SLICE_MS)), clock
        self._due = clock()

    def burn(self, cost_ms: float) -> None:
        self._due = max(self._due + cost_ms / 1000, self._clock())
        while self._clock() < self._due:
            burn(self._slice)


def calibrate() -> float:
    """Turns in one millisecond. The fastest sample is taken, since nothing disturbed it."""
    best = float("inf")
    for _ in range(SAMPLES):
        before = time.perf_counter()
        burn(SAMPLE_TURNS)
        best = min(best, time.perf_counter() - before)
    return SAMPLE_TURNS / best / 1000
