"""Limits: the upper and lower threshold of each destination, in connections.

Owns configured and learned thresholds, and the kernel's handling of them. Knows no weight and no scheduler. The
operator's thresholds always win. Learned ones are

    upper = room + sqrt(room) + inactive now + inactive to come until the next look
    lower = upper - 15 % of the room

with the room from sizing.py, which is known to 15 % at best: a full one opens for several connections, not for one at a
time. The kernel counts closed connections (inactive) too, for two minutes, so these are added.
If they exceed the room, a threshold is only as good as the last look: it is rewritten at each look, and removed while
the server is calm, when it would cost writes and help nobody. A server in slow start or of uncertain capacity has no
threshold while no other has one. Beside others with thresholds it would get everything that they cannot take, so it has
a generous one. In a tier (`exact`) the threshold switches to the next one: there it is exactly the room, and follows
the inactive ones at each look, near the edge to the connection. The same holds if memory runs out: one connection too
many costs all the others, so that bound has no margin, and stays in slow start, under doubt about the capacity, and
with any number of closed ones.

A scheduler that itself counts active connections (`counted`: ovf, whose weight is the room) needs a threshold only
where order and capacity disagree, for its weights are both.

Invariants: lower <= upper; a rewrite never opens a destination that is full to the kernel; a pool that is not
saturated, nor was some seconds ago, never refuses by our thresholds.

Kernels differ (facts: ip_vs_conn.c, ip_vs_ctl.c). Until 6.1.176 any raise of `upper` opens a destination, however full
it is; lowering it closes nothing until one more connection has got through. Since 6.1.192 an edit that changes a
threshold closes at total >= upper and opens at total < lower. So: a full one is not raised before its total is under
the new lower threshold, and then by at least one connection. Both kernels then do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, exp, inf, sqrt
from statistics import median_low

import msgspec

from feedback.master.bounds.sizing import Room, Sizing
from feedback.master.outcome import Fact
from feedback.master.pool import NEARLY_FULL, SATURATED, Pool, Row, crowding, estimates, utilisation
from feedback.master.servers.capacity import Estimate
from feedback.master.servers.filter import KNOWN_VARIANCE, PRIOR_VARIANCE
from feedback.master.servers.fleet import Trust
from feedback.model import THRESHOLD_MAX

REWRITE = 0.10  # relative change worth an edit of what costs more than a weight: a limit, a hash table
INTERVAL_SECONDS = 1.0  # at most so often, but to open
CERTAIN = sqrt(KNOWN_VARIANCE)  # deviation of the estimate: learned below, given up above what is known of any server
BUSY = 0.5  # of the room: where closed ones are many, there is a threshold from here on, until half of it
HEADROOM = 1.3  # times what is open: until the next look a pool that is not saturated must not refuse
ROOM_MOST = 16  # times the usual room: what one agent's word counts, as in shares (guard.py: the ceiling's square)
UNMEASURED = "nothing measured yet: the threshold stays"
COUNTED = "no threshold: the weight is the number of connections"
SMALLER, STILL_SMALLER = 1 - 2 * CERTAIN, 1 - CERTAIN  # than the room of one behind: a threshold is needed below, until


TYPED_IN = "typed in"
AS_BEFORE_THE_TRIAL = "as before the trial"


class NoThreshold(msgspec.Struct, frozen=True, gc=False):
    why: Fact

    def __str__(self) -> str:
        return f"no threshold: {self.why}"


class Uncertain(msgspec.Struct, frozen=True, gc=False):
    deviation: float

    def __str__(self) -> str:
        return f"capacity is known to ±{100 * self.deviation:.0f} % only"


class Quiet(msgspec.Struct, frozen=True, gc=False):
    opened: int
    room: int

    def __str__(self) -> str:
        return f"{self.opened} open connections of {self.room}, and many closed ones that would count"


class Generous(msgspec.Struct, frozen=True, gc=False):
    why: Fact
    deviation: float
    connections: int

    def __str__(self) -> str:
        return f"{self.why}, known to ±{100 * self.deviation:.0f} %: {self.connections} at most"


class MemoryTight(msgspec.Struct, frozen=True, gc=False):
    connections: int
    closed: int

    def __str__(self) -> str:
        return f"memory for {self.connections} connections, and {self.closed} closed ones"


class Sized(msgspec.Struct, frozen=True, gc=False):
    why: Fact
    closed: int
    exact: bool

    def __str__(self) -> str:
        return f"{self.why}, {'and' if self.exact else 'with a margin and'} {self.closed} closed ones"


class Raised(msgspec.Struct, frozen=True, gc=False):
    why: Fact

    def __str__(self) -> str:
        return f"{self.why}; raised: the pool is not saturated and would refuse"


class TooLarge(msgspec.Struct, frozen=True, gc=False):
    connections: int

    def __str__(self) -> str:
        return f"{ROOM_MOST} times the usual number in this pool: {self.connections} connections at most"


class Tried(msgspec.Struct, frozen=True, gc=False):
    upper: int

    def __str__(self) -> str:
        return f"on trial: {self.upper} at most in total"


class Limit(msgspec.Struct, frozen=True, gc=False):
    """Thresholds, 0 is none. `room` is how many active connections it can hold, 0 if that is not known."""

    upper: int = 0
    lower: int = 0
    room: int = 0
    why: Fact | None = None


NONE = Limit()


class _Aim(msgspec.Struct, frozen=True, gc=False):
    """A learned threshold before the kernel's ways are looked at."""

    limit: Limit
    memory_upper: float  # what memory allows, and no fail-open may cross
    follows: bool = False  # closed connections, at each look


