"""Clients of a database with one writer: each writes repeatedly over one connection.

    python -m feedback.lab.workload.writers PLAN OUTPUT

A write is a numbered record, and its echo is the commit. Each connection asks once which server answers. A writer whose
connection breaks connects again at once and repeats the record that was not committed. Other connections wait and write
nothing, like those of a connection pool. At SIGUSR1 it ends and writes OUTPUT/client.writes, with a line for each
commit, and OUTPUT/client.ends, with one for each broken connection. Moments are of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import errno
import heapq
import json
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from feedback.lab.workload.descriptors import allow_descriptors
from feedback.lab.workload.streams import ECHO, RECORD, WHO, record

WRITES, ENDS = "client.writes", "client.ends"
EVENTS = 256
AGAIN_SECONDS = 0.02  # until the next try after a refused connection
PATIENCE_SECONDS = 0.1  # how long to wait for a greeting before connecting again


class Plan(msgspec.Struct, frozen=True):
    address: str
    port: int
    writers: int
    idle: int
    rhythm_seconds: float = 0.05

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()


class Write(NamedTuple):
    writer: int
    server: str
    sent: float
    committed: float


class End(NamedTuple):
    """A connection that broke; an `idle` one wrote nothing."""

    idle: bool
    server: str
    at: float
    why: str


def read_writes(output: Path) -> list[Write]:
    return [Write(*json.loads(line)) for line in (output / WRITES).read_text(encoding="utf-8").splitlines()]


def read_ends(output: Path) -> list[End]:
    return [End(*json.loads(line)) for line in (output / ENDS).read_text(encoding="utf-8").splitlines()]


class Client:
    """A client that writes, or waits."""

    def __init__(self, number: int, idle: bool) -> None:
        self.number, self.idle = number, idle
        self.sock: socket.socket | None = None
        self.server = ""
        self.sent_at: float | None = None
        self.opened_at = 0.0
        self.connected = False


class Writers:
    def __init__(self, plan: Plan, output: Path) -> None:
        self.plan, self.output = plan, output
        self.epoll = select.epoll()
        self.clients = [Client(n, n >= plan.writers) for n in range(plan.writers + plan.idle)]
        self.by_descriptor: dict[int, Client] = {}
        self.due: list[tuple[float, int]] = []
        self.writes: list[Write] = []
        self.ends: list[End] = []
        self.ending = self.ready = False
        signal.signal(signal.SIGUSR1, self._end)

    def _end(self, *_: object) -> None:
        self.ending = True

    def run(self) -> None:
        now = time.monotonic()
        for client in self.clients:
            self._open(client)
            heapq.heappush(
                self.due, (now + self.plan.rhythm_seconds * (1 + client.number / len(self.clients)), client.number)
            )
        while not self.ending:
            self._turn()
            if not self.ready and all(client.server for client in self.clients):
                self.ready = True
                (self.output / "client.ready").write_text("\n", encoding="utf-8")
        for name, rows in ((WRITES, self.writes), (ENDS, self.ends)):
            (self.output / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    def _open(self, client: Client) -> None:
        family = socket.AF_INET6 if ":" in self.plan.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sock, client.server, client.connected, client.opened_at = sock, "", False, time.monotonic()
        sock.connect_ex((self.plan.address, self.plan.port))
        self.by_descriptor[sock.fileno()] = client
        self.epoll.register(sock, select.EPOLLOUT)

    def _turn(self) -> None:
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, number = heapq.heappop(self.due)
            heapq.heappush(self.due, (now + self._step(self.clients[number], now), number))
        patience = max(0.0, self.due[0][0] - now) if self.due else 0.1
        for descriptor, _events in self.epoll.poll(min(patience, 0.1), EVENTS):
            client = self.by_descriptor.get(descriptor)
            if client is not None:
                self._heard(client, time.monotonic())

    def _step(self, client: Client, now: float) -> float:
        """Write if it is time to. Returns seconds until its next step."""
        if client.sock is None:
            if not client.idle:
                self._open(client)
            return AGAIN_SECONDS
        if not client.server:
            if now - client.opened_at > PATIENCE_SECONDS:
                self._close(client)
                self._open(client)
            return AGAIN_SECONDS
        if not client.idle and client.sent_at is None:
            client.sent_at = now
            self._send(client)
        return self.plan.rhythm_seconds

    def _send(self, client: Client) -> None:
        assert client.sock is not None
        try:
            client.sock.send(record(ECHO, client.number, 0))
        except OSError as error:
            self._broken(client, errno.errorcode.get(error.errno or 0, "error"), time.monotonic())

    def _heard(self, client: Client, now: float) -> None:
        assert client.sock is not None
        try:
            if not client.connected:
                if problem := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._broken(client, errno.errorcode.get(problem, str(problem)), now)
                    return
                client.connected = True
                self.epoll.modify(client.sock, select.EPOLLIN)
                client.sock.send(record(WHO, client.number, 0))
                return
            data = client.sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(client, errno.errorcode.get(error.errno or 0, "error"), now)
            return
        if not data:
            self._broken(client, "closed", now)
        elif not client.server:
            client.server = data.decode()
            if client.sent_at is not None:  # the last connection did not commit it
                client.sent_at = now
                self._send(client)
        elif client.sent_at is not None and len(data) >= RECORD.size:
            self.writes.append(Write(client.number, client.server, client.sent_at, now))
            client.sent_at = None

    def _broken(self, client: Client, why: str, now: float) -> None:
        if client.server:
            self.ends.append(End(client.idle, client.server, now, why))
        self._close(client)
        if not client.idle and client.server:
            self._open(client)
        elif not client.idle:
            client.sock = None

    def _close(self, client: Client) -> None:
        if client.sock is not None:
            self.by_descriptor.pop(client.sock.fileno(), None)
            self.epoll.unregister(client.sock)
            client.sock.close()
            client.sock = None


def main() -> None:
    allow_descriptors()
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    Writers(plan, Path(sys.argv[2])).run()


if __name__ == "__main__":
    main()
