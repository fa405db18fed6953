"""`capacity`: shares in proportion to what each server can complete per second.

It supplies what the kernel cannot know, and leaves to the kernel's scheduler what that does better: reacting to
connections in flight. Memory is a constraint, not an average: it takes nothing until available memory falls under 15 %,
and nearly everything at 5 %. When the whole pool is hot, shares freeze: one server's fault and everybody's saturation
are different things.
"""

from __future__ import annotations

from feedback.master.estimate import Estimate
from feedback.master.pool import Member, Pool, Share, Shares
from feedback.model import DestinationKey, Reason

HOT = 0.88  # mean utilisation of the pool above which shares freeze
MEMORY_FREE, MEMORY_LOW = 0.15, 0.05  # available memory: no effect above, almost nothing left below
MEMORY_SHARE_MIN = 0.05


class Capacity:
    def __init__(self) -> None:
        self._frozen: dict[DestinationKey, float] | None = None

    def shares(self, pool: Pool, now: float) -> Shares:
        known = {m.key: m.estimate for m in pool.members if m.estimate is not None}
        shares = {m.key: self._share(m, known) for m in pool.members}
        if _utilisation(known) > HOT and self._same_members(shares):
            return self._freeze(shares)
        self._frozen = {k: s.value for k, s in shares.items()}
        return shares

    def _share(self, member: Member, known: dict[DestinationKey, Estimate]) -> Share:
        estimate = member.estimate
        if estimate is None:
            return _unknown(member, known)
        memory = memory_factor(estimate.memory_available)
        value = estimate.capacity * memory
        text = (
            f"capacity {estimate.capacity:.1f}/s ±{100 * estimate.deviation:.0f} % "
            f"({estimate.cores:g} cores, {100 * estimate.available:.0f} % of them available, "
            f"{100 * estimate.utilisation:.0f} % of that used at {estimate.rate:.1f}/s, {estimate.samples} samples)"
        )
        reasons = [Reason("law", text, estimate.capacity)]
        if memory < 1:
            reasons.append(Reason("law", f"{100 * estimate.memory_available:.0f} % of memory available", value))
        return Share(value, tuple(reasons))

    def _same_members(self, shares: Shares) -> bool:
        return self._frozen is not None and self._frozen.keys() == shares.keys()

    def _freeze(self, shares: Shares) -> Shares:
        assert self._frozen is not None
        text = f"the whole pool is over {100 * HOT:.0f} % used: shares stay as they were"
        return {k: s.because("law", text, self._frozen[k]) for k, s in shares.items()}


def _unknown(member: Member, known: dict[DestinationKey, Estimate]) -> Share:
    """No report yet: an average server."""
    if not known:
        return Share(float(member.base.weight), (Reason("law", "no report yet: static weight", member.base.weight),))
    mean = sum(e.capacity for e in known.values()) / len(known)
    return Share(mean, (Reason("law", "no report yet: taken for an average server", mean),))


def _utilisation(known: dict[DestinationKey, Estimate]) -> float:
    """Of the pool: what is used of what all can have, weighted by capacity."""
    total = sum(e.capacity for e in known.values())
    return sum(e.capacity * e.utilisation for e in known.values()) / total if total else 0.0


def memory_factor(available: float) -> float:
    """1 above 15 % of memory available, falling linearly to 0.05 at 5 %."""
    part = (available - MEMORY_LOW) / (MEMORY_FREE - MEMORY_LOW)
    return max(MEMORY_SHARE_MIN, min(1.0, part))
