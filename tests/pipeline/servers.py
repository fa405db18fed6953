"""Servers: what honest agents report and what the kernel counts, of a pool under a given load, without any queue.

A server that is sent more than it can complete is full, and the rest stays open there. Where connections go is given:
in proportion to the weights, or to what the servers can do, so that what others say changes nothing of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from feedback.model import DestinationKey, ServiceKey
from feedback.wire import PROTOCOL, Application, Connections, Cpu, Memory, Pressure, Report
from tests.pipeline.table import Table

MEMORY = 16 << 30
CLOSED_SECONDS = 120.0
COUNTERS_SECONDS = 2.0
OPEN_MAX = 5000


class Server:
    """`per_core` are connections a second that one core completes. `available` is what neighbours leave, `known`:
    whether its agent knows the service's cgroup, `application`: whether its application counts answers; `failing`: all
    of them are errors. `silent` sends no reports."""

    def __init__(self, key: DestinationKey, name: str, cores: float, per_core: float, draw: random.Random) -> None:
        self.key, self.name, self.cores, self.per_core = key, name, cores, per_core
        self.available = 1.0
        self.silent = self.known = self.application = self.failing = False
        self._draw = draw
        self._clock = draw.uniform(10.0, 1e6)
        self.residence = 0.02
        self.boots = 0
        self.reboot()
        self.total = self.closed = self.shown = 0.0

    def reboot(self) -> None:
        """Or a restart of its agent."""
        self.boots += 1
        self.sequence = 0
        self.opened = self.busy = self.own = self.waited = self.failures = 0.0
        self.open = self.waiting = 0.0

    @property
    def capacity(self) -> float:
        return self.cores * self.per_core * self.available

    def step(self, rate: float, seconds: float) -> None:
        """Connections come at this rate for so long."""
        self.waiting = min(OPEN_MAX, max(0.0, self.waiting + (rate - self.capacity) * seconds))
        done = self.capacity if self.waiting else rate
        use = min(1.0, done / self.capacity)
        self.open = self.waiting + done * self.residence / (1 - 0.9 * use)
        self.opened += rate * seconds
        self.total += rate * seconds
        self.failures += rate * seconds * self.failing
        self.closed += (done - self.closed / CLOSED_SECONDS) * seconds
        own = use * self.cores * self.available * seconds
        self.own += own * (1 + self._draw.gauss(0.0, 0.01))
        self.busy += (own + (1 - self.available) * self.cores * seconds) * (1 + self._draw.gauss(0.0, 0.01))
        self.waited += seconds if self.waiting else 0.0

    def report(self, now: float, interval: float) -> Report:
        self.sequence += 1
        answers = int(self.opened)
        said = (Application(completions=answers, errors=int(self.failures)),) if self.application else ()
        return Report(
            version=PROTOCOL,
            agent=self.name,
            boot=f"boot{self.boots}",
            sequence=self.sequence,
            sampled_at=now + self._clock,
            interval_seconds=interval,
            addresses=(str(self.key.address),),
            cpu=Cpu(
                self.cores,
                self.busy,
                own_seconds=self.own if self.known else None,
                entitled=self.available if self.known else None,
                runnable=min(1e6, self.open),
            ),
            memory=Memory(MEMORY, int(MEMORY * 0.8) - (int(min(OPEN_MAX, self.open)) << 20), 0, 0),
            pressure=Pressure(self.waited, 0.0, 0.0, 0.0, 0.0),
            connections=Connections(int(self.opened), int(self.open)),
            applications=said,
        )


class Servers:
    """Those of one service. `rate` connections a second come to all of them. `follow`: they go by the weights."""

    def __init__(self, service: ServiceKey, servers: Iterable[Server], rate: float, *, follow: bool) -> None:
        self.service, self.all, self.rate, self.follow = service, tuple(servers), rate, follow
        self._refreshed = 0.0

    def step(self, table: Table, now: float, seconds: float) -> None:
        weights = table.weights(self.service)
        parts = {s.key: self._part(s, weights) for s in self.all if s.key in weights}
        total = sum(parts.values())
        refresh = now // COUNTERS_SECONDS > self._refreshed // COUNTERS_SECONDS
        self._refreshed = now
        for server in self.all:
            server.step(self.rate * parts.get(server.key, 0.0) / total if total else 0.0, seconds)
            if server.key in weights:
                server.shown = server.total if refresh else server.shown
                active, inactive = int(server.open), int(server.closed)
                table.count(self.service, server.key, active, inactive, int(server.shown))

    def _part(self, server: Server, weights: Mapping[DestinationKey, int]) -> float:
        return weights[server.key] if self.follow else server.capacity * (weights[server.key] > 0)

    def reports(self, now: float, interval: float) -> list[Report]:
        return [s.report(now, interval) for s in self.all if not s.silent]
