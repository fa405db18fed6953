"""The receiving end: reports from enrolled agents, and from nobody else.

Owns the sockets; admission.py has the rules, and what a report means is not known here. One ROUTER per Link, CURVE
only, with libzmq's ZAP domain enforced: a missing handler then refuses instead of admitting everybody. A frame's
User-Id is the peer's *public key*, looked up in the enrolments at every frame: a revoked or exchanged key falls silent
at once, though libzmq knows no way to cut its connection. A refusal is counted, told to the peer at most once a second,
and logged at a bounded rate; it has no other effect.

Source: RFC 26 (CurveZMQ), RFC 27 (ZAP).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import zmq

from feedback import wire
from feedback.master.admission import Admission, Refused
from feedback.ops import curve, keys
from feedback.ops.curve import CurveError
from feedback.ops.keys import KeyPair
from feedback.ops.logs import Log

LOG = Log("link")

REPLY_SECONDS = 1.0
LOG_SECONDS = 10.0

OnReport = Callable[[wire.Report, float], None]


_EVENTS = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL

_OPTIONS: tuple[tuple[zmq.SocketOption, int], ...] = (
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
        self._gate = curve.Gate(self._context, lambda key: self._admission.enrolled(key) is not None, self._refuse)
        self._router: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._edges: curve.Edges | None = None

    # Life

    def open(self) -> None:
        """Bind and begin. Raises CurveError, or KeyFileError if the enrolments cannot be read."""
        self.reload()
        self._gate.start()
        self._router = router = self._context.socket(zmq.ROUTER)
        for option, value in _OPTIONS:
            router.setsockopt(option, value)
        curve.serve(router, self._pair)
        self._monitor = router.get_monitor_socket(_EVENTS)
        try:
            self.endpoints = tuple(curve.bind(router, endpoint) for endpoint in self._wanted)
        except CurveError:
            self.close()
            raise
        self._edges = curve.Edges()
        self._edges.watch(self._gate.zap_socket, self._gate.answer)
        self._edges.watch(self._monitor, self._take_event)
        self._edges.watch(router, self._take_report)

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
        if self._edges is not None:
            self._edges.close()
        self._edges = None
        if self._router is not None and self._monitor is not None:
            self._router.disable_monitor()
            self._monitor.close(linger=0)
            self._router.close(linger=0)
        self._router = self._monitor = None
        self._gate.stop()
        self._context.term()

    # Taking

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

    def _refuse(self, kind: str, text: str) -> None:
        """From the gate."""
        if kind == "unknown_key":
            text = f"key '{text}' is not enrolled: feedback keys enroll NAME --key ... --rip"
        self._count(Refused(kind, text))

    def _count(self, refused: Refused) -> None:
        self.counters[refused.kind] += 1
        now = self._clock()
        logged_at, unsaid = self._logged.get((refused.kind, refused.name), (float("-inf"), 0))
        if now - logged_at < LOG_SECONDS:
            self._logged[refused.kind, refused.name] = (logged_at, unsaid + 1)
            return
        self._logged[refused.kind, refused.name] = (now, 0)
        LOG.warning("report-refused", kind=refused.kind, agent=refused.name, reason=str(refused), unsaid=unsaid)
