"""Schedulers that look at a weight only to see whether it is zero."""

from __future__ import annotations

from feedback.master.actuate.weight import Weight, Weights, current
from feedback.master.guard import Guarded
from feedback.master.pool import Member, Pool


class Hold:
    """A scheduler that this version does not drive: what is in force stays, but for zero or not."""

    def __init__(self, scheduler: str) -> None:
        self._text = f"scheduler {scheduler} is not driven: only zero or not"

    def weights(self, pool: Pool, guarded: Guarded, now: float) -> Weights:
        return {m.key: self._weight(m, guarded.shares[m.key].value) for m in pool.members}

    def _weight(self, member: Member, share: float) -> Weight:
        if share <= 0:
            return Weight(0, self._text)
        return Weight(current(member) or max(1, member.base.weight), self._text)
