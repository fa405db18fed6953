"""Wishes: what servers ask for themselves, as a part of what the law would give them. Told once, after the law.

An agent-check agent says a part, as HAProxy takes it of the usual weight. An answer to a health check says a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low

import msgspec

from feedback.master.pool import Row
from feedback.master.servers.capacity import Estimate


class Advised(msgspec.Struct, frozen=True, gc=False):
    part: float

    def __str__(self) -> str:
        return f"its agent asks for {100 * self.part:.0f} % of it"


class Weighed(msgspec.Struct, frozen=True, gc=False):
    """A weight in the answer to a check, and what it makes of a share."""

    weight: float
    part: float

    def __str__(self) -> str:
        return f"says weight {self.weight:g} in answer to its check: {100 * self.part:.0f} % of a usual one"


class NotWeighed(msgspec.Struct, frozen=True, gc=False):
    weight: float

    def __str__(self) -> str:
        return f"says weight {self.weight:g} in answer to its check: its capacity is measured, which tells more"


def advise(rows: Sequence[Row]) -> None:
    """A part of what its server would get."""
    for row in rows:
        if row.advised is not None:
            row.wanted *= row.advised
            row.say("advice", Advised(row.advised), row.wanted)


def weigh(rows: Sequence[Row]) -> None:
    """Servers say weights of any scale, so each counts beside the usual one of the pool, less what the static weights
    say already. A capacity that is measured tells more."""
    said = [row for row in rows if row.weighed and row.base.weight and row.zero is None]
    usual = median_low([row.weighed / row.base.weight for row in said if row.weighed]) if said else 1.0
    for row in said:
        weight = row.weighed or 0.0
        if isinstance(row.why, Estimate):
            row.say("advice", NotWeighed(weight), row.wanted)
        else:
            part = weight / row.base.weight / usual
            row.wanted *= part
            row.say("advice", Weighed(weight, part), row.wanted)
