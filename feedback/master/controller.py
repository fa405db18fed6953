"""Controller: the stages in their order, for all services. The stable public interface of the pipeline.

    controller = Controller(config)
    controller.receive_reports([(report, now)]) # why each was refused, or None
    controller.receive_kernel(snapshot, now)
    decision = controller.decide(now)           # settings and edits, with reasons
    controller.next_timer()                     # when to decide again

`now` is any monotonic time in seconds. No clock, no I/O; the same calls give the same decisions. It never applies an
edit: the shell does, and the next snapshot shows the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

import msgspec

from feedback.config import ConfigError, Exporter, MasterConfig, ServiceConfig, service_key, to_destination, to_service
from feedback.faults import said
from feedback.master.account import ServiceStatus
from feedback.master.claims.asking import Asking, Passage, Probe, Result
from feedback.master.claims.orders import Orders
from feedback.master.claims.owner import ForeignEdit
from feedback.master.cuts.course import Cut, Told
from feedback.master.laws import load
from feedback.master.laws.failover import CutWhom, Failover
from feedback.master.outcome import Fact
from feedback.master.passages import Passages
from feedback.master.pipeline import Pipeline
from feedback.master.pool import Role, Row
from feedback.master.servers.fleet import Fleet, Refused
from feedback.master.servers.window import Window
from feedback.master.state import ServiceState, State, StateError
from feedback.model import (
    AddDestination,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Protocol,
    RemoveService,
    Service,
    ServiceKey,
    SetDestination,
    Setting,
    Snapshot,
)
from feedback.wire import Report

DESTINATION_SECONDS = 0.00005  # between looks, for each destination: a look and a decision take less than a tenth of it
AWAY_SECONDS = 600.0  # a service that its owner removes and makes again goes on with what was learned


class Decision(msgspec.Struct, frozen=True):
    """Edits that make the kernel's table what it should be, and what each service's decision rests on."""

    edits: tuple[Edit, ...] = ()
    services: tuple[ServiceStatus, ...] = ()
    cuts: tuple[Cut, ...] = ()  # for the shell, once the edits are made

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings of all destinations, with the reasons in words."""
        return tuple(d.setting for s in self.services for d in s.destinations)


class Fault(msgspec.Struct, frozen=True):
    """A mistake of ours: whose decision or report met it, and what it was. The rest goes on."""

    where: str
    text: str


