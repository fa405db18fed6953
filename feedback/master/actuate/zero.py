"""`rr`, `lc`, `dh`: the scheduler only checks whether a weight is zero.

What the kernel has stays, unless it has to come into service or out of it. So the owner's own weights survive, should
he change the scheduler. Source: ip_vs_rr.c, ip_vs_lc.c, ip_vs_dh.c. A scheduler that we do not know is left alone in
the same way.
"""

from __future__ import annotations

from feedback.master.actuate.weight import OUT_OF_SERVICE
from feedback.master.pool import Pool


class Presence:
    """Zero or not."""

    def __init__(self, scheduler: str) -> None:
        self._text = f"{scheduler} only checks whether a weight is zero"

    def aim(self, pool: Pool) -> None:
        for row in pool.rows:
            if row.part <= 0:
                row.aim, row.note = 0, OUT_OF_SERVICE
            else:
                row.aim, row.note = row.weight or max(1, row.base.weight), self._text
