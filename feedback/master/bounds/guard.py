"""Guard: bounds that no law can cross. Shares in, shares out, each bound that acted named in the row's steps.

In this order: a claimed zero stays; a server that fails fast is ejected, and returns by a trial of a few connections;
no server gets more than a multiple of its static share (or of an equal one), which is the operator's word against the
agents'; a silent agent freezes its server, and then the policy for lost ones applies; a new or returning server starts
slowly; a share changes by a bounded factor in a second; no server in service gets less than the floor. When most of the
fleet falls silent at once the fault is ours, and everything is held.

Invariants: no bound ever raises an operator's zero; a pool in which the operator left one server in service is never
all zero; the shares that come out sum to 1 or are all 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import inf, log

import msgspec

from feedback.config import Guards
from feedback.master.bounds.doubt import Doubt
from feedback.master.bounds.eject import TRIAL_CONNECTIONS, Ejector
from feedback.master.outcome import Fact, Out
from feedback.master.pool import SATURATED, Pool, Row, estimates, utilisation
from feedback.master.servers.fleet import Source, Trust
from feedback.model import DestinationKey

RAMP_START = 0.1  # of its share (Envoy's slow start)
YIELDS = 4.0  # times as fast, where the others have no room
IN_SERVICE_MIN = 0.5  # quiescing lost servers leaves at least this part of the pool
STATIC_SECONDS = 10.0  # a lost server's share goes to the static one over this time
SAME = 1e-9  # of a share: nothing
NOTHING = 1e-200  # of what one wants: the law wants no other

NO_REPORT_YET = "no report yet: everything is as it was"
UNMEASURED = "nothing measured yet: the kernel's weight"
NEVER_HEARD = "no report yet: the kernel's weight"
NOBODY_ELSE = "held at nothing, but nobody else serves: what the law wants"
NOBODY_WANTED = "the law chooses no server: equal shares"
LOST_QUIESCED = "agent lost: quiesced by policy"
ON_TRIAL = f"on trial after its ejection: {TRIAL_CONNECTIONS} connections at a time, until it answers them well"


class Silent(msgspec.Struct, frozen=True, gc=False):
    """So many agents fell silent that the fault is taken for ours."""

    agents: int
    known: int

    def __str__(self) -> str:
        return f"{self.agents} of {self.known} agents fell silent: everything is held"


class Aged(msgspec.Struct, frozen=True, gc=False):
    """The last report is so old; what follows from that."""

    seconds: float | None
    so: str

    def __str__(self) -> str:
        return f"last report {'never' if self.seconds is None else f'{self.seconds:.1f} s'} ago: {self.so}"


class SlowStart(msgspec.Struct, frozen=True, gc=False):
    part: float

    def __str__(self) -> str:
        return f"slow start: {100 * self.part:.0f} % of it"


class Bounded(msgspec.Struct, frozen=True, gc=False):
    factor: float

    def __str__(self) -> str:
        return f"at most {self.factor:g}-fold in a second"


class Floored(msgspec.Struct, frozen=True, gc=False):
    floor: float

    def __str__(self) -> str:
        return f"floor: {100 * self.floor:g} % of an equal share"


class Ceiled(msgspec.Struct, frozen=True, gc=False):
    times: float

    def __str__(self) -> str:
        return f"ceiling: {self.times:g} times its static share, or an equal one"


class Guard:
    """The guard of one service."""

    def __init__(self, config: Guards) -> None:
        self._config = config
        self._ejector = Ejector()
        self._doubt = Doubt()
        self._change = max(1.0, config.change_per_second)
        self._longest = 300 / max(1e-3, log(self._change))  # seconds: after that a share may be anything
        self._started = False
        self._any = False  # whether anybody was in service at the last decision
        self._well: list[Row] = []  # all, where all were heard at the last decision

    def apply(self, pool: Pool, restated: Callable[[Row], int | None]) -> None:
        """Turn what is `wanted` of each row into its `share`. `restated`, at the first call: what a weight in force
        becomes where the operator has changed the static one that it was made from, None where he has not."""
        rows = pool.rows
        if not self._started:
            self._started = True
            self._any = _as_in_kernel(rows, restated)
        pool.held = self._panic(rows)
        self._ejector.judge(rows, pool.now)
        if pool.held is not None:
            _share_out(rows, [row.wanted for row in rows])
            for row in rows:  # whose time is over stands trial all the same
                if row.out is Out.EJECTED and row.failures is not None and row.failures.ejected is None:
                    row.out = None
            return
        serving = self._take_out(rows)
        self._start_ramps(serving)
        self._let_through(serving, pool, self._doubt.doubted(pool))
        self._any = bool(serving)
        if len(serving) < len(rows):
            for row in rows:
                row.before = None
                if row.zero is not None or row.out is not None:
                    row.ramp = None
        for row in serving:
            row.before = row.share

    def _panic(self, rows: list[Row]) -> Fact | None:
        """Why everything is held. Silence counts against those who were heard when all was well."""
        trusts = [row.trust for row in rows]
        if rows and self._config.panic and trusts.count(Trust.FRESH) == len(rows):
            if rows != self._well:
                self._well = list(rows)
                for row in rows:
                    row.heard = True
            return None
        self._well = []
        known = speaking = never = moved = 0
        for row in rows:
            trust, heard = row.trust, row.heard
            if heard:
                known += 1
                speaking += trust is Trust.FRESH
                moved += trust is Trust.LOST
            else:
                moved += trust is Trust.FRESH
            never += trust is Trust.NEVER
        if never == len(rows):
            return NO_REPORT_YET
        silent = known - speaking
        if known > 1 and silent >= self._config.panic * known:
            return Silent(silent, known)
        for row in rows if moved else ():
            if row.trust is Trust.FRESH:
                row.heard = True
            elif row.trust is Trust.LOST:
                row.heard = False
        return None

    def _take_out(self, rows: Sequence[Row]) -> list[Row]:
        """Who is out by a bound: ejected, unless nobody would be left; and the lost ones where the policy says so.
        Returns those in service."""
        ejected: list[tuple[Row, Fact]] = []
        zeros = []
        for row in rows:
            row.out = None
            failures = row.failures
            if row.zero is not None:
                zeros.append(row)
            elif failures is not None and failures.ejected is not None:
                ejected.append((row, failures.ejected))
        out = len(zeros)
        if out + len(ejected) < len(rows):
            out += len(ejected)
            for row, why in ejected:
                row.out = Out.EJECTED
                _zero(row, why)
        if self._config.lost_policy == "quiesce":
            room = int(len(rows) * (1 - IN_SERVICE_MIN)) - out
            lost = [r for r in rows if r.trust is Trust.LOST and r.zero is None and r.out is None]
            lost = [r for r in lost if r.source is not Source.EXPORTER]  # that is silent itself, not its server
            for row in lost[: max(0, room)]:
                row.out = Out.LOST
                _zero(row, LOST_QUIESCED)
        for row in zeros:
            if row.zero is not None:
                _zero(row, row.zero.why)
        if not (zeros or ejected or self._config.lost_policy == "quiesce"):
            return list(rows)
        return [row for row in rows if row.zero is None and row.out is None]

    def _start_ramps(self, serving: Sequence[Row]) -> None:
        """A server that was not in service starts slowly, unless so many are new that the others would drown."""
        if not self._any or self._config.slow_start_seconds <= 0:
            return
        new = [row for row in serving if not row.before]
        if 2 * len(new) <= len(serving):
            for row in new:
                if row.ramp is None and not row.stands_for:  # the sessions that come to it cannot wait
                    row.ramp = RAMP_START

    def _let_through(self, serving: Sequence[Row], pool: Pool, doubted: Mapping[DestinationKey, Fact]) -> None:
        """Those whose part does not follow the law now are pinned, and the others fill up around them; a free share
        moves by a bounded factor and not under the floor. No agent talks its server's share up past `most`; that comes
        first, or what a lie wants would be taken from the others before it is cut."""
        over = self._limit(serving, doubted)
        _fill(serving, 1.0)
        ramps: float | None = None  # their step, where any is in slow start
        static = 0  # what all are owed, added up where somebody is pinned
        free: list[Row] = []
        ramping: list[Row] = []
        held = 0.0
        for row in serving:
            if row.trial is not None:
                row.say("guard", ON_TRIAL, row.share)
                free.append(row)
            elif row.ramp is None and row.estimate is not None and row.trust is Trust.FRESH:
                free.append(row)
            else:
                static = static or sum([r.base.weight for r in pool.rows]) or 1
                if ramps is None and row.ramp is not None:
                    ramps = self._ramp_step(serving, pool.seconds)
                if self._pin(row, static, pool.seconds, ramps):
                    held += row.share
                    if row.ramp is not None:
                        ramping.append(row)
                else:
                    free.append(row)
        if not free and held <= NOTHING:  # these zeros are ours: no part to be held at once all others are out
            _share_out(serving, [row.wanted for row in serving])
            for row in serving:
                row.say("guard", NOBODY_ELSE, row.share)
            free = list(serving)
        pinned = len(free) < len(serving)
        factor = self._change**pool.seconds if pool.seconds < self._longest else inf
        floor = self._config.floor / max(1, len(serving))
        room = 1 - held
        if pinned:
            known = [row for row in free if row.before or row.estimate is not None]
            room = _make_room(ramping, room, sum([max(floor, (row.before or 0.0) / factor) for row in known]))
            _fill(free, room)
        if self._bound_change(free, factor, floor) or pinned:
            _fill(free, room)
            _fill(serving, 1.0)
        for row in over:
            if row.share >= row.most - SAME:
                row.say("guard", doubted.get(row.key) or Ceiled(self._config.ceiling), row.share)

    def _limit(self, serving: Sequence[Row], doubted: Mapping[DestinationKey, Fact]) -> list[Row]:
        """Set what each of them wants of the whole, and the most that it can have. Returns who wants more. The base
        weight of an adopted server may be anything, so each is owed an equal part at least."""
        statics = [row.base.weight for row in serving]
        wanted, weights = sum([row.wanted for row in serving]), sum(statics) or 1
        if wanted <= 0:  # no answer: a pool of stale servers would be left with none
            for row in serving:
                row.say("guard", NOBODY_WANTED, 1.0)
                row.wanted = 1.0
            wanted = float(len(serving))
        equal, ceiling = 1 / max(1, len(serving)), self._config.ceiling
        usual = equal * ceiling
        over: list[Row] = []
        largest: Row | None = None
        greatest = total = 0.0
        for row, static in zip(serving, statics, strict=True):
            owed = static / weights
            if owed > equal:
                most = owed * ceiling
            else:
                owed, most = equal, usual
            if doubted and row.key in doubted:
                most = owed
            row.owed, row.most = owed, most
            row.share = share = row.wanted / wanted
            total += share
            if share > most + SAME:
                over.append(row)
            if share > greatest:
                greatest, largest = share, row
        if largest is not None:
            if 2 * greatest > total:  # the difference of two sums loses what is small beside a lie
                others = sum([row.share for row in serving if row is not largest])
            else:
                others = total - greatest
            self._beside_others(largest, others)
        return over

    def _beside_others(self, largest: Row, others: float) -> None:
        """In a pool of `ceiling` servers or fewer, so many shares are everything. So nobody counts for more beside the
        others, who have so much together, than it would in the least pool where that is a bound, of one server more:
        there it has `ceiling` shares and they have one, which is the square times what it has beside them by its static
        weight."""
        owed = largest.owed
        if others > NOTHING and owed < 1:
            largest.share = min(largest.share, self._config.ceiling**2 * owed / (1 - owed) * others)

    def _bound_change(self, free: Sequence[Row], factor: float, floor: float) -> bool:
        """Whether any share was bounded."""
        bounded = False
        for row in free:
            share, before = row.share, row.before
            if before:
                value = before / factor
                if share > value:
                    value = before * factor
                    value = share if share < value else value
                if abs(value - share) >= SAME:
                    row.share, bounded = value, True
                    row.say("guard", Bounded(self._config.change_per_second), value)
                    share = value
            if share < floor:
                row.share, bounded = floor, True
                row.say("guard", Floored(self._config.floor), floor)
        return bounded

    def _pin(self, row: Row, static: int, seconds: float, ramps: float | None) -> bool:
        """Whether the row's part does not follow the law now; its share then is what it gets."""
        before = row.before
        if row.ramp is not None:
            return self._ramps(row, ramps or 0.0)
        if before is None:
            return False
        if row.trust is Trust.FRESH:
            if row.estimate is not None or row.advised is not None or row.weighed is not None or row.seen is not None:
                return False
            row.share, why = before, UNMEASURED
            row.say("guard", why, before)
            return True
        fact: Fact
        if row.trust is Trust.NEVER:
            row.share, fact = before, NEVER_HEARD
        elif row.trust is Trust.STALE:
            row.share, fact = min(row.share, before), Aged(row.age_seconds, "not raised")
        elif self._config.lost_policy != "static":
            row.share, fact = before, Aged(row.age_seconds, "held")
        else:
            part = min(1.0, seconds / STATIC_SECONDS)
            row.share = before + (row.base.weight / static - before) * part
            fact = Aged(row.age_seconds, "towards the static weight")
        row.say("guard", fact, row.share)
        return True

    def _ramp_step(self, serving: Sequence[Row], seconds: float) -> float:
        """By so much a slow start goes on in this turn: faster where the others are full."""
        if self._config.slow_start_seconds <= 0:
            return 0.0
        step = seconds / self._config.slow_start_seconds
        if utilisation(estimates(row for row in serving if row.ramp is None)) > SATURATED:
            return step * YIELDS  # cold caches are better than a queue
        return step

    @staticmethod
    def _ramps(row: Row, step: float) -> bool:
        """Whether it is in slow start yet; a turn is this step of it."""
        hot = row.estimate is not None and row.estimate.utilisation > SATURATED
        ramp = (row.ramp or 0.0) + (0.0 if hot else step)
        if ramp >= 1:
            row.ramp = None
            return False
        row.ramp, row.share = ramp, row.share * ramp
        row.say("guard", SlowStart(ramp), row.share)
        return True


