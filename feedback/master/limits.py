"""Limits: the upper and lower threshold of each destination, in connections.

Owns what is typed in, learned or off, and the kernel's ways with thresholds. Knows no weight and no scheduler. What the
operator typed always wins. Learned ones are

    upper = room + sqrt(room) + inactive now + inactive to come until the next look
    lower = upper - 15 % of the room

with the room from sizing.py. The kernel counts closed connections (inactive) as well, for two minutes: so these are
added. Where they are more than the room, a threshold is only as good as the last look: it is rewritten at each, and
taken away while the server is calm, when it would cost writes and help nobody. One in slow start or of uncertain
capacity has none while nobody has; beside others that have, it would be given all that they cannot take, and so has a
generous one. Behind a tier (`exact`) a threshold is
what switches to the next one: there it is the room and nothing more, and follows the inactive ones at each look, near
the edge to the connection. So it is where memory is what runs out: a connection too many costs all that are there, so
that bound has no margin, and stays in slow start, in doubt about the capacity, and however many closed ones there are.

A scheduler that itself counts active connections (`counted`: ovf, whose weight is the room) needs a threshold only
where order and capacity disagree, for its weights are both.

Invariants: lower <= upper; a destination that the kernel holds for full is not opened by a rewrite while it is full; a
pool that is not saturated never refuses by our thresholds.

Kernels differ (facts: ip_vs_conn.c, ip_vs_ctl.c). Until 6.1.176 any raise of `upper` opens a destination, however full
it is; one that lowers it closes nothing until the next connection has leaked through. Since 6.1.192 an edit that
changes a threshold closes at total >= upper and opens at total < lower. So: a full one is not raised before its total
is under the new lower threshold, and then by at least one connection. Both kernels then do the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import ceil, exp, inf, sqrt

import msgspec

from feedback.master.estimate import Estimate
from feedback.master.fleet import Trust
from feedback.master.pool import Member, Pool
from feedback.master.sizing import Room, Sizing, utilisation
from feedback.model import THRESHOLD_MAX, DestinationKey, Protocol

HYSTERESIS = 0.15  # of the room
REWRITE = 0.10
INTERVAL_SECONDS = 1.0  # at most so often, but to open
CERTAIN, UNCERTAIN = 0.17, 0.25  # deviation of the estimate: learned below, given up above
MANY_INACTIVE = 1.0  # times the room: from here on a threshold has to follow them at each look
LOOK_SECONDS = 0.2
NEARLY_FULL = 0.8  # of the room: from here on a threshold follows the closed ones at each look
BUSY, CALM = 0.5, 0.25  # of the room: where closed ones are many, there is a threshold from here, until there
SATURATED = 0.88
HEADROOM = 1.3
UNMEASURED = "nothing measured yet: the threshold stays"
EDGE = 0.8  # of the threshold: from here on an exact one is exact
COUNTED = "no threshold: the weight is the number of connections"
SMALLER, STILL_SMALLER = 0.75, 0.9  # than the room of one behind: a threshold is needed below, and until


class Limit(msgspec.Struct, frozen=True):
    """Thresholds, 0 is none. `room` is how many active connections it can hold, 0 if that is not known."""

    upper: int = 0
    lower: int = 0
    room: int = 0
    text: str = ""


class _Aim(msgspec.Struct, frozen=True):
    """A learned threshold before the kernel's ways are looked at."""

    limit: Limit
    memory_upper: float  # what memory allows, and no fail-open may cross
    follows: bool = False  # closed connections, at each look


