"""Claims: what overrides the law for each destination of one service. Asked once before the law, told once after the
plan.

Owns the authorship of weights and thresholds, as far as the kernel and our memory can tell, and everything that
overrides the law: the configuration's zero, another owner's, an operator's order, a failing check. Knows no law and no
bound.

Invariants: a weight of 0 that we did not write is somebody else's, and stays 0 until they raise it; what a trial or an
order changed is restored, unless somebody has changed it since; in a service of another owner only weights and
thresholds are written, and while its owner disputes them (owner.py) not even those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from feedback.master.claims.claim import Cap, Claim, Ordered, Remembered
from feedback.master.claims.orders import Kind, Order, Standing
from feedback.master.claims.owner import SIGNATURE, Disputes, ForeignEdit, What
from feedback.master.claims.watch import Watch
from feedback.master.outcome import By, Fact, StandsBy, Zero
from feedback.master.pool import Pool, Row
from feedback.master.servers.fleet import Trust
from feedback.master.traits import traits
from feedback.model import WEIGHT_MAX, Destination, DestinationEntry, DestinationKey, ServiceEntry

if TYPE_CHECKING:
    from feedback.master.bounds.limits import Limit

CONFIGURED = Zero(By.CONFIGURATION, "weight 0 in the configuration: quiesced by the operator")
THEIRS = Zero(By.OWNER, "somebody else set the weight to 0 and must raise it")
Changed: TypeAlias = list[tuple[Row, DestinationEntry]]
TIER_RATIO = 1000  # between weights: more is what holds a tier back and no capacity


class NotRaised(msgspec.Struct, frozen=True, gc=False):
    """An override that would raise somebody else's zero."""

    order: Order
    why: Fact

    def __str__(self) -> str:
        return f"{self.order}; not raised: {self.why}"


class Paused(msgspec.Struct, frozen=True, gc=False):
    order: Order

    def __str__(self) -> str:
        return f"{self.order}: as the kernel has it"


