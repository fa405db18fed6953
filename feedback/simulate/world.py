"""World: one run of a case under a policy, event by event in order of time. Owns the calendar.

Requests do not pass through the calendar: between two events the flow sends those that come, and settles what ends.
Invariant: time never runs backwards. The health check that sets weight 0 for a dead server belongs to the service's
owner, not to the policy.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import msgspec

from feedback.model import Destination, DestinationKey, Service, ServiceKey, SetDestination
from feedback.simulate.agents import Agent
from feedback.simulate.case import Case, Change
from feedback.simulate.director import Director
from feedback.simulate.draw import Draw
from feedback.simulate.flow import Flow, Held
from feedback.simulate.lies import told
from feedback.simulate.policy import WEIGHT, Policy, make
from feedback.simulate.trace import Trace, TraceBuilder
from feedback.simulate.traffic import Traffic

INF = float("inf")
HEALTH_SECONDS = 1.0
# Kinds of events. Of one moment, they come in this order.
CHANGES, CHECKED, SAMPLES, ARRIVES, SECOND, DECIDES = range(6)


class World:
    """See the module. `run` may be called once."""

    def __init__(self, case: Case, policy: Policy, traffic: Traffic, draw: Draw) -> None:
        self.case, self.policy, self._draw = case, policy, draw
        self.director = _director(case, policy)
        self.trace = TraceBuilder(case, traffic.at)
        self.flow = (Held if traffic.held else Flow)(case, traffic, self.director, self.trace)
        self.servers = self.flow.servers
        self.agents = [Agent(case, s, _address(i), i) for i, s in enumerate(self.servers)]
        self.driver = make(policy, str(self.director.service.key), case)
        self._calendar: list[tuple[float, int, int, Any]] = []
        self._number = 0
        self._prepare()

    def _at(self, moment: float, kind: int, what: object) -> None:
        self._number += 1
        heappush(self._calendar, (moment, kind, self._number, what))

    def _prepare(self) -> None:
        case = self.case
        for change in (*case.change, *_bursts(case, self._draw)):
            self._at(change.at_seconds, CHANGES, change)
        for i in range(len(self.servers)):
            self._at(case.report_seconds * i / len(self.servers), SAMPLES, i)
        if self.driver.next_timer(0.0) < INF:
            self._at(0.0, DECIDES, None)
        self._at(1.0, SECOND, None)
        if case.past and not case.hold_seconds:
            self._remember()
        self._capacities()

    def _remember(self) -> None:
        linger = (
            self.case.udp_seconds if self.case.protocol == "udp" else self.policy.fin_seconds(self.case.fin_seconds)
        )
        each = round(self.case.load[0].part * self.case.capacity * linger / len(self.servers))
        slots, draw = self.director.slots, self._draw
        self.director.remember((draw.random() * linger, slot) for slot in slots for _ in range(each))

    def run(self) -> Trace:
        calendar, end = self._calendar, self.case.seconds
        while calendar[0][0] <= end:
            self.flow.advance(calendar[0][0])
            self._happen(*heappop(calendar))
        self.flow.advance(end)
        return self.trace.finish()

    def _happen(self, now: float, kind: int, _number: int, what: Any) -> None:
        if kind == SAMPLES:
            self._samples(now, what)
        elif kind == ARRIVES:
            self.driver.receive(what, now)
        elif kind == DECIDES:
            self._decides(now)
        elif kind == CHANGES:
            self._changes(now, what)
        elif kind == CHECKED:
            self._checked(*what)
        else:
            self.trace.second(now, self.servers)
            self._at(now + 1.0, SECOND, None)

    def _changes(self, now: float, change: Change) -> None:
        for index in change.servers:
            server = self.servers[index]
            server.change(now, change.available, change.speed, change.starved)
            if change.io_seconds is not None:
                server.io_seconds = change.io_seconds
            if change.failing is not None:
                server.failing = change.failing
            if change.silent is not None:
                server.silent = change.silent
            if change.lie is not None:
                server.lie = change.lie
            if change.down is not None and change.down != server.down:
                self._powers(now, index, down=change.down)
        self._capacities(now)

    def _powers(self, now: float, index: int, *, down: bool) -> None:
        server = self.servers[index]
        if down:
            for number in server.stop(now):
                self.flow.lost(number, server, now)
        else:
            server.start(now)
        self._at(now + HEALTH_SECONDS, CHECKED, (index, 0 if down else WEIGHT))

    def _checked(self, index: int, weight: int) -> None:
        """The health check of the service's owner writes its weight. The oracle has written a better one already."""
        if self.policy.law != "oracle":
            wanted = msgspec.structs.replace(self.director.slots[index].config, weight=weight)
            self.director.apply([SetDestination(self.director.service.key, wanted)])

    def _capacities(self, now: float = 0.0) -> None:
        capacities = [s.capacity_cores / self.case.cost_seconds for s in self.servers]
        self.trace.truth(now, capacities)
        self.driver.changed(self.director, capacities)

    def _samples(self, now: float, index: int) -> None:
        server = self.servers[index]
        self._at(now + max(self.case.report_seconds, self.driver.report_seconds), SAMPLES, index)
        if not self.driver.listens:
            server.advance(now)  # as a look at it does: sums in other portions would differ in their last digit
            return
        report = self.agents[index].sample(now, self._draw)
        if server.lie is not None:
            report = told(server.lie, report)
        if not (server.silent or server.down):
            self._at(now + self.case.delay_seconds * self.policy.delay, ARRIVES, report)

    def _decides(self, now: float) -> None:
        edits, shares = self.driver.decide(self.director.snapshot(now), now)
        before = self.director.writes
        self.director.apply(edits)
        self.trace.decided(now, shares, self.director.writes - before)
        self._at(self.driver.next_timer(now), DECIDES, None)


def _address(index: int) -> str:
    return f"10.{1 + index // 62500}.{index // 250 % 250}.{1 + index % 250}"


def _director(case: Case, policy: Policy) -> Director:
    service = Service(ServiceKey.at(case.protocol, "10.0.0.100", 80), scheduler=policy.kernel_scheduler())
    keys = (DestinationKey.parse(f"{_address(i)}:80") for i in range(len(case.servers)))
    return Director(
        service,
        (Destination(key, weight=WEIGHT) for key in keys),
        overload=case.kernel,
        fin_seconds=policy.fin_seconds(case.fin_seconds),
        udp_seconds=case.udp_seconds,
        until=case.seconds,
    )


def _bursts(case: Case, draw: Draw) -> list[Change]:
    """Neighbours come and go each second; a random draw says where."""
    bursts = case.bursts
    if bursts is None:
        return []
    changes = []
    for second in range(int(bursts.from_seconds), int(case.seconds)):
        hit = [draw.random() < bursts.chance for _ in case.servers]
        for part, which in ((1 - bursts.depth, True), (1.0, False)):
            servers = tuple(i for i, was in enumerate(hit) if was is which)
            if servers:
                changes.append(Change(at_seconds=float(second), servers=servers, available=part))
    return changes
