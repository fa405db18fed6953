"""Line: the pipeline of one virtual service, stage after stage, with the state that its stages keep.

Owns the order of the stages. Who wrote which weight is the authors' (authors.py). Invariant: of a service that somebody
else owns, nothing but weights and thresholds is written, and while its owner disputes them (owner.py) not even those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import inf

import msgspec

from feedback.config import MasterConfig, ServiceConfig, to_destination
from feedback.master.actuate import Actuator, Wanted, Weight, for_scheduler, look_seconds
from feedback.master.authors import Authors, proportional
from feedback.master.estimate import Estimator
from feedback.master.fleet import Fleet, Trust, Window
from feedback.master.guard import Guard, Guarded
from feedback.master.health import Watch
from feedback.master.laws import Law, load
from feedback.master.limits import Limit, Limits
from feedback.master.orders import NONE, Standing, held, last_word
from feedback.master.owner import ForeignEdit
from feedback.master.pool import Member, Pool, Role, Share, Shares
from feedback.master.reconcile import reconcile_owned, reconcile_weights
from feedback.master.state import ServiceState
from feedback.model import (
    Destination,
    DestinationKey,
    Edit,
    Reason,
    Service,
    ServiceEntry,
    Setting,
)

FLOW_SECONDS = 2.0
WINDOWS_MAX = 50  # kept for one decision: an agent sends no more in a second


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
        self.authors = Authors(service.key, destinations)
        self.law: Law = load(law, named.law_options if named else None)
        self._roles = _roles(named) if named else {}
        self._limits = _limits(self.law, named or ServiceConfig(virtual=str(service.key)))
        self.estimator = Estimator()
        self.guard = Guard(config.guards)
        self.actuator: Actuator = for_scheduler(service.scheduler, config.guards.dead_band)
        self.dead_band = config.guards.dead_band
        self._windows: dict[DestinationKey, deque[Window]] = {}  # since the last decision
        self.flow = 0.0
        self._counted: tuple[float, int] | None = None
        self.watch = Watch(service.key, named.check if named else None, named.agent_check if named else None)
        self._patience = (config.guards.stale_seconds, config.guards.lost_seconds)
        self.orders: Standing = NONE  # the operator's, for this service

    @property
    def keys(self) -> tuple[DestinationKey, ...]:
        return self.authors.keys

    @property
    def look_seconds(self) -> float:
        """How often it wants to be decided now; infinity: the configured interval is enough."""
        seconds = look_seconds(self.service)
        return seconds if self.flow * seconds >= 1 else inf

    @property
    def learns_limits(self) -> bool:
        return self._limits.learns

    def state(self) -> ServiceState:
        """What a restarted master could not read from the kernel."""
        learned = {str(k): known for k, known in self.estimator.learned().items()}
        limited = sorted(map(str, self._limits.ours)) if self.authors.destinations is None else ()
        return msgspec.structs.replace(self.authors.state(), learned=learned, limited=tuple(limited))

    def restore(self, state: ServiceState) -> None:
        """Before the first look at the kernel."""
        self.authors.restore(state)
        self._limits.resume([DestinationKey.parse(k) for k in state.limited])
        self.estimator.resume({DestinationKey.parse(k): known for k, known in state.learned.items()})

    def succeed(self, before: Line) -> None:
        """Take the place of the line of the same service, before a reload that changed it. Before the first look."""
        self.authors.succeed(before.authors)
        self.estimator.resume(before.estimator.learned())

    def follow(self, entry: ServiceEntry) -> None:
        """Take over the kernel's record of a service that somebody else owns."""
        if entry.service.scheduler != self.service.scheduler:
            self.actuator = for_scheduler(entry.service.scheduler, self.dead_band)
        self.authors.follow(changed=entry.service != self.service)
        self.service = entry.service

    def observe(self, key: DestinationKey, window: Window) -> None:
        """Take each window of the agent's stream: several may come between two decisions."""
        self.estimator.capacity(key).observe(window)
        self.guard.observe(key, window, self.service.key.protocol)
        self._windows.setdefault(key, deque(maxlen=WINDOWS_MAX)).append(window)

    def receive(self, entry: ServiceEntry | None, now: float) -> list[ForeignEdit]:
        if self.authors.entry is None and entry is not None:
            self._continue(entry)
        foreign = self.authors.receive(entry, now)
        self.estimator.keep(set(self.keys))
        for e in entry.destinations if entry else ():
            self.estimator.capacity(e.destination.key).observe_kernel(e, now)
        self._measure_flow(entry, now)
        active = sum(e.active for e in self.authors.have.values())
        self.estimator.residence(active / self.flow if self.flow > 0 else 0.0)
        return foreign

    def _continue(self, entry: ServiceEntry) -> None:
        """Weights that are not the static ones were learned by somebody, most likely by us before a restart."""
        weights = {e.destination.key: float(e.destination.weight) for e in entry.destinations}
        static = {k: float(d.weight) for k, d in (self.authors.destinations or {}).items()}
        if (
            weights != static
            and len(set(weights.values())) > 1
            and proportional(self.service.scheduler, weights.values())
        ):
            self.estimator.seed(weights)

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
        kernel = self.authors.have.get(key)
        base = self.authors.base(key, kernel)
        address = str(key.address)
        return Member(
            base=base,
            kernel=kernel,
            trust=fleet.trust(address, now),
            age_seconds=fleet.age(address, now),
            estimate=self.estimator.capacity(key).estimate(),
            quiesced=self.authors.quiesced(key, base, kernel),
            window=self.estimator.capacity(key).window,
            windows=tuple(self._windows.get(key, ())),
            role=self._roles.get(key, Role()),
        )

    def decide(self, fleet: Fleet, now: float) -> tuple[ServiceStatus, list[Edit]]:
        owned, entry = self.authors.destinations, self.authors.entry
        pool = self.pool(fleet, now)
        wanted = self.law.shares(pool, now)
        wanted = _advised(pool, wanted)
        tiers = {k: s.tier for k, s in wanted.items() if s.tier}
        guarded = self.guard.apply(pool, wanted, now, self.authors.restated())
        if not all(m.trust is Trust.NEVER for m in pool.members):
            self.authors.decided()
        ramping = frozenset(guarded.ramp)
        last = _last(pool, wanted) if tiers else frozenset()
        counted = {m.key: wanted[m.key].tier for m in pool.members} if self.service.scheduler == "ovf" else None
        bounds = self._limits.limits(pool, now, exact=bool(tiers), last=last, counted=counted, ramping=ramping)
        if guarded.held and tiers:  # an order needs no reports, and plain weights would use all tiers at once
            guarded = Guarded(_unquiesced(pool, guarded.shares), guarded.ramp)
        bounds = bounds | self.authors.trials(bounds, guarded.trials)
        aims = Wanted(guarded.shares, tiers, bounds, ramping)
        weights = {} if guarded.held else self.actuator.weights(pool, aims, now)
        settings = {m.key: self._setting(m, guarded, weights.get(m.key), bounds[m.key]) for m in pool.members}
        standing = self.authors.standing(now)
        if standing:
            settings = self.authors.theirs(pool, settings, standing)
        settings = self._settled(pool, settings)
        if owned is None:
            settings = {k: self.authors.signed(k, s) for k, s in settings.items()}
        statuses = tuple(Status(m, settings[m.key]) for m in pool.members)
        paused = self.orders.paused
        status = ServiceStatus(
            self.service, self.law_name, self.flow, str(paused or standing or guarded.held), statuses
        )
        if owned is not None and paused is None:
            edits = reconcile_owned(self.service, owned, settings, entry)
        else:
            edits = reconcile_weights(entry, settings) if entry else []
        self.authors.wrote(pool, settings)
        self._windows.clear()
        return status, edits

    def _settled(self, pool: Pool, settings: dict[DestinationKey, Setting]) -> dict[DestinationKey, Setting]:
        """The operator's last word on each setting. No stage comes after it."""
        pause = self.orders.paused
        if pause is not None:
            have = {m.key: (self.authors.held_weight(m), self.authors.in_force(m.key)) for m in pool.members}
            settings = {k: held(s, pause, have[k][0], have[k][1] or (s.upper, s.lower)) for k, s in settings.items()}
        total = sum(s.weight for s in settings.values())
        ordered = {m.key: (m, m.order) for m in pool.members if m.order is not None}
        said = {
            k: last_word(settings[k], order, m.quiesced, total - settings[k].weight)
            for k, (m, order) in ordered.items()
        }
        return settings | said

    def _setting(self, member: Member, guarded: Guarded, weight: Weight | None, limit: Limit) -> Setting:
        share = guarded.shares[member.key]
        static_zero = self.authors.destinations is not None and member.base.weight == 0
        if weight is None and (member.barred or static_zero):  # an operator's word needs no report
            value, reason = 0, Reason("guard", member.barred or member.quiesced, 0)
        elif weight is None:  # held
            value = self.authors.put_right(member)
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