class Limits:
    """The limits of one service. `mode` is `static` (what is typed in), `learned` or `off`."""

    def __init__(self, mode: str, latency_seconds: float) -> None:
        self._mode = mode
        self._sizing = Sizing(latency_seconds)
        self._ours: dict[DestinationKey, list[tuple[int, int]]] = {}
        self._resumed: set[DestinationKey] = set()  # whose thresholds were ours before a restart, not seen yet
        self.ours: frozenset[DestinationKey] = frozenset()  # whose thresholds are, by the last decision
        self._on: set[DestinationKey] = set()  # where a learned one can help: hysteresis
        self._tight: set[DestinationKey] = set()  # where memory could run out: hysteresis
        self._full: set[DestinationKey] = set()  # what the kernel holds for full, as far as can be seen
        self._written_at: dict[DestinationKey, float] = {}

    @property
    def learns(self) -> bool:
        """Whether thresholds are decided here, with room for what comes until the next decision."""
        return self._mode == "learned"

    def resume(self, keys: Collection[DestinationKey]) -> None:
        """The thresholds of these are ours, whatever the first look finds: a master before us learned them."""
        self._resumed = set(keys)

    def limits(
        self,
        pool: Pool,
        now: float,
        *,
        exact: bool = False,
        last: Collection[DestinationKey] = (),
        counted: Mapping[DestinationKey, int] | None = None,
        ramping: Collection[DestinationKey] = (),
    ) -> dict[DestinationKey, Limit]:
        """A limit for each member. `exact`: tiers rest on them, and behind those of `last` there is none, so that only
        memory may make them refuse. `counted`: the tiers, where the scheduler itself counts active connections.
        `ramping`: who is in slow start."""
        self._sizing.observe(pool, now)
        self._look(pool)
        out: dict[DestinationKey, Limit] = {}
        aims: dict[DestinationKey, _Aim] = {}
        rooms = {m.key: self._sizing.room(m, exact=exact, alone=bool(counted)) for m in pool.members}
        enough = _enough_by_weight(pool, rooms, counted) if counted else frozenset()
        for m in pool.members:
            room = rooms[m.key]
            if not self.learns or self._typed(m):
                out[m.key] = self._given(m, room)
            elif m.key in enough:
                out[m.key] = Limit(room=room.connections if room else 0, text=COUNTED)
            else:
                aim = self._learned(pool, m, room, exact=exact, last=m.key in last, ramping=m.key in ramping)
                if isinstance(aim, _Aim):
                    aims[m.key] = aim
                elif aim == UNMEASURED:  # after a restart ours are still there
                    out[m.key] = Limit(*_in_force(m)[:2], room.connections if room else 0, aim)
                else:
                    out[m.key] = Limit(room=room.connections if room else 0, text=f"no threshold: {aim}")
        aims = self._opened(pool, aims, out, exact)
        for m in pool.members:
            if m.key in aims:
                out[m.key] = self._kept(m, aims[m.key].limit, exact or aims[m.key].follows, now)
                self._remember(m.key, out[m.key])
        standing = {m.key for m in pool.members if m.base.upper and not self._typed(m)}
        self.ours = frozenset(standing | {k for k in aims if out[k].upper})
        return out

    def _given(self, member: Member, room: Room | None) -> Limit:
        """What is typed in, or nothing."""
        base, known = member.base, room.connections if room else 0
        if self._mode == "off":
            return Limit(room=known)
        if not base.upper:
            return Limit(base.upper, base.lower, known)
        return Limit(base.upper, base.lower, base.upper, "typed in")

    def _typed(self, member: Member) -> bool:
        """Whether somebody else put the base's threshold there. (Where we do not own the service, the base is what the
        kernel has, and that may be ours.)"""
        base = (member.base.upper, member.base.lower)
        return bool(base[0]) and base not in self._ours.get(member.key, ())

    def _remember(self, key: DestinationKey, limit: Limit) -> None:
        ours = self._ours.setdefault(key, [])
        if (limit.upper, limit.lower) not in ours[-1:]:
            ours.append((limit.upper, limit.lower))
            del ours[:-8]  # an edit may have failed, and an older one be in force

    def _look(self, pool: Pool) -> None:
        keys = {m.key for m in pool.members}
        self._ours = {k: v for k, v in self._ours.items() if k in keys}
        self._on &= keys
        self._tight &= keys
        self._full &= keys
        for m in pool.members:
            if m.key in self._resumed and m.kernel is not None:
                self._resumed.discard(m.key)
                self._ours[m.key] = [(m.base.upper, m.base.lower)]
            upper, lower, total = _in_force(m)
            if upper and total >= upper:
                self._full.add(m.key)
            elif not upper or total < (lower or upper - (upper >> 2)):
                self._full.discard(m.key)

    def _learned(
        self, pool: Pool, member: Member, room: Room | None, *, exact: bool, last: bool, ramping: bool
    ) -> _Aim | str:
        """What is wanted, or why a learned threshold cannot help here."""
        if pool.service.persistent:
            return "a persistent service's clients pass it by"
        if pool.service.key.protocol is Protocol.UDP:
            return "UDP flows are never active and count for five minutes"
        why = self._useless(member, room, exact=exact, last=last, ramping=ramping)
        tight = self._is_tight(member, room)
        if why and room is not None and not exact and self._on and _doubtful(member, ramping):
            room, why = _generous(room, member), ""
        if room is None or (why and not tight):
            return why
        return _aim(member, room, exact=exact, by_load=not why, tight=tight)

    def _useless(self, member: Member, room: Room | None, *, exact: bool, last: bool, ramping: bool) -> str:
        """Why one by load cannot help here, or ''."""
        if room is None or member.estimate is None or not member.estimate.samples:
            why = UNMEASURED
        elif exact:
            why = "nobody comes behind it, and a refusal would help nobody" if last else ""
        else:
            why = self._not_now(member, room, member.estimate, ramping)
        self._on.discard(member.key) if why else self._on.add(member.key)
        return why

    def _not_now(self, member: Member, room: Room, estimate: Estimate, ramping: bool) -> str:
        on = member.key in self._on
        if ramping:
            return "slow start"
        if estimate.deviation > (UNCERTAIN if on else CERTAIN):
            return f"capacity is known to ±{100 * estimate.deviation:.0f} % only"
        opened = _open_and_closed(member)[0]
        if _many_closed(member, room) and opened < (CALM if on else BUSY) * room.connections:
            return f"{opened} open connections of {room.connections}, and many closed ones that would count"
        return ""

    def _is_tight(self, member: Member, room: Room | None) -> bool:
        """Whether memory could run out: it is the tighter bound, or half of what it allows is open."""
        if room is None or room.memory_bound is None:
            self._tight.discard(member.key)
            return False
        part = CALM if member.key in self._tight else BUSY
        tight = room.memory_bound <= room.connections or _open_and_closed(member)[0] >= part * room.memory_bound
        self._tight.add(member.key) if tight else self._tight.discard(member.key)
        return tight

    def _opened(
        self,
        pool: Pool,
        aims: Mapping[DestinationKey, _Aim],
        given: Mapping[DestinationKey, Limit],
        exact: bool,
    ) -> dict[DestinationKey, _Aim]:
        """Fail open: unless the pool is saturated, those that are not full can hold a third more open connections
        than they have. What memory allows is not crossed."""
        serving = [m for m in pool.members if not m.quiesced]
        uppers = {m.key: (aims[m.key].limit if m.key in aims else given[m.key]).upper or inf for m in serving}
        open_ones = [m for m in serving if not self._is_full(m, uppers[m.key])]
        needed = sum(HEADROOM * active + closed for active, closed in map(_open_and_closed, open_ones or serving))
        held = sum(uppers[m.key] for m in open_ones)
        if (exact and open_ones) or held >= max(needed, 1):
            return dict(aims)
        if utilisation(m.estimate for m in serving) > SATURATED:
            return {k: _without_hysteresis(a) for k, a in aims.items()} if exact else dict(aims)
        factor = needed / (held or sum(uppers.values()) or 1)
        return {k: _stretched(a, max(1.0, factor)) for k, a in aims.items()}

    def _is_full(self, member: Member, upper: float) -> bool:
        return member.key in self._full or _in_force(member)[2] >= upper

    def _kept(self, member: Member, aim: Limit, follow: bool, now: float) -> Limit:
        """The aim, or what is in force while that is near enough, or while a rewrite would open a full one."""
        upper, lower, total = _in_force(member)
        have = Limit(upper, lower, aim.room, aim.text)
        if member.kernel is None or member.quiesced:
            return aim if member.kernel is None else have
        if member.trust is not Trust.FRESH and not follow and upper:
            return have
        if member.key in self._full:
            if total < aim.lower:
                return self._write(member, msgspec.structs.replace(aim, upper=max(aim.upper, upper + 1)), now)
            # Still full: down with what has expired, but never up.
            return aim if follow and aim.upper < upper and aim.upper <= total else have
        if follow:
            near = total >= EDGE * min(aim.upper, upper or aim.upper)
            slack = 0 if near else max(1, int(REWRITE * aim.room))
            return have if upper and abs(aim.upper - upper) <= slack else self._write(member, aim, now)
        rested = now - self._written_at.get(member.key, -inf) >= INTERVAL_SECONDS
        if upper and (abs(aim.upper - upper) <= REWRITE * upper or not rested):
            return have
        return self._write(member, aim, now)

    def _write(self, member: Member, aim: Limit, now: float) -> Limit:
        self._written_at[member.key] = now
        return aim


