"""Door: clients cannot exhaust a daemon's descriptors or memory, and it keeps working when none are left.

`quiet` keeps asyncio from filling the log. `Door` is for libzmq. It closes the connections that sessions.py names, of
peers with too many or with too much waiting. When accept() fails, libzmq leaves new connections in the kernel's queue
and retries at once, for ever, which takes a whole core. So a few descriptors are kept in reserve. When accept() fails,
the door shuts: a filter on the listening socket drops new SYNs, which are sent again, and the reserve is given up for
those already in the queue. It opens when the whole reserve is available again. Invariant: the reserve is larger than
the queue (`BACKLOG`).

Source: libzmq src/tcp_listener.cpp in_event(); socket(7) under SO_ATTACH_FILTER; tcp(7) under TCP_INFO; CPython
asyncio/selector_events.py.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import resource
import socket
import struct
import sys
import termios
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import zmq

from feedback.faults import said
from feedback.ops.descriptors import NONE_LEFT, REASON
from feedback.ops.sessions import ALL_BYTES_MAX, EACH_BYTES, STRANGERS, Sessions
from feedback.refusals import printable

EVENTS = (  # of the monitor, that a door has to hear
    zmq.EVENT_LISTENING | zmq.EVENT_ACCEPT_FAILED | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
)
BACKLOG = 127  # the kernel takes one more
RESERVE = 128
REOPEN_SECONDS = 1.0
WEIGH_SECONDS = 0.1  # between looks at what waits while this process grows: at 140 MB/s, as on loopback, 14 MB come
CALM_SECONDS = 1.0  # and while it does not: asking the kernel of 10,000 connections takes 20 ms
GROWN_BYTES = 2 * 1024 * 1024  # since it was smallest after the last look
ALARM_SECONDS = 0.02  # after a connection was shut: what is freed hides what comes, at up to 300 MB/s on loopback
ALARM_SHARE = 5  # and then a fifth of a core at most
LATE_SECONDS = 0.5  # a loop that was held up so long takes what came meanwhile first: it judges the next time
STRANGERS_SHARE = 4  # of the descriptors, a quarter at most is for who has said nothing

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_DROP = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep no byte
_RECEIVED_AT = 128  # tcpi_bytes_received in struct tcp_info: acknowledged, so also what libzmq has not read yet


def quiet(loop: asyncio.AbstractEventLoop, counters: Counter[str], complain: Callable[[str, str], None]) -> None:
    """asyncio tells each failed accept(), and each exception of a timer or of a reader's callback, with a traceback, up
    to a hundred a second. Instead `complain` hears of what kind it is (`accept` or `callback`) and why, and bounds what
    is logged; the latter are `faults` in the counters."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in NONE_LEFT:
            complain("accept", REASON)
        else:
            counters["faults"] += 1
            complain("callback", printable(context["message"]) if error is None else said(error))

    loop.set_exception_handler(handle)


