"""World: one run of a case under a policy, event by event in order of time. Owns the calendar.

Arrivals are a sorted list and do not pass through the heap. A server has at most one event there: the next end of a
job, as it was known when the event was made. Arrivals can only make that later, so an event that comes too early asks
again. Invariant: time never runs backwards; every connection that the director opened is closed once, or open at the
end. The health check that sets weight 0 for a dead server belongs to the service's owner, not to the policy.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import msgspec

from feedback.model import Destination, DestinationKey, Service, ServiceKey, SetDestination
from feedback.simulate.agents import Agent
from feedback.simulate.case import Case, Change
from feedback.simulate.director import Director, Slot
from feedback.simulate.draw import Draw
from feedback.simulate.lies import told
from feedback.simulate.policy import WEIGHT, Policy, make
from feedback.simulate.servers import Server
from feedback.simulate.trace import REFUSED, SERVER_ERROR, Trace, TraceBuilder
from feedback.simulate.traffic import Traffic

INF = float("inf")
HEALTH_SECONDS = 1.0
FAIL_SECONDS = 0.0002  # the cost of an error on a server that answers with errors only
# Kinds of events. Of one moment, they come in this order.
ENDS, WAITED, CLOSES, CHANGES, CHECKED, SAMPLES, ARRIVES, SECOND, DECIDES = range(9)


class World:
    """See the module. `run` may be called once."""

    def __init__(self, case: Case, policy: Policy, traffic: Traffic, draw: Draw) -> None:
        self.case, self.policy, self.traffic, self._draw = case, policy, traffic, draw
        self.servers = [Server(s.cores, s.speed) for s in case.servers]
        self.director = _director(case, policy)
        self.agents = [Agent(case, s, _address(i), i) for i, s in enumerate(self.servers)]
        self.driver = make(policy, str(self.director.service.key), case)
        self.trace = TraceBuilder(case, traffic.at)
        self._calendar: list[tuple[Any, ...]] = []
        self._number = 0
        self._slot: dict[int, Slot] = {}  # connection or short request -> its server
        self._short = not (traffic.held or traffic.keep)  # a connection closes with its answer
        self._boots: dict[int, int] = {}  # held or kept connection -> the server's boot; absent once closed
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
        if self.traffic.held:
            self._merge_held()
        else:
            self._merge()
        return self.trace.finish()

    # --- the two loops: requests with a connection each, and requests on held connections ----------------------------

    def _merge(self) -> None:
        servers, slots, connect, until = self.servers, self._slot, self.director.open, self._until
        calendar, cost, requests = self._calendar, self.traffic.cost, self.trace.requests
        for number, at in enumerate(self.traffic.at):
            if calendar[0][0] <= at:
                until(at)
            slot = connect(at)
            if slot is None:
                self.trace.failed(number, at, REFUSED)
                continue
            slots[number] = slot
            index = slot.index
            server = servers[index]
            server.opened += 1
            server.open += 1
            requests[index] += 1
            if server.down:
                self._lost(number, at)
                continue
            due = server.add(at, FAIL_SECONDS if server.failing else cost[number], number)
            if due < server.alarm:
                server.alarm = due
                heappush(calendar, (due, ENDS, index, None))
        until(self.case.seconds)

    def _merge_held(self) -> None:
        end, held = self.case.seconds, self.traffic.held
        opened = 0
        for number, at in enumerate(self.traffic.at):
            while opened < len(held) and held[opened].start <= at:
                self._until(held[opened].start)
                self._hold(opened)
                opened += 1
            self._until(at)
            connection = self.traffic.connection[number]
            slot = self._slot.get(connection)
            if slot is None:
                self.trace.failed(number, at, REFUSED)
            elif self._boots[connection] != self.servers[slot.index].boot:
                self.trace.failed(number, at, SERVER_ERROR)  # the server knows nothing of this connection
            else:
                self.trace.requests[slot.index] += 1
                self._request(number, slot.index, at)
        self._until(end)

    def _until(self, moment: float) -> None:
        """All events until then, that moment's included."""
        calendar, ends, happen = self._calendar, self._ends, self._happen
        while calendar and calendar[0][0] <= moment:
            event = heappop(calendar)
            if event[1] == ENDS:
                ends(event[0], event[2])
            else:
                happen(event)

    def _hold(self, connection: int) -> None:
        held = self.traffic.held[connection]
        slot = self.director.open(held.start)
        if slot is None:
            return
        self._slot[connection], server = slot, self.servers[slot.index]
        self._boots[connection] = server.boot
        server.opened += 1
        server.open += 1
        self._at(held.end, CLOSES, connection)

    def _request(self, number: int, index: int, at: float) -> None:
        server = self.servers[index]
        if server.down:
            self._lost(number, at)
            return
        due = server.add(at, FAIL_SECONDS if server.failing else self.traffic.cost[number], number)
        self._alarm(server, index, due)

    def _lost(self, number: int, now: float) -> None:
        """Nobody answers; the client gives up."""
        gives_up = max(now, self.traffic.at[number] + self.case.timeout_seconds)
        self.trace.failed(number, gives_up, SERVER_ERROR)
        if not self.traffic.held:
            self._at(gives_up, CLOSES, number)

    # --- events ------------------------------------------------------------------------------------------------------

    def _alarm(self, server: Server, index: int, due: float) -> None:
        if due < server.alarm:
            server.alarm = due
            heappush(self._calendar, (due, ENDS, index, None))

    def _happen(self, event: tuple[Any, ...]) -> None:
        now, kind, _number, what = event
        if kind == CLOSES:
            self._closes(now, what)
        elif kind == SAMPLES:
            self._samples(now, what)
        elif kind == ARRIVES:
            self.driver.receive(what, now)
        elif kind == DECIDES:
            self._decides(now)
        elif kind == WAITED:
            self._answered(now, *what)
        elif kind == CHANGES:
            self._changes(now, what)
        elif kind == CHECKED:
            self._checked(*what)
        else:
            self.trace.second(now, self.servers)
            self._at(now + 1.0, SECOND, None)

    def _ends(self, now: float, index: int) -> None:
        server = self.servers[index]
        if now != server.alarm:
            return  # an earlier event replaced it
        server.alarm = INF
        for number in server.ended(now):
            if server.io_seconds and not server.failing:
                moment = now + server.io_seconds * self.traffic.wait[number]
                self._at(moment, WAITED, (number, index, server.boot))
            else:
                self._answered(now, number, index, server.boot)
        if server.jobs:
            self._alarm(server, index, server.due())

    def _answered(self, now: float, number: int, index: int, boot: int) -> None:
        server = self.servers[index]
        if server.boot != boot or server.down:
            self._lost(number, now)
            return
        server.finished += 1
        if server.failing:
            server.errors += 1
            self.trace.failed(number, now, SERVER_ERROR)
        else:
            self.trace.latency[number] = now - self.traffic.at[number]
        if self._short:
            self.director.close(self._slot.pop(number), now)
            if server.open:
                server.open -= 1
        elif self.traffic.keep:
            self._boots[number] = boot
            self._at(now + self.traffic.keep[number], CLOSES, number)

    def _closes(self, now: float, connection: int) -> None:
        slot = self._slot.pop(connection)
        self.director.close(slot, now)
        server = self.servers[slot.index]
        if self._boots.pop(connection, server.boot) == server.boot and server.open:
            server.open -= 1

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
            self._alarm(server, index, server.due())
        self._capacities(now)

    def _powers(self, now: float, index: int, *, down: bool) -> None:
        server = self.servers[index]
        if down:
            for number in server.stop(now):
                self._lost(number, now)
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
