"""Line: the pipeline of one virtual service, stage after stage, with the state that its stages keep.

Owns the order of the stages and who wrote which weight. Invariants: a weight of 0 that we did not write is somebody
else's, and stays 0 until they raise it; of a service that somebody else owns, nothing but weights and thresholds is
written, and while its owner disputes them (owner.py) not even those.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from feedback.config import MasterConfig, ServiceConfig, to_destination
from feedback.master.actuate import Actuator, Wanted, Weight, for_scheduler
from feedback.master.estimate import Estimator
from feedback.master.fleet import Fleet, Trust, Window
from feedback.master.guard import Guard, Guarded
from feedback.master.health import Watch
from feedback.master.laws import Law, load
from feedback.master.limits import Limit, Limits
from feedback.master.orders import NONE, Standing, held, last_word
from feedback.master.owner import SIGNATURE, Disputes, ForeignEdit, What
from feedback.master.pool import Member, Pool, Role, Share, Shares
from feedback.master.reconcile import reconcile_owned, reconcile_weights
from feedback.master.state import Cap, Ordered, ServiceState
from feedback.model import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Reason,
    Service,
    ServiceEntry,
    Setting,
)

FLOW_SECONDS = 2.0


class Status(msgspec.Struct, frozen=True):
    """One destination for people: the setting and what it rests on."""

    member: Member
    setting: Setting


class ServiceStatus(msgspec.Struct, frozen=True):
    service: Service
    law: str
    flow: float
    held: str
    destinations: tuple[Status, ...]


class Line:
    """The pipeline of one service, with the state that its stages keep."""

    def __init__(
        self,
        service: Service,
        config: MasterConfig,
        law: str,
        destinations: dict[DestinationKey, Destination] | None,
        named: ServiceConfig | None = None,
    ):
        """`destinations` are the configured records; None where somebody else owns the service. `named` is what the
        configuration says of it, if anything."""
        self.service, self.law_name = service, law
        self.destinations = destinations
        self._owners: dict[DestinationKey, int] = {}  # the other owner's last weight that was not ours
        self._remembered: dict[DestinationKey, int] = {}  # the same, from before a restart
        self._signed: set[DestinationKey] = set()  # whose zero we wrote, with our signature
        self._disputes = Disputes()
        self._noticed: list[ForeignEdit] = []  # of the service itself
        self._edited: dict[DestinationKey, int] = {}  # what the owner put into service at this look, and ours before
        self._away = False
        self.law: Law = load(law, named.law_options if named else None)
        self._roles = _roles(named) if named else {}
        self._limits = _limits(self.law, named or ServiceConfig(virtual=str(service.key)))
        self.estimator = Estimator()
        self.guard = Guard(config.guards)
        self.actuator: Actuator = for_scheduler(service.scheduler, config.guards.dead_band)
        self.dead_band = config.guards.dead_band
        self.entry: ServiceEntry | None = None
        self.keys: tuple[DestinationKey, ...] = tuple(destinations or ())
        self._have: dict[DestinationKey, DestinationEntry] = {}
        self.written: dict[DestinationKey, int] = {}
        self.zeros: set[DestinationKey] = set()  # somebody else's
        self._capped: dict[DestinationKey, Cap] = {}  # whose threshold is a trial's
        self.flow = 0.0
        self._counted: tuple[float, int] | None = None
        self.watch = Watch(service.key, named.check if named else None, named.agent_check if named else None)
        self._patience = (config.guards.stale_seconds, config.guards.lost_seconds)
        self._barred: set[DestinationKey] = set()  # at 0 because of the watch or an order: ours to raise
        self.orders: Standing = NONE  # the operator's, for this service
        self._forced: dict[DestinationKey, int] = {}  # what a forced order wrote over somebody else's zero
        self._before: dict[DestinationKey, Ordered] = {}  # what orders changed, until something else is written

    def state(self) -> ServiceState:
        """What a restarted master could not read from the kernel."""
        zeros = (str(k) for k, w in self.written.items() if w == 0 and k not in self.zeros)
        owners = {str(k): w for k, w in self._owners.items() if k in self._have}
        capped = {str(k): cap for k, cap in self._capped.items()}
        forced = {str(k): w for k, w in self._forced.items()}
        learned = {str(k): known for k, known in self.estimator.learned().items()}
        owned = owners if self.destinations is None else {}
        ordered = {str(k): change for k, change in self._before.items()}
        return ServiceState(tuple(sorted(zeros)), owned, capped, forced, learned, ordered)

    def restore(self, state: ServiceState) -> None:
        """Before the first look at the kernel."""
        self._before = {DestinationKey.parse(k): change for k, change in state.ordered.items()}
        self.written = {DestinationKey.parse(k): 0 for k in state.zeros}
        self._remembered = {DestinationKey.parse(k): w for k, w in state.owners.items()}
        self._capped = {DestinationKey.parse(k): cap for k, cap in state.capped.items()}
        self._forced = {DestinationKey.parse(k): w for k, w in state.forced.items()}
        self.zeros |= self._forced.keys()
        self.estimator.resume({DestinationKey.parse(k): known for k, known in state.learned.items()})

    def follow(self, entry: ServiceEntry) -> None:
        """Take over the kernel's record of a service that somebody else owns."""
        if entry.service.scheduler != self.service.scheduler:
            self.actuator = for_scheduler(entry.service.scheduler, self.dead_band)
        if entry.service != self.service or self._away:
            self._noticed.append(ForeignEdit(entry.service.key, None, None, None, What.SERVICE))
        self.service = entry.service

    def leave(self) -> ForeignEdit:
        """The other owner has removed the service. It may come back as it was: keepalived's restart does that."""
        self._away = True
        return ForeignEdit(self.service.key, None, None, None, What.SERVICE_REMOVED)

    def observe(self, key: DestinationKey, window: Window) -> None:
        """Take each window of the agent's stream: several may come between two decisions."""
        self.estimator.capacity(key).observe(window)
        self.guard.observe(key, window, self.service.key.protocol)

    def receive(self, entry: ServiceEntry | None, now: float) -> list[ForeignEdit]:
        foreign = self._foreign(entry, now)
        if self.entry is None and entry is not None:
            self._continue(entry)
        self.entry, self._away = entry, entry is None and self._away
        self._have = {e.destination.key: e for e in entry.destinations} if entry else {}
        self._capped = {
            k: cap for k, cap in self._capped.items() if self._in_force(k) == (cap.our_upper, cap.our_lower)
        }
        self.keys = tuple(self._have if self.destinations is None else self.destinations)
        self.estimator.keep(set(self.keys))
        for e in entry.destinations if entry else ():
            self.estimator.capacity(e.destination.key).observe_kernel(e, now)
            self._look_at_zero(e.destination)
        self._measure_flow(entry, now)
        active = sum(e.active for e in self._have.values())
        self.estimator.residence(active / self.flow if self.flow > 0 else 0.0)
        return foreign

    def _look_at_zero(self, have: Destination) -> None:
        """Whose a zero is: by its signature where somebody else owns the service, else by what we wrote last."""
        signed = self.destinations is None and (have.upper, have.lower) == SIGNATURE
        if signed and have.key not in self._capped:  # of a master before us, whose state is lost
            self._capped[have.key] = Cap(0, 0, *SIGNATURE)
        if have.weight:
            if self._forced.get(have.key) != have.weight:
                self.zeros.discard(have.key)
        elif signed:
            self.written[have.key] = 0
        elif self.destinations is None or self.written.get(have.key) != 0:
            self.zeros.add(have.key)

    def _continue(self, entry: ServiceEntry) -> None:
        """Weights that are not the static ones were learned by somebody, most likely by us before a restart."""
        weights = {e.destination.key: float(e.destination.weight) for e in entry.destinations}
        static = {k: float(d.weight) for k, d in (self.destinations or {}).items()}
        if weights != static and len(set(weights.values())) > 1 and _proportional(self.service, weights.values()):
            self.estimator.seed(weights)

    def _foreign(self, entry: ServiceEntry | None, now: float) -> list[ForeignEdit]:
        """What somebody else did since the last look. Takes their weights for the owner's."""
        if entry is None:
            return [] if self.entry is None else [self.leave()]
        service, found, rewritten = entry.service.key, self._noticed, []
        self._noticed, self._edited, anew = [], {}, self._made_anew(entry)
        for have in (e.destination for e in entry.destinations):
            ours = self.written.get(have.key)
            unsigned = have.key in self._signed and (have.upper, have.lower) != SIGNATURE
            if ours is not None and (have.weight != ours or unsigned):
                found.append(ForeignEdit(service, have.key, ours, have.weight))
                if have.weight and have.key not in self.zeros and ours != self._owners.get(have.key):
                    rewritten.append(have.key)
                if have.weight and (ours != self._owners.get(have.key) or have.key in self.zeros):
                    self._edited[have.key] = ours
                del self.written[have.key]
            elif self.entry is not None and have.key not in self._have and ours is None:
                found.append(ForeignEdit(service, have.key, None, have.weight, What.ADDED))
                self._edited[have.key] = 0
            if have.weight and have.key not in self.written:
                self._owners[have.key] = have.weight
        if self.entry is None:
            self._remember(entry, {edit.destination for edit in found})
        found += self._removed(entry)
        whole = bool(rewritten) and all(e.destination.key in rewritten for e in entry.destinations)
        self._disputes.rewritten(rewritten, whole=anew or whole, now=now)
        return found

    def _made_anew(self, entry: ServiceEntry) -> bool:
        """Whether its owner has wiped out weights of ours by removing the service, or all that was in it."""
        wiped = self._away or not any(entry.entry(key) for key in self._have)
        return wiped and any(self.written.get(k) not in (None, self._owners.get(k)) for k in self._have)

    def _removed(self, entry: ServiceEntry) -> list[ForeignEdit]:
        gone = self._have.keys() - {e.destination.key for e in entry.destinations}
        ours = gone if self.destinations is None else gone & self.destinations.keys()
        service = entry.service.key
        return [ForeignEdit(service, k, self.written.pop(k, None), None, What.REMOVED) for k in sorted(ours)]

    def _remember(self, entry: ServiceEntry, edited: Collection[DestinationKey | None]) -> None:
        """At the first look the weights found are most likely ours, and the owner's are those of the state."""
        there = {e.destination.key for e in entry.destinations} - set(edited)
        self._owners |= {k: w for k, w in self._remembered.items() if k in there}
        self._remembered.clear()

    def _measure_flow(self, entry: ServiceEntry | None, now: float) -> None:
        """New connections per second by the kernel's counters, which move every 2 s; the agents' rates are livelier."""
        reported = [e.rate for k in self.keys if (e := self.estimator.capacity(k).estimate()) is not None]
        if reported and len(reported) == len(self.keys):
            self.flow = sum(reported)
            return
        total = sum(e.counters.connections for e in entry.destinations) if entry else 0
        if self._counted is None or total < self._counted[1]:
            self._counted = (now, total)
        elif now - self._counted[0] >= FLOW_SECONDS:
            self.flow = (total - self._counted[1]) / (now - self._counted[0])
            self._counted = (now, total)

    def pool(self, fleet: Fleet, now: float) -> Pool:
        members = tuple(self._ordered(self._watched(self._member(k, fleet, now), now)) for k in self.keys)
        if any(m.barred for m in members) and all(m.quiesced for m in members):
            members = tuple(msgspec.structs.replace(m, quiesced="", barred="") if m.barred else m for m in members)
        return Pool(self.service, members, self.flow)

    def _watched(self, member: Member, now: float) -> Member:
        """What the director's own checks and an agent-check agent add. Where all would be barred, none is: the fault
        may be ours, and a pool without a server serves nobody."""
        advice = self.watch.advice(member.key)
        if advice is not None:
            trust, age = self.watch.trust(member.key, now, *self._patience)
            member = msgspec.structs.replace(member, advised=advice.of(member.base.weight))
            if member.trust is Trust.NEVER:
                member = msgspec.structs.replace(member, trust=trust, age_seconds=age)
        serves = member.kernel is not None and member.kernel.destination.weight > 0
        barred = "" if member.quiesced else self.watch.barred(member.key, serves)
        checked = self.watch.checked(member.key)
        return msgspec.structs.replace(member, barred=barred, quiesced=barred or member.quiesced, checked=checked)

    def _ordered(self, member: Member) -> Member:
        """What an order takes out counts as quiesced for every stage; what else it says is the last word."""
        order = self.orders.destinations.get(member.key)
        if order is None:
            return member
        why = member.quiesced or (str(order) if order.takes_out() else "")
        return msgspec.structs.replace(member, order=order, quiesced=why)

    def _member(self, key: DestinationKey, fleet: Fleet, now: float) -> Member:
        kernel = self._have.get(key)
        base = self._base(key, kernel)
        address = str(key.address)
        return Member(
            base=base,
            kernel=kernel,
            trust=fleet.trust(address, now),
            age_seconds=fleet.age(address, now),
            estimate=self.estimator.capacity(key).estimate(),
            quiesced=self._quiesced(key, base, kernel),
            window=self.estimator.capacity(key).window,
            role=self._roles.get(key, Role()),
        )

    def _base(self, key: DestinationKey, kernel: DestinationEntry | None) -> Destination:
        """What the owner of the service wants of this destination: the configuration, or his own last weight."""
        if self.destinations is not None:
            return self.destinations[key]
        assert kernel is not None  # the keys of an adopted service are the kernel's
        unknown = 1 if key in self._signed or key not in self.zeros else 0  # the state is lost, and the zero is ours
        weight = self._owners.get(key, kernel.destination.weight or unknown)
        owners = msgspec.structs.replace(kernel.destination, weight=weight)
        cap = self._capped.get(key)
        return owners if cap is None else msgspec.structs.replace(owners, upper=cap.upper, lower=cap.lower)

    def _quiesced(self, key: DestinationKey, base: Destination, kernel: DestinationEntry | None) -> str:
        if self.destinations is not None and base.weight == 0:
            return "weight 0 in the configuration: quiesced by the operator"
        if key in self.zeros and kernel is not None:
            return "somebody else set the weight to 0: theirs to raise"
        return ""

    def decide(self, fleet: Fleet, now: float) -> tuple[ServiceStatus, list[Edit]]:
        pool = self.pool(fleet, now)
        wanted = self.law.shares(pool, now)
        wanted = _advised(pool, wanted)
        tiers = {k: s.tier for k, s in wanted.items() if s.tier}
        guarded = self.guard.apply(pool, wanted, now)
        ramping = frozenset(guarded.ramp)
        last = _last(pool, wanted) if tiers else frozenset()
        counted = {m.key: wanted[m.key].tier for m in pool.members} if self.service.scheduler == "ovf" else None
        bounds = self._limits.limits(pool, now, exact=bool(tiers), last=last, counted=counted, ramping=ramping)
        if guarded.held and tiers:  # an order needs no reports, and plain weights would use all tiers at once
            guarded = Guarded(_unquiesced(pool, guarded.shares), guarded.ramp)
        bounds = bounds | self._trials(bounds, guarded)
        aims = Wanted(guarded.shares, tiers, bounds, ramping)
        weights = {} if guarded.held else self.actuator.weights(pool, aims, now)
        settings = {m.key: self._setting(m, guarded, weights.get(m.key), bounds[m.key]) for m in pool.members}
        standing = self._disputes.standing(now) if self.destinations is None else ""
        if standing:
            total = sum(self._base(k, e).weight for k, e in self._have.items() if k not in self.zeros)
            settings = {m.key: self._theirs(m, settings[m.key], standing, total) for m in pool.members}
        settings = self._settled(pool, settings)
        if self.destinations is None:
            settings = {k: self._with_signature(k, s) for k, s in settings.items()}
        statuses = tuple(Status(m, settings[m.key]) for m in pool.members)
        paused = self.orders.paused
        status = ServiceStatus(
            self.service, self.law_name, self.flow, str(paused or standing or guarded.held), statuses
        )
        if self.destinations is not None and paused is None:
            edits = reconcile_owned(self.service, self.destinations, settings, self.entry)
        else:
            edits = reconcile_weights(self.entry, settings) if self.entry else []
        self.written = {k: s.weight for k, s in settings.items()}
        self._forced = {m.key: self.written[m.key] for m in pool.members if self._over_zero(m)}
        self._before = {m.key: change for m in pool.members if (change := self._change(m)) is not None}
        barred = {m.key for m in pool.members if m.barred or (m.order and m.order.takes_out())}
        self._barred = barred | {k for k in self._barred if self.written.get(k) == 0}
        return status, edits

    def _settled(self, pool: Pool, settings: dict[DestinationKey, Setting]) -> dict[DestinationKey, Setting]:
        """The operator's last word on each setting. No stage comes after it."""
        pause = self.orders.paused
        if pause is not None:
            have = {m.key: (self._held_weight(m), self._in_force(m.key)) for m in pool.members}
            settings = {k: held(s, pause, have[k][0], have[k][1] or (s.upper, s.lower)) for k, s in settings.items()}
        total = sum(s.weight for s in settings.values())
        ordered = {m.key: (m, m.order) for m in pool.members if m.order is not None}
        said = {
            k: last_word(settings[k], order, m.quiesced, total - settings[k].weight)
            for k, (m, order) in ordered.items()
        }
        return settings | said

    def _theirs(self, member: Member, setting: Setting, why: str, total: int) -> Setting:
        """As the owner of the service has it, of whose weights `total` is the sum."""
        weight = 0 if member.key in self.zeros else member.base.weight
        return msgspec.structs.replace(
            setting,
            weight=weight,
            share=weight / total if total else 0.0,
            upper=member.base.upper,
            lower=member.base.lower,
            reasons=(*setting.reasons, Reason("owner", why, weight)),
        )

    def _with_signature(self, key: DestinationKey, setting: Setting) -> Setting:
        """A zero of ours must be told from one that the owner writes later."""
        have = self._in_force(key)
        if setting.weight or key in self.zeros or have is None:
            self._signed.discard(key)
            return setting
        usual = self._capped.get(key) or Cap(*have)
        self._capped[key] = Cap(usual.upper, usual.lower, *SIGNATURE)
        self._signed.add(key)
        return msgspec.structs.replace(setting, upper=SIGNATURE[0], lower=SIGNATURE[1])

    def _over_zero(self, member: Member) -> bool:
        """Whether a forced order raises somebody else's zero, which is theirs again when it ends."""
        order = member.order
        forced = order is not None and order.force and order.weight > 0
        return forced and member.key in self.zeros and self.written[member.key] > 0

    def _change(self, member: Member) -> Ordered | None:
        """What an order has made of the weight: to go back to where nothing is decided when it ends."""
        ours, known = self.written[member.key], self._before.get(member.key)
        if member.order is None:
            return known if known is not None and known.ours == ours else None
        have = member.kernel.destination.weight if member.kernel else member.base.weight
        return Ordered(known.before if known else have, ours)

    def _held_weight(self, member: Member) -> int:
        """What the kernel has; for a server that a check had taken out and that passes again, its part of the rest."""
        have = member.kernel.destination.weight if member.kernel else member.base.weight
        change = self._before.get(member.key)
        if change is not None and member.order is None and change.ours == have:
            have = 0 if member.quiesced else change.before
        if have or member.key not in self._barred or member.quiesced:
            return have
        others = [
            (e.destination.weight, self._base(k, e).weight) for k, e in self._have.items() if e.destination.weight
        ]
        static = sum(base for _, base in others)
        return (
            round(member.base.weight * sum(weight for weight, _ in others) / static) if static else member.base.weight
        )

    def _put_right(self, member: Member) -> int:
        """While all is held, too, the owner's weight has not our scale: ours comes back, or its part of the rest."""
        have, ours = self._held_weight(member), self._edited.get(member.key)
        mine = [e.destination for k, e in self._have.items() if e.destination.weight and k not in self._edited]
        if not have or ours is None or self.destinations is not None:
            return have
        if ours or not mine or not _proportional(self.service, [d.weight for d in mine]):
            return ours or have
        static = sum(self._owners.get(d.key, d.weight) for d in mine)
        return max(1, round(member.base.weight * sum(d.weight for d in mine) / static))

    def _in_force(self, key: DestinationKey) -> tuple[int, int] | None:
        have = self._have.get(key)
        return (have.destination.upper, have.destination.lower) if have else None

    def _trials(self, bounds: Mapping[DestinationKey, Limit], guarded: Guarded) -> dict[DestinationKey, Limit]:
        """A trial's threshold stands instead of the usual one, which is kept in mind and comes back after."""
        found = {}
        for key, cap in self._capped.items():
            if key in bounds and (bounds[key].upper, bounds[key].lower) == (cap.our_upper, cap.our_lower):
                found[key] = Limit(cap.upper, cap.lower, bounds[key].room, "as before the trial")
        for key, trial in guarded.trials.items():
            if key in self.zeros:  # its owner has taken it out meanwhile: nothing to try
                continue
            upper = min(trial.upper, bounds[key].upper or trial.upper)
            limit = Limit(upper, min(trial.lower, upper), bounds[key].room, f"on trial: no more than {upper}, all told")
            if have := self._in_force(key):
                usual = self._capped.get(key) or Cap(*have)
                self._capped[key] = Cap(usual.upper, usual.lower, limit.upper, limit.lower)
            found[key] = limit
        return found

    def _setting(self, member: Member, guarded: Guarded, weight: Weight | None, limit: Limit) -> Setting:
        share = guarded.shares[member.key]
        if weight is None and member.barred:
            value, reason = 0, Reason("guard", member.barred, 0)
        elif weight is None:  # held
            value = self._put_right(member)
            reason = Reason("guard", guarded.held, value)
        else:
            value = weight.value
            text = weight.text or f"{100 * share.value:.1f} % of the pool"
            reason = Reason("actuate", f"{self.service.scheduler}: {text}", value)
        return Setting(
            service=self.service.key,
            destination=member.key,
            weight=value,
            share=share.value if weight is None or weight.share is None else weight.share,
            upper=limit.upper,
            lower=limit.lower,
            reasons=(*share.reasons, *_reasons(limit), reason),
        )


