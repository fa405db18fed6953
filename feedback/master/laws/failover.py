"""`failover`: the first in the order that is in service gets everything; the others wait.

The order is the operator's: `priority`, the highest first; then the static weight (as on the scheduler `fo`, where the
highest takes all); then the order of the list. A server whose application asks to be drained goes behind all others. On
`fo` the kernel itself goes on to the next; elsewhere the others have weight 0 until the first is out of service.

Options serve services with only one writer, such as databases. With `sticky` a server that took over keeps the place
until it fails or another is promoted. With `cut` no connection continues at a server that has lost the place.
cuts/succession.py decides both, and records them in the pool (`holder`, `heir`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from feedback.master.laws.options import Options
from feedback.master.pool import Pool, Role, Row, Share, Shares


class CutWhom(StrEnum):
    NEVER = "never"  # flows stay with a server that has lost its place
    CLIENTS = "clients"  # its clients are reset
    BOTH = "both"  # and the server's own ends


class FailoverOptions(Options, frozen=True):
    sticky: bool = False
    cut: CutWhom = CutWhom.NEVER


DEFAULT = FailoverOptions()


class Placed(msgspec.Struct, frozen=True, gc=False):
    number: int
    of: int
    so: str
    draining: bool

    def __str__(self) -> str:
        said = "its application asks to be drained; " if self.draining else ""
        return f"{said}number {self.number} of {self.of}: {self.so}"


class Failover:
    Options = FailoverOptions

    def __init__(self, options: FailoverOptions = DEFAULT) -> None:
        self.options = options

    def shares(self, pool: Pool, now: float) -> Shares:
        return in_order(pool, "the first in service gets everything")

    def refuses(self, roles: Sequence[Role]) -> str:
        """Why it cannot work with these; '' if it can."""
        if self.options.sticky:
            priorities = [role.priority for role in roles]
            twice = next((p for p in priorities if priorities.count(p) > 1), None)
            if twice is not None:
                return f"sticky needs a priority for each destination, all different: {twice} is listed twice"
        return ""


def in_order(pool: Pool, text: str) -> Shares:
    """A tier of its own for each row, in the operator's order; before all, who holds the place and who is to."""
    ranked = sorted(pool.rows, key=rank)
    if pool.holder is not None:
        first = {pool.holder: 0, pool.heir: 1}
        ranked.sort(key=lambda row: first.get(row.key, 2))
    count = len(ranked)
    return {row.key: Share(1.0, Placed(n + 1, count, text, draining(row)), n) for n, row in enumerate(ranked)}


def rank(row: Row) -> tuple[bool, int, int]:
    """A weight of 0 says nothing of the place: it is the operator's quiescing."""
    return draining(row), -row.role.priority, -row.base.weight


def draining(row: Row) -> bool:
    return row.window is not None and any(a.drain for a in row.window.applications)
