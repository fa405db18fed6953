"""The link over which the standby follows the active director. A live link is not left for another one. Pure.

Leaving a link restarts the session with a full copy. So a stall of our own must not look like a silent link: after a
stall, the heartbeats of the other link may be read before those that wait on the link in use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

SILENT_SECONDS = 0.2  # a link silent for so long is left, if another is heard
CONFIRMED_SECONDS = 0.05  # two turns of the daemon: by then it has read what waited on every link


class Way:
    def __init__(self) -> None:
        self._silent_since: float | None = None

    @property
    def doubting(self) -> bool:
        """Whether the link in use seems silent. Then ask again soon."""
        return self._silent_since is not None

    def better(self, following: str | None, ages: Mapping[str, float], now: float) -> str | None:
        """The endpoint to change to, or None to stay. `ages` has the seconds since each endpoint was heard; infinity if
        never."""
        if not ages:
            return None
        best = min(ages, key=lambda endpoint: ages[endpoint])
        if ages.get(following or "", math.inf) <= SILENT_SECONDS or ages[best] > SILENT_SECONDS:
            self._silent_since = None
            return None
        if following is None:
            return best
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since < CONFIRMED_SECONDS:
            return None
        self._silent_since = None
        return best
