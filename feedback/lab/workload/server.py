"""An HTTP server whose requests cost a known amount of CPU, served in the order of their arrival, one at a time.

    python -m feedback.lab.workload.server NAME PORT TURNS_PER_MS

`GET /COST_MS/HOLD_SECONDS` burns that much CPU, waits that long without any, answers with the server's name, and
closes if the client has said `Connection: close`. One process, so that the quota of the cgroup it stands in is what
bounds it, and nothing else.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import sys
import time
from collections import deque
from itertools import count

from feedback.lab.workload.burn import burn
from feedback.lab.workload.descriptors import allow_descriptors

BACKLOG = 4096
REQUEST_BYTES = 2048


class Server:
    def __init__(self, name: str, port: int, turns_per_ms: float) -> None:
        self.answer = _answer(name)
        self.turns_per_ms = turns_per_ms
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("0.0.0.0", port))
        self.listener.listen(BACKLOG)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.waiting: dict[int, socket.socket] = {}  # accepted, no request there yet, or none again
        self.ready: deque[tuple[socket.socket, bytes]] = deque()
        self.held: list[tuple[float, int, socket.socket, bool]] = []  # a heap by the moment of the answer
        self.tickets = count()

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

    def _patience(self) -> float:
        if self.ready:
            return 0.0
        return max(0.0, self.held[0][0] - time.monotonic()) if self.held else -1.0

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
        if request:
            self.ready.append((connection, request))
        else:
            connection.close()

    def _serve(self, connection: socket.socket, request: bytes) -> None:
        cost_ms, hold_seconds = _parse(request)
        close = b"Connection: close" in request
        burn(int(cost_ms * self.turns_per_ms))
        if hold_seconds:
            heapq.heappush(self.held, (time.monotonic() + hold_seconds, next(self.tickets), connection, close))
        else:
            self._answer(connection, close)

    def _answer(self, connection: socket.socket, close: bool) -> None:
        with contextlib.suppress(OSError):  # the client may have given up
            connection.send(self.answer)
        if close:
            connection.close()
        else:
            self._wait(connection)

    def _wait(self, connection: socket.socket) -> None:
        self.waiting[connection.fileno()] = connection
        self.epoll.register(connection, select.EPOLLIN)


def _parse(request: bytes) -> tuple[float, float]:
    """Anything that is not one of ours costs nothing: `GET /` from a health check, for one."""
    try:
        cost_ms, hold_seconds = request.split(b" ", 2)[1].strip(b"/").split(b"/")
        return float(cost_ms), float(hold_seconds)
    except (ValueError, IndexError):
        return 0.0, 0.0


def _answer(name: str) -> bytes:
    body = f"{name}\n"
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


if __name__ == "__main__":
    allow_descriptors()
    Server(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])).run()