@dataclass(slots=True, eq=False)
class Thresholds:
    """What is remembered of one row. `written` are thresholds of ours, the newest last; `resumed`: they were ours
    before a restart, and are not seen yet; `ours`: they are, by the last decision; `on`: a learned one can help;
    `tight`: memory could run out (both with hysteresis); `full`: the kernel holds it for full, as far as can be seen;
    `aim` what is wanted in this decision, None where none is learned."""

    written: list[tuple[int, int]] = field(default_factory=list)
    resumed: bool = False
    ours: bool = False
    on: bool = False
    tight: bool = False
    full: bool = False
    written_at: float = -inf
    aim: _Aim | None = None


class Limits:
    """The limits of one service. `mode` is `static` (what is typed in), `learned` or `off`; `counts`: its scheduler's
    weights or limits are numbers of connections, so that the size of each server must be known all the same."""

    def __init__(self, mode: str, latency_seconds: float, *, counts: bool = True) -> None:
        self._mode = mode
        self._sizing = Sizing(latency_seconds)
        self.counts = counts
        self._any_on = 0  # rows where a learned one can help

    @property
    def learns(self) -> bool:
        """Whether thresholds are decided here, with room for what comes until the next decision."""
        return self._mode == "learned"

    @property
    def sizes(self) -> bool:
        """Whether the size of each server is learned from its windows."""
        return self.learns or self.counts

    def limit(self, pool: Pool, *, exact: bool = False, by_weight: bool = False) -> None:
        """Set each row's `limit`. `exact`: tiers rest on them, and behind those of the last tier there is none, so that
        only memory may make them refuse. `by_weight`: the scheduler itself counts active connections."""
        rows = pool.rows
        if not self.sizes:
            for row in rows:
                base = row.base
                row.limit = NONE if not (base.upper or base.lower) else self._given(row, None)
            return
        self._sizing.observe(pool)
        rooms = _believed([self._sizing.room(row, exact=exact, alone=by_weight) for row in rows])
        if not self.learns:
            for row, room in zip(rows, rooms, strict=True):
                row.limit = self._given(row, room)
            return
        self._learn(pool, rooms, exact=exact, by_weight=by_weight)

    def _learn(self, pool: Pool, rooms: Sequence[Room | None], *, exact: bool, by_weight: bool) -> None:
        rows = pool.rows
        for row in rows:
            _look(row)
        self._any_on = sum(_known(row).on for row in rows)
        last = max((row.tier for row in rows if row.zero is None), default=0)
        enough = _enough_by_weight(rows, rooms) if by_weight else _nobody
        for row, room in zip(rows, rooms, strict=True):
            known = _known(row)
            known.aim = None
            count = room.connections if room else 0
            if _typed(row):
                row.limit = self._given(row, room)
            elif enough(row, count):
                row.limit = Limit(0, 0, count, COUNTED)
            else:
                aim = self._learned(pool, row, room, exact=exact, last=exact and row.zero is None and row.tier == last)
                if isinstance(aim, _Aim):
                    known.aim = aim
                elif aim == UNMEASURED:  # after a restart ours are still there
                    row.limit = Limit(*_in_force(row)[:2], count, aim)
                else:
                    row.limit = Limit(0, 0, count, NoThreshold(aim))
        self._fail_open(pool, exact=exact)
        for row in rows:
            known = _known(row)
            aims = known.aim is not None
            if known.aim is not None:
                row.limit = _kept(row, known, known.aim.limit, exact or known.aim.follows, pool.now)
                _remember(known, row.limit)
            known.ours = (aims and row.limit.upper > 0) or (row.base.upper > 0 and not _typed(row))

    @property
    def _types(self) -> bool:
        return self._mode != "off"

    def _given(self, row: Row, room: Room | None) -> Limit:
        """What is typed in, or nothing."""
        base, known = row.base, room.connections if room else 0
        if not self._types or not base.upper:
            return Limit(0, base.lower if self._types else 0, known)
        return Limit(base.upper, base.lower, base.upper, TYPED_IN)

    def _learned(self, pool: Pool, row: Row, room: Room | None, *, exact: bool, last: bool) -> _Aim | Fact:
        """What is wanted, or why a learned threshold cannot help here."""
        if pool.service.persistent:
            return "a persistent service's clients bypass it"
        if pool.udp:
            return "UDP flows are never active and count for five minutes"
        known = _known(row)
        why = _useless(row, known, room, exact=exact, last=last)
        self._any_on += (not why) - known.on
        known.on = not why
        tight = _is_tight(row, known, room)
        if why and room is not None and not exact and self._any_on and _doubtful(row):
            room, why = _generous(room, row), ""
        if room is None or (why and not tight):
            return why
        return _aim(pool, row, room, exact=exact, by_load=not why, tight=tight)

    def _fail_open(self, pool: Pool, *, exact: bool) -> None:
        """Unless the pool is saturated, or just was, those that are not full can hold a third more open connections
        than they have: a single look that shows no queue may be one agent's word. What memory allows is not crossed."""
        serving = [row for row in pool.rows if row.zero is None]
        aims = [known for row in pool.rows if (known := _known(row)).aim is not None]
        if not aims:
            return
        uppers = [(row, (known.aim.limit if (known := _known(row)).aim else row.limit).upper or inf) for row in serving]
        open_ones = [(row, upper) for row, upper in uppers if not _is_full(row, upper)]
        needed = sum(_needed(row) for row, _ in open_ones or uppers)
        held = _held(open_ones, needed)
        if (exact and open_ones) or held >= max(needed, 1):
            return
        seen = estimates(serving)
        if self._sizing.queues or max(utilisation(seen), crowding(seen)) > SATURATED:
            change = _without_hysteresis if exact else None
        else:
            factor = max(1.0, needed / (held or _held(uppers, needed) or 1))

            def change(aim: _Aim) -> _Aim:
                return _stretched(aim, factor)

        for known in aims:
            if known.aim is not None and change is not None:
                known.aim = change(known.aim)


