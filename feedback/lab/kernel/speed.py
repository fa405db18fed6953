"""The speed of this host's processor, relative to the one on which the lab's figures were made.

Owns that reference. A guest with a time of its own counts the CPU time that it uses in seconds of the reference
processor, so that a slower host changes how long a run takes and not what it says. What is measured is CPU time: what
else the host does costs it some percent.
"""

from __future__ import annotations

import functools
import os
import statistics
import time

from feedback.lab.workload.burn import burn

# Medians on the reference: one core of a two-core virtual machine, Intel Xeon (Sapphire Rapids), Python 3.11.
REFERENCE_TURNS_PER_MS = 35_100.0  # of burn()
REFERENCE_SWITCHES_PER_MS = 290.0  # round trips between two processes on one core
# A busy guest's CPU time: programs in Python, and the switches between its kernel and its processes.
TURNS_PART, SWITCHES_PART = 0.8, 0.2

SAMPLES, SAMPLE_TURNS = 20, 20_000
SWITCHES = 2_000
SLOWEST, FASTEST = 0.1, 10.0  # beyond, a measurement is no measurement


@functools.cache
def measure() -> float:
    """The speed of one core, where 1.0 is the reference's. Takes some 50 ms, once for each process."""
    slowness = TURNS_PART * REFERENCE_TURNS_PER_MS / _turns_per_ms()
    slowness += SWITCHES_PART * REFERENCE_SWITCHES_PER_MS / _switches_per_ms()
    return min(FASTEST, max(SLOWEST, 1 / slowness))


def _turns_per_ms() -> float:
    samples = []
    for _ in range(SAMPLES):
        before = time.thread_time_ns()
        burn(SAMPLE_TURNS)
        samples.append((time.thread_time_ns() - before) / 1e6)
    return SAMPLE_TURNS / statistics.median(samples)


def _switches_per_ms() -> float:
    there, back = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(there[1])
        while os.read(there[0], 1):
            os.write(back[1], b".")
        os._exit(0)
    allowed = os.sched_getaffinity(0)
    for process in (0, child):
        os.sched_setaffinity(process, {min(allowed)})
    try:
        before = time.thread_time_ns()
        for _ in range(SWITCHES):
            os.write(there[1], b".")
            os.read(back[0], 1)
        own = (time.thread_time_ns() - before) / 1e6
    finally:
        os.sched_setaffinity(0, allowed)
        for descriptor in (*there, *back):
            os.close(descriptor)
        usage = os.wait4(child, 0)[2]
    return SWITCHES / (own + 1000 * (usage.ru_utime + usage.ru_stime))
