"""Limits: the upper and lower threshold of each destination, in connections.

Today these are the operator's own numbers (the configuration's, or what the kernel has where somebody else owns the
service), carried through unchanged, so that an edit of a weight never wipes them.
"""

from __future__ import annotations

import msgspec

from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey


class Limit(msgspec.Struct, frozen=True):
    """Thresholds, 0 is none. `room` is how many active connections it can hold, 0 if that is not known."""

    upper: int = 0
    lower: int = 0
    room: int = 0
    text: str = ""


def limits(pool: Pool) -> dict[DestinationKey, Limit]:
    return {m.key: _limit(m) for m in pool.members}


def _limit(member: Member) -> Limit:
    return Limit(member.base.upper, member.base.lower)
