"""Starved: the part of a server that its host withholds, estimated from how long work waits for a CPU. Pure.

A host may withhold processors without any counter showing it: a container's parent with a small weight, a hypervisor
that reports no steal. Then half of the CPU in use may be all there is. But tasks wait: PSI's `some` for CPU is the part
of the time in which more tasks wanted to run than could. On k processors, with the part p in use and all arrivals
served alike, that is about p ** sqrt(2 (k + 1)) (Sakasegawa 1977; exact for one processor). Inverted, it gives the used
part of the real capacity; if that is far more than the counters say, the rest is missing.

A window is too short to tell: both are blended over a second. A pool's schedulers spread connections more evenly than
chance does, so less waits than the formula says, and the error favours the counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, sqrt
from statistics import median_high

from feedback.master.servers.neighbour import NOBODY

BLEND_SECONDS = 1.0  # a window is too short to tell
WAITS_MIN = 0.1  # of the time: less tells nothing
BELIEVED_BELOW, UNTIL = 0.7, 0.85  # of what the counters say: a kernel's tasks wait for a moment beside an idle CPU
LEAST = 0.1  # of the server: whatever waits, its counters are not wholly wrong
ROUNDS = 4  # of the fixed point: it moves by less than a percent then


def used_of_all(waits: float, busy: float) -> float:
    """Which part of a server was used while `busy` of its processors worked and somebody waited for `waits` (0..1) of
    the time."""
    part = 1.0
    for _ in range(ROUNDS):
        part = waits ** (1 / sqrt(2 * (busy / part + 1)))
    return part


class Starved:
    """`ratio` is the part that it gets of what it seems to have, as far as its own waiting tells (1.0: nothing does).
    `left` is what is taken for true: beside the others of its pool, where work that comes in bursts waits everywhere.
    """

    __slots__ = ("_used", "_waits", "left", "ratio")

    def __init__(self) -> None:
        self.left = self.ratio = 1.0
        self._waits = self._used = 0.0

    def observe(self, waits: float, used: float, cores: float, seconds: float, usual: float) -> None:
        """A window: the part of the time that somebody waited, and the part in use of the processors it seems to have.
        `usual` is the pool's ratio."""
        blend = 1.0 - exp(-seconds / BLEND_SECONDS)
        self._waits = waits = self._waits + blend * (waits - self._waits)
        self._used = used = self._used + blend * (used - self._used)
        ratio = self.ratio
        if waits >= WAITS_MIN and used >= NOBODY:
            self.ratio = ratio = min(1.0, used / used_of_all(waits, used * cores))
        elif ratio < 1.0:
            self.ratio = ratio = ratio + blend * (1 - ratio)
        if ratio == 1.0 and usual == 1.0 and self.left == 1.0:
            return
        left = ratio / usual
        self.left = max(LEAST, left) if left < (UNTIL if self.left < 1 else BELIEVED_BELOW) else 1.0


def usual(ratios: Iterable[float]) -> float:
    """A pool's: half of its servers at least have no more."""
    known = list(ratios)
    return max(LEAST, median_high(known)) if known else 1.0
