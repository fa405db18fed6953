"""Eject: servers that fail fast. They look idle and attract everything; only weight 0 contains them.

Owns the counting of failures and the times of ejection. Two signs: the application's own word (errors among its
answers), and a port where nobody listens (resets sent, no connection opened). A server whose part of failures stands
far out of the pool's is ejected, for longer each time, and comes back through slow start. Invariant: at most a third of
the pool is out, at least one server may be; when more than that fails, the fault is not theirs.

Source of the figures: Envoy's outlier detection and gRFC A50, with shorter times, since a return is a slow start.
"""

from __future__ import annotations

from math import exp
from statistics import median_low

from feedback.master.fleet import Window
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey

MEMORY_SECONDS = 2.0  # failures are counted over about this time
ANSWERS_MIN, ANSWERS_MIN_AGAIN = 20.0, 4.0  # seen before a first ejection, and before the next
FAILING, TIMES_MEDIAN, ABOVE_MEDIAN = 0.10, 3.0, 0.05
EJECT_SECONDS, EJECT_SECONDS_MAX = 5.0, 60.0
CLEAN_SECONDS = 20.0  # after so long without an ejection the times start anew
RESETS_PER_OPENED = 10  # a dead port resets everything; clients that go away reset a few


class Failures:
    """Answers and failures of one server, fading over two seconds; and its ejections."""

    __slots__ = ("_seen", "answers", "failed", "times", "until")

    def __init__(self) -> None:
        self.answers = self.failed = 0.0
        self.times, self.until = 0, 0.0
        self._seen: Window | None = None

    def count(self, window: Window | None, port: int) -> None:
        if window is None or window is self._seen:
            return
        self._seen = window
        keep = exp(-window.seconds / MEMORY_SECONDS)
        answers, failed = _outcomes(window, port)
        self.answers, self.failed = self.answers * keep + answers, self.failed * keep + failed

    @property
    def part(self) -> float:
        return self.failed / self.answers if self.answers else 0.0

    def enough(self) -> bool:
        return self.answers >= (ANSWERS_MIN_AGAIN if self.times else ANSWERS_MIN)

    def eject(self, now: float) -> None:
        self.times += 1
        self.until = now + min(EJECT_SECONDS_MAX, EJECT_SECONDS * self.times)
        self.answers = self.failed = 0.0

    def forgive(self, now: float) -> None:
        if self.times and now > self.until + CLEAN_SECONDS:
            self.times = 0


def _outcomes(window: Window, port: int) -> tuple[float, float]:
    """(answers, failures among them) in a window."""
    answers = failed = 0.0
    for application in window.applications:
        if application.port in (0, port) and application.errors is not None:
            answers += max(application.completions or 0, application.errors)
            failed += application.errors
    if window.resets and window.resets > RESETS_PER_OPENED * (window.opened or 0.0):
        answers += window.resets
        failed += window.resets
    return answers, failed


class Ejector:
    """Who is out of one service's pool, and why."""

    def __init__(self) -> None:
        self._failures: dict[DestinationKey, Failures] = {}

    def ejected(self, pool: Pool, now: float) -> dict[DestinationKey, str]:
        """The reason for each server that is out now."""
        found = {m.key: self._failures.get(m.key, Failures()) for m in pool.members}
        self._failures = found
        for m in pool.members:
            found[m.key].count(m.window, m.key.port)
            found[m.key].forgive(now)
        usual = median_low(f.part for f in found.values()) if found else 0.0
        limit = max(FAILING, TIMES_MEDIAN * usual + ABOVE_MEDIAN)
        room = max(1, len(found) // 3) - sum(f.until > now for f in found.values()) if len(found) > 1 else 0
        worst = sorted((m for m in pool.members if _may_go(m, found[m.key], now)), key=lambda m: -found[m.key].part)
        for m in worst[: max(0, room)]:
            if found[m.key].part > limit:
                found[m.key].eject(now)
        return {k: _text(f, now) for k, f in found.items() if f.until > now}


def _may_go(member: Member, failures: Failures, now: float) -> bool:
    return not member.quiesced and failures.until <= now and failures.enough()


def _text(failures: Failures, now: float) -> str:
    times = "" if failures.times == 1 else f", for the {failures.times}th time"
    return f"answers with failures: out for {failures.until - now:.0f} s more{times}"
