"""`rr`, `lc`, `dh`: the scheduler looks at a weight only to see whether it is zero.

What the kernel has stays, unless it has to come into service or out of it. So the owner's own weights survive, should
he change the scheduler. Source: ip_vs_rr.c, ip_vs_lc.c, ip_vs_dh.c. A scheduler that we do not know is left alone in
the same way.
"""

from __future__ import annotations

from feedback.master.actuate.weight import Wanted, Weight, Weights, current
from feedback.master.pool import Member, Pool


class Presence:
    """Zero or not."""

    def __init__(self, scheduler: str) -> None:
        self._text = f"{scheduler} asks only whether a weight is zero"

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        return {m.key: self._weight(m, wanted.share(m)) for m in pool.members}

    def _weight(self, member: Member, share: float) -> Weight:
        if share <= 0:
            return Weight(0, "out of service")
        return Weight(current(member) or max(1, member.base.weight), self._text)