class Controller:
    """See the module. Raises ConfigError or UnknownLawError for a configuration that does not hold together."""

    def __init__(self, config: MasterConfig) -> None:
        self._fleet = Fleet(config.guards.stale_seconds, config.guards.lost_seconds)
        self._asking, self._passages = Asking(), Passages()
        self._pipelines: dict[ServiceKey, Pipeline] = {}
        self._indexed: dict[ServiceKey, list[Row]] = {}
        self._behind: dict[str, list[tuple[Pipeline, Row]]] = {}
        self._restored: dict[ServiceKey, ServiceState] = {}
        self._away: dict[ServiceKey, tuple[float, Pipeline]] = {}  # services that their owner removed, and when
        self._timer = 0.0
        self.foreign_edits: list[ForeignEdit] = []
        self.faults: list[Fault] = []  # for the shell to tell and clear
        self._blind: set[ServiceKey] = set()  # whose last look met a fault
        self._left: set[ServiceKey] = set()  # services that we made, the file names no more, and the kernel may have
        self.orders = Orders()  # the operator's; the shell gives, lifts and expires them
        self._configure(config)

    def reconfigure(self, config: MasterConfig) -> None:
        """Take a new configuration. Services that did not change keep all that was learned; one that did keeps what a
        restart keeps, and its new static weights count at once. Raises as the constructor does, and then nothing has
        changed."""
        _check_laws(config)
        for service in config.service:
            self._owned(service, config)
        before, named, law = self._pipelines, self._named, self._config.law
        same = config.guards == self._config.guards and config.ownership == self._config.ownership
        same = same and config.interval_seconds == self._config.interval_seconds
        now = {service_key(s): s for s in config.service}
        kept = {k for k in before if now.get(k) == named.get(k) and (k in now or config.law == law)}
        kept -= {k for k, s in now.items() if k in named and config.check_of(s) != self._config.check_of(named[k])}
        kept -= {
            k for k, s in now.items() if k in named and config.exporter_of(s) != self._config.exporter_of(named[k])
        }
        if config.ownership == "table":
            kept &= now.keys()
        if config.ownership == self._config.ownership == "table":
            self._left = (self._left | before.keys()) - now.keys()
        else:  # what was adopted is its owner's, and what is handed over is the next owner's
            self._left.clear()
        self._pipelines = {k: pipeline for k, pipeline in before.items() if same and k in kept}
        if config.ownership == "weights":  # whose zeros and weights are whose is not learned again
            self._restored = {k: pipeline.state() for k, pipeline in before.items() if k not in self._pipelines}
            self._away.clear()
        self._configure(config)
        if config.ownership == "table":
            for key, pipeline in self._pipelines.items():
                if key in before and pipeline is not before[key]:
                    pipeline.succeed(before[key])

    def _configure(self, config: MasterConfig) -> None:
        self._config = config
        self._adopts = config.ownership == "weights"
        self._named = {service_key(s): s for s in config.service}
        _check_laws(config)
        if not self._adopts:
            for key, service in self._named.items():
                if key not in self._pipelines:
                    self._pipelines[key] = self._owned(service, config)
        self._indexed = {}
        self._index()

    def _owned(self, service: ServiceConfig, config: MasterConfig) -> Pipeline:
        destinations = [to_destination(d, service) for d in service.destination]
        return Pipeline(
            to_service(service), config, self._asking, service.law, {d.key: d for d in destinations}, service
        )

    def receive_report(self, report: Report, now: float) -> Refused | None:
        """Take a report. Returns why it was refused, or None."""
        return self.receive_reports([(report, now)])[0]

    def receive_reports(self, reports: Iterable[tuple[Report, float]]) -> list[Refused | None]:
        """Take reports, each with its `now`, in the order in which they came. Returns for each what `receive_report`
        does. The same as one after the other, for less: the code of one stage stays in the processor's caches."""
        receive, behind = self._fleet.receive, self._behind
        made: list[tuple[Report, Window]] = []
        answers: list[Refused | None] = []
        for report, now in reports:
            refused = None
            try:
                result = receive(report, now)
            except Exception as error:
                self.faults.append(Fault(report.agent, said(error)))
            else:
                if isinstance(result, Window):
                    made.append((report, result))
                else:
                    refused = result
            answers.append(refused)
        for report, window in made:
            for address in report.addresses:
                for pipeline, row in behind.get(address, ()):
                    try:
                        pipeline.observe(row, window)
                    except Exception as error:
                        self._forget(pipeline, row, report.agent, error)
        return answers

    def _forget(self, pipeline: Pipeline, row: Row, who: str, error: Exception) -> None:
        """What came of a window broke: the fault is that server's."""
        pipeline.forget(row)
        self.faults.append(Fault(f"{who} for {row.key}", said(error)))

    def _index(self) -> None:
        """Which rows stand behind each RIP."""
        rows = {k: pipeline.rows for k, pipeline in self._pipelines.items()}
        if rows == self._indexed:
            return
        self._indexed, self._behind = rows, {}
        for pipeline in self._pipelines.values():
            for row in pipeline.rows:
                self._behind.setdefault(row.address, []).append((pipeline, row))

    def probes(self, now: float) -> list[Probe]:
        """The questions that are due now: health checks, agents that speak agent-check, and exporters."""
        wanted = [
            (p.watch, tuple(row.key for row in p.rows), _passages(p)) for p in self._pipelines.values() if p.watch.asks
        ]
        return [probe for found in self._asking.probes(wanted, now) if (probe := self._marked(found)) is not None]

    def _marked(self, probe: Probe) -> Probe | None:
        """With the mark by which the kernel brings it to its server; None where it cannot yet."""
        through = probe.target.through
        if through is None:
            return probe
        mark = self._passages.mark(through.passage)
        if mark is None:
            self._asking.put_off(probe)
            return None
        return msgspec.structs.replace(probe, mark=mark)

    def receive_probe(self, probe: Probe, result: Result, now: float) -> str:
        """Take what came of a probe: an answer, an agent's line, an exporter's report, or None where it was silent.
        Returns what was wrong with the line or the report, or ''."""
        taken = self._asking.receive(probe, result, now)
        if isinstance(probe.what, Exporter):
            return self._receive_reading(probe.what, result, now)
        if taken.turned:
            self._timer = now  # what fails must not wait for the next turn
        return taken.problem

    def _receive_reading(self, of: Exporter, result: Result, now: float) -> str:
        """It counts where no agent is heard: an agent says more, and no work may be counted twice."""
        if not isinstance(result, Report):
            return str(result or "")
        made = self._fleet.receive_reading(result, now)
        if isinstance(made, Window):
            for address in result.addresses:
                if not self._fleet.speaks(address, now):
                    self._read(address, result.agent, made, of)
        return str(made) if isinstance(made, Refused) else ""

    def _read(self, address: str, who: str, window: Window, of: Exporter) -> None:
        """A window of the server at this RIP, for those services that ask this exporter."""
        for pipeline, row in self._behind.get(address, ()):
            if pipeline.watch.exporter == of:
                try:
                    pipeline.observe(row, window, page=True)
                except Exception as error:
                    self._forget(pipeline, row, who, error)

    def receive_cut(self, told: Told, now: float) -> None:
        """Take what the shell says of a cut."""
        pipeline = self._pipelines.get(told.service)
        if pipeline is not None:
            pipeline.receive_cut(told)
            self._timer = now  # it may leave the table now

    def evict(self, service: ServiceKey, destination: DestinationKey, why: Fact) -> None:
        """End the flows of a destination of ours, which then comes back."""
        pipeline = self._pipelines.get(service)
        if pipeline is not None:
            pipeline.evict(destination, why)
            self._timer = 0.0

    def promote(self, service: ServiceKey, destination: DestinationKey) -> str:
        """Give it the first place of a `failover` service. Returns why not, or ''."""
        pipeline = self._pipelines.get(service)
        self._timer = 0.0
        return pipeline.promote(destination) if pipeline is not None else "there is no such service"

    def receive_kernel(self, snapshot: Snapshot, now: float) -> None:
        """Take a look at the kernel. Foreign edits are added to `foreign_edits`, for the shell to log and clear."""
        self._passages.look(snapshot)
        snapshot = snapshot.without_checks()
        if self._adopts:
            self._adopt(snapshot, now)
        entries = {s.service.key: s for s in snapshot.services}
        self._left &= entries.keys()
        for key, pipeline in self._pipelines.items():
            try:
                self.foreign_edits += pipeline.look(entries.get(key), now)
                self._blind.discard(key)
            except Exception as error:
                self._blind.add(key)
                self._fail(pipeline, error)
        self._index()

    def _adopt(self, snapshot: Snapshot, now: float) -> None:
        entries = {s.service.key: s for s in snapshot.services if not self._named or s.service.key in self._named}
        for key in self._pipelines.keys() - entries.keys():
            self._away[key] = (now, self._pipelines.pop(key))
            self.foreign_edits.append(self._away[key][1].claims.leave())
        self._away = {k: (at, pipeline) for k, (at, pipeline) in self._away.items() if now - at < AWAY_SECONDS}
        for key, entry in entries.items():
            if key not in self._pipelines:
                self._pipelines[key] = self._away.pop(key)[1] if key in self._away else self._adopted(entry.service)
                self._indexed = {}
            self._pipelines[key].follow(entry)

    def _adopted(self, service: Service) -> Pipeline:
        named = self._named.get(service.key)
        law = named.law if named else self._config.law
        pipeline = Pipeline(service, self._config, self._asking, law, None, named)
        pipeline.restore(self._restored.pop(service.key, ServiceState()))
        return pipeline

    def decide(self, now: float) -> Decision:
        """The setting that every destination should have, and the edits that produce it."""
        self._timer = now + self._interval_seconds()
        statuses: list[ServiceStatus] = []
        edits: list[Edit] = []
        cuts: list[Cut] = []
        for pipeline in self._pipelines.values():
            pipeline.orders = self.orders.of(pipeline.service.key)
            if pipeline.service.key in self._blind:
                statuses.append(pipeline.stand_still("held: the last look at it met a fault of the master"))
                continue
            try:
                status, plan = pipeline.decide(self._fleet, now)
            except Exception as error:
                status, plan = self._fail(pipeline, error), []
            else:
                cuts += pipeline.cuts
            statuses.append(status)
            edits += plan
        edits += self._passages.edits(p for each in self._pipelines.values() for p in _passages(each) if p is not None)
        if self._config.remove_unlisted:
            edits += map(RemoveService, self.left)
        return Decision(tuple(edits), tuple(statuses), tuple(cuts))

    def withdrawal(self, snapshot: Snapshot) -> list[Edit]:
        """The edits that remove what the kernel has only for our own checks, for a master that stops or stands by."""
        self._passages.look(snapshot)
        return self._passages.edits(())

    def _fail(self, pipeline: Pipeline, error: Exception) -> ServiceStatus:
        """A fault in one service holds only that service."""
        self.faults.append(Fault(str(pipeline.service.key), said(error)))
        return pipeline.stand_still(f"held by a fault of the master: {said(error)}")

    def _interval_seconds(self) -> float:
        """Shorter where that is of use, while connections come and as far as it costs little."""
        pipelines = self._pipelines.values()
        if any(pipeline.learns_limits for pipeline in pipelines):
            return self._config.interval_seconds  # learned thresholds have room for what comes in that time
        wanted = min((pipeline.look_seconds for pipeline in pipelines), default=inf)
        cost = DESTINATION_SECONDS * sum(len(pipeline.rows) for pipeline in pipelines)
        return min(self._config.interval_seconds, max(wanted, cost))

    def receive_failures(self, failed: Iterable[Edit]) -> None:
        """Edits of the last decision that the kernel refused: what it has then is not somebody else's work."""
        for edit in failed:
            if isinstance(edit, AddDestination | SetDestination) and edit.service in self._pipelines:
                self._pipelines[edit.service].claims.failed(edit.destination.key)

    def confirm(self, edits: Sequence[Edit], have: Mapping[ServiceKey, Sequence[DestinationEntry]]) -> tuple[Edit, ...]:
        """The edits whose destinations are as they were at the last look; `have` is what the kernel has just now.
        Where somebody else writes too, what he wrote since must not be overwritten unseen: the next look sees it."""
        records = {(k, e.destination.key): e.destination for k, entries in have.items() for e in entries}
        return tuple(
            edit
            for edit in edits
            if not isinstance(edit, SetDestination)
            or records.get((edit.service, edit.destination.key)) == self._seen(edit.service, edit.destination.key)
        )

    def _seen(self, service: ServiceKey, key: DestinationKey) -> Destination | None:
        row = self._pipelines[service].claims.rows.get(key)
        return row.kernel.destination if row is not None and row.kernel is not None else None

    @property
    def left(self) -> tuple[ServiceKey, ...]:
        """Services that we made and that the configuration names no more, as far as the kernel has them."""
        return tuple(sorted(self._left, key=str))

    def state(self, *, learned: bool = True) -> State:
        """What a restarted master needs and cannot read from the kernel, with what was learned or without."""
        pipelines = {k: pipeline for k, (_, pipeline) in self._away.items()} | self._pipelines
        made = () if self._adopts else tuple(sorted(map(str, self._left | self._named.keys())))
        services = {str(k): pipeline.state(learned=learned) for k, pipeline in pipelines.items()}
        return State(services=services, orders=self.orders.all(), made=made)

    def restore(self, state: State) -> None:
        """Take the state of the master before, before the first look at the kernel. Raises StateError where a key in it
        does not parse; one that was decoded has none."""
        try:
            self._restored = {ServiceKey.parse(k): s for k, s in state.services.items()}
            made = set() if self._adopts else {ServiceKey.parse(k) for k in state.made}
            self.orders = Orders(state.orders)
        except ValueError as error:
            raise StateError(str(error)) from None
        self._left = made - self._named.keys()
        for key, pipeline in self._pipelines.items():
            if key in self._restored:
                pipeline.restore(self._restored[key])

    def next_timer(self) -> float:
        """When `decide` wants to be called again, in the caller's `now`."""
        return self._timer


def _passages(pipeline: Pipeline) -> tuple[Passage | None, ...]:
    """How its rows are reached, where its check goes that way."""
    watch = pipeline.watch
    return tuple(watch.passage(row.base) for row in pipeline.rows) if watch.through else ()


def _check_laws(config: MasterConfig) -> None:
    """Raises UnknownLawError or ConfigError."""
    load(config.law)
    for i, service in enumerate(config.service):
        law = load(service.law, service.law_options, f"service[{i}].law_options")
        if isinstance(law, Failover):
            roles = [Role(d.priority, d.pool == "spill") for d in service.destination]
            if why := law.refuses(roles):
                raise ConfigError(f"service[{i}].law_options: {why}")
            if law.options.cut is not CutWhom.NEVER:
                _check_cut(config, service, f"service[{i}].law_options.cut")


def _check_cut(config: MasterConfig, service: ServiceConfig, where: str) -> None:
    """Raises ConfigError."""
    if config.ownership == "weights":
        raise ConfigError(f'{where}: with ownership "weights" only the owner removes')
    if service_key(service).protocol is not Protocol.TCP:
        raise ConfigError(f"{where}: only clients of a TCP service can be told")