def _zero(row: Row, why: Fact) -> None:
    """Whatever the law said."""
    row.share, row.why, row.said = 0.0, None, None
    row.say("guard", why, 0.0)


def _make_room(ramping: Sequence[Row], room: float, least: float) -> float:
    """What is left for the free ones beside the pinned, which is never less than their bounds allow: a slow start waits
    for them. Where it is not enough, all yield when the shares are made a whole."""
    if room < least and ramping:
        total = sum([row.share for row in ramping])
        yielded = min(least - room, total)
        for row in ramping:
            row.share *= 1 - yielded / total if total > NOTHING else 0.0
        room += yielded
    return max(room, least)


def _fill(rows: Sequence[Row], whole: float) -> None:
    """Scale these to the whole, none over its `most` while another can take what that frees."""
    total = sum([row.share for row in rows])
    if total <= NOTHING:
        return
    scale, over = max(0.0, whole) / total, False
    for row in rows:
        row.share = share = row.share * scale
        if share > row.most + SAME:
            over = True
    if not over:
        return
    # Whoever is furthest over goes first: what that frees can only bring the next ones over.
    order = sorted(rows, key=lambda row: -row.share / row.most)
    rests = list(accumulate(row.share for row in reversed(order)))  # differences would lose what is small beside a lie
    left, scale, free = whole, 1.0, len(order)
    for row, rest in zip(order, reversed(rests), strict=True):
        scale = left / rest if rest > 0 else 0.0
        if free == 1 or row.share * scale <= row.most + SAME:  # whatever is left must go somewhere
            break
        left, free = left - row.most, free - 1
        row.share = row.most
    for row in order[len(order) - free :]:
        row.share *= scale


def _share_out(rows: Sequence[Row], wanted: Sequence[float]) -> None:
    """Normalised; as they are if all are 0."""
    total = sum(wanted)
    for row, value in zip(rows, wanted, strict=True):
        row.share = value / total if total > 0 else value


def _as_in_kernel(rows: Sequence[Row], restated: Callable[[Row], int | None]) -> bool:
    """What is in force when we start: a restarted master continues from it. Whether there is anything."""
    weights = []
    for row in rows:
        new = restated(row) if row.weight and row.trust is Trust.NEVER else None
        weights.append(float(row.weight if new is None else new))
    total = sum(weights)
    for row, weight in zip(rows, weights, strict=True):
        row.before = weight / total if weight and total else None
    return total > 0
