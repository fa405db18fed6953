"""An open-loop HTTP client: requests are sent at their planned moments, whatever happened to earlier ones.

    python -m feedback.lab.workload.client LOAD_JSON START RECORDS_FILE

Latency counts from the *intended* moment. So the requests that a stalled server, or this client, keeps waiting are
counted in full (no coordinated omission). Each request has its own connection. START is a moment of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import select
import socket
import sys
import time
from pathlib import Path

from feedback.lab.workload.descriptors import allow_descriptors
from feedback.lab.workload.load import Load, Request, requests
from feedback.lab.workload.records import pack

REAL_TIME_PRIORITY = 10
FLUSH_SECONDS = 0.5


class Client:
    def __init__(self, load: Load, start: float, output: Path) -> None:
        self.load = load
        self.start = start
        self.target = (load.address, load.port)
        self.output = output
        self.epoll = select.epoll()
        self.open: dict[int, Flight] = {}  # in the order of their intended moments
        self.kept: list[tuple[float, int, socket.socket]] = []  # answered connections; a heap by the moment of closing
        self.done: list[bytes] = []
        self.flushed = start

    def run(self) -> None:
        for request in requests(self.load):
            intended = self.start + request.offset_seconds
            self._until(intended)
            self._launch(intended, request)
        while self.open:
            self._until(time.monotonic() + 0.1)
        self._flush()

    def _until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            self._step(left)
        self._step(0.0)

    def _step(self, patience_seconds: float) -> None:
        for descriptor, event in self.epoll.poll(min(patience_seconds, 0.1)):
            self._advance(self.open[descriptor], event)
        now = time.monotonic()
        while self.kept and self.kept[0][0] <= now:
            heapq.heappop(self.kept)[2].close()
        while self.open and now - (oldest := next(iter(self.open.values()))).intended > self.load.timeout_seconds:
            self._finish(oldest, -errno.ETIMEDOUT, 0)
        if now - self.flushed > FLUSH_SECONDS:
            self.flushed = now
            self._flush()

    def _launch(self, intended: float, request: Request) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        flight = Flight(sock, intended, _text(request), request.keep_seconds)
        self.open[flight.descriptor] = flight
        problem = sock.connect_ex(self.target)
        if problem not in (0, errno.EINPROGRESS):
            self._finish(flight, -problem, 0)
            return
        self.epoll.register(flight.descriptor, select.EPOLLOUT)

    def _advance(self, flight: Flight, event: int) -> None:
        try:
            if event & select.EPOLLOUT and flight.request:
                flight.sock.send(flight.request)
                flight.request = b""
                self.epoll.modify(flight.descriptor, select.EPOLLIN)
                return
            answer = flight.sock.recv(1024)
        except BlockingIOError:
            # An event, but nothing to read: the SYN was refused while connect() was still running. To the kernel that
            # is a soft error, and it sends the SYN again. On a real network the refusal comes later, as a hard error.
            self._finish(flight, -errno.ECONNREFUSED, 0)
            return
        except OSError as error:
            self._finish(flight, -(error.errno or errno.EIO), 0)
            return
        # Answers are smaller than a segment, so one read gets all. Closing without a second read saves a call.
        self._finish(flight, *_parse(answer))

    def _finish(self, flight: Flight, status: int, server: int) -> None:
        del self.open[flight.descriptor]
        if flight.keep_seconds and status > 0:
            self.epoll.unregister(flight.descriptor)
            heapq.heappush(self.kept, (time.monotonic() + flight.keep_seconds, flight.descriptor, flight.sock))
        else:
            flight.sock.close()  # leaves the epoll set by itself
        self.done.append(pack(flight.intended, time.monotonic() - flight.intended, status, server))

    def _flush(self) -> None:
        # Opened and closed each time: on the host's files as the guest sees them, only closing writes.
        if self.done:
            with self.output.open("ab") as file:
                file.write(b"".join(self.done))
            self.done.clear()


class Flight:
    """A request on its way."""

    __slots__ = ("descriptor", "intended", "keep_seconds", "request", "sock")

    def __init__(self, sock: socket.socket, intended: float, request: bytes, keep_seconds: float) -> None:
        self.keep_seconds = keep_seconds
        self.sock = sock
        self.descriptor = sock.fileno()
        self.intended = intended
        self.request = request


def _text(request: Request) -> bytes:
    path = b"/%.3f/%.3f" % (request.cost_ms, request.hold_seconds)
    close = b"" if request.keep_seconds else b"Connection: close\r\n"
    return b"GET %s HTTP/1.1\r\nHost: lab\r\n%s\r\n" % (path, close)


def _parse(answer: bytes) -> tuple[int, int]:
    """Status and number of the server: `HTTP/1.1 200 OK ... rs3`."""
    if not answer.startswith(b"HTTP/1.1 "):
        return -errno.ECONNRESET, 0
    name = answer.rsplit(b"\n", 2)[-2]
    return int(answer[9:12]), int(name.lstrip(b"rs") or 0)


def main() -> None:
    # The guest's one processor plays many machines: the client must not wait for the servers.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
    allow_descriptors()
    Client(Load.decode(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])).run()


if __name__ == "__main__":
    main()
