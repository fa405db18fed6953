"""Shared by every CURVE socket of the daemons: who may connect, draining on the loop, binding with a clear error.

`serve` enforces ZAP's domain, so that a missing Gate refuses everybody instead of admitting them. Plain sockets on the
loop's readers, not zmq.asyncio: no future per message, which triples the rate. The trap is that ZMQ_FD is
edge-triggered, and that a send eats edges too: every path that touches a socket must end by draining it (`Edges`).

Source: RFC 26 (CurveZMQ), RFC 27 (ZAP), zmq_getsockopt(3) under ZMQ_FD.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any

import zmq
import zmq.auth

from feedback.ops.keys import KeyPair

BATCH = 256  # messages before the loop gets its turn
SKIP_AT_ONCE = 64  # parts: a batch of these takes some 20 ms
ZAP_DOMAIN = "feedback"

ZERO_COPY_RECV = 10  # of a context, zmq.h: pyzmq has no name for it

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


class CurveError(OSError):
    """The endpoint cannot be opened: why, and what to do."""


def context() -> Context:
    """For a socket to which others connect: a message that waits takes its own size and some 100 bytes."""
    made: Context = zmq.Context()
    # Else each is a part of the 18 kB into which its connection read it, and keeps them all: 20 reports of each of 500
    # agents that waited took 38 MB, and take 8.
    made.set(ZERO_COPY_RECV, 0)
    return made


class Gate(zmq.auth.Authenticator):
    """ZAP: CURVE with a key that `admits` knows, or nothing. `refuse` is told kind and reason. The User-Id of frames is
    zmq.auth's default, the public key. One Gate for each context."""

    def __init__(self, context: Context, admits: Callable[[str], bool], refuse: Callable[[str, str], None]) -> None:
        super().__init__(context)
        self._admits = admits
        self._refuse = refuse
        self.configure_curve_callback(ZAP_DOMAIN, self)

    def callback(self, domain: str, key: bytes) -> bool:
        text = key.decode("ascii", "replace")
        if self._admits(text):
            return True
        self._refuse("unknown_key", text)
        return False

    def answer(self, socket: Socket) -> None:
        """Answer one request; raises zmq.Again if there is none."""
        message = socket.recv_multipart(zmq.NOBLOCK)
        if len(message) > 5 and message[5] != b"CURVE":  # the base class would let NULL pass
            self._refuse("mechanism", f"{message[5][:16]!r} is not CURVE")
            self._send_zap_reply(message[1], b"400", b"CURVE only")
            return
        _finish(self.handle_zap_message(message))


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing: our callback answers at once, so zmq.auth's handler never suspends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("the ZAP handler waited: its answers would come out of order")


class Inlet:
    """The messages of one socket, of which `most` parts are taken. libzmq bounds the bytes of a part and no number of
    parts: what comes beyond is thrown away, so many at a time and no more, for the loop has others to serve. `took`
    is told each part that is read, kept or not, but the first: of a ROUTER that is the route, which nobody said.
    """

    def __init__(self, most: int, took: Callable[[zmq.Frame], None] = lambda part: None) -> None:
        self._most, self._took = most, took
        self._skipping = False

    def take(self, socket: Socket) -> tuple[list[zmq.Frame], bool] | None:
        """The next message and whether that was all of it; None while a rest is thrown away. Raises zmq.Again."""
        if self._skipping:
            self._skip(socket)
            return None
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        frames = [frame]
        while frame.more:
            if len(frames) == self._most:
                self._skipping = True
                break
            frame = socket.recv(zmq.NOBLOCK, copy=False)
            frames.append(frame)
            self._took(frame)
        return frames, not self._skipping

    def _skip(self, socket: Socket) -> None:
        for _ in range(SKIP_AT_ONCE):
            if not socket.getsockopt(zmq.RCVMORE):
                self._skipping = False
                return
            self._took(socket.recv(zmq.NOBLOCK, copy=False))