def resume(row: Row) -> None:
    """Its thresholds are ours, whatever the first look finds: a master before us learned them."""
    _known(row).resumed = True


def try_out(row: Row, *, trials: bool) -> None:
    """A trial's threshold stands instead of the usual one, which comes back after. What its owner has taken out
    meanwhile is not tried."""
    limit, cap = row.limit, row.claim.cap
    if cap is not None and limit.upper == cap.our_upper and limit.lower == cap.our_lower:
        row.limit = Limit(cap.upper, cap.lower, limit.room, AS_BEFORE_THE_TRIAL)
    trial = row.trial if trials and not row.claim.theirs else None
    row.tried = trial is not None
    if trial is not None:
        upper = min(trial.upper, limit.upper or trial.upper)
        row.limit = Limit(upper, min(trial.lower, upper), limit.room, Tried(upper))


def _known(row: Row) -> Thresholds:
    known = row.thresholds
    if known is None:
        known = row.thresholds = Thresholds()
    return known


def _typed(row: Row) -> bool:
    """Whether somebody else put the base's threshold there. (Where we do not own the service, the base is what the
    kernel has, and that may be ours.)"""
    base = (row.base.upper, row.base.lower)
    return bool(base[0]) and base not in _known(row).written


def _remember(known: Thresholds, limit: Limit) -> None:
    pair = (limit.upper, limit.lower)
    if pair not in known.written[-1:]:
        known.written.append(pair)
        del known.written[:-8]  # an edit may have failed, and an older one be in force


