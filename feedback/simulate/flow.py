"""Flow: requests from their arrival to their answer, and their connections. The inner loop of a run.

Until the scheduler or the world looks again, what ends on a server changes nothing but that server and its destination.
So it is settled before each look, one server after the other, each in the order of time. Owns the servers; knows no
policy and no calendar.

Invariant: after `advance(moment)` all requests before that moment are sent, and all that ends until then has ended.
Each connection that the director opened is closed once, or open at the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from math import inf

from feedback.simulate.case import Case
from feedback.simulate.director import SCANNED, Director, Slot
from feedback.simulate.servers import NONE, Server
from feedback.simulate.trace import REFUSED, SERVER_ERROR, TraceBuilder
from feedback.simulate.traffic import Traffic

FAIL_SECONDS = 0.0002  # the cost of an error on a server that answers with errors only
ANY = -1  # instead of a boot


class Flow:
    """Each request has its own connection, which closes with the answer or is kept for a while."""

    def __init__(self, case: Case, traffic: Traffic, director: Director, trace: TraceBuilder) -> None:
        self._traffic, self._director, self._trace = traffic, director, trace
        self._timeout_seconds = case.timeout_seconds
        many = len(case.servers) > SCANNED
        self._alarms: list[tuple[float, int]] | None = [] if many else None
        self.servers = [Server(s.cores, s.speed, i, self._alarms) for i, s in enumerate(case.servers)]
        self._sent = 0
        # (moment, server, its boot, request): an answer that waited, or with NONE the end of a connection
        self._pending: list[tuple[float, int, int, int]] = [(inf, 0, ANY, NONE)]
        self._settle = self._settling()

    def advance(self, moment: float) -> None:
        traffic, settle, connect = self._traffic, self._settle, self._director.open
        servers, requests, sent, cost = self.servers, self._trace.requests, traffic.at, traffic.cost
        first, self._sent = self._sent, bisect_left(sent, moment, self._sent)
        for number in range(first, self._sent):
            now = sent[number]
            settle(now)
            slot = connect(now)
            if slot is None:
                self._trace.failed(number, now, REFUSED)
                continue
            server = servers[slot.index]
            server.opened += 1
            server.open += 1
            requests[slot.index] += 1
            if server.down:
                self.lost(number, server, now)
            else:
                server.add(now, FAIL_SECONDS if server.failing else cost[number], number)
        settle(moment)

    def lost(self, number: int, server: Server, now: float) -> None:
        """Nobody answers; the client gives up."""
        gives_up = max(now, self._traffic.at[number] + self._timeout_seconds)
        self._trace.failed(number, gives_up, SERVER_ERROR)
        if not self._traffic.held:
            heappush(self._pending, (gives_up, server.index, ANY, NONE))

    def _settling(self) -> Callable[[float], None]:
        """A closure, because it runs for each request and what it uses stays the same."""
        scanned, due = () if self._alarms is not None else self.servers, self._due
        slots, close, sent, latency = self._director.slots, self._director.close, self._traffic.at, self._trace.latency
        pending, keep, held = self._pending, self._traffic.keep, self._traffic.held

        def settle(moment: float) -> None:
            """All that ends until then."""
            for server in scanned or due(moment):
                if server.alarm > moment:
                    continue
                if server.failing or server.io_seconds:
                    self._answer_otherwise(server, moment)
                    continue
                while (now := server.alarm) <= moment:
                    number = server.end()
                    if number == NONE:
                        continue
                    latency[number] = now - sent[number]
                    server.finished += 1
                    if keep:
                        heappush(pending, (now + keep[number], server.index, server.boot, NONE))
                    elif not held:
                        close(slots[server.index], now)
                        if server.open:
                            server.open -= 1
            if pending[0][0] <= moment:
                self._follow(moment)

        return settle

    def _due(self, moment: float) -> Iterator[Server]:
        """The servers whose alarm comes until then. What is due on one is settled before the next is asked for."""
        alarms = self._alarms or []
        while alarms and alarms[0][0] <= moment:
            at, index = alarms[0]
            server = self.servers[index]
            if at == server.alarm:  # else an earlier one replaced it
                yield server
                if server.alarm < inf:
                    heapreplace(alarms, (server.alarm, index))
                    continue
            heappop(alarms)

    def _answer_otherwise(self, server: Server, moment: float) -> None:
        """With errors, or after a wait for something that is not CPU."""
        while (now := server.alarm) <= moment:
            number = server.end()
            if number == NONE:
                continue
            if server.failing:
                self._answered(now, number, server)
            else:
                answered = now + server.io_seconds * self._traffic.wait[number]
                heappush(self._pending, (answered, server.index, server.boot, number))

    def _follow(self, moment: float) -> None:
        """Answers that waited, and connections that close later than their answer."""
        pending = self._pending
        while pending[0][0] <= moment:
            now, index, boot, number = heappop(pending)
            server = self.servers[index]
            if number == NONE:
                self._director.close(self._director.slots[index], now)
                if server.open and boot in (ANY, server.boot):
                    server.open -= 1
            elif server.boot != boot or server.down:
                self.lost(number, server, now)
            else:
                self._answered(now, number, server)

    def _answered(self, now: float, number: int, server: Server) -> None:
        server.finished += 1
        if server.failing:
            server.errors += 1
            self._trace.failed(number, now, SERVER_ERROR)
        else:
            self._trace.latency[number] = now - self._traffic.at[number]
        if not self._traffic.held:
            kept_seconds = self._traffic.keep[number] if self._traffic.keep else 0.0
            heappush(self._pending, (now + kept_seconds, server.index, server.boot, NONE))


class Held(Flow):
    """Requests come on connections that stay open."""

    def __init__(self, case: Case, traffic: Traffic, director: Director, trace: TraceBuilder) -> None:
        super().__init__(case, traffic, director, trace)
        self._behind: list[
            tuple[Slot, int] | None
        ] = []  # of each connection so far: its destination, its server's boot

    def advance(self, moment: float) -> None:
        traffic, settle, behind = self._traffic, self._settle, self._behind
        first, self._sent = self._sent, bisect_left(traffic.at, moment, self._sent)
        for number in range(first, self._sent):
            now = traffic.at[number]
            self._open(now)
            settle(now)
            way = behind[traffic.connection[number]]
            if way is None:
                self._trace.failed(number, now, REFUSED)
                continue
            slot, boot = way
            server = self.servers[slot.index]
            if boot != server.boot:
                self._trace.failed(number, now, SERVER_ERROR)  # the server knows nothing of this connection
                continue
            self._trace.requests[slot.index] += 1
            if server.down:
                self.lost(number, server, now)
            else:
                server.add(now, FAIL_SECONDS if server.failing else traffic.cost[number], number)
        self._open(moment)
        settle(moment)

    def _open(self, moment: float) -> None:
        """The connections that start until then."""
        held = self._traffic.held
        while len(self._behind) < len(held) and held[len(self._behind)].start <= moment:
            start, end = held[len(self._behind)].start, held[len(self._behind)].end
            self._settle(start)
            slot = self._director.open(start)
            if slot is None:
                self._behind.append(None)
                continue
            server = self.servers[slot.index]
            self._behind.append((slot, server.boot))
            server.opened += 1
            server.open += 1
            heappush(self._pending, (end, slot.index, server.boot, NONE))