class Edges:
    """Sockets on the running loop, each read dry by its own `take`, which raises zmq.Again when nothing is left."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._drains: dict[int, Callable[[], None]] = {}

    def watch(
        self,
        socket: Socket,
        take: Callable[[Socket], None],
        batch: int = BATCH,
        rest_seconds: float = 0.0,
        taken_together: Callable[[bool], None] = lambda dry: None,
    ) -> None:
        """`batch`: how many messages before the loop gets its turn; few where each costs much. `rest_seconds`: what
        comes so soon after a message waits so long and is taken together, without a call of the loop for each.
        `taken_together` is called after each such lot, and told whether nothing else waits."""
        assert self._loop is not None
        descriptor = int(socket.getsockopt(zmq.FD))
        rests = False

        def drain() -> None:
            if self._drains.get(descriptor) is not drain or self._loop is None:
                return  # closed since this was scheduled
            taken, dry = 0, False
            try:
                while taken < batch:
                    take(socket)
                    taken += 1
            except zmq.Again:
                dry = True
            finally:  # also when a callback raised: an edge that is not read dry never comes again
                if self._loop is not None:
                    if not dry:
                        self._loop.call_soon(drain)
                    elif rest_seconds:
                        rest(self._loop, taken > 0)
                taken_together(dry)

        def rest(loop: asyncio.AbstractEventLoop, more: bool) -> None:
            """The descriptor stays readable while messages wait: the loop must not ask for it meanwhile."""
            nonlocal rests
            if more:
                loop.remove_reader(descriptor)
                loop.call_later(rest_seconds, drain)
            elif rests:
                loop.add_reader(descriptor, drain)
            rests = more

        self._drains[descriptor] = drain
        self._loop.add_reader(descriptor, drain)
        self._loop.call_soon(drain)  # what came before we watched made its edge already

    def wake(self, socket: Socket) -> None:
        """After a send outside a drain: it may have eaten the edge of what arrived meanwhile."""
        drain = self._drains.get(int(socket.getsockopt(zmq.FD)))
        if drain is not None and self._loop is not None:
            self._loop.call_soon(drain)

    def forget(self, socket: Socket) -> None:
        descriptor = int(socket.getsockopt(zmq.FD))
        if self._drains.pop(descriptor, None) is not None and self._loop is not None:
            self._loop.remove_reader(descriptor)

    def close(self) -> None:
        if self._loop is not None:
            for descriptor in self._drains:
                self._loop.remove_reader(descriptor)
        self._loop = None
        self._drains.clear()


def serve(socket: Socket, pair: KeyPair) -> None:
    """Make the socket a CURVE server that nobody enters without a Gate."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.zap_domain = ZAP_DOMAIN.encode()
    socket.curve_publickey = pair.public.encode()
    socket.curve_secretkey = pair.secret


def close_watched(router: Socket | None, monitor: Socket | None) -> None:
    """A server's socket and its monitor, at once: what is queued is gone."""
    if router is not None and monitor is not None:
        # libzmq's thread waits where the monitor's queue is full, and holds the lock that disable_monitor() takes.
        with contextlib.suppress(zmq.Again):
            for _ in range(10_000):
                monitor.recv(zmq.NOBLOCK)
        router.disable_monitor()
        monitor.close(linger=0)
        router.close(linger=0)


_BIND_HINTS = {
    errno.EADDRINUSE: "another daemon? `ss -lntp` shows who listens there",
    errno.EADDRNOTAVAIL: "no interface here has this address",
    errno.EACCES: "a port below 1024 needs CAP_NET_BIND_SERVICE: choose another",
}


def bind(socket: Socket, endpoint: str) -> str:
    """The endpoint as bound (with port 0 the one that the kernel chose). Raises CurveError."""
    socket.ipv6 = "[" in endpoint  # an IPv4 address stays one, also where the kernel has no IPv6
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        number = error.errno or errno.EINVAL
        hint = _BIND_HINTS.get(number, "expected tcp://ADDRESS:PORT")
        raise CurveError(f"{endpoint}: {os.strerror(number).lower()}: {hint}") from None
    return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
