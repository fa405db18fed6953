"""Relay: messages between the two directors over CURVE, in order, one stream at a time.

This module owns the sockets. It does not know what the messages mean (messages.py, replica.py). Each director listens
on all links. The standby connects to the active director over the link that `follow` names. Only the peer's key is
admitted. A message that cannot be queued is never silently dropped: the caller gets False. A message that is too large
cuts its sender off. A cut link is not noticed here: the session notices the silence (replica.py), and calls `follow`
again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import zmq

from feedback.ops import curve, door
from feedback.ops.keys import KeyPair, PublicKey

MESSAGE_BYTES_MAX = 8 * 1024 * 1024  # a table of some 50,000 destinations
REQUEST_BYTES_MAX = 8 * 1024  # a follower sends at most messages.SMALL_BYTES_MAX, and CURVE adds a little
QUEUE_MESSAGES = 4096
GIVEN_UP_MILLISECONDS = 5000  # when the kernel gives up a cut connection: its session is over by then (STALL_SECONDS)
BATCH = 8  # messages between two turns of the loop: injecting takes time, and heartbeats must not wait

_OPTIONS: tuple[tuple[zmq.SocketOption, int], ...] = (
    (zmq.LINGER, 0),
    (zmq.SNDHWM, QUEUE_MESSAGES),
    # No bound and no heartbeats: if a connection ends while its queue is full, the next ping aborts the whole process
    # (libzmq 4.3.5, `Assertion failed: !_io_error`). The session bounds what waits here: replica.WINDOW messages.
    (zmq.RCVHWM, 0),
    (zmq.BACKLOG, door.BACKLOG),
    (zmq.HANDSHAKE_IVL, 2000),
    (zmq.TCP_MAXRT, GIVEN_UP_MILLISECONDS),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 1),
    (zmq.TCP_KEEPALIVE_INTVL, 1),
    (zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX),
)
_EVENTS = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | door.EVENTS
)

OnRequest = Callable[[bytes, bytes], None]  # (route, message) from a follower
OnStream = Callable[[bytes], None]  # a message from the director that we follow


class Relay:
    """Open and close it inside a running asyncio loop. `counters` has refusals by kind, and what was sent and taken."""

    def __init__(
        self,
        listen: Sequence[str],
        pair: KeyPair,
        peer: PublicKey,
        on_request: OnRequest,
        on_stream: OnStream,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.endpoints: tuple[str, ...] = ()
        self.following: str | None = None
        self._listen = tuple(listen)
        self._pair, self._peer = pair, peer
        self._on_request, self._on_stream = on_request, on_stream
        self._context = curve.context()
        self._gate = curve.Gate(self._context, lambda key: key == peer, lambda kind, _: self._count(kind))
        self._router: curve.Socket | None = None
        self._dealer: curve.Socket | None = None
        self._monitor: curve.Socket | None = None
        self._edges: curve.Edges | None = None
        self._requests, self._stream = curve.Inlet(2, self._took), curve.Inlet(1)
        self._door: door.Door | None = None

    def open(self) -> None:
        """Listen on every link. Raises CurveError."""
        self._gate.start()
        self._router = router = self._context.socket(zmq.ROUTER)
        for option, value in _OPTIONS:
            router.setsockopt(option, value)
        router.setsockopt(zmq.MAXMSGSIZE, REQUEST_BYTES_MAX)  # for strangers too, before they are authenticated
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # sending to a follower that is gone raises an error
        curve.serve(router, self._pair)
        self._monitor = router.get_monitor_socket(_EVENTS)
        try:
            self.endpoints = tuple(curve.bind(router, endpoint) for endpoint in self._listen)
        except curve.CurveError:
            self.close()
            raise
        self._door = door.Door(self._tell_door, self._tell_put_out)
        self._edges = curve.Edges()
        self._edges.watch(self._gate.zap_socket, self._gate.answer)
        self._edges.watch(self._monitor, self._take_event)
        self._edges.watch(router, self._take_request, BATCH)

    def close(self) -> None:
        self.follow(None)
        if self._edges is not None:
            self._edges.close()
        self._edges = None
        if self._door is not None:
            self._door.close()
        self._door = None
        curve.close_watched(self._router, self._monitor)
        self._router = self._monitor = None
        self._gate.stop()
        self._context.term()

    def follow(self, endpoint: str | None) -> None:
        """Make a new connection to the active director at `endpoint` (None: to nobody). What was queued is lost."""
        if self._dealer is not None:
            if self._edges is not None:
                self._edges.forget(self._dealer)
            self._dealer.close(linger=0)
            self._dealer = None
        self.following = endpoint
        if endpoint is None:
            return
        assert self._edges is not None
        self._stream = curve.Inlet(1)
        self._dealer = dealer = self._context.socket(zmq.DEALER)
        for option, value in _OPTIONS:
            dealer.setsockopt(option, value)
        dealer.setsockopt(zmq.RECONNECT_IVL, 50)
        dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        dealer.setsockopt(zmq.CONNECT_TIMEOUT, 1000)
        dealer.ipv6 = "[" in endpoint
        dealer.curve_serverkey = self._peer.encode()
        dealer.curve_publickey = self._pair.public.encode()
        dealer.curve_secretkey = self._pair.secret
        dealer.connect(endpoint)
        self._edges.watch(dealer, self._take_stream, BATCH)

    def ask(self, message: bytes) -> bool:
        """Send to the director that we follow. False if the message cannot be queued now."""
        return self._dealer is not None and self._send(self._dealer, [message])

    def answer(self, route: bytes, message: bytes) -> bool:
        """Send to a follower. False if it is gone or its queue is full."""
        return self._router is not None and self._send(self._router, [route, message])

    def _send(self, socket: curve.Socket, parts: list[bytes]) -> bool:
        try:
            socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.ZMQError:  # full, or gone (EHOSTUNREACH): the caller starts its session over
            self.counters["unsent"] += 1
            return False
        finally:
            if self._edges is not None:
                self._edges.wake(socket)
        self.counters["sent"] += 1
        return True

    def _take_request(self, socket: curve.Socket) -> None:
        message = self._requests.take(socket)
        if message is None:
            return
        parts, whole = message
        if not whole or len(parts) != 2:
            self._count("malformed")
            return
        self.counters["requests"] += 1
        self._on_request(parts[0].bytes, parts[1].bytes)

    def _take_stream(self, socket: curve.Socket) -> None:
        message = self._stream.take(socket)
        if message is None or socket is not self._dealer:  # from a link that was left meanwhile
            return
        (part,), whole = message
        if not whole:
            self._count("malformed")
            return
        self.counters["received"] += 1
        self._on_stream(part.bytes)

    def _take_event(self, socket: curve.Socket) -> None:
        frame, *_endpoint = socket.recv_multipart(zmq.NOBLOCK)
        if self._door is None or not self._door.hear(frame):
            self._count("handshake")

    def _tell_door(self, opens: bool) -> None:
        if not opens:
            self._count("no_descriptors")

    def _tell_put_out(self, connections: int) -> None:
        self.counters["put_out"] += connections

    def _took(self, part: zmq.Frame) -> None:
        if self._door is not None:
            self._door.took(part)

    def _count(self, kind: str) -> None:
        self.counters[f"refused_{kind}"] += 1
