"""The receiving end: reports from enrolled agents, and from nobody else.

Owns the sockets; admission.py has the rules, and what a report means is not known here. One ROUTER per Link, CURVE
only, with libzmq's ZAP domain enforced: a missing handler then refuses instead of admitting everybody. A frame's
User-Id is the peer's *public key*, looked up in the enrolments at every frame: a revoked or exchanged key falls silent
at once, though libzmq knows no way to cut its connection. A refusal is counted, told to the peer at most once a second,
and logged at a bounded rate; it has no other effect. The key of an unused token (ops/tokens.py) may say one thing:
which key to enroll. That and a reload are the only ways in. ops/sessions.py bounds connections and waiting bytes; if no
descriptors are left, new connections wait (ops/door.py).

Source: RFC 26 (CurveZMQ), RFC 27 (ZAP).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import zmq

from feedback import wire
from feedback.master.shell.admission import Admission, Enrolment, Peer, Refused
from feedback.model import Address
from feedback.ops import curve, door, keys, tokens
from feedback.ops.curve import CurveError
from feedback.ops.descriptors import REASON
from feedback.ops.keys import KeyFileError, KeyPair
from feedback.ops.logs import Log

LOG = Log("link")

REPLY_SECONDS = 1.0
LOOK_SECONDS = 1.0  # between looks for tokens where the directory seems unchanged, and between words with one token
LOG_SECONDS = 10.0
HELD_SECONDS_MAX = 0.5  # of a report, while more wait
REST_SECONDS = 0.01  # reports of a large fleet are taken together: a call of the loop costs as much as a report
RECEIVE_BUFFER_BYTES = 64 * 1024  # of each connection in the kernel, which doubles it and would else grow it to 6 MB

TOO_MUCH = "one key or one source has too many connections, or leaves too much unfinished: `ss -tn` shows which"


class NotTaken(Protocol):
    """Why a report that was admitted was not taken all the same; `kind` is what it is counted as."""

    @property
    def kind(self) -> str: ...


OnReports = Callable[[Sequence[tuple[wire.Report, float]]], Sequence[NotTaken | None]]
OnSessions = Callable[[wire.Sessions, frozenset[Address], float], Iterable[tuple[Address, wire.Sessions]]]


class _Admitted(NamedTuple):
    """A report, whose it is, and the way back."""

    report: wire.Report
    received_at: float
    peer: Peer
    key: str
    route: bytes


_EVENTS = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | door.EVENTS

_OPTIONS: tuple[tuple[zmq.SocketOption, int], ...] = (
    (zmq.LINGER, 0),
    # Of each connection. Where one ends whose queue is full, the next ping, ours or one that waits in the same piece,
    # aborts the whole process (libzmq 4.3.5, `Assertion failed: !_io_error`). So ended a director that had stood still
    # for seven seconds. Hence no pings of ours, and more than an agent says before it gives up on us.
    (zmq.RCVHWM, 64),
    (zmq.SNDHWM, 4),
    (zmq.RCVBUF, RECEIVE_BUFFER_BYTES),
    (zmq.BACKLOG, door.BACKLOG),
    (zmq.HANDSHAKE_IVL, 5000),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 10),
    (zmq.TCP_KEEPALIVE_INTVL, 5),
    (zmq.TCP_KEEPALIVE_CNT, 3),
    # Somewhat more than a report may have: what is a little too large is counted and answered, the rest is cut off.
    (zmq.MAXMSGSIZE, 4 * wire.REPORT_BYTES_MAX),
)


class Link:
    """Listens on all endpoints and calls `on_reports` with the reports that count: (report, received_at) of each that
    came together. It returns for each why it was not taken, or None. `on_sessions(said, RIPs of who says it,
    received_at)` is called for words on sessions; it returns what to pass on, and the RIPs to whose agent.

    Open and close inside a running asyncio loop. `counters` has every refusal by kind, and `accepted`. `clock` tells
    `received_at`; it must be the master's monotonic clock.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        pair: KeyPair,
        enrolled: Path,
        on_reports: OnReports,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        on_sessions: OnSessions = lambda said, addresses, now: (),
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.endpoints: tuple[str, ...] = ()  # as bound: with port 0 the one that the kernel chose
        self._wanted = tuple(endpoints)
        self._pair = pair
        self._enrolled = enrolled
        self._on_reports, self._on_sessions = on_reports, on_sessions
        self._clock, self._wall = clock, wall
        self._admission = Admission({})
        self._admitted: list[_Admitted] = []  # of this lot
        self._refused: list[tuple[bytes, str, Refused, float]] = []  # of it: route, key, why, when
        self._held: dict[str, _Admitted] = {}  # by agent: of lots before it
        self._held_until = float("-inf")
        self._pending: dict[str, tokens.Pending] = {}
        self._desks: dict[Address, tuple[bytes, str]] = {}  # route and key of who speaks of sessions for a RIP
        self._heard: dict[str, float] = {}  # when a token's key last said something
        self._looked_at, self._seen = float("-inf"), 0
        self._logged: dict[tuple[str, str], tuple[float, int]] = {}
        self._put_out_at = float("-inf")
        self._context = curve.context()  # its own: a context has one ZAP handler
        self._gate = curve.Gate(self._context, self._admits, self._refuse)
        self._router: zmq.Socket[bytes] | None = None
        self._inlet = curve.Inlet(2, self._took)  # a route, and one part
        self._key = ""  # of who said the part that was read last
        self._monitor: zmq.Socket[bytes] | None = None
        self._edges: curve.Edges | None = None
        self._door: door.Door | None = None

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
        self._door = door.Door(self._tell_door, self._tell_put_out)
        self._door.expect(len(self._admission))
        self._edges = curve.Edges()
        self._edges.watch(self._gate.zap_socket, self._gate.answer)
        self._edges.watch(self._monitor, self._take_event)
        self._edges.watch(router, self._take_report, rest_seconds=REST_SECONDS, taken_together=self._pass_on)

    def reload(self) -> tuple[str, ...]:
        """Read the enrolments again; revoked agents fall silent at once. Returns a line for each one refused.

        Raises KeyFileError if the directory cannot be read; what is in force then stays.
        """
        found = keys.enrolled(self._enrolled)
        self._admission.replace({str(key): enrolment for key, enrolment in found.by_key.items()})
        if self._door is not None:
            self._door.expect(len(self._admission))
        self._held.clear()  # admitted by enrolments that may have changed; an agent soon says more
        self._desks = {rip: desk for rip, desk in self._desks.items() if self._valid(desk[1]) is not None}
        problems = (*found.problems, *self._look_for_tokens())
        for problem in problems:
            LOG.error("enrolment-refused", reason=problem)
        return problems

    def close(self) -> None:
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

    # Who may connect

    def _admits(self, key: str) -> bool:
        if self._valid(key) is not None or key in self._pending:
            return True
        if self._clock() - self._looked_at >= LOOK_SECONDS or self._seen != _changed_at(self._enrolled):
            self._look_for_tokens()
        return key in self._pending

    def _valid(self, key: str) -> Enrolment | None:
        """The enrolment of a key, unless its time is over."""
        enrolment = self._admission.enrolled(key)
        if enrolment is None or (enrolment.until is not None and self._wall() >= enrolment.until):
            return None
        return enrolment

    def _look_for_tokens(self) -> tuple[str, ...]:
        self._looked_at, self._seen = self._clock(), _changed_at(self._enrolled)
        self._pending, problems = tokens.pending(self._enrolled, self._wall())
        self._heard = {key: at for key, at in self._heard.items() if key in self._pending}
        return problems

    # Taking

    def _take_event(self, socket: zmq.Socket[bytes]) -> None:
        frame, *_endpoint = socket.recv_multipart(zmq.NOBLOCK)
        if self._door is None or not self._door.hear(frame):
            self._count(Refused("handshake", "a peer without CURVE, or with another master's key"))

    def _tell_door(self, opens: bool) -> None:
        if opens:
            LOG.info("door-open", note="new agents are heard again")
        else:
            self.counters["no_descriptors"] += 1
            LOG.error("door-shut", reason=REASON)

    def _tell_put_out(self, connections: int) -> None:
        self.counters["put_out"] += connections
        now = self._clock()
        if now - self._put_out_at >= LOG_SECONDS:
            self._put_out_at = now
            LOG.warning("connections-shut", altogether=self.counters["put_out"], reason=TOO_MUCH)

    def _took(self, part: zmq.Frame) -> None:
        if self._door is not None:
            self._key = self._door.took(part)

    def _take_report(self, socket: zmq.Socket[bytes]) -> None:
        message = self._inlet.take(socket)
        if message is None:
            return
        (address, frame), whole = message  # a ROUTER puts the peer's address before what it said
        route, data, key = address.bytes, frame.bytes, self._key
        now = self._clock()
        try:
            if not whole:
                raise Refused("malformed", "more than one part", self._name(key))
            if key in self._pending:
                self._take_join(route, self._pending[key], data, now)
                return
            if self._valid(key) is None:
                raise Refused("revoked", "this key is no longer enrolled")
            if wire.of_sessions(data):
                self._take_sessions(route, key, data, now)
                return
            report, peer = self._admission.admit(key, data, now)
        except Refused as refused:
            self._refused.append((route, key, refused, now))  # answered after what was admitted before it
            return
        self._admitted.append(_Admitted(report, now, peer, key, route))

    def _pass_on(self, dry: bool) -> None:
        """What came together, and then answers to what was refused of it."""
        refusals, self._refused = self._refused, []
        self._pass_on_admitted(dry)
        for route, key, refused, now in refusals:
            self._answer(route, key, refused, now)

    def _pass_on_admitted(self, dry: bool) -> None:
        """What came together: one stage after the other for all costs less than all stages for one after the other.
        Where more waits than is taken together, receiving gets as much time as what is done with the reports, and of
        each agent only the newest counts: the counters in it include those before."""
        lot, self._admitted = self._admitted, []
        if self._held or not dry:
            waited = len(self._held) + len(lot)
            self._held |= {admitted.report.agent: admitted for admitted in lot}
            if waited > len(self._held):
                self.counters["superseded"] += waited - len(self._held)
            if not dry and self._clock() < self._held_until:
                return
            lot, self._held = [*self._held.values()], {}
        if not lot:
            return
        began = self._clock()
        answers = self._on_reports([(admitted.report, admitted.received_at) for admitted in lot])
        self._held_until = self._clock() + min(HELD_SECONDS_MAX, self._clock() - began)
        for admitted, refused in zip(lot, answers, strict=True):
            if refused is not None:
                told = Refused(refused.kind, str(refused), admitted.report.agent)
                self._answer(admitted.route, admitted.key, told, admitted.received_at)
                continue
            self.counters["accepted"] += 1
            if not admitted.peer.greeted:
                admitted.peer.greeted = True
                self._send(admitted.route, wire.Reply(wire.PROTOCOL, True))

    def _take_sessions(self, route: bytes, key: str, data: bytes, now: float) -> None:
        """Words on sessions, which go on to the agents of whoever stands in. Raises Refused."""
        said, enrolment = self._admission.admit_sessions(key, data, now)
        self.counters["sessions"] += 1
        self._desks |= dict.fromkeys(enrolment.addresses, (route, key))
        for address, words in self._on_sessions(said, enrolment.addresses, now):
            to, its_key = self._desks.get(address, (b"", ""))
            if self._valid(its_key) is not None:
                self._send(to, words)

    def _take_join(self, route: bytes, waiting: tokens.Pending, data: bytes, now: float) -> None:
        """A token's key: it may name the key to be enrolled. Raises Refused."""
        if now - self._heard.get(waiting.public_key, float("-inf")) < LOOK_SECONDS:
            raise Refused("flooded", "more than one message a second with a token", waiting.name)
        self._heard[waiting.public_key] = now
        try:
            key = keys.public_key(wire.decode_join(data).public_key)
            tokens.redeem(waiting, key, self._wall())
            self.reload()
        except (wire.WireError, KeyFileError) as error:
            self._send(route, wire.Joined(wire.PROTOCOL, False, str(error)))
            raise Refused("join", str(error), waiting.name) from None
        addresses = tuple(sorted(map(str, waiting.addresses)))
        self.counters["joined"] += 1
        LOG.info("agent-joined", agent=waiting.name, addresses=" ".join(addresses), key=key)
        said = wire.Joined(wire.PROTOCOL, True, "", waiting.name, addresses, waiting.role, waiting.settings)
        self._send(route, said)

    # Refusals

    def _name(self, key: str) -> str:
        enrolment = self._admission.enrolled(key)
        return enrolment.name if enrolment is not None else ""

    def _answer(self, route: bytes, key: str, refused: Refused, now: float) -> None:
        """Count it and tell the peer why, at most once a second. One without enrolment is told nothing."""
        self._count(refused)
        peer = self._admission.peer(key)
        if peer is None or now - peer.told_at < REPLY_SECONDS:
            return
        peer.told_at, peer.greeted = now, False
        self._send(route, wire.Reply(wire.PROTOCOL, False, f"{refused.kind}: {refused}"))

    def _send(self, route: bytes, reply: wire.Reply | wire.Joined | wire.Sessions) -> None:
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


def _changed_at(directory: Path) -> int:
    """When anything was last put into a directory or taken out; 0 if it cannot be asked."""
    try:
        return directory.stat().st_mtime_ns
    except OSError:
        return 0
