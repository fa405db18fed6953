"""`rr`, `lc`, `dh`: the scheduler only checks whether a weight is zero.

The kernel's weight stays, unless the server must enter or leave service. So the owner's weights survive a change of the
scheduler. Source: ip_vs_rr.c, ip_vs_lc.c, ip_vs_dh.c. A scheduler that we do not know is left alone in the same way.
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
