"""Door: a daemon goes on where it has no descriptors left for who comes new.

`quiet` keeps asyncio from filling the log. `Door` is for libzmq, which leaves who knocks in the kernel's queue when
accept() fails and asks again at once, for ever: a whole core. So a few descriptors are kept in reserve. When accept()
fails, the door shuts: a filter on the listening socket drops new SYNs, which are sent again, and the reserve is given
up for those in the queue already. It opens when the whole reserve can be had again. Invariant: the reserve is larger
than the queue (`BACKLOG`).

Source: libzmq src/tcp_listener.cpp in_event(); socket(7) under SO_ATTACH_FILTER; CPython asyncio/selector_events.py.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import zmq

from feedback.ops.descriptors import NONE_LEFT, REASON

EVENTS = zmq.EVENT_LISTENING | zmq.EVENT_ACCEPT_FAILED  # of the monitor, that a door has to hear
BACKLOG = 127  # the kernel takes one more
RESERVE = 128
REOPEN_SECONDS = 1.0

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_DROP = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep no byte


def quiet(loop: asyncio.AbstractEventLoop, complain: Callable[[str], None]) -> None:
    """asyncio tells each failed accept() with a traceback, up to a hundred a second: `complain` hears of them instead,
    and bounds what is logged. Anything else it tells as it always does."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in NONE_LEFT:
            complain(REASON)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


class Door:
    """For the listening sockets of one libzmq socket; `hear` what its monitor tells. `tell` hears when it shuts (False)
    and opens (True). Make and close it inside a running loop."""

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell = tell
        self._listening: list[socket.socket] = []
        self._reserve: list[int] = []
        self._timer: asyncio.TimerHandle | None = None  # of the next try to open, while it is shut
        self._fill()

    def hear(self, frame: bytes) -> bool:
        """Take the first frame of a monitor's event. Whether it was one of `EVENTS`."""
        event, value = struct.unpack_from("=HI", frame)
        if event == zmq.EVENT_LISTENING:
            self.listens(value)
        elif event == zmq.EVENT_ACCEPT_FAILED:
            self.failed(value)
        return bool(event & EVENTS)

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
        if self._timer is not None:
            self._timer.cancel()
        for listening in self._listening:
            listening.close()
        self._listening.clear()
        self._empty()

    def _open(self) -> None:
        if not self._fill():
            self._again()
            return
        self._timer = None
        self._filter(False)
        self._tell(True)

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(REOPEN_SECONDS, self._open)

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
