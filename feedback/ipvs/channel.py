"""One generic-netlink socket to the kernel's IPVS: requests, dumps and batches of encoded messages.

Owns the socket, its sequence numbers and its recovery; knows no attribute of IPVS. Invariant: whenever an exchange does
not end as it should (a lost, late or foreign answer, a signal's exception in its middle), the socket is thrown away and
opened anew before the next exchange, so an answer is never taken for that of another question.

How the kernel answers (net/netlink/af_netlink.c): it works through a datagram before sendto() returns, message by
message; a message that fails is answered with its own sequence number whether or not it asked, and those after it are
still done. An answer that finds the receive buffer full is dropped and recv() says ENOBUFS. And one that failed with
EINTR is not answered at all (DEL_DAEMON of a thread that has not run yet is such a one): so each datagram ends with a
fence, an empty message that is acknowledged, and nobody waits for an answer that will not come.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from feedback.ipvs import netlink
from feedback.ipvs.errors import IpvsError, MalformedMessage, NoIpvs, NotPermitted, OutOfStep
from feedback.ipvs.namespace import within
from feedback.ipvs.netlink import Message

NETLINK_GENERIC = 16
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
SO_RCVBUFFORCE = 33

TIMEOUT_SECONDS = 5.0
RECEIVE_BYTES = 65536  # the kernel makes dump datagrams of up to 32 kB once it has seen a buffer that holds them
# Every message of a batch may fail, and each answer is charged to the receive buffer with about 1 kB.
RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024
BATCH_MESSAGES = 1000
BATCH_BYTES = 160_000  # under the send buffer's default of 212,992, or sendto says EMSGSIZE


class Dump(NamedTuple):
    """The messages of a dump, and how many datagrams they came in: those of one datagram were read under one lock."""

    bodies: list[bytes]
    datagrams: int


class Channel:
    """Talks to one generic-netlink family in one namespace. Not for two threads at once."""

    def __init__(self, family: str, version: int, netns: str | None = None) -> None:
        self._name = family
        self._version = version
        self._netns = netns
        self._family = 0
        self._sequence = 0
        self._socket: socket.socket | None = None
        self._open()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(self, command: int, body: bytes = b"") -> list[bytes]:
        """The answers to one request. Raises OSError with the kernel's errno, or an IpvsError."""
        with self._exchange() as sock:
            return self._request(sock, self._family, command, body)

    def dump(self, command: int, body: bytes = b"") -> Dump:
        """Raises OSError with the kernel's errno, or an IpvsError."""
        with self._exchange() as sock:
            return self._dump(sock, command, body)

    def batch(self, requests: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        """Send (command, body) pairs, as few datagrams as possible. Returns the errno of those that failed, by index.

        A chunk whose answers were lost is failed as a whole with the reason (ENOBUFS, ETIMEDOUT, EPROTO), as nobody
        knows what became of it; the chunks after it are sent all the same. Raises NotPermitted, NoIpvs.
        """
        failed: dict[int, int] = {}
        for start, end in _chunks(requests):
            try:
                with self._exchange() as sock:
                    errors = self._batch(sock, requests[start:end])
            except OutOfStep as error:
                failed.update(dict.fromkeys(range(start, end), error.errno))
                continue
            failed.update((start + index, code) for index, code in errors.items())
        return failed

    # --- the socket --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self.close()
        sock = within(self._netns, _netlink_socket)
        try:
            self._family = self._resolve(sock)
        except BaseException:
            sock.close()
            raise
        self._socket = sock

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[socket.socket]:
        """The socket, for one exchange. It comes back only if the exchange ended in step."""
        if self._socket is None:
            self._open()
        sock, self._socket = self._socket, None
        assert sock is not None
        in_step = False
        try:
            yield sock
            in_step = True
        except KernelError as error:
            in_step = True
            if error.errno == errno.EPERM:
                raise NotPermitted from None
            raise
        finally:
            if in_step:
                self._socket = sock
            else:
                sock.close()

    def reopened(self) -> bool:
        """Open anew; true if the family has another number than before: the module was loaded again."""
        before = self._family
        self._open()
        return self._family != before

    def _resolve(self, sock: socket.socket) -> int:
        """The family's number. Asking for it makes the kernel load the module, if it may."""
        body = netlink.attribute(netlink.CTRL_ATTR_FAMILY_NAME, self._name.encode() + b"\0")
        try:
            answers = self._request(sock, netlink.GENL_ID_CTRL, netlink.CTRL_CMD_GETFAMILY, body)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                raise NoIpvs from None
            if error.errno == errno.EPERM:
                raise NotPermitted from None
            raise
        found = netlink.attributes(answers[0]) if answers else {}
        if netlink.CTRL_ATTR_FAMILY_ID not in found:
            raise MalformedMessage("the kernel's answer names no family id")
        return int.from_bytes(found[netlink.CTRL_ATTR_FAMILY_ID], sys.byteorder)

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _request(self, sock: socket.socket, family: int, command: int, body: bytes) -> list[bytes]:
        sequence = self._next_sequence(2)
        fence = sequence + 1
        asked = netlink.request(family, command, self._version, netlink.NLM_F_ACK, sequence, body)
        _send(sock, asked + netlink.fence(fence))
        answers: list[bytes] = []
        code = errno.EINTR  # unless it is answered
        while True:
            for message in _receive(sock):
                if not sequence <= message.sequence <= fence:
                    raise OutOfStep(errno.EPROTO, "an answer to another question came from the kernel")
                if message.sequence == fence:
                    _raise_if(code)
                    return answers
                if message.kind == netlink.NLMSG_ERROR:
                    code = netlink.error_code(message)
                else:
                    answers.append(message.attributes)

    def _dump(self, sock: socket.socket, command: int, body: bytes) -> Dump:
        sequence = self._next_sequence(1)
        _send(sock, netlink.request(self._family, command, self._version, netlink.NLM_F_DUMP, sequence, body))
        bodies: list[bytes] = []
        datagrams = 0
        while True:
            before = len(bodies)
            for message in _receive(sock):
                if message.sequence != sequence:
                    raise OutOfStep(errno.EPROTO, "an answer to another question came from the kernel")
                if message.kind in {netlink.NLMSG_DONE, netlink.NLMSG_ERROR}:
                    _raise_if(netlink.error_code(message) if message.body else 0)  # a DONE of old kernels is bare
                    return Dump(bodies, datagrams + (len(bodies) > before))
                bodies.append(message.attributes)
            datagrams += len(bodies) > before

    def _batch(self, sock: socket.socket, requests: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        first = self._next_sequence(len(requests) + 1)
        fence = first + len(requests)
        pack, family, version = netlink.pack_request_header, self._family, self._version
        parts: list[bytes] = []
        for sequence, (command, body) in enumerate(requests, first):
            parts.append(pack(20 + len(body), family, netlink.NLM_F_REQUEST, sequence, 0, command, version, 0))
            parts.append(body)
        parts.append(netlink.fence(fence))
        _send(sock, b"".join(parts))
        failed: dict[int, int] = {}
        while True:
            for message in _receive(sock):
                if message.kind != netlink.NLMSG_ERROR or not first <= message.sequence <= fence:
                    raise OutOfStep(errno.EPROTO, "an answer to another question came from the kernel")
                if message.sequence == fence:
                    return failed
                code = netlink.error_code(message)
                if code == errno.EPERM:
                    raise NotPermitted
                failed[message.sequence - first] = code

    def _next_sequence(self, count: int) -> int:
        """The first of `count` consecutive numbers; 0 is the kernel's own."""
        if self._sequence + count > 0xFFFFFFFF:
            self._sequence = 0
        first = self._sequence + 1
        self._sequence += count
        return first


class KernelError(IpvsError, OSError):
    """The kernel's errno for one request, before anybody has said what it means for that request."""


def _netlink_socket() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_GENERIC)
    except OSError as error:
        raise NoIpvs(f"the running kernel has no generic netlink ({error.strerror})") from None
    sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    # A blocking socket with kernel timeouts: settimeout() would cost a poll() before each call.
    timeout = struct.pack("@ll", int(TIMEOUT_SECONDS), int(TIMEOUT_SECONDS % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:  # then the kernel will refuse the requests too, and say so better
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    sock.bind((0, 0))
    return sock


def _send(sock: socket.socket, data: bytes) -> None:
    try:
        sock.send(data)
    except BlockingIOError:
        raise OutOfStep(errno.ETIMEDOUT, f"the kernel accepted no request within {TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise OutOfStep(error.errno or errno.EIO, f"sending to the kernel: {error.strerror}") from None


def _receive(sock: socket.socket) -> Iterator[Message]:
    """The messages of the next datagram that is the kernel's own. Raises OutOfStep."""
    while True:
        try:
            data, _, flags, sender = sock.recvmsg(RECEIVE_BYTES)
        except BlockingIOError:
            raise OutOfStep(errno.ETIMEDOUT, f"the kernel gave no answer within {TIMEOUT_SECONDS} s") from None
        except OSError as error:
            raise OutOfStep(error.errno or errno.EIO, f"the kernel's answer is lost: {error.strerror}") from None
        if sender[0] == 0:  # a port number of 0 is the kernel
            break
    if flags & socket.MSG_TRUNC:
        raise OutOfStep(errno.EPROTO, f"the kernel's answer is longer than {RECEIVE_BYTES} bytes")
    try:
        return iter(list(netlink.messages(data)))
    except MalformedMessage as error:
        raise OutOfStep(errno.EPROTO, f"the kernel's answer is garbled: {error}") from None


def _raise_if(code: int) -> None:
    if code:
        raise KernelError(code, f"the kernel says {errno.errorcode.get(code, code)}")


def _chunks(requests: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of requests that each fit one datagram."""
    start = size = 0
    for index, (_, body) in enumerate(requests):
        length = 20 + len(body)
        if index > start and (index - start >= BATCH_MESSAGES or size + length > BATCH_BYTES):
            yield start, index
            start, size = index, 0
        size += length
    if start < len(requests):
        yield start, len(requests)