def _in_force(member: Member) -> tuple[int, int, int]:
    """Upper, lower and what is counted against them."""
    kernel = member.kernel
    if kernel is None:
        return 0, 0, 0
    return kernel.destination.upper, kernel.destination.lower, kernel.active + kernel.inactive


def _open_and_closed(member: Member) -> tuple[int, int]:
    return (member.kernel.active, member.kernel.inactive) if member.kernel else (0, 0)


def _many_closed(member: Member, room: Room) -> bool:
    return member.kernel is not None and member.kernel.inactive > MANY_INACTIVE * room.connections


def _enough_by_weight(
    pool: Pool, rooms: Mapping[DestinationKey, Room | None], tiers: Mapping[DestinationKey, int]
) -> frozenset[DestinationKey]:
    """Who needs no threshold where a weight is a number of connections: all but those in front of a larger one. One
    that was only taken for an average server until now has to be small until it shows that it is larger."""
    sizes = {m.key: room.connections if (room := rooms[m.key]) else 0 for m in pool.members}
    shown = {m.key: sizes[m.key] for m in pool.members if m.estimate is not None and m.estimate.samples}
    behind = {
        k: max((n for other, n in shown.items() if tiers.get(other, 0) > tiers.get(k, 0)), default=0) for k in sizes
    }
    parts = {m.key: STILL_SMALLER if _in_force(m)[0] else SMALLER for m in pool.members}
    return frozenset(k for k, n in sizes.items() if n >= parts[k] * behind[k])


