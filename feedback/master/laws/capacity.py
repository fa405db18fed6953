"""`capacity`: shares in proportion to what each server can complete per second.

It supplies what the kernel cannot know, and leaves to the kernel's scheduler what that does better: reacting to
connections in flight. What holds a server back although its CPU does not (memory, signs of drowning) is a factor on top
(`strain`). When the whole pool is hot, capacities freeze: one server's fault and everybody's saturation are different
things.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from feedback.master.estimate import Estimate
from feedback.master.laws.options import Options
from feedback.master.laws.strain import Strain
from feedback.master.pool import Member, Pool, Share, Shares
from feedback.model import DestinationKey, Reason

HOT = 0.88  # mean utilisation of the pool above which capacities freeze


class CapacityOptions(Options, frozen=True):
    """Over this mean utilisation of the pool, capacities freeze."""

    hot_utilisation: Annotated[float, msgspec.Meta(ge=0.5, le=1)] = HOT


DEFAULTS = CapacityOptions()


class Capacity:
    Options = CapacityOptions

    def __init__(self, options: CapacityOptions = DEFAULTS) -> None:
        self._hot = options.hot_utilisation
        self._frozen: dict[DestinationKey, float] = {}
        self._strains: dict[DestinationKey, Strain] = {}

    def shares(self, pool: Pool, now: float) -> Shares:
        known = {m.key: m.estimate for m in pool.members if m.estimate is not None}
        hot = _utilisation(known) > self._hot
        shares = {m.key: _share(m, known) for m in pool.members}
        if hot and self._frozen.keys() == shares.keys():
            text = f"the whole pool is over {100 * self._hot:.0f} % used: capacities stay as they were"
            shares = {k: s.because("law", text, self._frozen[k]) for k, s in shares.items()}
        else:
            self._frozen = {k: s.value for k, s in shares.items()}
        return {m.key: self._strained(m, shares[m.key], now, hot) for m in pool.members}

    def _strained(self, member: Member, share: Share, now: float, hot: bool) -> Share:
        strain = self._strains.setdefault(member.key, Strain())
        strain.follow(member, now, hot)
        return share.because("law", strain.text, share.value * strain.factor) if strain.text else share


def _share(member: Member, known: dict[DestinationKey, Estimate]) -> Share:
    estimate = member.estimate
    if estimate is None:
        return _unknown(member, known)
    unit = " open" if estimate.held else "/s"
    text = (
        f"capacity {estimate.capacity:.1f}{unit} ±{100 * estimate.deviation:.0f} % "
        f"({estimate.cores:g} cores, {100 * estimate.available:.0f} % of them available, "
        f"{100 * estimate.utilisation:.0f} % of that used at {estimate.rate:.1f}/s, {estimate.samples} samples)"
    )
    return Share(estimate.capacity, (Reason("law", text, estimate.capacity),))


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
