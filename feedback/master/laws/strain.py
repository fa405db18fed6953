"""Strain: limits of a server other than its CPU: memory that runs out, and signs of overload.

Memory is a constraint, not an average: it costs nothing until 15 % of it is left, and nearly everything at 5 %. The
amount left in five seconds at the present trend counts, if that is less and about a third is left. The share falls at
once and recovers slowly: memory is freed seconds after a share has fallen, and a share that recovered at once would
oscillate about the edge for ever. Signs of overload (time lost waiting for memory, swapping in, connections refused by
a full accept queue) cut a server's share by 30 % at most once a second, and it recovers slowly. While the whole pool is
hot they cut nothing, since that is not this server's fault.

Knows one server at a time and no weight.
"""

from __future__ import annotations

from math import exp

import msgspec

from feedback.master.outcome import Fact
from feedback.master.servers.window import Window

MEMORY_FREE, MEMORY_LOW = 0.15, 0.05  # available memory: no effect above, almost nothing left below
FACTOR_MIN = 0.05
TREND_SECONDS, AHEAD_SECONDS = 2.0, 5.0
TREND_BELOW = 0.30  # of memory available: above, a pool that fills up looks like a leak
MEMORY_BACK_PER_SECOND = 0.1
WAITING = 0.05  # part of the time that everybody waited for memory
SWAPPING_PAGES = 20.0  # a second
CUT, CUT_MIN, CUT_EVERY_SECONDS = 0.7, 0.1, 1.0
CLEAN_SECONDS, BACK_PER_SECOND = 5.0, 0.05


def memory_factor(available: float) -> float:
    """1 above 15 % of memory available, falling linearly to 0.05 at 5 %."""
    return max(FACTOR_MIN, min(1.0, (available - MEMORY_LOW) / (MEMORY_FREE - MEMORY_LOW)))


class Strained(msgspec.Struct, frozen=True, gc=False):
    """Memory available now and in five seconds, what both leave of a share, and the sign of drowning."""

    available: float
    left: float
    memory: float
    cut: float
    sign: Fact | None

    def __str__(self) -> str:
        parts = []
        if self.memory < 1:
            gone = self.left < self.available - 0.005
            soon = f", {100 * max(0.0, self.left):.0f} % in {AHEAD_SECONDS:.0f} s at this trend" if gone else ""
            slowly = ", recovering" if self.memory < memory_factor(self.left) else ""
            parts.append(f"{100 * self.available:.0f} % of memory available{soon}{slowly}")
        if self.cut < 1:
            parts.append(f"{self.sign or 'recovering'}: cut to {100 * self.cut:.0f} %")
        return "; ".join(parts)


class Strain:
    """One server's. `factor` is what is left of its share, `why` None while that is all of it."""

    __slots__ = ("_cut", "_cut_at", "_free", "_memory", "_strained_at", "_trend", "factor", "why")

    def __init__(self) -> None:
        self.factor = 1.0
        self.why: Strained | None = None
        self._memory = 1.0
        self._cut, self._cut_at, self._strained_at = 1.0, float("-inf"), float("-inf")
        self._trend = 0.0
        self._free: float | None = None  # of memory, at the end of the last window

    def follow(self, window: Window, pool_is_hot: bool) -> None:
        """Take each window, in their order."""
        before, free = self._free, window.memory_available
        self._free = free
        if before is not None and (self._trend or free != before):
            self._follow_memory(free - before, window.end - window.start)
        drowning = window.swap_in_pages or window.overflows or window.memory_pressure
        if drowning or free < TREND_BELOW or self.why is not None:
            self._take(window, pool_is_hot)

    def _take(self, window: Window, pool_is_hot: bool) -> None:
        sign, now = _drowning(window), window.end
        if sign:
            self._strained_at = now
        if sign and not pool_is_hot and now - self._cut_at >= CUT_EVERY_SECONDS:
            self._cut, self._cut_at = max(CUT_MIN, self._cut * CUT), now
        elif now - self._strained_at >= CLEAN_SECONDS:
            self._cut = min(1.0, self._cut + BACK_PER_SECOND * window.seconds)
        if window.memory_available >= TREND_BELOW and self._memory == 1 and self._cut == 1:
            self.factor, self.why = 1.0, None
            return
        trend = min(0.0, self._trend) if window.memory_available < TREND_BELOW else 0.0
        left = window.memory_available + trend * AHEAD_SECONDS
        self._memory = min(memory_factor(left), self._memory + MEMORY_BACK_PER_SECOND * window.seconds)
        self.factor = max(FACTOR_MIN, self._memory * self._cut)
        strained = self._memory < 1 or self._cut < 1
        self.why = Strained(window.memory_available, left, self._memory, self._cut, sign) if strained else None

    def _follow_memory(self, change: float, seconds: float) -> None:
        self._trend += (1 - exp(-seconds / TREND_SECONDS)) * (change / seconds - self._trend)


class Waits(msgspec.Struct, frozen=True, gc=False):
    part: float

    def __str__(self) -> str:
        return f"waits for memory {100 * self.part:.0f} % of the time"


class Swaps(msgspec.Struct, frozen=True, gc=False):
    pages_per_second: float

    def __str__(self) -> str:
        return f"swaps in {self.pages_per_second:.0f} pages/s"


class Overflows(msgspec.Struct, frozen=True, gc=False):
    connections: int

    def __str__(self) -> str:
        return f"{self.connections} connections refused by a full accept queue"


def _drowning(window: Window) -> Fact | None:
    if window.memory_pressure > WAITING:
        return Waits(window.memory_pressure)
    if window.swap_in_pages > SWAPPING_PAGES * window.seconds:
        return Swaps(window.swap_in_pages / window.seconds)
    if window.overflows:
        return Overflows(window.overflows)
    return None
