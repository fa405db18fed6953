"""A client of many open connections in one process: sends records, checks every byte that comes back.

    python -m feedback.lab.workload.talker PLAN_JSON OUTPUT_DIRECTORY

Says with files in the directory how far it is: `client.ready` once every stream is open and has its first echo.
SIGUSR1 wakes the idle ones, SIGUSR2 ends it: it waits for the echoes that are still out, and writes `client.streams`,
what became of each stream. `client.records` has each echo with its delay, which counts from the moment of sending.

Cheap, because the guest has one processor: one send, one wait and one receive for each record.
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
from feedback.lab.workload.records import pack
from feedback.lab.workload.streams import DOWNLOAD, ECHO, RECORD, Opening, Plan, Stream, expected, openings

REAL_TIME_PRIORITY = 5
EVENTS = 256
BURST = 20  # records in one turn, when it comes late
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
        self.out: deque[float] = deque()  # when the records were sent whose echo is not yet there
        self.gap = 0.0
        self.heard = 0.0  # the last portion of a download
        self.error = ""
        self.failed_at = 0.0

    def result(self) -> Stream:
        return Stream(
            self.number, self.kind, self.target, self.sent, self.received, self.gap, self.error, self.failed_at
        )


class Flow:
    """One UDP stream."""

    __slots__ = ("answered", "gap", "heard", "number", "sent", "servers", "sock")

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number, self.sock = number, sock
        self.sent = self.answered = 0
        self.servers: set[bytes] = set()
        self.heard = self.gap = 0.0

    def result(self) -> Stream:
        servers = len(self.servers)
        error = "moved" if servers > 1 else "" if servers else "no answer"
        return Stream(self.number, "udp", "udp", self.sent, self.answered, self.gap, error, 0.0, servers)


class Talker:
    def __init__(self, plan: Plan, output: Path) -> None:
        self.plan = plan
        self.output = output
        self.epoll = select.epoll()
        self.connecting: dict[int, Connection] = {}
        self.greeting = 0  # opened, and the first echo not there
        self.open: dict[int, Connection] = {}
        self.flows: dict[int, Flow] = {}
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
        _prioritise(0)  # the directors are still at work
        results = [connection.result() for connection in self.all] + [flow.result() for flow in self.flows.values()]
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
        if self.plan.udp:
            for i in range(self.plan.udp_flows):
                self._open_flow(i)

    def _open(self, opening: Opening) -> None:
        sock = _socket(opening.target.address, socket.SOCK_STREAM)
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

    def _open_flow(self, index: int) -> None:
        target = self.plan.udp
        assert target
        sock = _socket(target.address, socket.SOCK_DGRAM)
        sock.bind((target.sources[index % len(target.sources)], 0))
        sock.connect((target.address, target.port))
        self.flows[sock.fileno()] = Flow(len(self.all) + index, sock)
        self.epoll.register(sock, select.EPOLLIN)

    # Talking.

    def _talk(self) -> None:
        begun = woken = time.monotonic()
        for connection in self.all:
            connection.gap = 0.0  # the crowd at the door is not what is measured
        sent = datagrams = wakings = 0
        flows = deque(self.flows.values())
        while not self.ending:
            self._wait(TICK_SECONDS)
            now = time.monotonic()
            due = int(self.plan.rate * (now - begun)) - sent
            sent += due  # what a stalled client could not send in time is not made good in a flood
            for _ in range(min(due, BURST, len(self.talking))):
                self.talking.rotate(-1)
                self._send(self.talking[-1])
            if flows:
                due = int(self.plan.udp_rate * (now - begun)) - datagrams
                datagrams += due
                for _ in range(min(due, BURST)):
                    self._send_datagram(flows[0])
                    flows.rotate(-1)
            if self.waking and not self.woken:
                woken, wakings = (woken, wakings) if wakings else (now, 0)
                due = int(self.plan.wake_rate * (now - woken)) + 1 - wakings
                wakings += due
                for _ in range(min(due, BURST, len(self.sleeping))):
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
            return  # its buffer is full after a long silence: the gap says so
        except OSError as error:
            self._fail(connection, errno.errorcode.get(error.errno or 0, "error"))
            return
        connection.sent += RECORD.size
        connection.out.append(time.monotonic())

    def _send_datagram(self, flow: Flow) -> None:
        with contextlib.suppress(OSError):
            flow.sock.send(RECORD.pack(ECHO, flow.number, flow.sent))
        flow.sent += 1

    # Hearing.

    def _wait(self, patience_seconds: float) -> None:
        for descriptor, _event in self.epoll.poll(patience_seconds, EVENTS):
            if connection := self.open.get(descriptor):
                self._receive(connection)
            elif connection := self.connecting.get(descriptor):
                self._opened(connection)
            elif flow := self.flows.get(descriptor):
                self._receive_datagram(flow)
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

    def _receive_datagram(self, flow: Flow) -> None:
        with contextlib.suppress(OSError):
            while True:
                answer = flow.sock.recv(2048)
                now = time.monotonic()
                flow.gap = max(flow.gap, now - flow.heard) if flow.heard else 0.0
                flow.heard = now
                flow.answered += 1
                flow.servers.add(answer[RECORD.size :])

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
        """Nothing more is sent; what is still out must come back, and downloads must end."""
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
        # Opened and closed each time: on the guest's view of the host's files, closing is what writes.
        self.flushed = time.monotonic()
        if self.done:
            with (self.output / "client.records").open("ab") as file:
                file.write(b"".join(self.done))
            self.done.clear()


def _socket(address: str, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def _prioritise(priority: int) -> None:
    """The one processor of the guest stands for many machines: the client's must not wait for the others'."""
    with contextlib.suppress(PermissionError):
        policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
        os.sched_setscheduler(0, policy, os.sched_param(priority))


def main() -> None:
    allow_descriptors()
    Talker(Plan.decode(sys.argv[1]), Path(sys.argv[2])).run()


if __name__ == "__main__":
    main()
