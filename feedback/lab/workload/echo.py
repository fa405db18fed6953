"""A real server of the pair: echoes records, sends downloads, and says its name, over TCP and UDP.

    python -m feedback.lab.workload.echo NAME PORT...

The first four bytes of a connection say what it wants (streams.py). A datagram comes back with the name behind it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time

from feedback.lab.workload.descriptors import allow_descriptors
from feedback.lab.workload.streams import DOWNLOAD, ECHO, PORTION_SECONDS, RECORD, WHO, portion

BACKLOG = 8192
EVENTS = 256
CHUNK_BYTES = 16384


class Download:
    """`total` bytes of the stream `seed`, `rate` bytes a second."""

    __slots__ = ("connection", "offset", "rate", "seed", "total")

    def __init__(self, connection: socket.socket, seed: int, rate: int, total: int) -> None:
        self.connection, self.seed, self.rate, self.total = connection, seed, rate, total
        self.offset = 0

    def advance(self) -> bool:
        """One portion; False when it has ended."""
        length = min(int(self.rate * PORTION_SECONDS), self.total - self.offset)
        try:
            self.offset += self.connection.send(portion(self.seed, self.offset, length))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return self.offset < self.total


class Server:
    def __init__(self, name: str, ports: list[int]) -> None:
        self.name = name.encode()
        self.epoll = select.epoll()
        self.listeners: dict[int, socket.socket] = {}
        self.datagrams: dict[int, socket.socket] = {}
        self.connections: dict[int, socket.socket] = {}
        self.fresh: set[int] = set()  # nothing read yet
        self.downloads: list[Download] = []
        self.due = time.monotonic()
        for port in ports:
            self._listen(port)

    def _listen(self, port: int) -> None:
        # Datagrams first: once a connection is taken, all of this port is there.
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # The answer must come from the VIP that was asked: so the socket hears which one it was.
        datagrams.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        datagrams.bind(("0.0.0.0", port))
        listener = socket.create_server(("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        for sock, table in ((listener, self.listeners), (datagrams, self.datagrams)):
            sock.setblocking(False)
            table[sock.fileno()] = sock
            self.epoll.register(sock, select.EPOLLIN)

    def run(self) -> None:
        while True:
            patience = max(0.0, self.due - time.monotonic()) if self.downloads else -1
            for descriptor, _event in self.epoll.poll(patience, EVENTS):
                if descriptor in self.connections:
                    self._receive(descriptor)
                elif descriptor in self.listeners:
                    self._accept(self.listeners[descriptor])
                else:
                    self._answer(self.datagrams[descriptor])
            if self.downloads and time.monotonic() >= self.due:
                self._portions()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _peer = listener.accept()
                connection.setblocking(False)
                self.connections[connection.fileno()] = connection
                self.fresh.add(connection.fileno())
                self.epoll.register(connection, select.EPOLLIN)

    def _receive(self, descriptor: int) -> None:
        connection = self.connections[descriptor]
        try:
            data = connection.recv(CHUNK_BYTES)
            if data and descriptor in self.fresh:
                data = self._begin(connection, data)
                self.fresh.discard(descriptor)
            elif not data:
                self._close(connection)
                return
            if data:
                connection.send(data)
        except OSError:
            self._close(connection)

    def _begin(self, connection: socket.socket, data: bytes) -> bytes:
        """What to send back for the first bytes of a connection."""
        kind, stream, number = RECORD.unpack(data[: RECORD.size])
        if kind == DOWNLOAD:
            rate, total = number >> 32, number & 0xFFFF_FFFF
            if not self.downloads:
                self.due = time.monotonic()
            self.downloads.append(Download(connection, stream, rate, total))
            return b""
        return {ECHO: data, WHO: self.name}[kind]

    def _portions(self) -> None:
        self.due += PORTION_SECONDS
        for download in list(self.downloads):
            if not download.advance():
                self.downloads.remove(download)
                self._close(download.connection)

    def _answer(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _flags, peer = sock.recvmsg(2048, 64)
                # struct in_pktinfo: index, local address, destination address. As source: index 0, the destination.
                asked = ancillary[0][2][8:12]
                source = bytes(4) + asked + bytes(4)
                sock.sendmsg([data + self.name], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, peer)

    def _close(self, connection: socket.socket) -> None:
        if self.connections.pop(connection.fileno(), None):
            connection.close()


IP_PKTINFO = 8  # linux/in.h; the socket module has it only since Python 3.12


def main() -> None:
    allow_descriptors()
    Server(sys.argv[1], [int(port) for port in sys.argv[2:]]).run()


if __name__ == "__main__":
    main()