class Claims:
    """The claims on one pool. `owned` are the configured records; None where somebody else owns the service: then the
    rows are what the kernel has, in its order. `make` makes a row."""

    def __init__(
        self,
        pool: Pool,
        owned: Mapping[DestinationKey, Destination] | None,
        make: Callable[[Destination], Row],
        watch: Watch,
        patience: tuple[float, float],
    ) -> None:
        self.owned = owned
        self.entry: ServiceEntry | None = None  # as of the last look
        self._there: list[Row] = []  # those that the kernel had then, in its order
        self.rows: dict[DestinationKey, Row] = {}
        self._pool, self._make, self._watch, self._patience = pool, make, watch, patience
        self._left: dict[DestinationKey, Row] = {}  # whom its owner has removed since the last decision
        self._strays: set[DestinationKey] = set()  # in the kernel's record of a service of ours, and not configured
        self._restored: Remembered | None = None  # until the first look
        self._zeros: frozenset[str] = frozenset()  # of that
        self._heard = False  # whether any agent was, in this life or in one that is remembered
        self._as_file = False  # whether the weights in force were the configuration's, at the first look
        self._first_look_at: float | None = None
        self._waits = patience[1]  # seconds, for agents that may have taught what is in force
        self._disputes = Disputes()
        self._noticed: list[ForeignEdit] = []  # of the service itself
        self._away = False
        self._restates = False
        self._scale: tuple[int, int] | None = None  # of the weights in force and the static ones, once a turn
        self._our_scale: tuple[int, int] | None = None
        self._stand_ins = False  # whether there was ever one
        self._ordered = False  # whether orders stood at the last decision
        for destination in (owned or {}).values():
            self._add(destination)
        pool.rows = list(self.rows.values())

    def _add(self, destination: Destination) -> Row:
        row = self.rows[destination.key] = self._make(destination)
        self._stand_ins = self._stand_ins or bool(row.stands_for)
        old = self._left.pop(destination.key, None)
        if old is not None:
            row.follow(old)
            row.claim.owners, row.claim.theirs, row.claim.signed = old.claim.owners, old.claim.theirs, old.claim.signed
        if self._restored is not None:
            _resume(row, self._restored, self._zeros)
        return row

    # What a restart or a reload leaves.

    def state(self) -> Remembered:
        """What a restarted master could not read from the kernel, but for what was learned."""
        zeros, owners, capped, forced, ordered, removed = [], {}, {}, {}, {}, {}
        adopts = self.owned is None
        for row in self.rows.values():
            if row.ours and not adopts:
                continue
            claim, name = row.claim, row.name
            if claim.written == 0 and not claim.theirs:
                zeros.append(name)
            if adopts and claim.owners is not None and row.kernel is not None:
                owners[name] = claim.owners
            if claim.cap is not None:
                capped[name] = claim.cap
            if claim.forced is not None:
                forced[name] = claim.forced
            if claim.ordered is not None:
                ordered[name] = claim.ordered
            left = row.absence.remembered() if row.absence is not None else None
            if left is not None:
                removed[name] = left
        return Remembered(tuple(sorted(zeros)), owners, capped, forced, ordered, removed)

    def restore(self, state: Remembered) -> None:
        """Before the first look at the kernel."""
        self._restored, self._zeros = state, frozenset(state.zeros)
        self._waits = self._patience[0]  # nothing is remembered of agents, or `learned` says so
        for row in self.rows.values():
            _resume(row, state, self._zeros)

    def succeed(self, before: Claims) -> None:
        """Take the place of those of the same service, before a reload that changed it. Before the first look."""
        self.restore(before.state())
        self._heard, self._as_file, self._first_look_at = before._heard, before._as_file, before._first_look_at
        self._waits = before._waits
        for key, row in self.rows.items():
            known = before.rows.get(key)
            if known is not None:
                row.claim.restated = known.claim.restated
                old = known.claim.stated if known.claim.stated is not None else known.base.weight
                row.claim.stated = old if old != row.base.weight else None
        self._restates = True

    def learned(self) -> None:
        """The master before had heard agents: the weights in force are theirs."""
        self._heard = True

    def bare(self, now: float) -> bool:
        """Whether no agent ever had a say here: then the configuration's weights are in force, whatever was before.
        What looks as if somebody had learned it stands until an agent would have been heard."""
        if self.owned is None or self._heard:
            return False
        first = self._first_look_at
        return self._as_file or first is None or now - first >= self._waits

    # What the kernel has.

    def follow(self, *, changed: bool) -> None:
        """The other owner's service is there; `changed`: not as we knew it."""
        if changed or self._away:
            self._noticed.append(ForeignEdit(self._pool.service.key, None, None, None, What.SERVICE))

    def leave(self) -> ForeignEdit:
        """The other owner has removed the service. It may come back as it was: keepalived's restart does that."""
        self._away = True
        return ForeignEdit(self._pool.service.key, None, None, None, What.SERVICE_REMOVED)

    def look(self, entry: ServiceEntry | None, now: float) -> list[ForeignEdit]:
        """Take a look at the kernel. Returns what somebody else did since the last one."""
        there: list[Row] = []
        if entry is None:
            found = [] if self.entry is None else [self.leave()]
            self._forget(list(self.rows.values()))
            self._strays = set()
        else:
            found, self._noticed = self._noticed, []
            there, changed = self._matched(entry, found)
            self._compare(entry, there, changed, found, now)
            self._away = False
            for row, e in changed:
                self._see(row, e)
        self.entry, self._restored, self._scale, self._there = entry, None, None, there
        if self._first_look_at is None and entry is not None:
            self._first_look_at = now
            self._as_file = self._as_file or all(row.weight in (0, _stated(row)) for row in there)
        if self.owned is None:
            self._pool.rows = there
        if self._restates:
            self._restate()
        return found

    def _matched(self, entry: ServiceEntry, found: list[ForeignEdit]) -> tuple[list[Row], Changed]:
        """The row of each destination, and those that are not just as we left them, which are to be seen yet. What
        nobody configured is no row of ours, and is said once."""
        there: list[Row] = []
        changed: Changed = []
        strays, rows, signature = set(), self.rows, SIGNATURE[0]
        for e, before in zip(entry.destinations, chain(self._there, repeat(None))):  # noqa: B905 - the latter never ends
            have = e.destination
            key = have.key
            row = before if before is not None and before.key is key else rows.get(key)
            if row is None:
                if self.owned is not None:
                    strays.add(key)
                    if self.entry is not None and key not in self._strays:
                        found.append(ForeignEdit(entry.service.key, key, None, have.weight, What.ADDED))
                    continue
                row = self._add(have)
            there.append(row)
            weight = have.weight
            if weight and weight == row.ours and have.upper != signature:
                row.kernel, row.weight, row.active, row.inactive = e, weight, e.active, e.inactive
            else:
                row.ours = 0
                changed.append((row, e))
        self._strays = strays
        return there, changed

    def _compare(
        self,
        entry: ServiceEntry,
        there: list[Row],
        changed: Changed,
        found: list[ForeignEdit],
        now: float,
    ) -> None:
        """Note what somebody else did since the last look. Takes their weights for the owner's. The rows that changed
        are still those of the last look."""
        service, first, rewritten = entry.service.key, self.entry is None, []
        staying = len(there) - sum(row.kernel is None for row, _ in changed)
        anew = self._made_anew(staying)
        for row, e in changed:
            have, claim = e.destination, row.claim
            weight, ours = have.weight, claim.written
            claim.edited = None
            if ours is None:
                if not first and row.kernel is None:
                    found.append(ForeignEdit(service, row.key, None, weight, What.ADDED))
                    claim.edited = 0
                if weight:
                    claim.owners = weight
            elif weight != ours or (claim.signed and (have.upper, have.lower) != SIGNATURE):
                found.append(ForeignEdit(service, row.key, ours, weight))
                if weight:
                    if not claim.theirs and ours != claim.owners:
                        rewritten.append(row.key)
                    if ours != claim.owners or claim.theirs:
                        claim.edited = ours
                    claim.owners = weight
                claim.written = None
        if first:
            _remember(there, {edit.destination for edit in found})
        found += self._removed(there, staying)
        whole = bool(rewritten) and len(rewritten) == len(entry.destinations)
        self._disputes.rewritten(rewritten, whole=anew or whole, now=now)

    def _made_anew(self, staying: int) -> bool:
        """Whether its owner has wiped out weights of ours by removing the service, or all that was in it."""
        if not self._away and staying:
            return False
        return any(
            r.claim.written is not None and r.claim.written != r.claim.owners
            for r in self.rows.values()
            if r.kernel is not None
        )

    def _removed(self, there: list[Row], staying: int) -> list[ForeignEdit]:
        if staying == len(self._there):
            return []
        present = {row.key for row in there}
        left = sorted((r for r in self._pool.rows if r.kernel is not None and r.key not in present), key=_by_key)
        service, theirs = self._pool.service.key, [row for row in left if not row.gone]
        found = [ForeignEdit(service, row.key, row.claim.written, None, What.REMOVED) for row in theirs]
        self._forget(left)
        for row in left:
            row.claim.written = None
            if self.owned is None:
                self._left[row.key] = self.rows.pop(row.key)
        return found

    def _forget(self, rows: list[Row]) -> None:
        """They are not in the kernel."""
        for row in rows:
            row.kernel, row.weight, row.active, row.inactive, row.claim.cap, row.ours = None, 0, 0, 0, None, 0

    def _see(self, row: Row, e: DestinationEntry) -> None:
        """Take what is in force, and whose a zero is: by its signature, or by what we wrote last."""
        have, claim = e.destination, row.claim
        row.kernel, row.weight, row.active, row.inactive = e, have.weight, e.active, e.inactive
        cap = claim.cap
        if cap is not None and (have.upper != cap.our_upper or have.lower != cap.our_lower):
            claim.cap = None
        if have.weight:
            if claim.theirs and claim.forced != have.weight:
                claim.theirs = False
            if have.upper != SIGNATURE[0]:
                return
        signed = (have.upper, have.lower) == SIGNATURE
        if signed and claim.cap is None:  # of a master before us, whose state is lost
            claim.cap = Cap(0, 0, *SIGNATURE)
            claim.barred = claim.barred or not have.weight
        if have.weight:
            return
        if signed:
            claim.written = 0
        elif self.owned is None or claim.written != 0:
            claim.theirs = True

    def _restate(self) -> None:
        """Scale the weights in force if the operator changed a static weight. Who had none follows the others."""
        for row in sorted(self._pool.rows, key=lambda row: row.claim.stated == 0):
            claim = row.claim
            if claim.stated is not None and row.kernel is not None and not claim.theirs:
                old, had, new = claim.stated, row.weight, row.base.weight
                now = self.restated(row)
                if had or now is not None or not old or not new:  # a zero of ours says nothing of the weight behind it
                    part = new * (had if now is None else now) / old if old else self._part(new)
                    claim.restated = (had, max(1, min(WEIGHT_MAX, round(part))) if new else 0)
            claim.stated = None
        self._restates = any(row.claim.restated is not None for row in self._pool.rows)

    def restated(self, row: Row) -> int | None:
        """The weight that the kernel should have instead, where nothing else decides: no agent has reported yet."""
        pair = row.claim.restated
        return pair[1] if pair is not None and row.kernel is not None and row.weight == pair[0] else None

    # Asked, before the law: whose word holds.

    def ask(self, standing: Standing, now: float) -> None:
        """Set what each row's owner wants (`base`), and whose word keeps it at 0 (`zero`). Where checks would bar all,
        they bar none: the fault may be ours, and a pool without a server serves nobody."""
        rows, adopts, idle = self._pool.rows, self.owned is None, self._watch.idle
        self._scale = self._our_scale = None
        for row in rows:
            if adopts:
                self._follow_owner(row, row.claim)
                row.zero = THEIRS if row.claim.theirs else None
            elif row.base.weight == 0:
                row.zero = CONFIGURED
            elif row.ours:
                row.zero = None
            else:
                row.zero = THEIRS if row.claim.theirs and row.kernel is not None else None
            if not idle:
                self._look_after(row, now)
        if standing.destinations or self._ordered:
            self._ordered = bool(standing.destinations)
            for row in rows:
                row.order = order = standing.destinations.get(row.key)
                if order is not None and row.zero is None and order.takes_out():
                    row.zero = Zero(By.ORDER, order)
        if self._stand_ins:
            self._keep_back(rows)
        if idle:
            return
        nobody = all(row.zero is not None for row in rows)
        for row in rows:
            if nobody and row.zero is not None and row.zero.barred:
                row.zero = None
            row.gone = row.absence is not None and row.absence.out and not nobody and standing.paused is None

    def _keep_back(self, rows: Iterable[Row]) -> None:
        """A stand-in gets nothing while all its servers serve."""
        for row in rows:
            if row.stands_for and row.zero is None:
                others = [self.rows[key] for key in row.stands_for if key in self.rows]
                if others and all(other.zero is None and other.out is None for other in others):
                    row.zero = Zero(By.STAND_IN, StandsBy(tuple(other.name for other in others)))

    def _look_after(self, row: Row, now: float) -> None:
        """Apply the director's own checks and agent-check agents."""
        watch = self._watch
        advice = watch.advice(row.key)
        row.advised = None if advice is None else advice.of(row.base.weight)
        row.weighed = watch.weight(row.key)
        if row.trust is Trust.NEVER and (advice is not None or row.weighed is not None):
            row.source, row.trust, row.age_seconds = watch.source(row.key, now, *self._patience)
        if row.zero is None:
            row.zero = watch.barred(row.key, row.weight > 0)
        row.checked = watch.checked(row.key)
        if row.absence is not None:
            row.wavers = watch.wavers(row.key)
            stays = row.absence.judge(watch.failing(row.key), now)
            if stays is not None and row.zero is None:
                row.zero = Zero(By.CHECK, stays)

    def _follow_owner(self, row: Row, claim: Claim) -> None:
        """The other owner's last weight, and the thresholds that are not ours."""
        have, base, cap = row.kernel.destination if row.kernel else row.base, row.base, claim.cap
        weight = claim.owners
        if weight is None:  # its state is lost: a zero of ours says nothing of what the owner wants
            weight = have.weight or int(claim.signed or not claim.theirs)
        upper, lower = (have.upper, have.lower) if cap is None else (cap.upper, cap.lower)
        if base.weight != weight or base.upper != upper or base.lower != lower or not same_way(base, have):
            row.base = msgspec.structs.replace(have, weight=weight, upper=upper, lower=lower)

    # Told, after the plan: what holds all the same, and what is ours from now on.

    def standing(self, now: float) -> str:
        """Why the other owner's weights stand, or ''."""
        return self._disputes.standing(now) if self.owned is None else ""

    def hold(self, row: Row, now: float) -> int:
        """The weight of a row while nothing is decided: what the kernel has, or what we or the operator would."""
        if row.zero is None and self.bare(now):
            return row.base.weight
        have, claim = self._held_weight(row), row.claim
        if self.owned is not None:
            new = self.restated(row) if self._restates and row.trust is Trust.NEVER and row.zero is None else None
            return have if new is None else new
        if not have or claim.edited is None:
            return have
        return claim.edited or self._part_of_ours(row) or have

    def _part_of_ours(self, row: Row) -> int:
        """While all is held, too, the owner's weight has not our scale: its part of the rest. 0 where there is none."""
        if self._our_scale is None:
            mine = [r for r in self._pool.rows if r.weight and r.claim.edited is None]
            known = bool(mine) and proportional(self._pool.service.scheduler, [r.weight for r in mine])
            have, owners = sum(r.weight for r in mine), sum(r.claim.owners or r.weight for r in mine)
            self._our_scale = (have, owners) if known else (0, 1)
        have, static = self._our_scale
        return max(1, min(WEIGHT_MAX, round(row.base.weight * have / static))) if have else 0

    def _held_weight(self, row: Row) -> int:
        """The kernel's weight; for a server whose check passes again, its part of the rest."""
        have = row.weight if row.kernel else 0 if row.claim.barred else row.base.weight
        change = row.claim.ordered
        if change is not None and row.order is None and change.ours == have:
            have = 0 if row.zero is not None else change.before
        if have or not row.claim.barred or row.zero is not None or row.out is not None:
            return have
        return max(1, self._part(row.base.weight))

    def _part(self, weight: int) -> int:
        """A static weight on the scale that the others have, or come to by a new static weight."""
        if self._scale is None:
            there = [row for row in self._pool.rows if row.weight]
            weights = (row.weight if (now := self.restated(row)) is None else now for row in there)
            self._scale = sum(weights), sum(row.base.weight for row in there)
        have, static = self._scale
        return min(WEIGHT_MAX, round(weight * have / static)) if static else weight

    def settle(self, orders: Standing, now: float) -> None:
        """Put what somebody's word holds in place of what was decided, and remember what is ours from now on."""
        rows = self._pool.rows
        why = self.standing(now)
        if why:
            self._leave_to_owner(why)
        if orders.paused is not None:
            for row in rows:
                row.aim = self._held_weight(row)
                if row.kernel is not None:
                    row.upper, row.lower = row.kernel.destination.upper, row.kernel.destination.lower
                row.tell("orders", Paused(orders.paused), row.aim)
        if self._ordered:
            total = sum(row.aim for row in rows)
            for row in rows:
                if row.order is not None:
                    self._obey(row, row.order, total - row.aim)
        if self._left and self._pool.held is None:
            self._left.clear()
        touched = self._ordered or orders.paused is not None
        for row in rows:
            aim = row.aim
            if aim and not touched and row.zero is None and row.out is None and not row.tried:
                if aim == row.ours:
                    continue
                claim = row.claim
                if claim.forced is None and claim.ordered is None:
                    claim.signed, claim.written, claim.barred = False, aim, False
                    plain = claim.cap is None and claim.edited is None and not claim.theirs and row.kernel is not None
                    row.ours = aim if plain else 0
                    continue
            row.ours = 0
            if row.gone:
                row.claim.written, row.claim.signed, row.claim.barred = None, False, True
                continue
            if row.tried and row.kernel is not None:
                self._keep_in_mind(row.claim, row.kernel.destination, row.limit)
            # A person's zero in a table of ours stays unsigned: it must outlive a state that is lost.
            if self.owned is None or (row.order is None and orders.paused is None):
                self._sign(row)
            else:
                row.claim.signed = False
            self._wrote(row)

    def _leave_to_owner(self, why: str) -> None:
        """Leave the weights as the owner of the service has them."""
        rows = self._pool.rows
        total = sum(row.base.weight for row in rows if not row.claim.theirs) or 1
        for row in rows:
            row.aim = 0 if row.claim.theirs else row.base.weight
            row.stands, row.upper, row.lower = row.aim / total, row.base.upper, row.base.lower
            row.tell("owner", why, row.aim)

    def _obey(self, row: Row, order: Order, others: int) -> None:
        """The operator's last word on a row; `others` is the sum of the other weights, for the share that it is."""
        weight = 0 if order.kind is Kind.DRAIN else order.weight
        said: Fact = order
        if weight and row.zero is not None and not order.force:
            weight, said = 0, NotRaised(order, row.zero.why)
        row.aim, row.stands = weight, weight / (weight + others) if weight else 0.0
        row.tell("orders", said, weight)

    def _keep_in_mind(self, claim: Claim, have: Destination, trial: Limit) -> None:
        """The thresholds that a trial takes the place of."""
        usual = claim.cap or Cap(have.upper, have.lower)
        claim.cap = Cap(usual.upper, usual.lower, trial.upper, trial.lower)

    def _sign(self, row: Row) -> None:
        """A zero of ours must be told from one that the owner writes later. So must one that is added: the state may be
        lost before we look again."""
        claim = row.claim
        if row.aim or claim.theirs:
            claim.signed = False
            return
        have = row.base if row.kernel is None else row.kernel.destination
        usual = claim.cap or Cap(have.upper, have.lower)
        claim.cap = Cap(usual.upper, usual.lower, *SIGNATURE)
        claim.signed = True
        row.upper, row.lower = SIGNATURE

    def _wrote(self, row: Row) -> None:
        """It is decided: what the kernel has at the next look is ours, unless it says otherwise."""
        claim, order, ours = row.claim, row.order, row.aim
        claim.written = ours
        if order is None:
            claim.forced = None
            if claim.ordered is not None and claim.ordered.ours != ours:
                claim.ordered = None
        else:
            forced = order.force and order.weight > 0 and claim.theirs and ours > 0
            claim.forced = ours if forced else None
            have = row.weight if row.kernel else row.base.weight
            claim.ordered = Ordered(claim.ordered.before if claim.ordered else have, ours)
        barred = row.zero is not None and row.zero.barred
        if barred or row.out is not None or (order is not None and order.takes_out()):
            claim.barred = True
        elif ours:
            claim.barred = False

    def decided(self) -> None:
        """Reports decide: what is in force is no longer a static weight."""
        self._heard = True
        if self._restates:
            self._restates = False
            for row in self._pool.rows:
                row.claim.restated = None

    def untouched(self) -> None:
        """A decision broke off: what the kernel has stays, and is no foreign edit at the next look."""
        for row in self._pool.rows:
            row.ours = 0
            if row.kernel is not None and not (row.claim.theirs and not row.weight):
                row.claim.written = row.weight

    def failed(self, key: DestinationKey) -> None:
        """The kernel refused it: what is there then is not somebody else's work."""
        row = self.rows.get(key)
        if row is not None:
            row.claim.written, row.ours = None, 0


