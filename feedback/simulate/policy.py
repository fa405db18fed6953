"""Policies: the writer of the weights in a run: nobody, an oracle that knows the true capacities, or the real
controller.

The service belongs to somebody else (as with keepalived). Weights are equal at the start; a server's weight is 0 while
its health check says that it is down, and equal again afterwards. The oracle is compared with the schedulers at their
best: `wlc` without memory of closed connections, and for `wrr` a round robin without bursts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import msgspec

from feedback.config import Exporter, MasterConfig, ServiceConfig
from feedback.master import Controller
from feedback.master.claims.asking import Probe, Target
from feedback.master.sources.reading import name
from feedback.model import Edit, SetDestination, Snapshot, parse_address
from feedback.simulate.case import Case
from feedback.simulate.director import Director
from feedback.wire import Report

PLAIN, ORACLE = "plain", "oracle"
EXPORTER, NO_AGENT = "exporter", "no agent"  # the law `capacity` without agents
EXPORTER_SECONDS = 1.0
CAPACITY = "capacity"
WEIGHT = 100
ORACLE_MAX = 1000


class Policy(msgspec.Struct, frozen=True):
    """`law` is a registered law, or `plain` (LVS as it is, with equal weights), or `oracle`; or `capacity` without
    agents: `exporter` gets what a host's metrics page says once a second, and `no agent` gets nothing. `delay`
    multiplies the delay of reports."""

    law: str
    scheduler: str
    delay: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.law}@{self.scheduler}" + (f" delay x{self.delay:g}" if self.delay != 1 else "")

    @property
    def reference(self) -> Policy:
        return Policy(ORACLE, self.scheduler)

    def kernel_scheduler(self) -> str:
        return "smooth" if self.law == ORACLE and self.scheduler == "wrr" else self.scheduler

    def fin_seconds(self, seconds: float) -> float:
        return 0.0 if self.law == ORACLE and self.scheduler == "wlc" else seconds


class Nobody:
    """LVS as it is."""

    listens = False  # whether it gets reports
    report_seconds = 0.0  # at most so often

    def receive(self, report: Report, now: float) -> None:
        pass

    def changed(self, director: Director, capacities: Sequence[float]) -> None:
        """The true capacities from now on."""

    def next_timer(self, now: float) -> float:
        """When to decide next; infinity for never."""
        return inf

    def decide(self, snapshot: Snapshot, now: float) -> tuple[Sequence[Edit], Sequence[float] | None]:
        """Edits, and the shares that they stand for in the order of servers; None: unchanged."""
        return (), None


class Oracle(Nobody):
    """The true capacities as weights, at once."""

    def changed(self, director: Director, capacities: Sequence[float]) -> None:
        most = max(capacities) or 1.0
        edits = []
        for slot, capacity in zip(director.slots, capacities, strict=True):
            weight = max(1, round(ORACLE_MAX * capacity / most)) if capacity > 0 else 0
            wanted = msgspec.structs.replace(slot.config, weight=weight)
            if wanted != slot.config:
                edits.append(SetDestination(director.service.key, wanted))
        director.apply(edits)


class Feedback(Nobody):
    """The real controller; it adopts a service that belongs to somebody else."""

    listens = True

    def __init__(
        self,
        law: str,
        virtual: str = "tcp:10.0.0.100:80",
        thresholds: str | None = None,
        options: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> None:
        """`keys` are further ones of the service."""
        service = ServiceConfig(
            virtual=virtual, law=law, law_options=dict(options or {}), thresholds=thresholds, **keys
        )
        config = MasterConfig(ownership="weights", law=law, service=(service,))
        self.controller = Controller(config)
        self.refused = 0

    def receive(self, report: Report, now: float) -> None:
        self.refused += self.controller.receive_report(report, now) is not None

    def next_timer(self, now: float) -> float:
        return max(now, self.controller.next_timer())

    def decide(self, snapshot: Snapshot, now: float) -> tuple[Sequence[Edit], Sequence[float] | None]:
        self.controller.receive_kernel(snapshot, now)
        self.controller.foreign_edits.clear()
        decision = self.controller.decide(now)
        shares = {d.key: d.share for s in decision.services for d in s.destinations}
        order = [e.destination.key for e in snapshot.services[0].destinations][::-1]
        return decision.edits, [shares.get(key, 0.0) for key in order]


class Exported(Feedback):
    """The same with reports from exporters' pages, which know no cgroup and no application."""

    report_seconds = EXPORTER_SECONDS
    exporter = Exporter(interval_seconds=EXPORTER_SECONDS)

    def receive(self, report: Report, now: float) -> None:
        address = parse_address(report.addresses[0])
        cpu = msgspec.structs.replace(report.cpu, own_seconds=None, entitled=None)
        page = msgspec.structs.replace(report, agent=name(self.exporter, address), cpu=cpu, applications=())
        page = msgspec.structs.replace(page, interval_seconds=EXPORTER_SECONDS)
        probe = Probe(Target(address, self.exporter.asked_port), self.exporter)
        self.refused += bool(self.controller.receive_probe(probe, page, now))


class Unaided(Feedback):
    """The same without reports: it sees what a director sees."""

    listens = False


def make(policy: Policy, virtual: str, case: Case) -> Nobody:
    """`virtual` as in the configuration of the service. Raises UnknownLawError or ConfigError."""
    if policy.law == PLAIN:
        return Nobody()
    if policy.law == EXPORTER:
        return Exported(CAPACITY, virtual, case.thresholds, exporter=Exported.exporter)
    if policy.law == NO_AGENT:
        return Unaided(CAPACITY, virtual, case.thresholds, passive=True)
    return (
        Oracle()
        if policy.law == ORACLE
        else Feedback(policy.law, virtual, case.thresholds, case.law_options.get(policy.law))
    )
