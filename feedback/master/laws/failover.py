"""`failover`: the first in the order that is in service gets everything; the others wait.

The order is the operator's: `priority`, the highest first; then the static weight (as on the scheduler `fo`, where the
highest takes all); then the order of the list. A server whose application asks to be drained goes behind all others. On
`fo` the kernel itself goes on to the next; elsewhere the others have weight 0 until the first is out of service.
"""

from __future__ import annotations

from feedback.master.pool import Member, Pool, Share, Shares
from feedback.model import Reason


class Failover:
    def shares(self, pool: Pool, now: float) -> Shares:
        return in_order(pool, "the first in service gets everything")


def in_order(pool: Pool, text: str) -> Shares:
    """A tier of its own for each member, in the operator's order."""
    ranked = sorted(pool.members, key=_rank)
    return {
        m.key: Share(1.0, (Reason("law", f"{_said(m)}number {n + 1} of {len(ranked)}: {text}", 1.0),), n)
        for n, m in enumerate(ranked)
    }


def _rank(member: Member) -> tuple[bool, int, int]:
    """A weight of 0 says nothing of the place: it is the operator's quiescing."""
    return draining(member), -member.role.priority, -member.base.weight


def _said(member: Member) -> str:
    return "its application asks to be drained; " if draining(member) else ""


def draining(member: Member) -> bool:
    return member.window is not None and any(a.drain for a in member.window.applications)
