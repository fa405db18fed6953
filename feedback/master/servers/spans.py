"""Spans: the director's counts of one destination, over spans in which the CPU use is known as well. Pure.

For servers whose agents count no connections (UDP, older agents). The kernel refreshes its counters every 2 s, at
moments that we only observe; agents report at their own moments. A rate and a utilisation must be of the same span:
misaligned ones cost a factor of four in the tail. So a span goes from one refresh to the next, and waits until the
reports cover both; the CPU counter is interpolated to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec


class Span(msgspec.Struct, frozen=True):
    """Seconds on the director's clock; CPU seconds used; connections that came, and those that ended."""

    start: float
    end: float
    used_seconds: float
    opened: int
    completed: int


class Spans:
    """Reports and looks at the kernel go in, spans come out."""

    __slots__ = ("_connections", "_refreshes", "_used")

    def __init__(self) -> None:
        self._connections: int | None = None  # at the last look
        self._used: deque[tuple[float, float]] = deque(maxlen=64)  # (time, cumulative CPU seconds)
        self._refreshes: deque[tuple[float, int, int]] = deque(maxlen=16)  # (time, connections, active)

    def use(self, end: float, cpu_seconds: float) -> None:
        """CPU seconds used from the last report's end to this one's."""
        before = self._used[-1][1] if self._used else 0.0
        self._used.append((end, before + cpu_seconds))

    def look(self, connections: int, active: int, now: float) -> None:
        """Take what the kernel shows now: all connections so far, and the open ones."""
        before, self._connections = self._connections, connections
        if before is None or before == connections:
            return
        if connections < before:
            self._refreshes.clear()
        self._refreshes.append((now, connections, active))

    def spans(self) -> Iterator[Span]:
        """The spans that were completed since the last call."""
        while len(self._refreshes) >= 2:
            (start, opened_before, active_before), (end, opened, active) = self._refreshes[0], self._refreshes[1]
            used_before, used = self._used_at(start), self._used_at(end)
            if used is None:
                return
            self._refreshes.popleft()
            if used_before is not None:
                came = opened - opened_before
                yield Span(start, end, used - used_before, came, came - (active - active_before))

    def _used_at(self, at: float) -> float | None:
        """Interpolated; None if the reports do not cover it."""
        later = None
        for time, used in reversed(self._used):
            if time <= at:
                return None if later is None else used + (later[1] - used) * (at - time) / (later[0] - time)
            later = (time, used)
        return None
