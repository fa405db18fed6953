"""`static`: the operator's own weights, whatever the load. What LVS does without us; the yardstick."""

from __future__ import annotations

import msgspec

from feedback.master.pool import Pool, Share, Shares


class OfOperator(msgspec.Struct, frozen=True, gc=False):
    weight: int

    def __str__(self) -> str:
        return f"static weight {self.weight}"


class Static:
    def shares(self, pool: Pool, now: float) -> Shares:
        return {row.key: Share(float(row.base.weight), OfOperator(row.base.weight)) for row in pool.rows}
