"""Owner: what another owner does to its service, and when we stay away from it.

Owns the terms for a foreign edit, the signature of our own zeros and the count of disputes. Knows no law, no kernel.

**Zeros.** The kernel does not record who wrote a weight of 0, and keepalived with inhibit_on_failure writes one just
when we have ejected the same server. Taken for ours, it would be raised on a dead server, and keepalived never writes
it again. Every program writes the whole record, so our zero carries a threshold that nobody else writes (at weight 0 it
means nothing), and any other zero is theirs, also after a restart. Only ldirectord writes nothing if it finds a 0.

**Disputes.** A weight written over ours is overwritten at once, one write for each of theirs, as keepalived's and
ldirectord's reloads need. A second rewrite comes from a program, not an operator, and would go on for ever. Then its
weights stand for the whole service (two owners' weights have no common scale), for longer each time. A failing check is
no dispute: zeros, removals and what follows them are not counted.

Source: what keepalived 2.2.7 and ldirectord 4.12 were measured to do, docs/adopt.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from enum import StrEnum

import msgspec

from feedback.master.backoff import backoff
from feedback.model import DestinationKey, ServiceKey

SIGNATURE = (2_000_000_000, 0)  # upper and lower threshold of a zero of ours
CALM_SECONDS = 600.0  # after so long without a rewrite the times start anew
TIMES = ((2, 5.0), (5, 60.0), (10, CALM_SECONDS))  # so many rewrites in so many seconds are a dispute
STANDS_SECONDS, STANDS_SECONDS_MAX = 30.0, 3600.0  # a program that writes on is met hourly in the end


class What(StrEnum):
    WEIGHT = "weight"
    ADDED = "added"
    REMOVED = "removed"
    SERVICE = "service"  # its scheduler or flags, or it is there again
    SERVICE_REMOVED = "service-removed"


class ForeignEdit(msgspec.Struct, frozen=True):
    """Somebody else did this since our last look. `ours` and `theirs` are weights, None where there is none."""

    service: ServiceKey
    destination: DestinationKey | None
    ours: int | None
    theirs: int | None
    what: What = What.WEIGHT


class Disputes:
    """The rewrites of one service, and whether its owner's weights stand."""

    def __init__(self) -> None:
        self._rewrites: dict[DestinationKey | None, deque[float]] = {}  # None: all of it at once
        self._times = 0
        self._until = self._last = float("-inf")
        self._why = ""

    def rewritten(self, keys: Collection[DestinationKey], *, whole: bool, now: float) -> None:
        """Weights of ours were overwritten, of these destinations; `whole`: every one that serves, or the service was
        made anew."""
        if now - self._last > max(CALM_SECONDS, 2 * self._seconds()):
            self._times = 0
            self._rewrites.clear()
        if now < self._until or not (keys or whole):
            return
        self._last = now
        for key in (None,) if whole else keys:
            times = self._rewrites.setdefault(key, deque(maxlen=max(n for n, _ in TIMES)))
            times.append(now)
            count, seconds = _dispute(times, now)
            if count or self._times:  # one who was found to dispute is not given a second try
                self._stand(key, max(count, 1), seconds, now)
                return

    def _stand(self, key: DestinationKey | None, count: int, seconds: float, now: float) -> None:
        self._times += 1
        self._until = now + self._seconds()
        self._rewrites.clear()
        what = "all weights of this service" if key is None else f"the weight of {key}"
        often = f"{count} times in {seconds:.0f} s" if count > 1 else "again"
        self._why = f"its owner wrote over {what} {often}: the owner's weights stand for {self._seconds():.0f} s"

    def _seconds(self) -> float:
        return backoff(STANDS_SECONDS, STANDS_SECONDS_MAX, max(1, self._times))

    def standing(self, now: float) -> str:
        """Why the owner's weights stand, or ''."""
        return self._why if now < self._until else ""


def _dispute(times: Collection[float], now: float) -> tuple[int, float]:
    """How many rewrites in how many seconds, if that is a dispute; else 0."""
    for count, seconds in TIMES:
        recent = [at for at in times if now - at <= seconds]
        if len(recent) >= count:
            return len(recent), now - recent[0]
    return 0, 0.0
