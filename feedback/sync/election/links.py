"""The heartbeat's sockets: one UDP socket for each link between the directors, read by the event loop.

This module owns descriptors, bytes and per-link counts; heartbeat.py knows what the bytes mean. If a link cannot send,
since its interface is down, that is counted and is no error: there are other links.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence

from feedback.config.sync import LinkConfig
from feedback.model import parse_endpoint

DATAGRAM_BYTES_MAX = 2048
BATCH = 64
DSCP_CS6 = 0xC0  # network control: goes before clients' traffic where switches honour it

OnDatagram = Callable[[int, bytes], None]  # the link's index, the datagram


class LinkError(OSError):
    """A link cannot be opened. The text says which, why, and what to do."""


class Links:
    """Open and close it inside a running asyncio loop."""

    def __init__(self, links: Sequence[LinkConfig], on_datagram: OnDatagram) -> None:
        self.counters: Counter[str] = Counter()
        self._configs = tuple(links)
        self._on_datagram = on_datagram
        self._sockets: list[socket.socket] = []
        self._peers = [_sockaddr(link.peer) for link in links]
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._configs)

    def name(self, index: int) -> str:
        return self._configs[index].local

    def open(self) -> None:
        """Raises LinkError."""
        self._loop = asyncio.get_running_loop()
        try:
            for index, link in enumerate(self._configs):
                made = _open(link)
                self._sockets.append(made)
                self._loop.add_reader(made.fileno(), self._read, index)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        for made in self._sockets:
            if self._loop is not None:
                self._loop.remove_reader(made.fileno())
            made.close()
        self._sockets.clear()

    def send(self, datagram: bytes) -> None:
        """Send it over every link."""
        for index, made in enumerate(self._sockets):
            try:
                made.sendto(datagram, self._peers[index])
            except OSError as error:
                self.counters[f"unsent_{errno.errorcode.get(error.errno or 0, 'error').lower()}"] += 1

    def _read(self, index: int) -> None:
        for _ in range(BATCH):
            try:
                datagram, source = self._sockets[index].recvfrom(DATAGRAM_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an ICMP error for a datagram of ours, from a router or the peer's kernel
                self.counters["unreachable"] += 1
                continue
            if source[0] != self._peers[index][0]:
                self.counters["foreign_source"] += 1
                continue
            with contextlib.suppress(IndexError):
                self._on_datagram(index, datagram)


def _sockaddr(endpoint: str) -> tuple[str, int]:
    address, port = parse_endpoint(endpoint)
    return str(address), port


_HINTS = {
    errno.EADDRNOTAVAIL: "no interface here has this address",
    errno.EADDRINUSE: "another `feedback sync`? `ss -lnup` shows who listens there",
    errno.EACCES: "a port below 1024 needs CAP_NET_BIND_SERVICE: choose another",
}


def _open(link: LinkConfig) -> socket.socket:
    address, port = parse_endpoint(link.local)
    made = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        if address.version == 4:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, DSCP_CS6)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, DSCP_CS6)
        made.bind((str(address), port))
    except OSError as error:
        made.close()
        code = error.errno or errno.EIO
        hint = _HINTS.get(code, "see `local` of this link in sync.toml")
        raise LinkError(code, f"link {link.local}: {os.strerror(code).lower()}: {hint}") from None
    return made
