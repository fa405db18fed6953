"""Absence: a destination that is out of the kernel's table because its check fails, and when it may return. Pure.

Its flows leave the table with it, so that they go on elsewhere. A flapping check would cut them again and again. So the
second absence in a row lasts at least AGAIN_SECONDS, and each further one twice as long. The count restarts for a
destination that stayed for CLEAN_SECONDS, and for the minimum of its last absence.

Invariant: between two removals of a destination that failed before there is at least the time that its number of
failures asks for. What a restart or a takeover leaves of it is `Removed`: the time counts anew then.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from feedback.master.backoff import backoff
from feedback.master.claims.claim import Removed
from feedback.master.outcome import Fact

# A client's TCP needs seconds to open all its connections again: half a minute of that in five is what is lost at most.
AGAIN_SECONDS, AGAIN_SECONDS_MAX = 10.0, 300.0
CLEAN_SECONDS = 60.0  # six times the least absence without a failure: it does not flap


class Waits(msgspec.Struct, frozen=True, gc=False):
    """Its check passes, but it has failed so many times in a row: out for so many seconds more."""

    seconds: float
    times: int

    def __str__(self) -> str:
        return f"its check passes, but it failed {self.times} times in a row: out for {self.seconds:.0f} s more"


@dataclass(slots=True, eq=False)
class Absence:
    """The absences of one destination. `out`: its check took it out of the table; `times`: failures in a row; `since`:
    when it left, or came back, None where that was before a restart."""

    out: bool = False
    times: int = 0
    since: float | None = None

    @property
    def least_seconds(self) -> float:
        """The least length of the absence that is the `times`th in a row."""
        return backoff(AGAIN_SECONDS, AGAIN_SECONDS_MAX, self.times - 1) if self.times > 1 else 0.0

    def judge(self, failing: bool | None, now: float) -> Fact | None:
        """Take what its check says: None before the first outcome, which changes nothing. Returns why it must stay out
        although the check does not fail."""
        if self.since is None:
            self.since = now
        if failing:
            if not self.out:
                self._leave(now)
            return None
        if not self.out or failing is None:
            return None
        left = self.since + self.least_seconds - now
        if left > 0:
            return Waits(left, self.times)
        self.out, self.since = False, now
        return None

    def _leave(self, now: float) -> None:
        assert self.since is not None
        if now - self.since > CLEAN_SECONDS + self.least_seconds:
            self.times = 0
        self.out, self.times, self.since = True, self.times + 1, now

    def remembered(self) -> Removed | None:
        return Removed(self.out, self.times) if self.times else None

    def resume(self, before: Removed) -> None:
        self.out, self.times, self.since = before.out, before.times, None
