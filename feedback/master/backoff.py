"""Backoff: how long what happens again is kept away: longer each time, up to a bound. Pure."""

from __future__ import annotations

TIMES_MAX = 64  # any factor to this power is beyond any bound of ours, and a float yet


def backoff(first_seconds: float, most_seconds: float, times: int, factor: float = 2.0) -> float:
    """Seconds, the `times`th time in a row (1 is the first)."""
    return min(most_seconds, first_seconds * factor ** min(times - 1, TIMES_MAX))