def _look(row: Row) -> None:
    known = _known(row)
    if known.resumed and row.kernel is not None:
        known.resumed = False
        known.written = [(row.base.upper, row.base.lower)]
    upper, lower, total = _in_force(row)
    if upper and total >= upper:
        known.full = True
    elif not upper or total < (lower or upper - (upper >> 2)):
        known.full = False


def _useless(row: Row, known: Thresholds, room: Room | None, *, exact: bool, last: bool) -> Fact:
    """Why one by load cannot help here, or ''."""
    if room is None or row.estimate is None or not row.estimate.samples:
        return UNMEASURED
    if exact:
        return "no server comes behind it, so a refusal would help nobody" if last else ""
    return _not_now(row, known.on, room, row.estimate)


def _not_now(row: Row, on: bool, room: Room, estimate: Estimate) -> Fact:
    if row.ramp is not None:
        return "slow start"
    if estimate.deviation > (sqrt(PRIOR_VARIANCE) if on else CERTAIN):
        return Uncertain(estimate.deviation)
    if _many_closed(row, room) and row.active < (BUSY / 2 if on else BUSY) * room.connections:
        return Quiet(row.active, room.connections)
    return ""


def _is_tight(row: Row, known: Thresholds, room: Room | None) -> bool:
    """Whether memory could run out: it is the tighter bound, or half of what it allows is open."""
    if room is None or room.memory_bound is None:
        known.tight = False
    else:
        part = BUSY / 2 if known.tight else BUSY
        known.tight = room.memory_bound <= room.connections or row.active >= part * room.memory_bound
    return known.tight


def _is_full(row: Row, upper: float) -> bool:
    return _known(row).full or row.active + row.inactive >= upper


def _kept(row: Row, known: Thresholds, aim: Limit, follow: bool, now: float) -> Limit:
    """The aim, or what is in force while that is near enough, or while a rewrite would open a full one."""
    upper, lower, total = _in_force(row)
    have = Limit(upper, lower, aim.room, aim.why)
    if row.kernel is None or row.zero is not None:
        return aim if row.kernel is None else have
    if row.trust is not Trust.FRESH and not follow and upper:
        return have
    if known.full:
        if total < aim.lower:
            return _write(known, msgspec.structs.replace(aim, upper=max(aim.upper, upper + 1)), now)
        # Still full: down with what has expired, but never up.
        return aim if follow and aim.upper < upper and aim.upper <= total else have
    if follow:
        near = total >= NEARLY_FULL * min(aim.upper, upper or aim.upper)
        slack = 0 if near else max(1, int(REWRITE * aim.room))
        return have if upper and abs(aim.upper - upper) <= slack else _write(known, aim, now)
    rested = now - known.written_at >= INTERVAL_SECONDS
    if upper and (abs(aim.upper - upper) <= REWRITE * upper or not rested):
        return have
    return _write(known, aim, now)


def _write(known: Thresholds, aim: Limit, now: float) -> Limit:
    known.written_at = now
    return aim


def _in_force(row: Row) -> tuple[int, int, int]:
    """Upper, lower and what is counted against them."""
    kernel = row.kernel
    if kernel is None:
        return 0, 0, 0
    return kernel.destination.upper, kernel.destination.lower, row.active + row.inactive


def _many_closed(row: Row, room: Room) -> bool:
    return row.inactive > room.connections


def _believed(rooms: list[Room | None]) -> list[Room | None]:
    """What an agent says of its server makes it no larger than ROOM_MOST usual ones."""
    known = [room.connections for room in rooms if room is not None]
    most = ROOM_MOST * median_low(known) if known else 0
    return [r if r is None or r.connections <= most else Room(most, r.memory_bound, TooLarge(most)) for r in rooms]


