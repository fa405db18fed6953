"""Backoff: how long what happens again is kept away: twice as long each time, up to a bound. Pure."""

from __future__ import annotations

TIMES_MAX = 64  # doubled so often, any time is beyond any bound of ours, and a float yet


def backoff(first_seconds: float, most_seconds: float, times: int) -> float:
    """Seconds, the `times`th time in a row (1 is the first)."""
    return min(most_seconds, first_seconds * 2.0 ** min(times - 1, TIMES_MAX))