def _advised(pool: Pool, wanted: Shares) -> Shares:
    """An agent-check agent asks for a part of what its server would get, as HAProxy takes it of the usual weight."""
    said = {m.key: m.advised for m in pool.members if m.advised is not None}
    return {
        k: s.because("advice", f"its agent asks for {100 * said[k]:.0f} % of it", s.value * said[k]) if k in said else s
        for k, s in wanted.items()
    }


def _proportional(service: Service, weights: Iterable[float]) -> bool:
    """Whether weights can be capacities: not ranks, counts, or what holds a tier back."""
    positive = [w for w in weights if w > 0]
    return service.scheduler not in {"fo", "ovf"} and max(positive) < 1000 * min(positive)


def _roles(named: ServiceConfig) -> dict[DestinationKey, Role]:
    return {to_destination(d, named).key: Role(d.priority, d.pool == "spill") for d in named.destination}


def _limits(law: Law, named: ServiceConfig) -> Limits:
    mode = named.thresholds or str(getattr(law, "thresholds", "static"))
    return Limits(mode, named.latency_seconds)


def _last(pool: Pool, wanted: Shares) -> frozenset[DestinationKey]:
    """Who is in the last tier that has somebody in service."""
    serving = {m.key: wanted[m.key].tier for m in pool.members if not m.quiesced}
    return frozenset(k for k, tier in serving.items() if tier == max(serving.values()))


def _unquiesced(pool: Pool, shares: Mapping[DestinationKey, Share]) -> dict[DestinationKey, Share]:
    zeros = {m.key: m.quiesced for m in pool.members if m.quiesced}
    return {k: s.because("guard", zeros[k], 0.0) if k in zeros else s for k, s in shares.items()}


def _reasons(limit: Limit) -> tuple[Reason, ...]:
    return (Reason("limits", limit.text, limit.upper),) if limit.text else ()
