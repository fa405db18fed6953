"""Strain: what holds a server back although its CPU does not: memory that runs out, and signs that it is drowning.

Memory is a constraint, not an average: it takes nothing until 15 % of it is left, and nearly everything at 5 %; what
will be left in five seconds at the present trend counts, if that is less and a third or so is left. What it takes it
takes at once and gives back slowly: memory is freed seconds after a share has fallen, and a share that followed it back
at once would swing about the edge for ever. Signs of drowning (time lost waiting for
memory, swapping in, connections refused by a full accept queue) cut a server's share by 30 % at most once a second, and
it comes back slowly. While the whole pool is hot they cut nothing: that is not this server's fault.

Knows one server at a time and no weight.
"""

from __future__ import annotations

from math import exp

from feedback.master.fleet import Window
from feedback.master.pool import Member

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


class Strain:
    """One server's. `factor` is what is left of its share."""

    def __init__(self) -> None:
        self.factor, self.text = 1.0, ""
        self._memory = 1.0
        self._cut, self._cut_at, self._strained_at = 1.0, float("-inf"), float("-inf")
        self._trend = 0.0
        self._seen: Window | None = None

    def follow(self, member: Member, now: float, pool_is_hot: bool) -> None:
        for window in member.latest:
            self._take(window, now, pool_is_hot)

    def _take(self, window: Window, now: float, pool_is_hot: bool) -> None:
        if window is self._seen:
            return
        before, self._seen = self._seen, window
        if before is not None:
            self._follow_memory(before, window)
        sign = _drowning(window)
        if sign:
            self._strained_at = now
        if sign and not pool_is_hot and now - self._cut_at >= CUT_EVERY_SECONDS:
            self._cut, self._cut_at = max(CUT_MIN, self._cut * CUT), now
        elif now - self._strained_at >= CLEAN_SECONDS:
            self._cut = min(1.0, self._cut + BACK_PER_SECOND * window.seconds)
        trend = min(0.0, self._trend) if window.memory_available < TREND_BELOW else 0.0
        left = window.memory_available + trend * AHEAD_SECONDS
        self._memory = min(memory_factor(left), self._memory + MEMORY_BACK_PER_SECOND * window.seconds)
        self.factor = max(FACTOR_MIN, self._memory * self._cut)
        self.text = _text(window.memory_available, left, self._memory, self._cut, sign)

    def _follow_memory(self, before: Window, window: Window) -> None:
        change = (window.memory_available - before.memory_available) / window.seconds
        self._trend += (1 - exp(-window.seconds / TREND_SECONDS)) * (change - self._trend)


def _drowning(window: Window) -> str:
    if window.pressure is not None and window.pressure.memory_full > WAITING:
        return f"waits for memory {100 * window.pressure.memory_full:.0f} % of the time"
    if window.swap_in_pages > SWAPPING_PAGES * window.seconds:
        return f"swaps in {window.swap_in_pages / window.seconds:.0f} pages/s"
    if window.overflows:
        return f"{window.overflows} connections refused by a full accept queue"
    return ""


def _text(available: float, left: float, memory: float, cut: float, sign: str) -> str:
    parts = []
    if memory < 1:
        soon = (
            f", {100 * max(0.0, left):.0f} % in {AHEAD_SECONDS:.0f} s at this trend" if left < available - 0.005 else ""
        )
        slowly = ", recovering" if memory < memory_factor(left) else ""
        parts.append(f"{100 * available:.0f} % of memory available{soon}{slowly}")
    if cut < 1:
        parts.append(f"{sign or 'recovering'}: cut to {100 * cut:.0f} %")
    return "; ".join(parts)
