"""The agent's link to one master: an encrypted socket that carries the newest report or nothing, or session values.

Owns the socket, its back-off, and its reports to the operator; knows nothing of a report's meaning. Nothing stale is
ever queued: CONFLATE keeps only the newest report, IMMEDIATE queues none while there is no connection, and TCP_MAXRT
and heartbeats end a connection that was cut before its kernel buffer holds a backlog. Session values have their own
link, because there each one counts.

The trap: libzmq ends a session for good when its handshake is refused (a key not enrolled yet, a master without CURVE),
and never tries again on that socket. So the socket's monitor is watched, and a refused socket is closed and replaced,
with back-off. Source: libzmq src/session_base.cpp engine_error(), zmq_setsockopt(3), zmq_socket_monitor(3).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from enum import Enum

import zmq

from feedback import wire
from feedback.config.agent import MasterLink
from feedback.ops.keys import KeyPair
from feedback.ops.logs import Log

RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 30.0
TICK_SECONDS = 2.0
# As plain numbers: arithmetic with zmq's enumerations costs more than the call into libzmq.
NOBLOCK, POLLIN, EVENTS = int(zmq.NOBLOCK), int(zmq.POLLIN), int(zmq.EVENTS)
TAKEN_AT_ONCE = 64  # events and replies: a master says one a second

Options = tuple[tuple[zmq.SocketOption, int], ...]

_COMMON: Options = (
    (zmq.IMMEDIATE, 1),
    (zmq.LINGER, 0),
    (zmq.CONNECT_TIMEOUT, 1000),  # else the kernel's own: SYNs ever rarer, minutes in all
    (zmq.HANDSHAKE_IVL, 3000),
    (zmq.RECONNECT_IVL, 100),
    (zmq.RECONNECT_IVL_MAX, 1000),
    # When a cut link heals, the kernel delivers what it queued, however old. It must give up before that is stale.
    (zmq.TCP_MAXRT, 1500),
    (zmq.MAXMSGSIZE, wire.REPORT_BYTES_MAX),
)

REPORTS: Options = (
    *_COMMON,
    # Both ways, and no queue is ever full: with a full one the pings below would abort the agent where a master that
    # said much has left (libzmq 4.3.5, `Assertion failed: !_io_error`).
    (zmq.CONFLATE, 1),
    (zmq.HEARTBEAT_IVL, 2000),
    (zmq.HEARTBEAT_TIMEOUT, 4000),
    (zmq.HEARTBEAT_TTL, 6000),
)

# No heartbeats: a connection that ends with a full queue and a ping behind it aborts the process (libzmq 4.3.5).
SESSIONS: Options = (
    *_COMMON,
    (zmq.SNDHWM, 16),
    (zmq.RCVHWM, 64),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 10),
    (zmq.TCP_KEEPALIVE_INTVL, 5),
    (zmq.TCP_KEEPALIVE_CNT, 3),
)

_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)

_REFUSALS: dict[int, str] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "this agent's key is not enrolled there: feedback keys enroll, on the director",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the listener there does not speak CURVE: is it a master?",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "handshake failed: is master.public_key this master's? feedback keys show",
}


class State(Enum):
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"


class Uplink:
    """One master. Call `tick` before each send: it takes what the socket has to say, and makes it anew when due.
    `hear` is told each message of sessions; without it nothing that comes is urgent."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        link: MasterLink,
        pair: KeyPair,
        log: Log,
        options: Options = REPORTS,
        hear: Callable[[bytes], None] | None = None,
    ) -> None:
        self.endpoint = link.endpoint
        self.state = State.CONNECTING
        self._link = link
        self._pair = pair
        self._context = context
        self._log = log
        self._options, self._hear = options, hear
        self._said = ""  # the last refusal logged, so that each is told once
        self._retry_seconds = RETRY_SECONDS
        self._retry_at = 0.0
        self._tick_due = 0.0
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None

    def tick(self, now: float) -> None:
        if self._socket is None:
            if now >= self._retry_at:
                self._try_to_open(now)
            return
        if self.state is State.CONNECTED and now < self._tick_due and self._hear is None:
            return  # nothing that cannot wait a moment
        self._tick_due = now + TICK_SECONDS
        for _ in range(TAKEN_AT_ONCE):
            if self._monitor is None or not _readable(self._monitor):
                break
            frames = self._monitor.recv_multipart()
            self._on_event(struct.unpack_from("=H", frames[0])[0], now)
        for _ in range(TAKEN_AT_ONCE):
            if self._socket is None or not _readable(self._socket):
                break
            self._on_reply(self._socket.recv(NOBLOCK))

    def send(self, data: bytes) -> bool:
        """Hand over the newest report. False where there is no connection to carry it."""
        if self._socket is None:
            return False
        try:
            self._socket.send(data, NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _try_to_open(self, now: float) -> None:
        try:
            self._open()
        except zmq.ZMQError as error:  # no descriptors left: there may be some later
            self.close()
            self._refused(f"cannot make a socket: {error.strerror}")
            self._retry_at = now + RETRY_SECONDS

    def _open(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in self._options:
            self._socket.setsockopt(option, value)
        self._socket.ipv6 = "[" in self.endpoint
        self._socket.curve_publickey = self._pair.public.encode()
        self._socket.curve_secretkey = self._pair.secret
        self._socket.curve_serverkey = self._link.public_key.encode()
        self._monitor = self._socket.get_monitor_socket(_EVENTS)
        self._socket.connect(self.endpoint)

    def _on_event(self, event: int, now: float) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.state, self._said, self._retry_seconds = State.CONNECTED, "", RETRY_SECONDS
            self._log.info("master-connected", endpoint=self.endpoint)
        elif event == zmq.EVENT_DISCONNECTED and self.state is State.CONNECTED:
            self.state = State.CONNECTING
            self._log.warning("master-lost", endpoint=self.endpoint)
        elif event in _REFUSALS:
            self._refused(_REFUSALS[event])
            self._retry_at = now + self._retry_seconds * random.uniform(0.7, 1.3)  # a fleet must not knock as one
            self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS_MAX)
            self.close()

    def _on_reply(self, data: bytes) -> None:
        if self._hear is not None and wire.of_sessions(data):
            self._hear(data)
            return
        try:
            reply = wire.decode_reply(data)
        except wire.WireError as error:
            self._refused(f"its reply is invalid: {error}")
            return
        if not reply.accepted:
            self._refused(reply.reason)
            return
        self.state = State.CONNECTED
        if self._said:
            self._said = ""
            self._log.info("master-accepts", endpoint=self.endpoint)

    def _refused(self, reason: str) -> None:
        self.state = State.REFUSED
        if reason != self._said:
            self._said = reason
            self._log.warning("master-refuses", endpoint=self.endpoint, reason=reason, key=self._pair.public)

    def close(self) -> None:
        if self._monitor is not None and self._socket is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = self._monitor = None


def _readable(socket: zmq.Socket[bytes]) -> bool:
    """Asked without poll(): one call into libzmq, no system call where nothing came."""
    return bool(int(socket.getsockopt(EVENTS)) & POLLIN)