def proportional(scheduler: str, weights: list[int]) -> bool:
    """Whether weights can be capacities: not ranks, counts, or what holds a tier back."""
    positive = [w for w in weights if w > 0]
    return traits(scheduler).proportional and max(positive) < TIER_RATIO * min(positive)


def _by_key(row: Row) -> DestinationKey:
    return row.key


def _stated(row: Row) -> int:
    """The static weight that what is in force was made from: a reload before the first look has another one."""
    return row.base.weight if row.claim.stated is None else row.claim.stated


def same_way(a: Destination, b: Destination) -> bool:
    """How the kernel brings packets there."""
    return (
        (a.forward is b.forward or a.forward == b.forward)
        and (a.tunnel_type is b.tunnel_type or a.tunnel_type == b.tunnel_type)
        and a.tunnel_port == b.tunnel_port
        and a.tunnel_flags == b.tunnel_flags
    )


def _remember(rows: list[Row], edited: set[DestinationKey | None]) -> None:
    """At the first look the weights found are most likely ours, and the owner's are those of the state."""
    for row in rows:
        if row.claim.remembered is not None and row.key not in edited:
            row.claim.owners = row.claim.remembered
        row.claim.remembered = None


def _resume(row: Row, state: Remembered, zeros: frozenset[str]) -> None:
    """Take over what the earlier master knew of it."""
    claim, name = row.claim, row.name
    if row.absence is not None and name in state.removed:
        row.absence.resume(state.removed[name])
    claim.written = 0 if name in zeros else None
    claim.barred = name in zeros
    claim.remembered = state.owners.get(name)
    claim.cap = state.capped.get(name)
    claim.forced = state.forced.get(name)
    claim.ordered = state.ordered.get(name)
    claim.theirs = claim.theirs or claim.forced is not None
