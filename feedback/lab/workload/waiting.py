"""Waiting clients, and what each of them noticed: UDP flows that ask again, and silent TCP connections.

    python -m feedback.lab.workload.waiting PLAN OUTPUT

A UDP flow asks at a steady rate, and faster while it has no answer, as a resolver does. A TCP connection asks once
which server it has, and then waits. At SIGUSR1 each TCP connection that is still open sends. The program ends once no
connection has been heard for a second and a half: many take long to answer on a slow host. OUTPUT/client.waiting has
the outcome of each.

Moments are of CLOCK_MONOTONIC. The plan's `connections` and the flows of its `udp` are what is opened.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import select
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from feedback.lab.workload.descriptors import allow_descriptors
from feedback.lab.workload.streams import ECHO, RECORD, WHO, Opening, Plan, Target, openings, record

FILE = "client.waiting"
RHYTHM_SECONDS, AGAIN_SECONDS = 0.5, 0.05
WINDOW = 50  # connections being opened at a time
LAST_SECONDS = 1.5
EVENTS = 256


class Waited(NamedTuple):
    """The outcome of one flow. `servers` are those that answered, in order. UDP: its longest silence, from the first
    unanswered question to the next answer, and when that began; `silence_seconds` is infinite if it never ended. TCP:
    when and how the connection was ended; `woken` says whether it got an answer when it was woken."""

    kind: str
    target: str
    servers: list[str]
    silence_seconds: float = 0.0
    silent_at: float = 0.0
    told_at: float = 0.0
    told: str = ""
    woken: bool = False


def read(path: Path) -> list[Waited]:
    """In the file infinity is null, since JSON has no infinity."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Waited(*row)._replace(silence_seconds=float("inf") if row[3] is None else row[3]) for row in rows]


class Idle:
    __slots__ = ("connected", "opening", "server", "sock", "told", "told_at", "woken")

    def __init__(self, opening: Opening, sock: socket.socket) -> None:
        self.opening, self.sock = opening, sock
        self.server = self.told = ""
        self.told_at, self.connected, self.woken = 0.0, False, False

    def result(self) -> Waited:
        told = self.told_at, self.told
        return Waited("tcp", self.opening.target.name, [self.server], 0.0, 0.0, *told, self.woken)


class Flow:
    __slots__ = ("asked_at", "next_at", "number", "servers", "silence", "silent_at", "sock", "target")

    def __init__(self, number: int, target: Target, sock: socket.socket) -> None:
        self.number, self.target, self.sock = number, target, sock
        self.servers: list[str] = []
        self.asked_at: float | None = None  # the first question without an answer
        self.next_at = self.silence = self.silent_at = 0.0

    def step(self, now: float) -> float:
        """Ask for the first time, or again. Returns when to look at it again."""
        if self.asked_at is None and now < self.next_at:
            return self.next_at
        if self.asked_at is None:
            self.asked_at, self.next_at = now, now + RHYTHM_SECONDS
        with contextlib.suppress(OSError):
            self.sock.send(RECORD.pack(ECHO, self.number, 0))
        return now + AGAIN_SECONDS

    def receive(self, now: float) -> None:
        with contextlib.suppress(OSError):
            while True:
                server = self.sock.recv(2048)[RECORD.size :].decode()
                if not self.servers or self.servers[-1] != server:
                    self.servers.append(server)
                if self.asked_at is not None:
                    self._silent(now)
                self.asked_at = None

    def _silent(self, until: float) -> None:
        assert self.asked_at is not None
        if until - self.asked_at > self.silence:
            self.silence, self.silent_at = until - self.asked_at, self.asked_at

    def result(self) -> Waited:
        if self.asked_at is not None:
            self._silent(float("inf"))
        return Waited("udp", self.target.name, self.servers, self.silence, self.silent_at)


