"""Controller: the stages in their order, for all services. The stable public face of the pipeline.

    controller = Controller(config)
    controller.receive_report(report, now)      # why it was refused, or None
    controller.receive_kernel(snapshot, now)
    decision = controller.decide(now)           # settings and edits, with reasons
    controller.next_timer()                     # when to decide again

`now` is any monotonic time in seconds. No clock, no I/O; the same calls give the same decisions. It never applies an
edit: the shell does, and what came of it is seen in the next snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf

import msgspec

from feedback.config import MasterConfig, ServiceConfig, service_key, to_destination, to_service
from feedback.master.fleet import Fleet, Window
from feedback.master.health import Outcome, Probe
from feedback.master.laws import load
from feedback.master.line import Line, ServiceStatus
from feedback.master.orders import Orders
from feedback.master.owner import ForeignEdit
from feedback.master.state import ServiceState, State, StateError
from feedback.model import (
    AddDestination,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Protocol,
    Service,
    ServiceKey,
    SetDestination,
    Setting,
    Snapshot,
)
from feedback.wire import Report

DESTINATION_SECONDS = 0.0005  # between looks, for each destination: a decision costs a twentieth of it
AWAY_SECONDS = 600.0  # a service that its owner removes and makes again goes on with what was learned


class Decision(msgspec.Struct, frozen=True):
    settings: tuple[Setting, ...]
    edits: tuple[Edit, ...]
    services: tuple[ServiceStatus, ...]


class Controller:
    """See the module. Raises ConfigError or UnknownLawError for a configuration that does not hold together."""

    def __init__(self, config: MasterConfig) -> None:
        self._fleet = Fleet(config.guards.stale_seconds, config.guards.lost_seconds)
        self._lines: dict[ServiceKey, Line] = {}
        self._indexed: dict[ServiceKey, tuple[DestinationKey, ...]] = {}
        self._behind: dict[str, list[tuple[Line, DestinationKey]]] = {}
        self._restored: dict[ServiceKey, ServiceState] = {}
        self._away: dict[ServiceKey, tuple[float, Line]] = {}  # services that their owner removed, and when
        self._timer = 0.0
        self.foreign_edits: list[ForeignEdit] = []
        self.orders = Orders()  # the operator's; the shell gives, lifts and expires them
        self._configure(config)

    def reconfigure(self, config: MasterConfig) -> None:
        """Take a new configuration. Services that did not change keep all that was learned; one that did keeps what a
        restart keeps, and its new static weights count at once. Raises as the constructor does, and then nothing has
        changed."""
        _check_laws(config)
        for service in config.service:
            self._owned(service, config)
        before, named, law = self._lines, self._named, self._config.law
        same = config.guards == self._config.guards and config.ownership == self._config.ownership
        now = {service_key(s): s for s in config.service}
        kept = {k for k in before if now.get(k) == named.get(k) and (k in now or config.law == law)}
        if config.ownership == "table":
            kept &= now.keys()
        self._lines = {k: line for k, line in before.items() if same and k in kept}
        if config.ownership == "weights":  # whose zeros and weights are whose is not learned again
            self._restored = {k: line.state() for k, line in before.items() if k not in self._lines}
            self._away.clear()
        self._configure(config)
        if config.ownership == "table":
            for key, line in self._lines.items():
                if key in before and line is not before[key]:
                    line.succeed(before[key])

    def _configure(self, config: MasterConfig) -> None:
        self._config = config
        self._adopts = config.ownership == "weights"
        self._named = {service_key(s): s for s in config.service}
        _check_laws(config)
        if not self._adopts:
            for key, service in self._named.items():
                if key not in self._lines:
                    self._lines[key] = self._owned(service, config)
        self._indexed = {}
        self._index()

    def _owned(self, service: ServiceConfig, config: MasterConfig) -> Line:
        destinations = [to_destination(d, service) for d in service.destination]
        return Line(to_service(service), config, service.law, {d.key: d for d in destinations}, service)

    def receive_report(self, report: Report, now: float) -> str | None:
        """Take a report. Returns why it was refused, or None."""
        result = self._fleet.receive(report, now)
        if isinstance(result, str):
            return result
        if isinstance(result, Window):
            for address in report.addresses:
                self._observe(address, result)
        return None

    def _observe(self, address: str, window: Window) -> None:
        for line, key in self._behind.get(address, ()):
            udp = line.service.key.protocol is Protocol.UDP  # the agent counts TCP only
            seen = msgspec.structs.replace(window, opened=None, completions=None) if udp else window
            line.observe(key, seen)

    def _index(self) -> None:
        """Which destinations stand behind each RIP."""
        keys = {k: line.keys for k, line in self._lines.items()}
        if keys == self._indexed:
            return
        self._indexed, self._behind = keys, {}
        for line in self._lines.values():
            for key in line.keys:
                self._behind.setdefault(str(key.address), []).append((line, key))

    def probes(self, now: float) -> list[Probe]:
        """What to ask about destinations now: health checks, and agents that speak agent-check."""
        return [probe for line in self._lines.values() for probe in line.watch.probes(line.keys, now)]

    def receive_probe(self, probe: Probe, result: Outcome | bytes | None, now: float) -> str:
        """Take what came of a probe: an outcome, an agent's line, or None where it was silent. Returns what was wrong
        with the line, or ''."""
        line = self._lines.get(probe.service)
        return line.watch.receive(probe, result, now) if line is not None else ""

    def receive_kernel(self, snapshot: Snapshot, now: float) -> None:
        """Take a look at the kernel. Foreign edits are added to `foreign_edits`, for the shell to log and clear."""
        if self._adopts:
            self._adopt(snapshot, now)
        entries = {s.service.key: s for s in snapshot.services}
        for key, line in self._lines.items():
            self.foreign_edits += line.receive(entries.get(key), now)
        self._index()

    def _adopt(self, snapshot: Snapshot, now: float) -> None:
        entries = {s.service.key: s for s in snapshot.services if not self._named or s.service.key in self._named}
        for key in self._lines.keys() - entries.keys():
            self._away[key] = (now, self._lines.pop(key))
            self.foreign_edits.append(self._away[key][1].authors.leave())
        self._away = {k: (at, line) for k, (at, line) in self._away.items() if now - at < AWAY_SECONDS}
        for key, entry in entries.items():
            if key not in self._lines:
                self._lines[key] = self._away.pop(key)[1] if key in self._away else self._adopted(entry.service)
                self._indexed = {}
            self._lines[key].follow(entry)

    def _adopted(self, service: Service) -> Line:
        named = self._named.get(service.key)
        line = Line(service, self._config, named.law if named else self._config.law, None, named)
        line.restore(self._restored.pop(service.key, ServiceState()))
        return line

    def decide(self, now: float) -> Decision:
        """What every destination should have, and the edits that make it so."""
        self._timer = now + self._interval_seconds()
        statuses, edits = [], []
        for line in self._lines.values():
            line.orders = self.orders.of(line.service.key)
            status, plan = line.decide(self._fleet, now)
            statuses.append(status)
            edits += plan
        settings = tuple(d.setting for s in statuses for d in s.destinations)
        return Decision(settings, tuple(edits), tuple(statuses))

    def _interval_seconds(self) -> float:
        """Shorter where that is of use, while connections come and as far as it costs little."""
        lines = self._lines.values()
        if any(line.learns_limits for line in lines):
            return self._config.interval_seconds  # learned thresholds have room for what comes in that time
        wanted = min((line.look_seconds for line in lines), default=inf)
        cost = DESTINATION_SECONDS * sum(len(line.keys) for line in lines)
        return min(self._config.interval_seconds, max(wanted, cost))

    def receive_failures(self, failed: Iterable[Edit]) -> None:
        """Edits of the last decision that the kernel refused: what it has then is not somebody else's work."""
        for edit in failed:
            if isinstance(edit, AddDestination | SetDestination) and edit.service in self._lines:
                self._lines[edit.service].authors.failed(edit.destination.key)

    def confirm(self, edits: Sequence[Edit], have: Mapping[ServiceKey, Sequence[DestinationEntry]]) -> tuple[Edit, ...]:
        """Those edits whose destinations are as they were at the last look; `have` is what the kernel has just now.
        Where somebody else writes too, what he wrote since must not be overwritten unseen: the next look sees it."""
        records = {(k, e.destination.key): e.destination for k, entries in have.items() for e in entries}
        return tuple(
            edit
            for edit in edits
            if not isinstance(edit, SetDestination)
            or records.get((edit.service, edit.destination.key)) == self._seen(edit.service, edit.destination.key)
        )

    def _seen(self, service: ServiceKey, key: DestinationKey) -> Destination | None:
        entry = self._lines[service].authors.entry
        found = entry.entry(key) if entry else None
        return found.destination if found else None

    def state(self) -> State:
        """What a restarted master needs and cannot read from the kernel."""
        lines = {k: line for k, (_, line) in self._away.items()} | self._lines
        return State(services={str(k): line.state() for k, line in lines.items()}, orders=self.orders.all())

    def restore(self, state: State) -> None:
        """Take the state of the master before, before the first look at the kernel. Raises StateError."""
        try:
            self._restored = {ServiceKey.parse(k): s for k, s in state.services.items()}
            self.orders = Orders(state.orders)
            for key, line in self._lines.items():
                line.restore(self._restored.get(key, ServiceState()))
        except ValueError as error:
            raise StateError(str(error)) from None

    def next_timer(self) -> float:
        """When `decide` wants to be called again, in the caller's `now`."""
        return self._timer


def _check_laws(config: MasterConfig) -> None:
    """Raises UnknownLawError or ConfigError."""
    load(config.law)
    for i, service in enumerate(config.service):
        load(service.law, service.law_options, f"service[{i}].law_options")
