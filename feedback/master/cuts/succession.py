"""Succession: which server holds the first place of a `failover` service, and when another takes it. Pure.

For services with only one writer. A change of place is three things in one decision: the old one leaves the table, the
new one gets the weight, and the old one's flows are cut. Until the old one may leave (its flows must be listed first,
course.py) everything stays as it is. So no connection is made to the new one while one continues at the old.

| who holds the place | changes to | when |
|---|---|---|
| nobody known | who has the largest weight in the kernel, else what the state says, else the first | the first look |
| A | the one who is promoted | by the operator, if it is in service |
| A, in service | nobody else | with `sticky` |
| A, in service | the first in the order that is in service | without |
| A, out of service | the first in the order that is in service | at once |
| A, out of service by its check | nobody | while nobody is in service |

Invariant: while the holder's record is in the kernel's table, no other one becomes the holder, if flows are cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from feedback.master.cuts.course import Evicted
from feedback.master.laws.failover import CutWhom, FailoverOptions, draining, rank
from feedback.master.outcome import Fact
from feedback.master.pool import Pool, Row
from feedback.model import DestinationKey


class Superseded(msgspec.Struct, frozen=True, gc=False):
    by: DestinationKey

    def __str__(self) -> str:
        return f"{self.by} takes its place: it leaves the table until its connections are forgotten"


class Succession:
    """The first place of one service. `holder` is what a restarted master must know."""

    def __init__(self, options: FailoverOptions) -> None:
        self._options = options
        self._holder: DestinationKey | None = None
        self._wanted: DestinationKey | None = None  # promoted, or what the state said
        self._known = False

    @property
    def holder(self) -> DestinationKey | None:
        """The server that has the place, or is about to get it."""
        return self._wanted or self._holder

    def restore(self, holder: DestinationKey) -> None:
        """Before the first look."""
        self._wanted = holder

    def promote(self, key: DestinationKey, rows: Sequence[Row]) -> str:
        """Returns why not, or ''."""
        if not self._options.sticky:
            return "its law_options have no sticky = true: the first of the order would take the place back at once"
        row = next((row for row in rows if row.key == key), None)
        if row is None or row.kernel is None or not _serves(row):
            return "it is not in service" + (f": {row.zero.why}" if row is not None and row.zero is not None else "")
        self._wanted = key
        return ""

    def before(self, pool: Pool) -> None:
        """Called when the zeros are known: decide which server should have the place, and which is evicted."""
        rows = pool.rows
        if not self._known:
            self._find(rows)
        heir = self._heir(rows)
        pool.heir = None if heir is None else heir.key
        old = next((row for row in rows if row.key == self._holder), None)
        if heir is None:
            _keep(old)
            return
        if heir is old:
            return
        if self._options.cut is CutWhom.NEVER or old is None or old.kernel is None:
            self._holder = heir.key
        elif old.evicted is None:
            why: Fact = Superseded(heir.key)
            old.evicted = Evicted(why, both=self._options.cut is CutWhom.BOTH, patient=True)

    def after(self, pool: Pool) -> None:
        """Called when it is known which rows may leave now: the place changes hands in the same decision."""
        old = next((row for row in pool.rows if row.key == self._holder), None)
        if old is not None and pool.heir not in (None, old.key) and (old.gone or old.kernel is None):
            self._holder = pool.heir
        if self._wanted == self._holder:
            self._wanted = None
        pool.holder = self._holder

    def _find(self, rows: Sequence[Row]) -> None:
        there = [row for row in rows if row.kernel is not None and row.weight > 0]
        most = max((row.weight for row in there), default=0)
        first = [row for row in there if row.weight == most]
        if len(first) == 1:
            self._holder = first[0].key
        elif self._wanted is not None:
            self._holder = self._wanted
        self._known = bool(rows)

    def _heir(self, rows: Sequence[Row]) -> Row | None:
        """The server that should have the place. None if no server is in service; then nothing changes."""
        serving = sorted((row for row in rows if _serves(row)), key=rank)
        wanted = next((row for row in serving if row.key == self._wanted), None)
        if wanted is not None:
            return wanted
        holder = next((row for row in serving if row.key == self._holder), None)
        if holder is not None and self._options.sticky and not draining(holder):
            return holder
        return serving[0] if serving else None


def _keep(old: Row | None) -> None:
    """Nobody can take the place now: whoever has it goes on, whatever its check says. Where the only one that could
    serve is out for a moment, to be forgotten, nobody would be left."""
    if old is not None and old.kernel is not None and old.zero is not None and old.zero.barred:
        old.zero, old.gone = None, False


def _serves(row: Row) -> bool:
    return row.zero is None and row.out is None and row.evicted is None and not row.gone