class Waiting:
    def __init__(self, plan: Plan, output: Path) -> None:
        self.plan, self.output = plan, output
        self.epoll = select.epoll()
        self.idle: dict[int, Idle] = {}
        self.all: list[Idle] = []
        self.pending = 0  # connections that do not know their server yet
        self.flows: dict[int, Flow] = {}
        self.due: list[tuple[float, int]] = []
        self.ending = False
        self.heard_at = 0.0  # when a TCP connection was last heard
        signal.signal(signal.SIGUSR1, self._end)

    def _end(self, *_: object) -> None:
        self.ending = True

    def run(self) -> None:
        self._open_all()
        self._open_flows()
        while any(not flow.servers for flow in self.flows.values()):
            self._turn()
        for flow in self.flows.values():  # the rush of opening connections is not measured
            flow.silence = 0.0
        (self.output / "client.ready").write_text("\n", encoding="utf-8")
        while not self.ending:
            self._turn()
        for each in self.all:
            if not each.told:
                with contextlib.suppress(OSError):
                    each.sock.send(record(ECHO, each.opening.number, 0))
        self.heard_at = time.monotonic()
        while time.monotonic() < self.heard_at + LAST_SECONDS:
            self._turn()
        rows = [*(each.result() for each in self.all), *(flow.result() for flow in self.flows.values())]
        lines = (json.dumps([None if value == float("inf") else value for value in row]) for row in rows)
        (self.output / FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _open_all(self) -> None:
        waiting = deque(openings(self.plan))
        while waiting or self.pending:
            while waiting and self.pending < WINDOW:
                self._open(waiting.popleft())
            self._turn()

    def _open(self, opening: Opening) -> None:
        sock = _bound(opening.target, opening.source, socket.SOCK_STREAM)
        made = Idle(opening, sock)
        self.all.append(made)
        self.pending += 1
        problem = sock.connect_ex((opening.target.address, opening.target.port))
        if problem != errno.EINPROGRESS:
            raise SystemExit(f"{opening.target.name}: {errno.errorcode.get(problem, problem)}")
        self.idle[sock.fileno()] = made
        self.epoll.register(sock, select.EPOLLOUT)

    def _open_flows(self) -> None:
        target = self.plan.udp
        for number in range(self.plan.udp_flows if target is not None else 0):
            assert target is not None
            sock = _bound(target, target.sources[number % len(target.sources)], socket.SOCK_DGRAM)
            sock.connect((target.address, target.port))
            self.flows[sock.fileno()] = Flow(number, target, sock)
            self.epoll.register(sock, select.EPOLLIN)
            heapq.heappush(self.due, (time.monotonic() + RHYTHM_SECONDS * number / self.plan.udp_flows, sock.fileno()))

    def _turn(self) -> None:
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, descriptor = heapq.heappop(self.due)
            flow = self.flows[descriptor]
            heapq.heappush(self.due, (flow.step(now), descriptor))
        patience = max(0.0, self.due[0][0] - now) if self.due else 0.1
        for descriptor, _events in self.epoll.poll(min(patience, 0.1), EVENTS):
            if descriptor in self.flows:
                self.flows[descriptor].receive(time.monotonic())
            else:
                self._heard(self.idle[descriptor], time.monotonic())

    def _heard(self, of: Idle, now: float) -> None:
        self.heard_at = now
        if not of.connected:
            if problem := of.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise SystemExit(f"{of.opening.target.name}: {errno.errorcode.get(problem, problem)}")
            of.connected = True
            self.epoll.modify(of.sock, select.EPOLLIN)
            of.sock.send(record(WHO, of.opening.number, 0))
            return
        try:
            data = of.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._over(of, errno.errorcode.get(error.errno or 0, "error"), now)
            return
        if not data:
            self._over(of, "closed", now)
        elif of.server:
            of.woken = True
        else:
            of.server = data.decode()
            self.pending -= 1

    def _over(self, of: Idle, why: str, now: float) -> None:
        of.told, of.told_at = why, now
        self.epoll.unregister(of.sock)
        of.sock.close()


def _bound(target: Target, source: str, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    sock.bind((source, 0))
    return sock


def main() -> None:
    allow_descriptors()
    Waiting(Plan.decode(sys.argv[1]), Path(sys.argv[2])).run()


if __name__ == "__main__":
    main()
