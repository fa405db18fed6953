"""The kernel's addresses over one open rtnetlink socket, and their owners where the kernel does not record them.

This is the shell of rtnetlink.py. Source: man 7 rtnetlink; net/core/rtnetlink.c.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from feedback.ipvs import netlink
from feedback.ipvs.namespace import within
from feedback.sync.addresses import rtnetlink
from feedback.sync.addresses.errors import NetworkError, reason_of
from feedback.sync.addresses.packets import Address
from feedback.sync.addresses.plan import VirtualAddress

ANSWER_SECONDS = 2.0
RECEIVE_BYTES = 65536


class KernelAddresses:
    """One rtnetlink socket, held open. `keeps_protocol`: this kernel is known to keep IFA_PROTO, since it was seen on
    an address that the kernel itself made."""

    def __init__(self, netns: str | None) -> None:
        self._netns = netns
        self._sequence = 0
        self.keeps_protocol = False
        self._socket = within(netns, _netlink_socket)

    def close(self) -> None:
        self._socket.close()

    def do(self, work: Sequence[tuple[int, int, bytes]]) -> dict[int, int]:
        """Send (type, flags, body) messages in one datagram. The kernel performs them in order, and goes on after a
        failure. Returns the errno of those that failed, by index. Raises NetworkError."""
        if not work:
            return {}
        first, fence = self._next(len(work) + 1)
        batch = [rtnetlink.message(kind, flags, first + n, body) for n, (kind, flags, body) in enumerate(work)]
        failed = {}
        for message in self._exchange(b"".join(batch) + netlink.fence(fence), first, fence):
            if message.sequence == fence:
                break
            if message.kind == netlink.NLMSG_ERROR:
                failed[message.sequence - first] = netlink.error_code(message)
        return {index: code for index, code in failed.items() if code}

    def addresses(self) -> list[rtnetlink.Entry]:
        """Raises NetworkError."""
        sequence, _ = self._next(1)
        asked = rtnetlink.message(rtnetlink.RTM_GETADDR, netlink.NLM_F_DUMP, sequence, rtnetlink.everything())
        found = []
        for message in self._exchange(asked, sequence, sequence):
            if message.kind in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
                break
            if message.kind == rtnetlink.RTM_NEWADDR:
                found.append(rtnetlink.entry(message.body))
        self.keeps_protocol = self.keeps_protocol or any(entry.protocol for entry in found)
        return found

    def route(self, target: Address) -> rtnetlink.Route:
        """Raises NetworkError."""
        sequence, _ = self._next(1)
        asked = rtnetlink.message(rtnetlink.RTM_GETROUTE, 0, sequence, rtnetlink.route_body(target))
        for message in self._exchange(asked, sequence, sequence):
            if message.kind == rtnetlink.RTM_NEWROUTE:
                return rtnetlink.route(message.body)
            if message.kind == netlink.NLMSG_ERROR:
                break
        raise NetworkError(f"there is no route to {target}: see `ip route get {target}`")

    def is_local(self, address: Address) -> bool:
        try:
            return self.route(address).local
        except NetworkError:
            return False

    def _next(self, count: int) -> tuple[int, int]:
        """The first and last of `count` sequence numbers; 0 is the kernel's own."""
        first = self._sequence % 0x7FFF_0000 + 1
        self._sequence = first + count - 1
        return first, self._sequence

    def _exchange(self, data: bytes, first: int, last: int) -> Iterator[netlink.Message]:
        """Answers as they come, until the caller stops. After a failure the socket is a new one, and the caller must
        ask what was done."""
        try:
            self._socket.send(data)
            while True:
                for message in netlink.messages(self._socket.recv(RECEIVE_BYTES)):
                    if first <= message.sequence <= last:  # else it is a late answer to another question
                        yield message
        except (OSError, ValueError) as error:
            self._socket.close()
            self._socket = within(self._netns, _netlink_socket)
            raise NetworkError(f"the kernel's answer about addresses is lost: {reason_of(error)}") from None


class Ownership:
    """Which addresses are ours, for a kernel that does not record it. Without a file this is known only until the
    process ends."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: set[str] | None = None

    def __contains__(self, address: VirtualAddress) -> bool:
        return str(address) in self._read()

    def add(self, addresses: Iterable[VirtualAddress]) -> None:
        self._write(self._read() | {str(a) for a in addresses})

    def discard(self, addresses: Iterable[VirtualAddress]) -> None:
        self._write(self._read() - {str(a) for a in addresses})

    def _read(self) -> set[str]:
        if self._known is None:
            self._known = set()
            if self._path is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._known = set(self._path.read_text(encoding="utf-8").splitlines())
        return self._known

    def _write(self, known: set[str]) -> None:
        if known == self._known:
            return
        self._known = known
        if self._path is not None:
            new = self._path.with_suffix(".new")
            new.write_text("".join(f"{line}\n" for line in sorted(known)), encoding="utf-8")
            new.replace(self._path)


def _netlink_socket() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    # A blocking socket with kernel timeouts: settimeout() would cost a poll() before each call.
    timeout = struct.pack("@ll", int(ANSWER_SECONDS), 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((0, 0))
    return sock
