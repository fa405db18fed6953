"""The receiving end: reports from enrolled agents, and from nobody else.

Owns the sockets; admission.py has the rules, and what a report means is not known here. One ROUTER per Link, CURVE
only, with libzmq's ZAP domain enforced: a missing handler then refuses instead of admitting everybody. A frame's
User-Id is the peer's *public key*, looked up in the enrolments at every frame: a revoked or exchanged key falls silent
at once, though libzmq knows no way to cut its connection. A refusal is counted, told to the peer at most once a second,
and logged at a bounded rate; it has no other effect.

Plain sockets on the loop's readers, not zmq.asyncio: no future per message, which triples the rate. The trap is that
ZMQ_FD is edge-triggered, and that a send eats edges too: every path that touches a socket must end by reading it dry.

Source: RFC 26 (CurveZMQ), RFC 27 (ZAP), zmq_getsockopt(3) under ZMQ_FD.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import zmq
import zmq.auth

from feedback import wire
from feedback.master.admission import Admission, Refused
from feedback.ops import keys
from feedback.ops.keys import KeyPair
from feedback.ops.logs import Log

LOG = Log("link")

REPLY_SECONDS = 1.0
LOG_SECONDS = 10.0
BATCH = 256  # frames before the loop gets its turn
ZAP_DOMAIN = "feedback"

OnReport = Callable[[wire.Report, float], None]


class LinkError(OSError):
    """The link cannot be opened: the endpoint, why, and what to do."""


class _Gate(zmq.auth.Authenticator):
    """ZAP: CURVE with an enrolled key, or nothing. The User-Id stays zmq.auth's default, the public key."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], admission: Admission, refuse: Callable[[Refused], None]
    ) -> None:
        super().__init__(context)
        self._admission = admission
        self._refuse = refuse
        self.configure_curve_callback(ZAP_DOMAIN, self)

    def callback(self, domain: str, key: bytes) -> bool:
        text = key.decode("ascii", "replace")
        if self._admission.enrolled(text) is not None:
            return True
        self._refuse(Refused("unknown_key", f"key '{text}' is not enrolled: feedback keys enroll NAME --key ... --rip"))
        return False

    def answer(self, message: list[bytes]) -> None:
        if len(message) > 5 and message[5] != b"CURVE":  # the base class would let NULL pass
            self._refuse(Refused("mechanism", f"{message[5][:16]!r} is not CURVE"))
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


_EVENTS = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL

_OPTIONS: tuple[tuple[zmq.SocketOption, int], ...] = (
    (zmq.CURVE_SERVER, 1),
    (zmq.ZAP_ENFORCE_DOMAIN, 1),
    (zmq.LINGER, 0),
    (zmq.RCVHWM, 32),  # of each agent: more than that is old
    (zmq.SNDHWM, 4),
    (zmq.BACKLOG, 1024),
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.HEARTBEAT_IVL, 5000),
    (zmq.HEARTBEAT_TIMEOUT, 10000),
    # Somewhat more than a report may have: what is a little too large is counted and answered, the rest is cut off.
    (zmq.MAXMSGSIZE, 4 * wire.REPORT_BYTES_MAX),
)


