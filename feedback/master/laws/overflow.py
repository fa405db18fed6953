"""`overflow`: the first in the order takes all until it is full, then the next, as on the kernel's scheduler `ovf`.

`ovf` needs the number of active connections of each server by hand; here it is learned. The law has an order and no
numbers, and learned thresholds are its default (configured ones win). The order is `failover`'s.
"""

from __future__ import annotations

from feedback.master.laws.failover import in_order
from feedback.master.pool import Pool, Shares


class Overflow:
    thresholds = "learned"

    def shares(self, pool: Pool, now: float) -> Shares:
        return in_order(pool, "takes all until it is full")