def _doubtful(member: Member, ramping: bool) -> bool:
    estimate = member.estimate
    return estimate is not None and (ramping or not estimate.samples or estimate.deviation > CERTAIN)


def _generous(room: Room, member: Member) -> Room:
    """What a server of uncertain capacity can hold at most, as far as is known."""
    deviation = member.estimate.deviation if member.estimate else 0.0
    count = ceil(room.connections * exp(2 * deviation))
    if room.memory_bound is not None:
        count = min(count, max(1, room.memory_bound))
    return Room(count, room.memory_bound, f"{room.text}, known to ±{100 * deviation:.0f} %: {count} at most")


def _aim(member: Member, room: Room, *, exact: bool, by_load: bool, tight: bool) -> _Aim:
    """By load, by memory where that is tight, or by the tighter of both."""
    closed = _open_and_closed(member)[1]
    closing = ceil(member.estimate.rate * LOOK_SECONDS) if closed and member.estimate else 0
    memory = inf if room.memory_bound is None else room.memory_bound + closed + closing
    loaded, follows = _by_load(member, room, exact) if by_load else (inf, False)
    if tight and memory <= loaded:
        text = f"memory for {room.memory_bound} connections, and {closed} closed ones"
        upper, follows = memory, True
    else:
        upper, text = loaded, f"{room.text}, {'and' if exact else 'with a margin and'} {closed} closed ones"
    hysteresis = max(1, int(HYSTERESIS * room.connections))
    return _Aim(_limit(int(upper), hysteresis, room.connections, text), memory, follows)


def _by_load(member: Member, room: Room, exact: bool) -> tuple[float, bool]:
    """The threshold, and whether it has to follow the closed connections at each look."""
    closed = _open_and_closed(member)[1]
    if exact:
        return room.connections + closed, False
    follows = _many_closed(member, room) or _open_and_closed(member)[0] >= NEARLY_FULL * room.connections
    rate = member.estimate.rate if member.estimate else 0.0
    seconds = LOOK_SECONDS if follows else INTERVAL_SECONDS
    growth = rate * seconds + (0.0 if follows else 3 * sqrt(closed)) if closed else 0.0
    return ceil(room.connections + sqrt(room.connections) + closed + growth), follows


def _limit(upper: int, hysteresis: int, room: int, text: str) -> Limit:
    upper = min(max(1, upper), THRESHOLD_MAX)
    return Limit(upper, max(1, upper - hysteresis), room, text)


def _without_hysteresis(aim: _Aim) -> _Aim:
    """All are full: whoever has room for one takes one."""
    return _Aim(msgspec.structs.replace(aim.limit, lower=aim.limit.upper), aim.memory_upper, aim.follows)


def _stretched(aim: _Aim, factor: float) -> _Aim:
    limit = aim.limit
    upper = int(max(limit.upper, min(ceil(limit.upper * factor), aim.memory_upper)))
    text = f"{limit.text}; raised: the pool is not saturated and would refuse"
    return _Aim(_limit(upper, limit.upper - limit.lower, limit.room, text), aim.memory_upper, aim.follows)
