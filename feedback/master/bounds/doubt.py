"""Doubt: a server with a queue while the others have none, by the director's own counts. Pure.

An agent's report can be a lie or an honest mistake: a server that waits for a lock or a disk has an idle CPU, and late
reports describe the past. The director's counts are neither. How long connections stay (open ones over new ones a
second, both the kernel's) is alike over a pool whatever the servers' sizes, as long as none has a queue. A server that
is well above the others, and not only for a moment, has a queue that the others could work off. Whatever its agent
reports, it gets no more than its static share (or an equal one), for longer each time, like an ejection.

Knows no law and no agent; the guard applies it to shares above the static one only, so doubt never takes a server's
due.
"""

from __future__ import annotations

from math import inf

import msgspec

from feedback.master.backoff import backoff
from feedback.master.pool import Pool, Row
from feedback.master.servers.arrivals import REFRESH_SECONDS
from feedback.master.servers.residence import CONNECTIONS_LEAST
from feedback.model import DestinationKey

LONGER = 5.0  # times the others' residence: shares move by the ceiling at most, and that is less
HOLD_SECONDS, HOLD_SECONDS_MAX = 20.0, 600.0  # a liar draws for some 3 s before each; anew after the longest without


class Doubted(msgspec.Struct, frozen=True, gc=False):
    """No more than its static share for so many seconds more."""

    seconds: float

    def __str__(self) -> str:
        return (
            f"connections stay {LONGER:g} times as long there as on the others, by the director's own counts: "
            f"its static share at most for {self.seconds:.0f} s more"
        )


class Known(msgspec.Struct):
    """Of one destination: since when it has a queue; until when it is doubted, and how many times it was in a row."""

    since: float | None = None
    until: float = -inf
    times: int = 0


class Doubt:
    """Who has a queue while the others have none."""

    def doubted(self, pool: Pool) -> dict[DestinationKey, Doubted]:
        """Who is doubted now. Call it at each decision."""
        now, total_active, total_rate = pool.now, 0, 0.0
        many = CONNECTIONS_LEAST
        suspects = [r for r in pool.rows if r.kernel is not None and (r.active >= many or r.doubt is not None)]
        if not suspects:
            return {}
        for row in pool.rows:
            rate = row.arrivals.rate
            if rate is not None and row.kernel is not None:
                total_active += row.active
                total_rate += rate
        found = {}
        for row in suspects:
            known, rate = row.doubt, row.arrivals.rate
            if known is None:
                known = row.doubt = Known()
            if row.active >= many and rate:
                others = total_rate - rate, total_active - row.active
                self._judge(known, _ratio(row, rate, *others) >= LONGER, now)
            else:
                known.since = None
            if now < known.until:
                found[row.key] = Doubted(known.until - now)
        return found

    def _judge(self, known: Known, queues: bool, now: float) -> None:
        if not queues:
            known.since = None
            return
        known.since = now if known.since is None else known.since
        if now < known.until or now - known.since < REFRESH_SECONDS:
            return
        again = now - known.until < HOLD_SECONDS_MAX
        known.times = known.times + 1 if again else 1
        known.until = now + backoff(HOLD_SECONDS, HOLD_SECONDS_MAX, known.times)


def _ratio(row: Row, rate: float, others_rate: float, others_active: int) -> float:
    """How many times as long as on the others connections stay; 0 where that cannot be told."""
    if others_rate <= 0:
        return 0.0
    return row.active / rate / (max(1, others_active) / others_rate)