class Link:
    """Listens on all endpoints and calls `on_report(report, received_at)` for each report that counts.

    Open and close inside a running asyncio loop. `counters` has every refusal by kind, and `accepted`. `clock` tells
    `received_at`; it must be the master's monotonic clock.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        pair: KeyPair,
        enrolled: Path,
        on_report: OnReport,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.endpoints: tuple[str, ...] = ()  # as bound: with port 0 the one that the kernel chose
        self._wanted = tuple(endpoints)
        self._pair = pair
        self._enrolled = enrolled
        self._on_report = on_report
        self._clock = clock
        self._admission = Admission({})
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()  # its own: a context has one ZAP handler
        self._gate = _Gate(self._context, self._admission, self._count)
        self._router: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drains: dict[int, Callable[[], None]] = {}

    # Life

    def open(self) -> None:
        """Bind and begin. Raises LinkError, or KeyFileError if the enrolments cannot be read."""
        self.reload()
        self._gate.start()
        self._router = router = self._context.socket(zmq.ROUTER)
        for option, value in _OPTIONS:
            router.setsockopt(option, value)
        router.zap_domain = ZAP_DOMAIN.encode()
        router.curve_publickey = self._pair.public.encode()
        router.curve_secretkey = self._pair.secret
        self._monitor = router.get_monitor_socket(_EVENTS)
        try:
            self.endpoints = tuple(_bind(router, endpoint) for endpoint in self._wanted)
        except LinkError:
            self.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._watch(self._gate.zap_socket, self._take_zap)
        self._watch(self._monitor, self._take_event)
        self._watch(router, self._take_report)

    def reload(self) -> tuple[str, ...]:
        """Read the enrolments again; revoked agents fall silent at once. Returns a line for each one refused.

        Raises KeyFileError if the directory cannot be read; what is in force then stays.
        """
        found = keys.enrolled(self._enrolled)
        self._admission.replace({str(key): enrolment for key, enrolment in found.by_key.items()})
        for problem in found.problems:
            LOG.error("enrolment-refused", reason=problem)
        return found.problems

    def close(self) -> None:
        if self._loop is not None:
            for descriptor in self._drains:
                self._loop.remove_reader(descriptor)
            self._loop = None
        self._drains.clear()
        if self._router is not None and self._monitor is not None:
            self._router.disable_monitor()
            self._monitor.close(linger=0)
            self._router.close(linger=0)
        self._router = self._monitor = None
        self._gate.stop()
        self._context.term()

    # Edges

    def _watch(self, socket: zmq.Socket[bytes], take: Callable[[zmq.Socket[bytes]], None]) -> None:
        assert self._loop is not None
        descriptor = int(socket.getsockopt(zmq.FD))

        def drain() -> None:
            if descriptor not in self._drains or self._loop is None:
                return  # closed since this was scheduled
            dry = False
            try:
                for _ in range(BATCH):
                    take(socket)
            except zmq.Again:
                dry = True
            finally:  # also when a callback raised: an edge that is not read dry never comes again
                if not dry and self._loop is not None:
                    self._loop.call_soon(drain)

        self._drains[descriptor] = drain
        self._loop.add_reader(descriptor, drain)
        self._loop.call_soon(drain)  # what came before we watched made its edge already

    def _take_zap(self, socket: zmq.Socket[bytes]) -> None:
        self._gate.answer(socket.recv_multipart(zmq.NOBLOCK))

    def _take_event(self, socket: zmq.Socket[bytes]) -> None:
        socket.recv_multipart(zmq.NOBLOCK)
        self._count(Refused("handshake", "a peer without CURVE, or with another master's key"))

    def _take_report(self, socket: zmq.Socket[bytes]) -> None:
        route = socket.recv(zmq.NOBLOCK)
        frame = socket.recv(zmq.NOBLOCK, copy=False)
        parts = 2
        while socket.get(zmq.RCVMORE):
            socket.recv(zmq.NOBLOCK)
            parts += 1
        now = self._clock()
        key = str(frame.get("User-Id"))
        try:
            if parts > 2:
                raise Refused("malformed", f"{parts - 1} parts, expected one", self._name(key))
            report, peer = self._admission.admit(key, frame.bytes, now)
        except Refused as refused:
            self._count(refused)
            self._tell(route, key, refused, now)
            return
        self.counters["accepted"] += 1
        if not peer.greeted:
            peer.greeted = True
            self._send(route, wire.Reply(wire.PROTOCOL, True))
        self._on_report(report, now)

    # Refusals

    def _name(self, key: str) -> str:
        enrolment = self._admission.enrolled(key)
        return enrolment.name if enrolment is not None else ""

    def _tell(self, route: bytes, key: str, refused: Refused, now: float) -> None:
        """Tell the peer why, at most once a second. One without enrolment is told nothing."""
        peer = self._admission.peer(key)
        if peer is None or now - peer.told_at < REPLY_SECONDS:
            return
        peer.told_at, peer.greeted = now, False
        self._send(route, wire.Reply(wire.PROTOCOL, False, f"{refused.kind}: {refused}"))

    def _send(self, route: bytes, reply: wire.Reply) -> None:
        if self._router is not None:
            try:
                self._router.send_multipart([route, wire.encode(reply)], zmq.NOBLOCK)
            except zmq.ZMQError as error:  # a peer that went, or does not read: it will hear the next one
                LOG.debug("reply-lost", reason=str(error))

    def _count(self, refused: Refused) -> None:
        self.counters[refused.kind] += 1
        now = self._clock()
        logged_at, unsaid = self._logged.get((refused.kind, refused.name), (float("-inf"), 0))
        if now - logged_at < LOG_SECONDS:
            self._logged[refused.kind, refused.name] = (logged_at, unsaid + 1)
            return
        self._logged[refused.kind, refused.name] = (now, 0)
        LOG.warning("report-refused", kind=refused.kind, agent=refused.name, reason=str(refused), unsaid=unsaid)


_BIND_HINTS = {
    errno.EADDRINUSE: "another master? `ss -lntp` tells who listens there",
    errno.EADDRNOTAVAIL: "no interface here has this address",
    errno.EACCES: "a port below 1024 needs CAP_NET_BIND_SERVICE: choose another",
}


def _bind(router: zmq.Socket[bytes], endpoint: str) -> str:
    """The endpoint as bound. Raises LinkError."""
    router.ipv6 = "[" in endpoint  # an IPv4 address stays one, also where the kernel has no IPv6
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        number = error.errno or errno.EINVAL
        hint = _BIND_HINTS.get(number, "expected tcp://ADDRESS:PORT")
        raise LinkError(f"{endpoint}: {os.strerror(number).lower()}: {hint}") from None
    return bytes(router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
