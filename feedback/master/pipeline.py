"""Pipeline: the stages of one virtual service, in their order, each entered once in a decision.

look      the kernel's record into the rows
claims    whose word holds a row                    (asked)
law       shares
bounds    guard, eject, doubt; limits
actuate   weights in the scheduler's way
claims    what somebody's word holds all the same   (told)
reconcile the smallest plan of edits
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from weakref import ref

import msgspec

from feedback.config import MasterConfig, OnFailure, ServiceConfig
from feedback.master.account import ServiceStatus
from feedback.master.actuate import LOOK_SECONDS, Actuator, for_scheduler
from feedback.master.bounds import limits
from feedback.master.bounds.eject import Failures
from feedback.master.bounds.guard import NO_REPORT_YET, Guard
from feedback.master.bounds.limits import Limits
from feedback.master.claims import wishes
from feedback.master.claims.absence import Absence
from feedback.master.claims.asking import Asking
from feedback.master.claims.claim import Claim
from feedback.master.claims.claims import Claims, proportional
from feedback.master.claims.orders import NONE, Standing
from feedback.master.claims.owner import ForeignEdit
from feedback.master.claims.watch import Watch
from feedback.master.cuts import course
from feedback.master.cuts.course import Cut, Evicted, Told
from feedback.master.cuts.succession import Succession
from feedback.master.laws import Law, load
from feedback.master.laws.failover import CutWhom, Failover
from feedback.master.outcome import Fact, Step
from feedback.master.pool import WINDOWS_MAX, Pool, Row, crowding, utilisation
from feedback.master.reconcile import reconcile_owned, reconcile_weights
from feedback.master.servers.arrivals import COUNTED_SECONDS, Arrivals, flow
from feedback.master.servers.capacity import Capacity, Learned
from feedback.master.servers.fleet import Fleet, Server, Source, Trust
from feedback.master.servers.prior import Prior
from feedback.master.servers.residence import Residence, judge
from feedback.master.servers.window import Window
from feedback.master.sources.reading import name
from feedback.master.state import ServiceState
from feedback.master.terms import USUAL, terms
from feedback.master.traits import closer_look, traits
from feedback.model import Destination, DestinationKey, Edit, Service, ServiceEntry

NOBODY_ELSE = "nobody else can serve"


class Pipeline:
    """The pipeline of one service, with the state that its stages keep. `owned` are the configured records; None where
    somebody else owns the service. `named` is what the configuration says of it, if anything."""

    def __init__(
        self,
        service: Service,
        config: MasterConfig,
        asking: Asking,
        law: str,
        owned: dict[DestinationKey, Destination] | None,
        named: ServiceConfig | None = None,
    ) -> None:
        guards = config.guards
        self.law_name = law
        self.law: Law = load(law, named.law_options if named else None)
        self._put = getattr(self.law, "put", None)  # one of ours writes into the rows itself
        self._follow = getattr(self.law, "observe", None)
        self.succession = _succession(self.law) if owned is not None else None
        self.orders: Standing = NONE  # the operator's, for this service
        self.watch = Watch(
            service.key,
            asking,
            config.check_of(named) if named else None,
            named.agent_check if named else None,
            config.check_ports(named) if named else None,
            config.exporter_of(named) if named else None,
        )
        self.pool = Pool(service, interval_seconds=config.interval_seconds)
        self._udp = self.pool.udp
        self._prior = Prior()
        self._passive = named is not None and named.passive and not self._udp  # no UDP flow is ever open
        self._terms = terms(named, owned=owned is not None) if named else {}
        cuts = any(of.on_failure is OnFailure.CUT for of in self._terms.values())
        self._lets_go = self.succession is not None or cuts
        self._learned: dict[str, Learned] = {}  # what a master before had, until the first look
        self._limited: frozenset[str] = frozenset()
        self.claims = Claims(self.pool, owned, self._row, self.watch, (guards.stale_seconds, guards.lost_seconds))
        self._limits = _limits(self.law, service, named)
        self._keeps = self._put is None or self._limits.sizes  # whether a decision sees each window since the last one
        self._guard = Guard(guards)
        self._dead_band = guards.dead_band
        self._actuator: Actuator = for_scheduler(service.scheduler, guards.dead_band)
        self._counted: tuple[float, int] | None = None  # when, and the kernel's count of connections then
        self._decided_at: float | None = None
        self._fleet_version = -1
        self._rows: list[Row] = []  # as of the last decision
        self._last: Callable[[], ServiceStatus | None] = _nobody  # the last decision, if anybody still has it
        self.cuts: list[Cut] = []  # what the last decision wants of the shell

    def _row(self, base: Destination) -> Row:
        key = base.key
        capacity = Capacity(self._prior)
        self._prior.adopt(capacity)
        of = self._terms.get(key, USUAL)
        row = Row(
            key, base, str(key.address), str(key), of.role, capacity, Trust.NEVER, claim=Claim(), limit=limits.NONE
        )
        row.arrivals = Arrivals()
        if self._passive:
            row.residence = Residence()
        row.stands_for, row.on_failure = of.stands_for, of.on_failure
        if row.on_failure is not OnFailure.QUIESCE:
            row.absence = Absence()
        self._resume(row)
        return row

    # What others ask.

    @property
    def service(self) -> Service:
        return self.pool.service

    @property
    def rows(self) -> list[Row]:
        return self.pool.rows

    @property
    def look_seconds(self) -> float:
        """How often it wants to be decided now; infinity: the configured interval is enough."""
        return LOOK_SECONDS if closer_look(self.service) and self.pool.flow * LOOK_SECONDS >= 1 else inf

    @property
    def learns_limits(self) -> bool:
        return self._limits.learns

    # What a restart or a reload leaves.

    def state(self, *, learned: bool = True) -> ServiceState:
        """What a restarted master could not read from the kernel, with what was learned or without."""
        rows = self.claims.rows.values()
        known = ((row.name, row.capacity.learned()) for row in rows) if learned else ()
        limited = (
            [row.name for row in rows if row.thresholds is not None and row.thresholds.ours]
            if self.claims.owned is None
            else []
        )
        claims = msgspec.structs.asdict(self.claims.state())
        holder = "" if self.succession is None or self.succession.holder is None else str(self.succession.holder)
        speeds = {name: speed for name, speed in known if speed is not None}
        return ServiceState(**claims, learned=speeds, limited=tuple(sorted(limited)), holder=holder)

    def restore(self, state: ServiceState) -> None:
        """Before the first look at the kernel."""
        self.claims.restore(state)
        self._learned, self._limited = state.learned, frozenset(state.limited)
        if self.succession is not None and state.holder:
            self.succession.restore(DestinationKey.parse(state.holder))
        if state.learned:
            self.claims.learned()
        for row in self.claims.rows.values():
            self._resume(row)

    def _resume(self, row: Row) -> None:
        if row.name in self._learned:
            row.capacity.resume(self._learned[row.name])
        if row.name in self._limited:
            limits.resume(row)

    def succeed(self, before: Pipeline) -> None:
        """Take the place of that of the same service, before a reload that changed it. Before the first look."""
        self.claims.succeed(before.claims)
        if self.succession is not None and before.succession is not None and before.succession.holder is not None:
            self.succession.restore(before.succession.holder)
        for key, row in self.claims.rows.items():
            old = before.claims.rows.get(key)
            known = old.capacity.learned() if old is not None else None
            if known is not None:
                row.capacity.resume(known)

    # What comes in.

    def follow(self, entry: ServiceEntry) -> None:
        """Take over the kernel's record of a service that somebody else owns."""
        if entry.service.scheduler != self.service.scheduler:
            self._actuator = for_scheduler(entry.service.scheduler, self._dead_band)
            self._limits.counts = traits(entry.service.scheduler).counts
            self._keeps = self._put is None or self._limits.sizes
            for row in self.rows:
                row.actuator = None
        self.claims.follow(changed=entry.service != self.service)
        self.pool.service = entry.service

    def observe(self, row: Row, window: Window, page: bool = False) -> None:
        """Take each window of its stream, an agent's or an exporter's `page`: several may come between two
        decisions."""
        if self._udp:  # the agent counts TCP only
            window = msgspec.structs.replace(window, opened=None, completions=None)
        row.capacity.observe(window, page)
        if self._follow is not None:
            self._follow(row, window)
        failures = row.failures
        if failures is None:
            failures = row.failures = Failures()
        failures.count(window, row.key.port, self._udp)
        if failures.failed:
            row.suspect = True
        row.window = window
        if self._keeps:
            windows = row.windows
            if len(windows) >= WINDOWS_MAX:
                del windows[0]
            windows.append(window)

    def look(self, entry: ServiceEntry | None, now: float) -> list[ForeignEdit]:
        """Take a look at the kernel. Returns what somebody else did since the last one."""
        self._begin()
        first = self.claims.entry is None and entry is not None
        foreign = self.claims.look(entry, now)
        rows = self.pool.rows
        self._prior.follow(rows)
        if first:
            self._continue()
            self._learned, self._limited = {}, frozenset()
        opened, heard = 0, bool(rows)
        said: list[float] = []
        counted: list[float | None] = []
        for row in rows:
            kernel, capacity = row.kernel, row.capacity
            if kernel is None:
                counted.append(row.arrivals.now(now))
            else:
                connections = kernel.counters.connections
                counted.append(row.arrivals.look(connections, now))
                capacity.active = active = row.active
                opened += active
                if capacity.blind:
                    capacity.observe_kernel(active, connections, now)
            said.append(capacity.rate)
            if row.window is None:
                heard = False
        if heard:
            self.pool.flow = flow(said, counted)
        else:
            self._measure_flow(entry, now)
        self._prior.residence(opened / self.pool.flow if self.pool.flow > 0 else 0.0, now)
        if self._passive:
            self._see(now)
        return foreign

    def _see(self, now: float) -> None:
        """How long connections stay on each server."""
        for row in () if self.watch.idle else self.pool.rows:
            answered = self.watch.answered(row.key)
            if answered is not None and row.residence is not None:
                row.residence.answer(*answered)
        fresh = [
            row.residence
            for row in self.pool.rows
            if row.residence is not None
            and row.kernel is not None
            and row.residence.look(row.active, row.kernel.counters.connections, now)
        ]
        if fresh:
            judge({r.residence: r.share for r in self.pool.rows if r.residence is not None and r.share > 0}, fresh)

    def _continue(self) -> None:
        """Weights that are not the static ones were learned by somebody, most likely by us before a restart."""
        there = [row for row in self.pool.rows if row.kernel is not None]
        owned = self.claims.owned
        static = owned is not None and len(there) == len(owned) and all(r.weight == r.base.weight for r in there)
        if static or len({row.weight for row in there}) < 2:
            return
        if proportional(self.service.scheduler, [row.weight for row in there]):
            self._prior.seed(row for row in there if row.weight)

    def _measure_flow(self, entry: ServiceEntry | None, now: float) -> None:
        """New connections per second by the kernel's counters alone, which move every 2 s."""
        total = sum(e.counters.connections for e in entry.destinations) if entry else 0
        if self._counted is None or total < self._counted[1]:
            self._counted = (now, total)
        elif now - self._counted[0] >= COUNTED_SECONDS:
            self.pool.flow = (total - self._counted[1]) / (now - self._counted[0])
            self._counted = (now, total)

    def receive_cut(self, told: Told) -> None:
        row = self.claims.rows.get(told.destination)
        if row is not None and row.cut is not None:
            row.cut.receive(told)

    def evict(self, key: DestinationKey, why: Fact) -> None:
        """Its flows are to end; it comes back once they are forgotten. The operator's word, for one that is ours."""
        row = self.claims.rows.get(key)
        if row is not None and row.kernel is not None and row.evicted is None:
            row.evicted = Evicted(why, both=True, patient=False)
            self._lets_go = True

    def promote(self, key: DestinationKey) -> str:
        """Returns why not, or ''."""
        if self.succession is None:
            return "its law_options have no sticky = true: the first of the order would take the place back at once"
        return self.succession.promote(key, self.pool.rows)

    # A decision.

    def forget(self, row: Row) -> None:
        """Forget what was learned of a row: it cannot be trusted."""
        row.capacity = Capacity(self._prior)
        self._prior.adopt(row.capacity)
        self._prior.recount()
        row.failures = row.trial = None

    def stand_still(self, why: str) -> ServiceStatus:
        """After a fault: nothing is decided, what the kernel has is ours as far as it was."""
        self.claims.untouched()
        for row in self.pool.rows:
            row.windows = []
            row.aim, row.aimed, row.why, row.told = row.weight, None, None, None
            row.said = [Step("guard", why, row.aim)]
            if row.kernel is not None:
                row.upper, row.lower = row.kernel.destination.upper, row.kernel.destination.lower
        return self._say(why, [])

    def decide(self, fleet: Fleet, now: float) -> tuple[ServiceStatus, list[Edit]]:
        self._begin()
        self._turn(fleet, now)
        self.claims.ask(self.orders, now)
        if self._passive:
            _know(self.pool.rows)
        self._let_go(now)
        self._ask_law(now)
        trials = self._bound()
        self._actuate(trials)
        self.claims.settle(self.orders, now)
        return self._outcome(now), self._reconcile()

    def _turn(self, fleet: Fleet, now: float) -> None:
        """What is known of each server now."""
        pool = self.pool
        pool.now, pool.seconds = now, 0.0 if self._decided_at is None else max(0.0, now - self._decided_at)
        self._decided_at = now
        rows = pool.rows
        if fleet.version != self._fleet_version or (rows is not self._rows and rows != self._rows):
            self._fleet_version, self._rows = fleet.version, rows
            for row in rows:
                row.server = fleet.server(row.address)
                row.page = self._page(fleet, row)
        known, fresh, reads = [], Trust.FRESH, self.watch.exporter is not None
        passive = self._passive
        for row in rows:
            server = row.server if row.page is None else _better(row.server, row.page, now)
            row.source = None if server is None else server.source
            if reads:
                row.unread = self.watch.unread(row.key)
            if passive and row.residence is not None:
                row.seen = row.residence.seen if server is None else None
            if server is None:
                row.trust, row.age_seconds = Trust.NEVER, None
            else:
                age = now - server.mapped_at
                row.age_seconds = age = age if age > 0.0 else 0.0
                row.trust = fresh if age <= server.patience else server.trust(age)
            capacity = row.capacity
            row.estimate = estimate = capacity.current or capacity.estimate()
            if estimate is not None:
                known.append(estimate)
        pool.utilisation = used = utilisation(known)
        pool.crowding = max(used, crowding(known))

    def _page(self, fleet: Fleet, row: Row) -> Server | None:
        """The stream of its exporter, once it was read."""
        exporter = self.watch.exporter
        return None if exporter is None else fleet.exporter(name(exporter, row.key.address))

    def _let_go(self, now: float) -> None:
        """Decide which destinations leave the table with their flows, and which has the first place."""
        if not self._lets_go:
            return
        succession = self.succession
        course.finish(self.pool.rows, now)
        if succession is not None:
            succession.before(self.pool)
        self.cuts = course.turn(self.service.key, self.pool.rows, now)
        if succession is not None:
            succession.after(self.pool)

    def _ask_law(self, now: float) -> None:
        rows = self.pool.rows
        if self._put is not None:
            self._put(self.pool, now)
        else:
            shares = self.law.shares(self.pool, now)
            for row in rows:
                share = shares[row.key]
                row.wanted = value = share.value
                row.tier, row.why, row.of = share.tier, share.why, value if share.of is None else share.of
                row.said = list(share.more) if share.more else None
        if not self.watch.idle:
            wishes.advise(rows)
        if self.watch.weighs:
            wishes.weigh(rows)

    def _bound(self) -> bool:
        """Whether trials may go on."""
        pool, claims = self.pool, self.claims
        rows = pool.rows
        tiered = any(row.tier for row in rows)
        self._guard.apply(pool, claims.restated)
        if pool.held != NO_REPORT_YET:
            claims.decided()
        self._limits.limit(pool, exact=tiered, by_weight=traits(self.service.scheduler).admits)
        trials = True
        if pool.held is not None and tiered:  # an order needs no reports, and plain weights would use all tiers at once
            pool.held, trials = None, False
            for row in rows:
                if row.zero is not None:
                    row.share = 0.0
                    row.say("guard", row.zero.why, 0.0)
        return trials

    def _actuate(self, trials: bool) -> None:
        """Turn shares into each row's weight, before claims change it."""
        pool = self.pool
        held = pool.held
        for row in pool.rows:
            row.tried = False
            if row.trial is not None or not row.ours:
                limits.try_out(row, trials=trials)
            row.part, row.note, row.stands, row.told = row.share, None, None, None
            limit = row.limit
            row.upper, row.lower = limit.upper, limit.lower
            if limit.why:
                row.say("limits", limit.why, limit.upper)
        if held is None:
            self._actuator.aim(pool)
            most = traits(self.service.scheduler).weight_max
            for row in pool.rows:
                aim = row.aim
                if aim > most:
                    row.aim = aim = most
                row.aimed = aim
            return
        owned = self.claims.owned is not None
        for row in pool.rows:
            zero = row.zero
            row.aimed = None
            if zero is not None and (zero.barred or (owned and row.base.weight == 0)):
                row.aim = 0  # an operator's word needs no report
                row.say("guard", zero.why, 0)
            else:
                row.aim = self.claims.hold(row, pool.now)
                row.say("guard", held, row.aim)
        if not any(row.aim for row in pool.rows):  # an ejection, say, that was decided while others could serve
            for row in pool.rows:
                if row.zero is None:
                    row.aim = max(1, row.base.weight)
                    row.say("guard", NOBODY_ELSE, row.aim)

    def _outcome(self, now: float) -> ServiceStatus:
        moved, keeps = [], self._keeps
        for row in self.pool.rows:
            if keeps:
                row.windows = []
            trust, zero, out = row.trust, row.zero, row.out
            if row.aim != row.weight or trust is not row.trusted or zero is not row.zeroed or out is not row.ousted:
                row.trusted, row.zeroed, row.ousted = trust, zero, out
                moved.append(row)
        why = self.orders.paused or self.claims.standing(now) or self.pool.held or ""
        return self._say(str(why), moved)

    def _say(self, held: str, moved: list[Row]) -> ServiceStatus:
        owned = self.claims.owned is not None
        status = ServiceStatus(self.service, self.law_name, self.pool, held, moved, owned=owned)
        self._last = ref(status)
        return status

    def _begin(self) -> None:
        """The rows are about to change: who still has the last decision is to have it as it was."""
        last = self._last()
        if last is not None:
            last.keep()

    def _reconcile(self) -> list[Edit]:
        owned, entry = self.claims.owned, self.claims.entry
        if owned is not None and self.orders.paused is None:
            return reconcile_owned(self.service, self.claims.rows, entry)
        return reconcile_weights(self.service.key, self.pool.rows) if entry is not None else []


def _know(rows: list[Row]) -> None:
    """Where nobody says anything of a server, what the director sees is known of it."""
    for row in rows:
        if row.trust is not Trust.NEVER:
            row.seen = None
        elif row.seen is not None:
            row.trust, row.source = Trust.FRESH, Source.DIRECTOR


def _nobody() -> None:
    """Has any decision."""


def _better(agent: Server | None, page: Server, now: float) -> Server:
    """Which of its two streams counts: what the controller takes windows from."""
    return page if agent is None or agent.trust(agent.age(now)) is Trust.LOST else agent


def _succession(law: Law) -> Succession | None:
    """Where the law keeps the first place, or cuts who loses it."""
    options = law.options if isinstance(law, Failover) else None
    return Succession(options) if options is not None and (options.sticky or options.cut is not CutWhom.NEVER) else None


def _limits(law: Law, service: Service, named: ServiceConfig | None) -> Limits:
    said = named or ServiceConfig(virtual=str(service.key))
    mode = said.thresholds or str(getattr(law, "thresholds", "static"))
    return Limits(mode, said.latency_seconds, counts=traits(service.scheduler).counts)
