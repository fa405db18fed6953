"""`ovf`: a weight is a number of active connections. The highest weight takes all until it has one more than that.

The same number is order and capacity, and they may disagree: a small server that is preferred to a large one needs the
higher weight. Then the weight carries the order and the upper threshold the capacity; where there is no threshold, the
servers behind are held below the preferred one, as the order is what was asked for. Weights are distinct: among equals
the head of the list would take all.

Weights that fall are written at once; those that rise, by more than the dead band and every 5 s at most, but at once
where a server is nearly full: the next one would be given what this one can take.
Source: ip_vs_ovf.c. It admits active <= weight, i.e. weight + 1 connections.
"""

from __future__ import annotations

from feedback.master.actuate.tiers import in_order, is_tiered
from feedback.master.actuate.weight import Wanted, Weight, Weights, active, current, never_active
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey

UDP = "ovf counts active connections, and UDP has none: the first takes all"


class Count:
    SECONDS_MIN = 5.0
    NEARLY_FULL = 0.75  # of its weight

    def __init__(self, dead_band: float) -> None:
        self._dead_band = dead_band
        self._risen_at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        ranked = self._ranked(pool, wanted)
        rested = self._risen_at is None or now - self._risen_at >= self.SECONDS_MIN
        out = {m.key: Weight(0, "out of service", 0.0) for m in pool.members}
        above = 0
        for m in reversed(ranked):
            aim = self._kept(m, max(1, _room(m, wanted) - 1), rested)
            text = f"holds {aim + 1} active connections"
            if aim <= above:
                aim, text = above + 1, f"{text}; kept before the larger ones behind it, its threshold bounds it"
            out[m.key] = Weight(aim, text)
            above = aim
        self._bound(ranked, wanted, out)
        if never_active(pool):
            out = {k: Weight(w.value, UDP) for k, w in out.items()}
        if any(out[m.key].value > (current(m) or 0) for m in ranked):
            self._risen_at = now
        return out

    def _ranked(self, pool: Pool, wanted: Wanted) -> list[Member]:
        """With tiers their order; without, those that hold more come first."""
        tiers = in_order(pool, wanted)
        if not is_tiered(wanted):
            return sorted((m for t in tiers for m in t), key=lambda m: (-_room(m, wanted), m.key))
        return [m for t in tiers for m in sorted(t, key=lambda m: (-_room(m, wanted), m.key))]

    def _kept(self, member: Member, aim: int, rested: bool) -> int:
        have = current(member)
        if not have or aim <= have or active(member) >= self.NEARLY_FULL * have:
            return aim
        return have if not rested or aim - have <= self._dead_band * have else aim

    def _bound(self, ranked: list[Member], wanted: Wanted, out: dict[DestinationKey, Weight]) -> None:
        """A weight above the room needs a threshold; without one, it and all behind it come down."""
        ceiling: int | None = None
        for place, m in enumerate(ranked):
            weight, room = out[m.key].value, max(1, _room(m, wanted) - 1)
            if weight > room and not _has_threshold(m, wanted):
                ceiling = room if ceiling is None else min(ceiling, room)
            if ceiling is not None and weight > ceiling:
                kept = max(ceiling, len(ranked) - place)
                behind = "" if kept >= room else ", to stay behind those preferred"
                out[m.key] = Weight(kept, f"holds {kept + 1} active connections{behind}")
            if ceiling is not None:
                ceiling = min(ceiling, out[m.key].value) - 1


def _room(member: Member, wanted: Wanted) -> int:
    """Typed in, learned, or else what the operator's weight says."""
    limit = wanted.limits.get(member.key)
    return limit.room if limit and limit.room else max(1, member.base.weight) + 1


def _has_threshold(member: Member, wanted: Wanted) -> bool:
    limit = wanted.limits.get(member.key)
    return limit is not None and limit.upper > 0
