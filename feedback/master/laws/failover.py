"""`failover`: the first in the order that is in service gets everything; the others wait.

The order is the operator's: `priority`, the highest first; then the static weight (as on the scheduler `fo`, where the
highest takes all); then the order of the list. A server whose application asks to be drained goes behind all others. On
`fo` the kernel itself goes on to the next; elsewhere the others have weight 0 until the first is out of service.
"""

from __future__ import annotations

import msgspec

from feedback.master.pool import Pool, Row, Share, Shares


class Placed(msgspec.Struct, frozen=True, gc=False):
    number: int
    of: int
    so: str
    draining: bool

    def __str__(self) -> str:
        said = "its application asks to be drained; " if self.draining else ""
        return f"{said}number {self.number} of {self.of}: {self.so}"


class Failover:
    def shares(self, pool: Pool, now: float) -> Shares:
        return in_order(pool, "the first in service gets everything")


def in_order(pool: Pool, text: str) -> Shares:
    """A tier of its own for each row, in the operator's order."""
    ranked = sorted(pool.rows, key=_rank)
    count = len(ranked)
    return {row.key: Share(1.0, Placed(n + 1, count, text, draining(row)), n) for n, row in enumerate(ranked)}


def _rank(row: Row) -> tuple[bool, int, int]:
    """A weight of 0 says nothing of the place: it is the operator's quiescing."""
    return draining(row), -row.role.priority, -row.base.weight


def draining(row: Row) -> bool:
    return row.window is not None and any(a.drain for a in row.window.applications)
