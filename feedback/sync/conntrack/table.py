"""The kernel's tracking table over one open netlink socket: entries are written in batches, and stale ones replaced.

This is the shell of entries.py. It does not use pyroute2, as reader.py does: thousands of entries are written while
clients wait, and pyroute2's messages cost 100 times as much. The kernel handles a whole datagram before send() returns,
and answers only failures. Source: net/netfilter/nfnetlink.c (nfnetlink_rcv), net/netlink/af_netlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from feedback.ipvs import netlink
from feedback.ipvs.errors import IpvsError, MalformedMessage, NotPermitted
from feedback.ipvs.namespace import within
from feedback.sync.conntrack import entries
from feedback.sync.conntrack.adjustments import Adjustment, Key

BATCH = 300  # entries: 80 kB of messages, less than the send buffer's default of 212,992 bytes
RECEIVE_BUFFER_BYTES = 1024 * 1024  # if every entry of a batch fails, each answer takes about 1 kB
ANSWER_SECONDS = 1.0
NETLINK_NETFILTER, SOL_NETLINK, NETLINK_CAP_ACK, SO_RCVBUFFORCE = 12, 270, 10, 33
SETTING = Path("/proc/sys/net/ipv4/vs/conntrack")


class TrackingError(IpvsError):
    """The kernel's tracking table cannot be written."""


class Written(NamedTuple):
    """How many of the wanted entries now exist, how many of these replaced another, and how many were refused, by the
    kernel's reason."""

    entries: int
    replaced: int
    refused: Mapping[str, int]


def wanted(netns: str | None = None) -> bool:
    """Whether IPVS uses connection tracking: net.ipv4.vs.conntrack."""
    try:
        return within(netns, lambda: SETTING.read_text(encoding="ascii")).strip() == "1"
    except OSError:  # a kernel without tracking has no such setting
        return False


class Table:
    """Raises TrackingError if the table cannot be queried, since the module nf_conntrack_netlink is missing."""

    def __init__(self, netns: str | None = None) -> None:
        self._socket = within(netns, _open)
        try:
            self._socket.send(entries.existence(1))
            for message in netlink.messages(self._socket.recv(65536)):
                if message.kind == netlink.NLMSG_ERROR and (code := netlink.error_code(message)):
                    raise _error(code)
        except TimeoutError:
            self.close()
            raise _error(errno.ETIMEDOUT) from None
        except (OSError, MalformedMessage) as error:
            self.close()
            raise _error(getattr(error, "errno", 0) or errno.EPROTO) from None
        except IpvsError:
            self.close()
            raise
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def write(self, bodies: Sequence[bytes], adjustments: Mapping[Key, Adjustment], *, replace: bool = True) -> Written:
        """Write the entries of at most BATCH records, each of them `entries.tracked`. Without `replace` existing
        entries stay and are not counted."""
        if not bodies:
            return Written(0, 0, {})
        adjusted = [adjustments.get(entries.key(body)) if adjustments else None for body in bodies]
        made = [entries.creation(body, n, adjusted[n]) for n, body in enumerate(bodies)]
        refused = self._send(b"".join(made))
        alone = [n for n, code in refused.items() if code == errno.EOPNOTSUPP]  # their helper is not loaded here
        if alone:
            for n in alone:
                made[n] = entries.creation(bodies[n], n, _without_helper(adjusted[n]))
            refused = {n: code for n, code in refused.items() if code != errno.EOPNOTSUPP}
            refused |= self._send(b"".join(made[n] for n in alone))
        stale = [n for n, code in refused.items() if code == errno.EEXIST]
        if stale and replace:
            self._send(b"".join(entries.removal(bodies[n], n) for n in stale))
            again = self._send(b"".join(made[n] for n in stale))
            refused = {n: code for n, code in refused.items() if code != errno.EEXIST} | again
        reasons = Counter(errno.errorcode.get(code, str(code)) for code in refused.values())
        if not replace:
            del reasons["EEXIST"]
        return Written(len(bodies) - len(refused), len(set(stale) - set(refused)), dict(reasons))

    def _send(self, messages: bytes) -> dict[int, int]:
        """The errno of the messages that failed, by their sequence number."""
        try:
            self._socket.send(messages)
        except OSError as error:
            raise _error(error.errno or errno.EIO) from None
        failed: dict[int, int] = {}
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    for message in netlink.messages(self._socket.recv(65536)):
                        if message.kind == netlink.NLMSG_ERROR and (code := netlink.error_code(message)):
                            failed[message.sequence] = code
                except MalformedMessage:
                    raise _error(errno.EPROTO) from None
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # answers were dropped: their entries count as written
                        raise
        return failed


def _without_helper(adjustment: Adjustment | None) -> Adjustment | None:
    return None if adjustment is None else msgspec.structs.replace(adjustment, helper="")


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    sock.settimeout(ANSWER_SECONDS)
    sock.bind((0, 0))
    return sock


def _error(code: int) -> IpvsError:
    if code == errno.EPERM:
        return NotPermitted("writing the kernel's connection tracking is refused")
    hint = ": modprobe nf_conntrack_netlink" if code in (errno.EINVAL, errno.EOPNOTSUPP) else ""
    return TrackingError(
        f"the kernel's connection tracking cannot be queried ({errno.errorcode.get(code, code)}){hint}"
    )
