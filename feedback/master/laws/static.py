"""`static`: the operator's own weights, whatever the load. What LVS does without us; the yardstick."""

from __future__ import annotations

from feedback.master.pool import Pool, Share, Shares
from feedback.model import Reason


class Static:
    def shares(self, pool: Pool, now: float) -> Shares:
        return {
            m.key: Share(float(m.base.weight), (Reason("law", f"static weight {m.base.weight}", m.base.weight),))
            for m in pool.members
        }
