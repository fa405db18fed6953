"""Listening TCP ports: how many connections wait for accept(), and how many may.

inet_diag is asked with the listening state as filter: the kernel then walks only its table of listeners, which costs
microseconds however busy the host is. Without inet_diag, /proc/net/tcp shows the backlog, since it prints listeners
first, but not the limit (reported as 0).

Source: net/ipv4/inet_diag.c, include/uapi/linux/inet_diag.h, net/ipv4/tcp_ipv4.c get_tcp4_sock(); sock_diag(7).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from feedback.wire import Listener

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x1 | 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
TCP_LISTEN = 10

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_REQUEST = struct.Struct("=BBBBI48x")  # family, protocol, extensions, padding, states; then an empty socket id
_PORT = struct.Struct("!H")  # at 4 in inet_diag_msg: the source port, in network order
_QUEUES = struct.Struct("=II")  # at 56: rqueue (backlog now) and wqueue (its limit)
_PORT_AT, _QUEUES_AT = 4, 56

FAMILIES: tuple[int, ...] = (socket.AF_INET, socket.AF_INET6)
FAMILIES_SECONDS = 15.0
# Asking takes as long as half of a sample does, and a queue does nothing but keep reports frequent (load.py).
REFRESH_SECONDS = 3.0

Row = tuple[int, int, int]
R = TypeVar("R")


class DiagError(OSError):
    """The kernel answered a dump with an error."""


class ListenerSource:
    """The configured ports, each with all its sockets (both families, SO_REUSEPORT) taken together."""

    def __init__(self, ports: Iterable[int], proc: Path = Path("/proc")) -> None:
        self._ports = frozenset(ports)
        self._proc = proc
        self._diag = open_diag()
        self._families: tuple[int, ...] = FAMILIES
        self._families_due = 0.0
        self._told: tuple[Listener, ...] = ()
        self._due = float("-inf")

    def sample(self, now: float) -> tuple[Listener, ...]:
        if now >= self._due:
            self._told, self._due = self._ask(now), now + REFRESH_SECONDS
        return self._told

    def _ask(self, now: float) -> tuple[Listener, ...]:
        found: dict[int, tuple[int, int]] = {}
        for port, backlog, backlog_limit in self._rows(now):
            if port in self._ports:
                before = found.get(port, (0, 0))
                found[port] = (before[0] + backlog, before[1] + backlog_limit)
        return tuple(Listener(port, *queues) for port, queues in sorted(found.items()))

    def _rows(self, now: float) -> list[Row]:
        """(port, backlog, limit) of every listening socket."""
        if self._diag is None:
            return list(self._from_text())
        try:
            if now >= self._families_due:
                self._families, self._families_due = FAMILIES, now + FAMILIES_SECONDS
            by_family = {family: dump(self._diag, family) for family in self._families}
            # A service mostly listens in one family: the other one is asked again only now and then.
            self._families = tuple(f for f in by_family if any(row[0] in self._ports for row in by_family[f]))
            return [row for rows in by_family.values() for row in rows]
        except OSError:
            self.close()
            self._diag = open_diag()
            return []

    def _from_text(self) -> Iterator[Row]:
        for name in ("tcp", "tcp6"):
            try:
                with (self._proc / "thread-self" / "net" / name).open("rb") as file:
                    next(file, None)
                    for line in file:
                        fields = line.split()
                        if int(fields[3], 16) != TCP_LISTEN:
                            break  # listeners come first: what follows are connections, perhaps very many
                        yield int(fields[1].rpartition(b":")[2], 16), int(fields[4].partition(b":")[2], 16), 0
            except OSError:  # no such family here, or no descriptor left for it
                continue

    def close(self) -> None:
        if self._diag is not None:
            self._diag.close()
            self._diag = None


def open_diag() -> socket.socket | None:
    """A netlink socket that answers, or None where the kernel has no inet_diag."""
    try:
        diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    except OSError:
        return None
    try:
        # A timeout in the kernel: Python's own would ask poll() before each recv().
        diag.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 1, 0))
        diag.bind((0, 0))
        dump(diag, socket.AF_INET)
    except OSError:
        diag.close()
        return None
    return diag


def dump(diag: socket.socket, family: int) -> list[Row]:
    """(port, backlog, limit) of the listening sockets of one family. Raises OSError."""
    return dumped(diag, family, queues)


def dumped(diag: socket.socket, family: int, read: Callable[[bytes, int, int], R]) -> list[R]:
    """What `read` makes of each listening socket of one family: it is given a datagram, and where in it the
    inet_diag_msg begins and its attributes end. Raises OSError."""
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << TCP_LISTEN)
    diag.send(_HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + body)
    rows: list[R] = []
    while not parse(diag.recv(64 * 1024), rows, read):
        pass
    return rows


def parse(data: bytes, rows: list[R], read: Callable[[bytes, int, int], R]) -> bool:
    """Append the rows of one datagram; True when the dump is done. Raises DiagError."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, _sequence, _port_id = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            break
        body = at + _HEADER.size
        if kind == NLMSG_DONE:
            return True
        if kind == NLMSG_ERROR:
            code = -struct.unpack_from("=i", data, body)[0]
            raise DiagError(code, os.strerror(code))
        rows.append(read(data, body, min(at + length, len(data))))
        at += (length + 3) & ~3
    return False


def port_of(data: bytes, body: int) -> int:
    return int(_PORT.unpack_from(data, body + _PORT_AT)[0])


def queues(data: bytes, body: int, _end: int) -> Row:
    return (port_of(data, body), *_QUEUES.unpack_from(data, body + _QUEUES_AT))
