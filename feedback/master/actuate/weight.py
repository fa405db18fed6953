"""What all actuators share: a weight with its reason, the way to one from shares, and what the kernel counts now.

Owns the scale and the dead band. Knows no scheduler. Invariant: a share of 0 is a weight of 0, any other at least 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median_low
from typing import Protocol, TypeAlias

import msgspec

from feedback.master.guard import Guarded
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey

CATCH_UP = 0.15  # a server below its part may get this much more than its share of the arrivals


class Weight(msgspec.Struct, frozen=True):
    value: int
    text: str = ""


Weights: TypeAlias = Mapping[DestinationKey, Weight]


class Actuator(Protocol):
    """One instance serves one service."""

    def weights(self, pool: Pool, guarded: Guarded, now: float) -> Weights:
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


def scaled(pool: Pool, guarded: Guarded, mean: int, limit: int, *, keep: bool) -> dict[DestinationKey, float]:
    """Shares times a scale. With `keep` it is that of the weights in force while it fits, so that one server's change
    is one write."""
    shares = {m.key: guarded.shares[m.key].value for m in pool.members}
    serving = [s for s in shares.values() if s > 0]
    if not serving:
        return shares
    scale = float(mean * len(serving))
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
    wanted = min(limit, max(1, round(value)))
    have = current(member)
    if have and abs(value - have) <= max(dead_band * have, 0.6):
        return Weight(have, f"{value:.1f} is within the dead band of {have}")
    return Weight(wanted)
