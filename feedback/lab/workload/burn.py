"""CPU time as a number of turns of a loop.

The guest's kernel accounts CPU by ticks of 10 ms, so a few milliseconds of CPU time cannot be measured there: they
are counted instead. One calibration, made while the guest is quiet, serves all servers of a run.
"""

from __future__ import annotations

import time

SAMPLES = 40
SAMPLE_TURNS = 20_000


def burn(turns: int) -> int:
    total = 0
    for i in range(turns):
        total += i & 7
    return total


def calibrate() -> float:
    """Turns in one millisecond. The fastest sample is the one that nothing disturbed."""
    best = float("inf")
    for _ in range(SAMPLES):
        before = time.perf_counter()
        burn(SAMPLE_TURNS)
        best = min(best, time.perf_counter() - before)
    return SAMPLE_TURNS / best / 1000
