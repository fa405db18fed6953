"""`overflow`: the first in the order takes all until it is full, then the next, as on the kernel's scheduler `ovf`.

What `ovf` wants typed in, the number of active connections of each server, is learned: the law has an order and no
numbers, and learned thresholds are its default (what is typed in wins). The order is `failover`'s.
"""

from __future__ import annotations

from feedback.master.laws.failover import in_order
from feedback.master.pool import Pool, Shares


class Overflow:
    thresholds = "learned"

    def shares(self, pool: Pool, now: float) -> Shares:
        return in_order(pool, "takes all until it is full")
