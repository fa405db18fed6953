"""Health: whether a service answers, by the outcomes of its checks. Pure.

Owns rise and fall. The first outcome decides at once; after that it takes `rise` good ones or `fall` bad ones in a row
to change. asking.py decides who is asked when; watch.py what it means for a destination.

Source: keepalived's checkers and HAProxy's `rise` and `fall`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of one check: `text` says what was seen, for people. `expires_at` is when the server's certificate
    does, in seconds since 1970. `warning` never counts against the server. `weight` is what the server says that its
    own is, `seconds` how long it took."""

    good: bool
    text: str
    warning: str = ""
    expires_at: float | None = None
    weight: float | None = None
    seconds: float | None = None


class Unasked(msgspec.Struct, frozen=True):
    """Something here kept a check from being made, and says nothing of the server. `mend` is the command against it."""

    reason: str
    mend: str


class Checked(msgspec.Struct, frozen=True):
    """How a health check stands, for people: `up` is None before the first outcome."""

    up: bool | None
    text: str
    warning: str = ""
    expires_at: float | None = None
    unasked: Unasked | None = None
    seconds: float | None = None


class Health:
    """A destination's health by one check."""

    __slots__ = ("_rise_fall", "_row", "last", "verdict")

    def __init__(self, rise: int, fall: int) -> None:
        self._rise_fall = {True: rise, False: fall}
        self._row = 0  # outcomes in a row that speak against the verdict
        self.verdict = Verdict.UNKNOWN
        self.last: Outcome | None = None

    def observe(self, outcome: Outcome) -> None:
        self.last = outcome
        new = Verdict.UP if outcome.good else Verdict.DOWN
        self._row = 0 if new is self.verdict else self._row + 1
        if self.verdict is Verdict.UNKNOWN or self._row >= self._rise_fall[outcome.good]:
            self.verdict, self._row = new, 0

    @property
    def wavers(self) -> bool:
        """Whether the last outcome speaks against the verdict."""
        return self._row > 0
