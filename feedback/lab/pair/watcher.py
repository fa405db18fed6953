"""Asks repeatedly who has each floating address, from a namespace of its own, and records who answered.

    python -m feedback.lab.pair.watcher OUTPUT_FILE INTERVAL_SECONDS

It has a namespace of its own, because an answer corrects the ARP cache of the host that asked: the client must learn of
a takeover only from the announcements, as real clients do. Each interval asks for the first address, and for one of the
others in turn. SIGTERM ends it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

from feedback.lab.pair import frames
from feedback.lab.pair.looks import D1, D2, FORMAT
from feedback.lab.pair.topology import BACK, BACK6, DIRECTORS, FLOATING, WATCHER

REAL_TIME_PRIORITY = 6
FLUSH_SECONDS = 0.5
FRAME_BYTES = 256
OWNERS = {
    mac: bit for director, bit in zip(DIRECTORS, (D1, D2), strict=True) for mac in (director.mac, director.back_mac)
}


class Watcher:
    def __init__(self, output: Path, interval_seconds: float) -> None:
        self.output, self.interval = output, interval_seconds
        self.epoll = select.epoll()
        self.sockets = {interface: _socket(interface, 0) for interface in ("eth0", "eth1")}
        self.listeners = {}
        for interface in self.sockets:
            for protocol in (frames.ARP, frames.IPV6):
                listener = _socket(interface, protocol)
                self.listeners[listener.fileno()] = listener
                self.epoll.register(listener, select.EPOLLIN)
        self.index = {address: i for i, (address, _interface) in enumerate(FLOATING)}
        self.questions = [(self.sockets[interface], _question(i)) for i, (_, interface) in enumerate(FLOATING)]
        self.sent = [0.0] * len(FLOATING)
        self.first = [0.0] * len(FLOATING)
        self.owners = [0] * len(FLOATING)
        self.announced = [0] * len(FLOATING)
        self.done: list[bytes] = []
        self.flushed = 0.0
        self.ending = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "ending", True))

    def run(self) -> None:
        due, turn = time.monotonic(), 0
        while not self.ending:
            self._ask(0)
            self._ask(1 + turn % (len(FLOATING) - 1))
            turn += 1
            due = max(due + self.interval, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                for descriptor, _event in self.epoll.poll(left):
                    self._hear(self.listeners[descriptor])
        self._flush()

    def _ask(self, index: int) -> None:
        now = time.monotonic()
        if self.sent[index]:  # the previous look is over
            fields = self.sent[index], self.first[index], index, self.owners[index], self.announced[index]
            self.done.append(FORMAT.pack(*fields))
        self.sent[index], self.first[index], self.owners[index], self.announced[index] = now, 0.0, 0, 0
        sock, question = self.questions[index]
        with contextlib.suppress(OSError):
            sock.send(question)
        if now - self.flushed > FLUSH_SECONDS:
            self._flush()

    def _hear(self, sock: socket.socket) -> None:
        frame = sock.recv(FRAME_BYTES)
        answer = frames.answer(frame)
        if answer is None or answer.address not in self.index:
            return
        index, owner = self.index[answer.address], OWNERS.get(answer.mac, 0)
        if answer.announced:
            self.announced[index] |= owner
            return
        if not self.owners[index]:
            self.first[index] = time.monotonic() - self.sent[index]
        self.owners[index] |= owner

    def _flush(self) -> None:
        # Opened and closed each time: on the host's files as the guest sees them, only closing writes.
        self.flushed = time.monotonic()
        with self.output.open("ab") as file:
            file.write(b"".join(self.done))
        self.done.clear()


def _question(index: int) -> bytes:
    address, interface = FLOATING[index]
    mac = WATCHER.mac if interface == "eth0" else WATCHER.back_mac
    four, six = (
        (WATCHER.front, WATCHER.front6) if interface == "eth0" else (BACK[WATCHER.number], BACK6[WATCHER.number])
    )
    return frames.question(mac, four if address.version == 4 else six, address)


def _socket(interface: str, protocol: int) -> socket.socket:
    """A socket with protocol 0 only sends and hears nothing."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    sock.bind((interface, protocol))
    return sock


def main() -> None:
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
    Watcher(Path(sys.argv[1]), float(sys.argv[2])).run()


if __name__ == "__main__":
    main()
