"""What all actuators share: a weight with its reason, the way to one from shares, and what the kernel counts now.

Owns the scale, the dead band and the closer look. Knows no scheduler. Invariant: a share of 0 is a weight of 0, any
other at least 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median_low
from typing import Protocol, TypeAlias

import msgspec

from feedback.master.limits import Limit
from feedback.master.pool import Member, Pool, Share
from feedback.model import DestinationKey
from feedback.model import Protocol as Transport

LOOK_SECONDS = 0.05  # between looks, where an actuator gains by a closer one
CATCH_UP = 0.15  # a server below its part may get this much more than its share of the arrivals


class Wanted(msgspec.Struct, frozen=True):
    """What is wanted of one service: the shares that the guard let through; each one's tier (pool.Share), where the law
    has tiers; its limits, among them how many active connections it can hold; and who is in slow start."""

    shares: Mapping[DestinationKey, Share]
    tiers: Mapping[DestinationKey, int] = {}
    limits: Mapping[DestinationKey, Limit] = {}
    ramping: frozenset[DestinationKey] = frozenset()

    def share(self, member: Member) -> float:
        return self.shares[member.key].value


class Weight(msgspec.Struct, frozen=True):
    """`share` is the part of the connections that it stands for, where that is not what the guard let through."""

    value: int
    text: str = ""
    share: float | None = None


Weights: TypeAlias = Mapping[DestinationKey, Weight]


class Actuator(Protocol):
    """One instance serves one service."""

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        """A weight for every member. A share of 0 is a weight of 0, any other at least 1."""
        ...


def current(member: Member) -> int | None:
    return member.kernel.destination.weight if member.kernel else None


def active(member: Member) -> int:
    return member.kernel.active if member.kernel else 0


def inactive(member: Member) -> int:
    return member.kernel.inactive if member.kernel else 0


def surviving(pool: Pool, seconds: float) -> float:
    """The part of the open connections that is still open after so many seconds (residence by Little's law)."""
    opened = sum(active(m) for m in pool.members)
    residence = opened / pool.flow if pool.flow > 0 else 0.0
    return max(0.0, 1 - seconds / residence) if residence > 0 else 0.0


def scaled(pool: Pool, wanted: Wanted, mean: float, limit: int, *, keep: bool) -> dict[DestinationKey, float]:
    """Shares times a scale. With `keep` it is that of the weights in force while it fits, so that one server's change
    is one write."""
    shares = {m.key: wanted.share(m) for m in pool.members}
    serving = [s for s in shares.values() if s > 0]
    if not serving:
        return shares
    scale = mean * len(serving)
    ratios = [w / shares[m.key] for m in pool.members if (w := current(m)) and shares[m.key] > 0]
    if keep and ratios:
        have = median_low(ratios)
        if scale / 3 <= have <= scale * 3 and max(serving) * have <= limit:
            scale = have
    scale = min(scale, limit / max(serving))
    return {k: s * scale for k, s in shares.items()}


def banded(member: Member, value: float, dead_band: float, limit: int) -> Weight:
    """The weight in force stays while the wanted one is within the dead band of it."""
    if value <= 0:
        return Weight(0)
    have = current(member)
    if have and abs(value - have) <= max(dead_band * have, 0.6):
        return Weight(have, f"{value:.1f} is within the dead band of {have}")
    return Weight(min(limit, max(1, round(value))))


def switched(pool: Pool, weights: Weights) -> bool:
    """Whether somebody comes into service or goes out of it: that is never put off."""
    return any((not current(m)) != (not weights[m.key].value) for m in pool.members)


def resting(pool: Pool, text: str) -> Weights:
    """What is in force, and why nothing is written now."""
    return {m.key: Weight(current(m) or 0, text) for m in pool.members}


def never_active(pool: Pool) -> bool:
    """The kernel counts no UDP flow as active: a scheduler that looks at active connections sees none for ever."""
    return pool.service.key.protocol is Transport.UDP
