"""`spillover`: the service pool shares the load by `capacity`; the spill pool gets nothing until every server of the
service pool is full or quiesced, and shares what is over by `capacity` too.

Full means at its threshold, configured or learned (the default). The kernel switches in both directions if its
scheduler can (`sed`): there is never a moment without a destination, nor an early connection to the spill pool. Source:
the scheduler hprio, proposed on lvs-devel and never merged.
"""

from __future__ import annotations

import msgspec

from feedback.master.laws.capacity import Capacity
from feedback.master.pool import Pool, Row, Shares, estimates, utilisation
from feedback.master.servers.window import Window


class Spillover:
    thresholds = "learned"

    def __init__(self) -> None:
        self._within = {False: Capacity(), True: Capacity()}

    def observe(self, row: Row, window: Window) -> None:
        self._within[row.role.spill].observe(row, window)

    def shares(self, pool: Pool, now: float) -> Shares:
        out = {}
        for spill, law in self._within.items():
            rows = [row for row in pool.rows if row.role.spill is spill]
            if not rows:
                continue
            text = "spill pool: only what the service pool cannot take" if spill else "service pool"
            used = utilisation(estimates(rows))
            part = law.shares(Pool(pool.service, rows, pool.flow, now, utilisation=used), now)
            total = sum(s.value for s in part.values()) or 1.0
            for key, share in part.items():
                # Halves, so that the guard's bounds, which see one pool, weigh both alike.
                out[key] = msgspec.structs.replace(share.because("law", text, share.value / total / 2), tier=int(spill))
        return out
