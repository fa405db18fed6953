"""A client with many open connections in one process: it sends records and checks every byte that comes back.

    python -m feedback.lab.workload.talker PLAN_JSON OUTPUT_DIRECTORY

Files in the directory show its progress: `client.ready` exists once every stream is open and has its first echo.
SIGUSR1 wakes the idle streams. At SIGUSR2 it waits for outstanding echoes, writes the outcome of each stream to
`client.streams`, and ends. `client.records` has each echo with its delay since the moment of sending.

It is cheap, because the guest has one processor: one send, one wait and one receive for each record.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path

from feedback.lab.workload import streams
from feedback.lab.workload.descriptors import allow_descriptors
from feedback.lab.workload.flows import Flow, open_flows
from feedback.lab.workload.records import pack
from feedback.lab.workload.streams import DOWNLOAD, ECHO, RECORD, Opening, Plan, Stream, expected, openings

REAL_TIME_PRIORITY = 5
EVENTS = 256
BURST = 20  # records in one turn, when the turn comes late
TICK_SECONDS = 0.01
FLUSH_SECONDS = 0.5
CHUNK_BYTES = 65536
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: the port is chosen at connect(), for the pair of addresses


class Connection:
    """One TCP stream."""

    __slots__ = ("error", "failed_at", "gap", "heard", "kind", "number", "out", "received", "sent", "sock", "target")

    def __init__(self, opening: Opening, sock: socket.socket) -> None:
        self.number, self.kind, self.target = opening.number, opening.kind, opening.target.name
        self.sock = sock
        self.sent = self.received = 0
        self.out: deque[float] = deque()  # when records were sent whose echo has not come yet
        self.gap = 0.0
        self.heard = 0.0  # when the last portion of a download came
        self.error = ""
        self.failed_at = 0.0

    def result(self) -> Stream:
        return Stream(
            self.number, self.kind, self.target, self.sent, self.received, self.gap, self.error, self.failed_at
        )


class Pace:
    """How many are due now, at a steady rate; the first `ahead` of them at once."""

    def __init__(self, rate: float, since: float, ahead: int = 0) -> None:
        self.rate, self.since, self.ahead = rate, since, ahead
        self.given = 0

    def due(self, now: float) -> int:
        """Returns how many are due. Records that a stalled client missed are not sent later in a burst."""
        due = int(self.rate * (now - self.since)) + self.ahead - self.given
        self.given += due
        return min(due, BURST)


class Talker:
    def __init__(self, plan: Plan, output: Path) -> None:
        self.plan = plan
        self.output = output
        self.epoll = select.epoll()
        self.connecting: dict[int, Connection] = {}
        self.greeting = 0  # how many are open without their first echo
        self.open: dict[int, Connection] = {}
        self.flows: deque[Flow] = deque()
        self.flow_at: dict[int, Flow] = {}
        self.all: list[Connection] = []
        self.talking: deque[Connection] = deque()
        self.sleeping: deque[Connection] = deque()
        self.done: list[bytes] = []
        self.flushed = time.monotonic()
        self.waking = self.woken = self.ending = False
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "waking", True))
        signal.signal(signal.SIGUSR2, lambda *_: setattr(self, "ending", True))

    def run(self) -> None:
        self._establish()
        self._say("ready")
        _prioritise(REAL_TIME_PRIORITY)  # not before: opening thousands at this priority would starve the directors
        self._talk()
        self._drain()
        self._flush()
        _prioritise(0)  # the directors are still busy
        results = [connection.result() for connection in self.all] + [
            flow.result() for flow in sorted(self.flows, key=lambda flow: flow.number)
        ]
        streams.write(self.output / streams.FILE, results)

    # Opening.

    def _establish(self) -> None:
        waiting = deque(openings(self.plan))
        told = time.monotonic()
        while waiting or self.connecting or self.greeting:
            while waiting and len(self.connecting) + self.greeting < self.plan.window:
                self._open(waiting.popleft())
            self._wait(0.1)
            if time.monotonic() - told > 1:
                told = time.monotonic()
                self._say("progress", f"{len(self.open)} of {len(self.all) + len(waiting)} established")
        self.flows = open_flows(self.plan, len(self.all))
        for flow in self.flows:
            self.flow_at[flow.sock.fileno()] = flow
            self.epoll.register(flow.sock, select.EPOLLIN)

    def _open(self, opening: Opening) -> None:
        family = socket.AF_INET6 if ":" in opening.target.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection = Connection(opening, sock)
        self.all.append(connection)
        try:
            sock.bind((opening.source, 0))
            problem = sock.connect_ex((opening.target.address, opening.target.port))
        except OSError as error:
            problem = error.errno or errno.EIO
        if problem not in (0, errno.EINPROGRESS):
            self._fail(connection, errno.errorcode.get(problem, str(problem)))
            return
        self.connecting[sock.fileno()] = connection
        self.epoll.register(sock, select.EPOLLOUT)

    def _opened(self, connection: Connection) -> None:
        descriptor = connection.sock.fileno()
        del self.connecting[descriptor]
        if problem := connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(connection, errno.errorcode[problem])
            return
        self.epoll.modify(descriptor, select.EPOLLIN)
        self.open[descriptor] = connection
        if connection.kind == "download":
            self._ask(connection)
            return
        if connection.kind == "talk":
            self.talking.append(connection)
        else:
            self.sleeping.append(connection)
        if connection.kind != "mute":
            self.greeting += 1
            self._send(connection)

    def _ask(self, connection: Connection) -> None:
        rate, total = self.plan.download_rate, self._download_bytes()
        connection.sock.send(streams.record(DOWNLOAD, connection.number, rate << 32 | total))
        connection.heard = time.monotonic()

    def _download_bytes(self) -> int:
        return int(self.plan.download_rate * self.plan.download_seconds)

    # Talking.

    def _talk(self) -> None:
        for connection in self.all:
            connection.gap = 0.0  # the rush of opening connections is not measured
        begun = time.monotonic()
        records, datagrams = Pace(self.plan.rate, begun), Pace(self.plan.udp_rate, begun)
        wakings: Pace | None = None
        while not self.ending:
            self._wait(TICK_SECONDS)
            now = time.monotonic()
            for _ in range(min(records.due(now), len(self.talking))):
                self.talking.rotate(-1)
                self._send(self.talking[-1])
            for _ in range(datagrams.due(now) if self.flows else 0):
                self.flows[0].send()
                self.flows.rotate(-1)
            if self.waking and not self.woken:
                wakings = wakings or Pace(self.plan.wake_rate, now, ahead=1)
                self._awaken(wakings.due(now))

    def _awaken(self, due: int) -> None:
        for _ in range(min(due, len(self.sleeping))):
            self._send(self.sleeping.popleft())
        if not self.sleeping:
            self.woken = True
            self._say("woken")

    def _send(self, connection: Connection) -> None:
        if connection.error:
            return
        number = connection.sent // RECORD.size
        try:
            connection.sock.send(RECORD.pack(ECHO, connection.number, number))
        except BlockingIOError:
            return  # its buffer is full after a long silence; the gap shows this
        except OSError as error:
            self._fail(connection, errno.errorcode.get(error.errno or 0, "error"))
            return
        connection.sent += RECORD.size
        connection.out.append(time.monotonic())

    # Hearing.

    def _wait(self, patience_seconds: float) -> None:
        for descriptor, _event in self.epoll.poll(patience_seconds, EVENTS):
            if connection := self.open.get(descriptor):
                self._receive(connection)
            elif connection := self.connecting.get(descriptor):
                self._opened(connection)
            elif flow := self.flow_at.get(descriptor):
                flow.receive()
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self._flush()

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(connection, errno.errorcode.get(error.errno or 0, "error"))
            return
        if connection.kind == "download":
            self._receive_portion(connection, data)
            return
        if not data:
            self._fail(connection, "closed")
            return
        if data != expected(connection.number, connection.received, len(data)):
            self._fail(connection, "corrupt")
            return
        if not connection.received:
            self.greeting -= connection.kind != "mute"
        now = time.monotonic()
        before = connection.received // RECORD.size
        connection.received += len(data)
        for _ in range(connection.received // RECORD.size - before):
            self._heard(connection, now, connection.out.popleft())

    def _heard(self, connection: Connection, now: float, sent: float) -> None:
        connection.gap = max(connection.gap, now - sent)
        self.done.append(pack(sent, now - sent, 200, 0))

    def _receive_portion(self, connection: Connection, data: bytes) -> None:
        if not data:
            if connection.received == self._download_bytes():
                self._close(connection)
            else:
                self._fail(connection, "closed")
            return
        now = time.monotonic()
        connection.gap = max(connection.gap, now - connection.heard)
        connection.heard = now
        for begin in range(0, len(data), streams.BLOCK_BYTES):
            piece = data[begin : begin + streams.BLOCK_BYTES]
            if piece != streams.portion(connection.number, connection.received, len(piece)):
                self._fail(connection, "corrupt")
                return
            connection.received += len(piece)

    # Ends.

    def _fail(self, connection: Connection, error: str) -> None:
        now = time.monotonic()
        connection.error, connection.failed_at = error, now
        if connection.out:
            connection.gap = max(connection.gap, now - connection.out[0])
        self.greeting -= connection.kind != "mute" and connection.sent > 0 and not connection.received
        self.done.append(pack(connection.out[0] if connection.out else now, connection.gap, -errno.ECONNRESET, 0))
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        self.open.pop(connection.sock.fileno(), None)
        with contextlib.suppress(ValueError):
            (self.talking if connection.kind == "talk" else self.sleeping).remove(connection)
        connection.sock.close()

    def _drain(self) -> None:
        """Send nothing more, and wait for outstanding echoes and the ends of downloads."""
        deadline = time.monotonic() + self.plan.patience_seconds
        while time.monotonic() < deadline and any(
            connection.out or connection.kind == "download" for connection in self.open.values()
        ):
            self._wait(0.1)
        for connection in list(self.open.values()):
            if connection.out or connection.kind == "download":
                self._fail(connection, "lost")

    def _say(self, what: str, text: str = "") -> None:
        (self.output / f"client.{what}").write_text(f"{text}\n", encoding="utf-8")

    def _flush(self) -> None:
        # Opened and closed each time: on the host's files as the guest sees them, only closing writes.
        self.flushed = time.monotonic()
        if self.done:
            with (self.output / "client.records").open("ab") as file:
                file.write(b"".join(self.done))
            self.done.clear()


def _prioritise(priority: int) -> None:
    """The guest's one processor plays many machines: the client must not wait for the others."""
    with contextlib.suppress(PermissionError):
        policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
        os.sched_setscheduler(0, policy, os.sched_param(priority))


def main() -> None:
    allow_descriptors()
    Talker(Plan.decode(sys.argv[1]), Path(sys.argv[2])).run()


if __name__ == "__main__":
    main()
