"""An HTTP server whose requests cost a known amount of CPU, served in the order of their arrival, one at a time.

    python -m feedback.lab.workload.server SETTINGS_JSON

`GET /COST_MS/HOLD_SECONDS` burns that much CPU, waits that long without using any, answers with the server's name, and
closes if the client has sent `Connection: close`. It is one process, so that only the quota of its cgroup bounds it.

It can fail as servers do. From SIGUSR1 until SIGUSR2 it answers every request at once with 500 and does no work, like a
server whose database is gone. And each open connection with a request costs `connection_bytes` of memory until it is
answered, as sessions, buffers and threads do.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from itertools import count

from feedback.lab.workload.burn import Meter, burn
from feedback.lab.workload.descriptors import allow_descriptors
from feedback.lab.workload.word import Word

BACKLOG = 4096
REQUEST_BYTES = 2048


# A plain dataclass: with a twentieth of a core, one more import delays listening by seconds.
@dataclass(frozen=True, slots=True)
class Settings:
    """`quota` is the cgroup's, in cores. `word` is the socket of the host's agent; empty to report nothing. `metered`
    includes the server's own work in the cost of a request. `group` is a cgroup to enter once it listens; empty to
    stay."""

    name: str
    port: int
    turns_per_ms: float
    quota: float = 1.0
    word: str = ""
    connection_bytes: int = 0
    metered: bool = False
    group: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))


class Server:
    def __init__(self, settings: Settings) -> None:
        # Before it listens: a server that listens counts as ready, and may be told to fail.
        self.failing = False
        signal.signal(signal.SIGUSR1, lambda *_: self._fail(True))
        signal.signal(signal.SIGUSR2, lambda *_: self._fail(False))
        self.good, self.bad = _answer(settings.name, "200 OK"), _answer(settings.name, "500 Internal Server Error")
        self.turns_per_ms = settings.turns_per_ms
        self.meter = Meter(settings.turns_per_ms) if settings.metered else None
        self.connection_bytes = settings.connection_bytes
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("0.0.0.0", settings.port))
        self.listener.listen(BACKLOG)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.waiting: dict[int, socket.socket] = {}  # accepted, and waiting for a request
        self.ready: deque[tuple[socket.socket, bytes, float]] = deque()  # with the moment of the request
        self.held: list[tuple[float, int, socket.socket, bool]] = []  # a heap by the moment of the answer
        self.memory: dict[socket.socket, int] = {}  # a descriptor
        self.tickets = count()
        self.word = Word(settings.word, settings.port, settings.quota)

    def _fail(self, failing: bool) -> None:
        self.failing = failing

    def run(self) -> None:
        while True:
            for descriptor, _event in self.epoll.poll(self._patience()):
                if descriptor == self.listener.fileno():
                    self._accept()
                else:
                    self._receive(self.waiting[descriptor])
            while self.held and self.held[0][0] <= time.monotonic():
                self._answer(*heapq.heappop(self.held)[2:])
            if self.ready:
                self._serve(*self.ready.popleft())
            self.word.say(in_flight=len(self.ready) + len(self.held))

    def _patience(self) -> float:
        if self.ready:
            return 0.0
        word = self.word.patience()
        if not self.held:
            return word
        held = max(0.0, self.held[0][0] - time.monotonic())
        return min(held, word) if word >= 0 else held

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _peer = self.listener.accept()
                connection.setblocking(False)
                self._receive(connection)

    def _receive(self, connection: socket.socket) -> None:
        try:
            request = connection.recv(REQUEST_BYTES)
        except BlockingIOError:
            if connection.fileno() not in self.waiting:
                self._wait(connection)
            return
        except OSError:
            request = b""
        if self.waiting.pop(connection.fileno(), None):
            self.epoll.unregister(connection)
        if not request:
            connection.close()
            return
        self.ready.append((connection, request, time.monotonic()))
        if self.connection_bytes:
            self.memory[connection] = _memory(self.connection_bytes)

    def _serve(self, connection: socket.socket, request: bytes, since: float) -> None:
        close = b"Connection: close" in request
        if self.failing:
            self._answer(connection, close, good=False)
            return
        cost_ms, hold_seconds = _parse(request)
        if self.meter:
            self.meter.burn(cost_ms)
        else:
            burn(int(cost_ms * self.turns_per_ms))
        now = time.monotonic()
        self.word.latencies.append(now - since)
        if hold_seconds:
            heapq.heappush(self.held, (now + hold_seconds, next(self.tickets), connection, close))
        else:
            self._answer(connection, close)

    def _answer(self, connection: socket.socket, close: bool, *, good: bool = True) -> None:
        self.word.completions += 1
        self.word.errors += not good
        if connection in self.memory:
            os.close(self.memory.pop(connection))
        with contextlib.suppress(OSError):  # the client may have given up
            connection.send(self.good if good else self.bad)
        if close:
            connection.close()
        else:
            self._wait(connection)

    def _wait(self, connection: socket.socket) -> None:
        self.waiting[connection.fileno()] = connection
        self.epoll.register(connection, select.EPOLLIN)


def _memory(size: int) -> int:
    """Memory that is really used, and really freed when the descriptor is closed. It is not this process's own memory:
    to touch 128 pages takes several milliseconds in User Mode Linux, and a heap does not give pages back."""
    descriptor = os.memfd_create("connection")
    os.posix_fallocate(descriptor, 0, size)
    return descriptor


def _parse(request: bytes) -> tuple[float, float]:
    """CPU and holding time. Other requests cost nothing, such as `GET /` from a health check."""
    try:
        cost_ms, hold_seconds = request.split(b" ", 2)[1].strip(b"/").split(b"/")
        return float(cost_ms), float(hold_seconds)
    except (ValueError, IndexError):
        return 0.0, 0.0


def _answer(name: str, status: str) -> bytes:
    body = f"{name}\n"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def main(settings: Settings) -> None:
    server = Server(settings)
    if settings.group:
        with open(f"{settings.group}/cgroup.procs", "w", encoding="ascii") as processes:  # noqa: PTH123 - see Settings
            processes.write("0")
    server.run()


if __name__ == "__main__":
    allow_descriptors()
    main(Settings(**json.loads(sys.argv[1])))
