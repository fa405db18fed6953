"""Doubt: an agent that says there is room while connections stay on its server far longer than on the others. Pure.

Everything that an agent says can be a lie, or an honest mistake: a server that waits for a lock or a disk has an idle
CPU. What the director counts itself is neither. How long connections stay (open ones over new ones a second, both the
kernel's) is alike over a pool whatever the servers' sizes, as long as none has a queue. A server that is well above the
others, and not for a moment, has a queue; if its agent says that it is not full, its word is not good for more than its
static share (or an equal one). For longer each time, as an ejection is.

Knows no law; the guard applies it to shares above the static one only, so that doubt never takes what anybody is owed.
"""

from __future__ import annotations

from math import inf

import msgspec

from feedback.master.fleet import Trust
from feedback.master.pool import Member, Pool
from feedback.model import DestinationKey

LONGER = 5.0  # times the others' residence: shares move by the ceiling at most, and that is less
ACTIVE_MIN = 20  # a handful of connections tells nothing
FULL = 0.9  # who says this of itself is believed
SUSTAINED_SECONDS = 2.5  # the kernel refreshes its counts every 2 s: one whole window
HOLD_SECONDS, HOLD_SECONDS_MAX = 20.0, 600.0
GROWTH = 2.0
FORGET_SECONDS = 300.0  # without doubt for so long after one, the next begins as the first did


class _Known(msgspec.Struct):
    """Of one destination: its count at the last refresh, new connections a second over the last window; since when it
    contradicts itself; until when it is doubted, and how long that was."""

    counted: int
    counted_at: float
    rate: float | None = None
    since: float | None = None
    until: float = -inf
    hold: float = 0.0


class Doubt:
    """Whom the director's own counts contradict."""

    def __init__(self) -> None:
        self._known: dict[DestinationKey, _Known] = {}

    def doubted(self, pool: Pool, now: float) -> dict[DestinationKey, str]:
        """Who is doubted now, and why. Call it at each decision."""
        self._count(pool, now)
        rates = {k: known.rate for k, known in self._known.items() if known.rate is not None}
        active = {m.key: m.kernel.active for m in pool.members if m.kernel is not None and m.key in rates}
        total_active, total_rate = sum(active.values()), sum(rates[k] for k in active)
        found: dict[DestinationKey, str] = {}
        for member in pool.members:
            known = self._known.get(member.key)
            if known is None:
                continue
            others = total_rate - rates.get(member.key, 0.0), total_active - active.get(member.key, 0)
            ratio = _ratio(member, rates.get(member.key, 0.0), *others)
            self._judge(known, ratio >= LONGER, now)
            if now < known.until:
                found[member.key] = (
                    f"its agent says that it has room, but connections stay {LONGER:g} times as long there as on the "
                    f"others: not believed for {known.until - now:.0f} s more"
                )
        return found

    def _count(self, pool: Pool, now: float) -> None:
        keys = {m.key for m in pool.members}
        self._known = {k: known for k, known in self._known.items() if k in keys}
        for member in pool.members:
            if member.kernel is None:
                continue
            count = member.kernel.counters.connections
            known = self._known.setdefault(member.key, _Known(count, now))
            if count < known.counted:
                known.counted, known.counted_at, known.rate = count, now, None
            elif count > known.counted and now > known.counted_at:
                known.rate = (count - known.counted) / (now - known.counted_at)
                known.counted, known.counted_at = count, now

    def _judge(self, known: _Known, contradicts: bool, now: float) -> None:
        if not contradicts:
            known.since = None
            return
        known.since = now if known.since is None else known.since
        if now < known.until or now - known.since < SUSTAINED_SECONDS:
            return
        again = now - known.until < FORGET_SECONDS
        known.hold = min(HOLD_SECONDS_MAX, known.hold * GROWTH) if again else HOLD_SECONDS
        known.until = now + known.hold


def _ratio(member: Member, rate: float, others_rate: float, others_active: int) -> float:
    """How many times as long as on the others connections stay on a server that says it has room; 0 where that cannot
    be told."""
    if member.kernel is None or member.kernel.active < ACTIVE_MIN or member.trust is not Trust.FRESH:
        return 0.0
    if rate <= 0 or others_rate <= 0 or member.estimate is None or member.estimate.utilisation >= FULL:
        return 0.0
    others = max(1, others_active) / others_rate
    return member.kernel.active / rate / others