def _held(rows: Sequence[tuple[Row, float]], needed: float) -> float:
    """What these can hold of what is needed. One counts what it has by the director's own counts and an equal part of
    all: by its own word it could hold everything, and the others would not be raised."""
    equal = needed / max(1, len(rows))
    return sum(min(upper, _needed(row) + equal) for row, upper in rows)


def _needed(row: Row) -> float:
    return HEADROOM * row.active + row.inactive


def _nobody(row: Row, count: int) -> bool:
    return False


def _enough_by_weight(rows: Sequence[Row], rooms: Sequence[Room | None]) -> Callable[[Row, int], bool]:
    """Who needs no threshold where a weight is a number of connections: all but those in front of a larger one. One
    that was only taken for an average server until now has to be small until it shows that it is larger."""
    most: dict[int, int] = {}  # shown in each tier
    for row, room in zip(rows, rooms, strict=True):
        if room is not None and row.estimate is not None and row.estimate.samples:
            most[row.tier] = max(most.get(row.tier, 0), room.connections)
    behind, largest = {}, 0
    for tier in sorted({row.tier for row in rows}, reverse=True):
        behind[tier] = largest
        largest = max(largest, most.get(tier, 0))

    def enough(row: Row, count: int) -> bool:
        part = STILL_SMALLER if _in_force(row)[0] else SMALLER
        return count >= part * behind[row.tier]

    return enough


def _doubtful(row: Row) -> bool:
    estimate = row.estimate
    return estimate is not None and (row.ramp is not None or not estimate.samples or estimate.deviation > CERTAIN)


def _generous(room: Room, row: Row) -> Room:
    """What a server of uncertain capacity can hold at most, as far as is known."""
    deviation = row.estimate.deviation if row.estimate else 0.0
    count = ceil(room.connections * exp(2 * deviation))
    if room.memory_bound is not None:
        count = min(count, max(1, room.memory_bound))
    return Room(count, room.memory_bound, Generous(room.why, deviation, count))


def _aim(pool: Pool, row: Row, room: Room, *, exact: bool, by_load: bool, tight: bool) -> _Aim:
    """By load, by memory where that is tight, or by the tighter of both."""
    closed = row.inactive
    closing = ceil(row.estimate.rate * pool.interval_seconds) if closed and row.estimate else 0
    memory = inf if room.memory_bound is None else room.memory_bound + closed + closing
    loaded, follows = _by_load(row, room, pool.interval_seconds, exact) if by_load else (inf, False)
    why: Fact
    if tight and memory <= loaded and room.memory_bound is not None:
        upper, why, follows = memory, MemoryTight(room.memory_bound, closed), True
    else:
        upper, why = loaded, Sized(room.why, closed, exact)
    hysteresis = max(1, int(CERTAIN * room.connections))
    return _Aim(_limit(int(upper), hysteresis, room.connections, why), memory, follows)


def _by_load(row: Row, room: Room, interval: float, exact: bool) -> tuple[float, bool]:
    """The threshold, and whether it has to follow the closed connections at each look."""
    closed = row.inactive
    if exact:
        return room.connections + closed, False
    follows = _many_closed(row, room) or row.active >= NEARLY_FULL * room.connections
    rate = row.estimate.rate if row.estimate else 0.0
    seconds = interval if follows else max(interval, INTERVAL_SECONDS)
    growth = rate * seconds + (0.0 if follows else 3 * sqrt(closed)) if closed else 0.0
    return ceil(room.connections + sqrt(room.connections) + closed + growth), follows


def _limit(upper: int, hysteresis: int, room: int, why: Fact | None) -> Limit:
    upper = min(max(1, upper), THRESHOLD_MAX)
    return Limit(upper, max(1, upper - hysteresis), room, why)


def _without_hysteresis(aim: _Aim) -> _Aim:
    """All are full: whoever has room for one takes one."""
    return _Aim(msgspec.structs.replace(aim.limit, lower=aim.limit.upper), aim.memory_upper, aim.follows)


def _stretched(aim: _Aim, factor: float) -> _Aim:
    limit = aim.limit
    upper = int(max(limit.upper, min(ceil(limit.upper * factor), aim.memory_upper)))
    return _Aim(
        _limit(upper, limit.upper - limit.lower, limit.room, Raised(limit.why or "")), aim.memory_upper, aim.follows
    )
