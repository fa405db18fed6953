"""UDP flows of the talker: numbered datagrams, each answered with the server's name."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque

from feedback.lab.workload.streams import ECHO, RECORD, Plan, Stream

DATAGRAM_BYTES = 2048


class Flow:
    __slots__ = ("answered", "gap", "heard", "number", "sent", "servers", "sock")

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number, self.sock = number, sock
        self.sent = self.answered = 0
        self.servers: set[bytes] = set()
        self.heard = self.gap = 0.0

    def send(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.send(RECORD.pack(ECHO, self.number, self.sent))
        self.sent += 1

    def receive(self) -> None:
        """Read everything that has arrived."""
        with contextlib.suppress(OSError):
            while True:
                answer = self.sock.recv(DATAGRAM_BYTES)
                now = time.monotonic()
                self.gap = max(self.gap, now - self.heard) if self.heard else 0.0
                self.heard = now
                self.answered += 1
                self.servers.add(answer[RECORD.size :])

    def result(self) -> Stream:
        servers = len(self.servers)
        error = "moved" if servers > 1 else "" if servers else "no answer"
        return Stream(self.number, "udp", "udp", self.sent, self.answered, self.gap, error, 0.0, servers)


def open_flows(plan: Plan, first: int) -> deque[Flow]:
    """All of the plan, numbered from `first` on."""
    return deque(_open(plan, first, index) for index in range(plan.udp_flows if plan.udp else 0))


def _open(plan: Plan, first: int, index: int) -> Flow:
    target = plan.udp
    assert target
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind((target.sources[index % len(target.sources)], 0))
    sock.connect((target.address, target.port))
    return Flow(first + index, sock)