class Door:
    """For the listening sockets of one libzmq socket; `hear` what its monitor tells, and tell it what was taken
    (`took`). `tell` hears when it shuts (False) and opens (True), `put_out` how many connections were shut. Make and
    close it inside a running loop."""

    def __init__(self, tell: Callable[[bool], None], put_out: Callable[[int], None] = lambda count: None) -> None:
        self._tell, self._put_out = tell, put_out
        self._listening: list[socket.socket] = []
        self._reserve: list[int] = []
        self._timer: asyncio.TimerHandle | None = None  # of the next try to open, while it is shut
        self.sessions = Sessions()
        self.expect(0)
        self._received, self._resident = Received(), Resident()
        self._loop = asyncio.get_running_loop()
        self._woken_at = self._weighed_at = self._loop.time()
        self._late, self._size = False, self._resident()
        self._alarm_until = 0.0
        self._weighing = self._loop.call_later(WEIGH_SECONDS, self._weigh)
        self._fill()

    def expect(self, peers: int) -> None:
        """So many may come at once, as all do after a restart. Each has said nothing for a moment: where far fewer of
        those may stay, each that comes puts out one before it is heard, and in the end nobody is. Likewise where the
        bytes of an overloaded daemon are too few for so many: 10,000 agents that were shut out came again, and so left
        it no time for those that spoke."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // STRANGERS_SHARE
        self.sessions.strangers = min(max(STRANGERS, peers), most)
        self.sessions.all_bytes = max(ALL_BYTES_MAX, EACH_BYTES * peers)

    def hear(self, frame: bytes) -> bool:
        """Take the first frame of a monitor's event. Whether it was one of `EVENTS`."""
        event, value = struct.unpack_from("=HI", frame)
        if event == zmq.EVENT_ACCEPTED:
            self._came(value)
        elif event == zmq.EVENT_DISCONNECTED:
            self.sessions.gone(value)
        elif event == zmq.EVENT_LISTENING:
            self.listens(value)
        elif event == zmq.EVENT_ACCEPT_FAILED:
            self.failed(value)
        return bool(event & EVENTS)

    def took(self, part: zmq.Frame) -> str:
        """A part of a message was read, of a socket that speaks CURVE; not the route before it. Returns whose key said
        it."""
        key = str(part.get("User-Id"))
        extra = self.sessions.spoke(int(part.get(zmq.SRCFD)), key, len(part))
        if extra is not None:
            self._shut([extra])
        return key

    def _came(self, descriptor: int) -> None:
        try:
            source = _source(_ask(descriptor, socket.socket.getpeername)[0])
        except (OSError, IndexError, TypeError, ValueError):  # gone already, and the number may be something else's
            return
        extra = self.sessions.came(descriptor, source)
        if extra is not None:
            self._shut([extra])

    def _weigh(self) -> None:
        now = self._loop.time()
        late, self._woken_at = now - self._woken_at > LATE_SECONDS, now
        self._late = late and not self._late
        try:
            if not self._late:
                self._judge(now)
        finally:
            took = self._loop.time() - now
            pause = max(ALARM_SECONDS, ALARM_SHARE * took) if self._alarm_until else WEIGH_SECONDS
            self._weighing = self._loop.call_later(pause, self._weigh)

    def _judge(self, now: float) -> None:
        if self._alarm_until and now >= self._alarm_until:
            self._alarm_until = 0.0
            self._resident.trim()
        size, since = self._resident(), now - self._weighed_at
        self._size = min(self._size, size)
        if self._alarm_until or since >= CALM_SECONDS or size - self._size > GROWN_BYTES:
            self._weighed_at, self._size = now, size
            over = self.sessions.over(self._received, since, _unread)
            if over:
                self._alarm_until = now + CALM_SECONDS
                self._shut(over)

    def _shut(self, descriptors: list[int]) -> None:
        """libzmq sees the end of the connection, and lets go of all that was of it."""
        ours = {listening.getsockname()[1] for listening in self._listening}
        for descriptor in descriptors:
            try:
                # The number is libzmq's. Once it has closed it, something else of this process may have it.
                if _ask(descriptor, socket.socket.getsockname)[1] in ours:
                    _ask(descriptor, lambda connection: connection.shutdown(socket.SHUT_RDWR))
            except (OSError, IndexError, TypeError):  # no connection of any kind any more
                continue
        if descriptors:
            self._put_out(len(descriptors))

    def listens(self, descriptor: int) -> None:
        """On this descriptor of libzmq's."""
        self._listening.append(socket.socket(fileno=os.dup(descriptor)))

    def failed(self, reason: int) -> None:
        """accept() did, with this errno."""
        if reason not in NONE_LEFT or self._timer is not None:
            return
        self._filter(True)
        self._empty()
        self._again()
        self._tell(False)

    def close(self) -> None:
        self._weighing.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        self._resident.close()
        self._empty()

    def _open(self) -> None:
        if not self._fill():
            self._again()
            return
        self._timer = None
        self._filter(False)
        self._tell(True)

    def _again(self) -> None:
        self._timer = self._loop.call_later(REOPEN_SECONDS, self._open)

    def _filter(self, on: bool) -> None:
        code = ctypes.create_string_buffer(_DROP, len(_DROP))
        program = struct.pack("@HP", 1, ctypes.addressof(code))
        for listening in self._listening:
            if on:
                listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            else:
                listening.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def _fill(self) -> bool:
        """All or nothing."""
        try:
            while len(self._reserve) < RESERVE:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self._empty()
            return False
        return True

    def _empty(self) -> None:
        for descriptor in self._reserve:
            os.close(descriptor)
        self._reserve.clear()


class Received:
    """The bytes that a TCP connection has received altogether; 0 for what is none. No socket object: libzmq owns the
    descriptor, and this is asked of each, up to ten times a second."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(_RECEIVED_AT + 8)
        self._size = ctypes.c_uint32()
        self._ask = ctypes.CDLL(None).getsockopt

    def __call__(self, descriptor: int) -> int:
        self._size.value = len(self._buffer)
        if self._ask(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, self._buffer, ctypes.byref(self._size)):
            return 0
        return int.from_bytes(self._buffer.raw[_RECEIVED_AT:], sys.byteorder)


class Resident:
    """The bytes of memory that this process has now. What libzmq has read of unfinished messages is among them, and
    what malloc keeps of those that ended, until it is trimmed: another one would fill that without any growth."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> int:
        return int(os.pread(self._file, 128, 0).split()[1]) * resource.getpagesize()

    def trim(self) -> None:
        with suppress(AttributeError):  # glibc's. Others give back what is free by themselves
            self._libc.malloc_trim(0)

    def close(self) -> None:
        os.close(self._file)


def _unread(descriptor: int) -> int:
    """The bytes that the kernel holds of it for libzmq. They wait where a host has no time for this daemon's thread."""
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _ask(descriptor: int, question: Callable[[socket.socket], Any]) -> Any:
    """Of a descriptor that is not ours to close. Raises OSError."""
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        return question(borrowed)
    finally:
        borrowed.detach()


def _source(host: str) -> str:
    """The address that connections are told apart by: of IPv6 the /64, for a host has all of that."""
    address = ip_address(host.partition("%")[0])
    return host if address.version == 4 else str(int(address) >> 64)
