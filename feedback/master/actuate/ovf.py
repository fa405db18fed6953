"""`ovf`: a weight is a number of active connections. The highest weight takes all until it has one more than that.

The same number is order and capacity, and these may conflict: a small server that is preferred to a large one needs the
higher weight. Then the weight carries the order and the upper threshold the capacity; without a threshold, the servers
behind are held below the preferred one, since the operator asked for the order. Weights are distinct: among equals the
head of the list would take all.

Falling weights are written at once. Rising ones are written if they rise by more than the dead band, and every 5 s at
most; but at once if a server is nearly full, or the next one would get what this one can take.
Source: ip_vs_ovf.c. It admits active <= weight, i.e. weight + 1 connections.
"""

from __future__ import annotations

import msgspec

from feedback.master.actuate.tiers import in_order
from feedback.master.actuate.weight import REST_SECONDS, out
from feedback.master.pool import NEARLY_FULL, Pool, Row

UDP = "ovf counts active connections, and UDP has none: the first takes all"


class Holds(msgspec.Struct, frozen=True, gc=False):
    connections: int
    but: str = ""

    def __str__(self) -> str:
        return f"holds {self.connections} active connections{self.but}"


class Count:
    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band
        self._risen_at: float | None = None

    def aim(self, pool: Pool) -> None:
        ranked = _ranked(pool.rows)
        rested = self._risen_at is None or pool.now - self._risen_at >= REST_SECONDS
        out(pool.rows)
        above = 0
        for row in reversed(ranked):
            aim = self._kept(row, max(1, _room(row) - 1), rested)
            note = Holds(aim + 1)
            if aim <= above:
                aim = above + 1
                note = Holds(note.connections, "; kept before the larger ones behind it, bounded by its threshold")
            row.aim, row.note, row.stands = aim, note, None
            above = aim
        _bound(ranked)
        if pool.udp:
            for row in pool.rows:
                row.note, row.stands = UDP, None
        if any(row.aim > row.weight for row in ranked):
            self._risen_at = pool.now

    def _kept(self, row: Row, aim: int, rested: bool) -> int:
        have = row.weight
        if not have or aim <= have or row.active >= NEARLY_FULL * have:
            return aim
        return have if not rested or aim - have <= self._dead_band * have else aim


def _ranked(rows: list[Row]) -> list[Row]:
    """With tiers their order; without, those that hold more come first."""
    return [row for tier in in_order(rows) for row in sorted(tier, key=lambda r: (-_room(r), r.key))]


def _bound(ranked: list[Row]) -> None:
    """A weight above the room needs a threshold; without one, it and all behind it come down."""
    ceiling: int | None = None
    for place, row in enumerate(ranked):
        room = max(1, _room(row) - 1)
        if row.aim > room and not row.limit.upper:
            ceiling = room if ceiling is None else min(ceiling, room)
        if ceiling is not None and row.aim > ceiling:
            row.aim = max(ceiling, len(ranked) - place)
            row.note = Holds(row.aim + 1, "" if row.aim >= room else ", to stay behind those preferred")
        if ceiling is not None:
            ceiling = min(ceiling, row.aim) - 1


def _room(row: Row) -> int:
    """Typed in, learned, or else what the operator's weight says."""
    return row.limit.room or max(1, row.base.weight) + 1
