"""The sync daemon's shell: hands events to the election, performs its decisions, and answers commands.

It is one asyncio loop. Heartbeats, answers to looks and timers go to the election first. Everything slow (the
connection table, the snapshot of services) runs in threads, because a late heartbeat is a false alarm at the peer. The
loop that sends heartbeats also feeds the watchdog. Stopping leaves addresses, services and connections as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import signal
import sys
import time
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from feedback.config import ConfigError, SyncConfig, load
from feedback.ipvs import Client, IpvsError, Kernel
from feedback.ops import descriptors, logs, pair, process, systemd
from feedback.ops.control import ControlError, serve
from feedback.ops.curve import CurveError
from feedback.ops.door import quiet
from feedback.ops.keys import KeyFileError
from feedback.ops.logs import Budget, Log
from feedback.ops.role import Role as SaidRole
from feedback.ops.role import RoleFile
from feedback.ops.tasks import Tasks
from feedback.sync import doctor, report
from feedback.sync.addresses.errors import NetworkError
from feedback.sync.addresses.network import Network
from feedback.sync.addresses.packets import Answer, Claim
from feedback.sync.addresses.plan import VirtualAddress, foreign, foreign_advice
from feedback.sync.addresses.routes import Routes
from feedback.sync.addresses.tenure import Tenure
from feedback.sync.conntrack.tracking import Tracking
from feedback.sync.election import heartbeat
from feedback.sync.election.election import Election, Notice, Settings, Transition
from feedback.sync.election.engine import Engine, Following
from feedback.sync.election.heartbeat import HeartbeatError, Role
from feedback.sync.election.keepalived import Fifo
from feedback.sync.election.links import DATAGRAM_BYTES_MAX, LinkError, Links
from feedback.sync.election.transitions import (
    AnnounceAgain,
    Decision,
    Look,
    PrepareHandover,
    Resume,
    SendHeartbeat,
    State,
    StepDown,
    TakeOver,
)
from feedback.sync.replication import multicast
from feedback.sync.replication.carrier import TURN_SECONDS, Carrier
from feedback.sync.replication.kernel import Replication, ReplicationError
from feedback.sync.replication.relay import Relay
from feedback.sync.way import Way

LOOK_AROUND_SECONDS = 0.5  # between looks at our own interfaces and reach targets
REACH_SECONDS = 1.6  # a target that has not answered for so long is unreachable
EVENTS_KEPT = 1000
ERROR_LOG_SECONDS = 10.0
WITHOUT_A_ROLE = frozenset({State.STANDBY, State.LOOKING, State.WATCHING})
TRANSITIONS_LOGGED = 30  # between these states in ERROR_LOG_SECONDS; `feedback sync events` has all


def now() -> float:
    """Seconds of a clock that goes on while the machine is suspended, so that it knows how long it slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Daemon:
    """One director of a pair. `run()` returns when it is told to stop. Raises ConfigError, KeyFileError, IpvsError,
    LinkError, CurveError, NetworkError, ReplicationError, ControlError."""

    def __init__(self, path: Path) -> None:
        self._path, self._config = path, load(path, SyncConfig)
        c = self._config
        secret = pair.load(c.secret)
        self._key = secret.derive("heartbeat")
        self._log = Log("sync")
        self._boot = int.from_bytes(os.urandom(7), "big") + 1
        wanted = tuple(VirtualAddress.parse(a.address, a.interface) for a in c.address)
        self._by_text = {str(w.address): w for w in wanted}
        self._targets = {ip_address(text): float("-inf") for text in c.reach}
        self._fifo = Fifo(c.keepalived.instance)
        self._engine = self._make_engine()
        self._links = Links(c.link, self._take_datagram)
        self._counters: Counter[str] = Counter()
        self._events: list[dict[str, Any]] = []
        self._numbered = 0
        self._timer: asyncio.TimerHandle | None = None
        self._handover: dict[str, Any] = {"state": "none", "reason": "none was asked for"}
        self._handover_at = 0.0
        self._complaints: dict[str, float] = {}
        self._budget = Budget(TRANSITIONS_LOGGED, ERROR_LOG_SECONDS)
        self._stopping = False
        self._tasks = Tasks(self._log, self._failed)
        self._wanted, self._secret = wanted, secret

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        quiet(loop, self._counters, self._complain)
        sys.setswitchinterval(0.001)  # threads that decode tables must not hold up a heartbeat
        c = self._config
        with contextlib.ExitStack() as stack:
            self._network = Network(self._wanted, tuple(self._targets), memory=c.role.with_suffix(".addresses"))
            stack.callback(self._network.close)
            moves = self._network if c.engine == "heartbeat" else None
            self._tenure = Tenure(moves, RoleFile(c.role), c.peer, now)
            self._routes = Routes([(ip_network(r.to), r.table) for r in c.route], c.role.with_suffix(".routes"))
            self._routes.open()
            stack.callback(self._routes.close)
            kernel = stack.enter_context(Client())
            self._replication = self._open_replication(kernel)
            if self._replication is not None:
                stack.callback(self._replication.close)
            self._way = Way()
            self._carrier = Carrier(
                f"{self._boot:x}",
                kernel,
                self._replication,
                mirror=c.mirrors,
                master_state=c.master_state,
                hear_tracking=self._hear_tracking,
                clock=now,
            )
            self._tracking = self._make_tracking()
            if self._tracking is not None:
                stack.callback(self._tracking.close)
                self._tasks.start(self._tracking.attend(lambda: self._tenure.active), "adjustments")
            self._relay = Relay(
                [f"tcp://{link.local}" for link in c.link],
                self._secret.director(c.name),
                self._secret.director(c.peer).public,
                self._carrier.on_request,
                self._carrier.on_stream,
            )
            self._relay.open()
            stack.callback(self._relay.close)
            self._carrier.open(self._relay)
            stack.callback(self._carrier.close)
            self._links.open()
            stack.callback(self._links.close)
            loop.add_reader(self._network, self._take_frames)
            stack.callback(loop.remove_reader, self._network)
            fifo = self._open_fifo()
            if fifo is not None:
                stack.callback(os.close, fifo)
                loop.add_reader(fifo, self._take_notices, fifo)
                stack.callback(loop.remove_reader, fifo)
            server = await serve(c.control, self._answer)
            stack.callback(c.control.unlink, missing_ok=True)
            stack.callback(server.close)
            self._look_around()
            self._advance()
            await asyncio.to_thread(gc.collect)  # this also starts the first thread, so a takeover need not
            gc.freeze()  # objects from start-up stay for ever: walking them again would delay heartbeats
            systemd.ready(self._summary())
            self._log.info("started", name=c.name, peer=c.peer, links=len(c.link), addresses=len(c.address))
            await self._work(stop)
            self._stopping = True
            self._tasks.cancel()
            if self._timer is not None:
                self._timer.cancel()
        systemd.stopping("addresses, services and connections stay as they are")
        self._log.info("stopped", note="addresses, services and connections stay as they are")

    def _make_engine(self) -> Engine:
        c = self._config
        settings = _settings(c, tuple(self._by_text))
        if c.engine == "heartbeat":
            return Election(settings, c.name, self._boot, now())
        # keepalived reports only changes: a restarted daemon goes on from its last report.
        before = RoleFile(c.role).read().role is SaidRole.ACTIVE
        return Following(settings, c.name, self._boot, now(), active=before)

    def _open_fifo(self) -> int | None:
        """Opens keepalived's FIFO for writing too, so that it never ends and keeps what is written while nobody
        reads."""
        if not isinstance(self._engine, Following):
            return None
        path = self._config.keepalived.fifo
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"keepalived.fifo: {path}: {error.strerror}") from None

    def _take_notices(self, fifo: int) -> None:
        assert isinstance(self._engine, Following)
        with contextlib.suppress(BlockingIOError):
            for word in self._fifo.feed(os.read(fifo, 4096)):
                self._engine.receive_notice(word, now())
        self._advance()

    def _open_replication(self, kernel: Kernel) -> Replication | None:
        r = self._config.replication
        if r.mode == "multicast":
            self._log.warning("replication", note=multicast.WARNING)
            for change in multicast.ensure(kernel, r.interface):
                self._log.info("replication", change=change)
        if r.mode != "relay":
            return None
        memory = self._config.state.with_suffix(".before")
        replication = Replication(interface=r.interface, memory=memory, connections_max=r.connections_max)
        replication.open()
        for change in replication.changes:
            self._log.info("replication", change=change)
        return replication

    def _make_tracking(self) -> Tracking | None:
        """The ledger's clock is CLOCK_MONOTONIC."""
        if self._replication is None:
            return None
        mode = self._config.conntrack.mode
        return Tracking(mode, self._replication.ledger, time.monotonic, self._tasks.start, self._tell_tracking)

    def _hear_tracking(self, tracks: bool, data: bytes) -> None:
        if self._tracking is not None:
            self._tracking.hear(tracks, data)

    def _tell_tracking(self) -> None:
        if self._tracking is not None:
            self._carrier.tell_tracking(self._tracking.wanted, self._tracking.adjustments)

    async def _work(self, stop: asyncio.Event) -> None:
        watchdog, fed, looked = systemd.watchdog_interval_seconds(), 0.0, now()
        while not stop.is_set():
            at = now()
            self._carrier.turn(at)
            self._tell_replica(at)
            self._tenure.handle_timer(at)
            if at - looked >= LOOK_AROUND_SECONDS:
                looked = at
                self._look_around()
                self._tenure.say_lacking(self._carrier.lacking(at))
                self._follow()
            elif self._way.doubting:
                self._follow()
            self._advance()
            if watchdog is not None and at - fed >= min(watchdog, 1.0):
                systemd.watchdog()
                systemd.status(self._summary())
                fed = at
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TURN_SECONDS)

    # --- what arrives ------------------------------------------------------------------------------------------------

    def _take_datagram(self, link: int, datagram: bytes) -> None:
        try:
            if len(datagram) >= DATAGRAM_BYTES_MAX:
                raise HeartbeatError("oversized", "longer than any heartbeat")
            beat = heartbeat.decode(datagram, self._key)
        except HeartbeatError as error:
            self._engine.receive_refused(error.kind)
            return
        self._engine.receive_heartbeat(beat, self._links.name(link), now())
        self._advance()

    def _take_frames(self) -> None:
        at = now()
        for heard in self._network.read():
            if heard.address in self._targets:
                self._targets[heard.address] = at
                self._engine.receive_reach(str(heard.address), True, at)
            elif isinstance(heard, Answer):
                self._engine.receive_answer(str(heard.address), _mac(heard.mac), at)
            elif isinstance(heard, Claim):
                self._engine.receive_claim(str(heard.address), _mac(heard.mac), at)
        self._advance()

    def _look_around(self) -> None:
        """Look at our own interfaces, addresses and reach targets."""
        at = now()
        macs = self._network.macs()
        self._engine.receive_macs(tuple(_mac(mac) for mac in dict.fromkeys(macs.values())))
        for interface in {w.interface for w in self._wanted}:
            self._engine.receive_interface(interface, self._network.link_up(interface), at)
        if self._tenure.active or self._engine.role is Role.STANDBY:
            self._tenure.mend()
            self._routes.follow(self._tenure.active)
        self._engine.receive_installed(self._tenure.installed())
        self._tenure.say_again()
        if self._tracking is not None and self._tracking.look():
            self._tell_tracking()
        for target, heard in self._targets.items():
            if at - heard > REACH_SECONDS:
                self._engine.receive_reach(str(target), False, at)
        if self._targets:
            self._network.reach(tuple(self._targets))

    def _tell_replica(self, at: float) -> None:
        condition, done, total = self._carrier.replica(at)
        self._engine.receive_replica(heartbeat.Replica(report.REPLICA_STATES[condition], done, total), at)

    # --- what is decided ---------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Perform the decisions that are due, and schedule the next call."""
        while self._engine.next_timer() <= (at := now()):
            for decision in self._engine.handle_timer(at):
                self._perform(decision, at)
            self._note_events()
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, self._engine.next_timer() - at)
        self._timer = asyncio.get_running_loop().call_later(delay, self._advance)

    def _perform(self, decision: Decision, at: float) -> None:
        match decision:
            case SendHeartbeat():
                self._links.send(heartbeat.encode(self._engine.heartbeat(at), self._key))
            case Look(addresses):
                for refusal in self._network.look([self._by_text[a] for a in addresses]):
                    self._complain("look", refusal.reason)
            case TakeOver(reason, term) | Resume(reason, term):
                resumed = isinstance(decision, Resume)
                self._tenure.begin(reason, term, at, resumed=resumed)
                if self._tracking is not None and not resumed:
                    self._tracking.take_over()
                self._engine.receive_installed(True)
                self._carrier.lead()
                self._routes.follow(True)
                self._log.info("resumed" if resumed else "took-over", reason=reason, term=term, act_ms=self._act_ms())
            case StepDown(reason):
                self._tenure.end(reason, self._engine.status(at).term)
                self._routes.follow(False)
                self._engine.receive_installed(self._tenure.installed())
                self._follow()
                self._log.info("stepped-down", reason=reason)
            case AnnounceAgain(reason):
                self._tenure.announce_again(at)
                self._log.warning("announced-again", reason=reason)
            case PrepareHandover():
                self._tasks.start(self._hand_over(), "handover")

    async def _hand_over(self) -> None:
        reason = await self._carrier.settle()
        if reason is None:
            self._engine.receive_handed_over(now())
            self._advance()
        else:
            self._stuck(reason)

    def _stuck(self, reason: str) -> None:
        """Record why a handover was not prepared; the election gives it up when its time is over."""
        self._log.error("handover-stuck", reason=reason)
        self._handover["reason"] = reason

    def _failed(self, name: str, reason: str) -> None:
        self._counters["faults"] += 1
        self._stuck(f"a fault of this director: {reason}")

    def _follow(self) -> None:
        """Run the end of replication that the role needs. Change to the link heard last if the one in use is silent."""
        at = now()
        status = self._engine.status(at)
        if status.role is Role.ACTIVE:
            self._carrier.lead()
            return
        peer = status.peer
        if peer is None or not peer.alive or peer.role is not Role.ACTIVE:
            if status.role is Role.STANDBY and self._tenure.active is False and self._carrier.following is None:
                self._carrier.follow(None)
            return
        heard = {link.link: link.age_seconds for link in status.links if link.age_seconds is not None}
        ages = {f"tcp://{link.peer}": heard.get(link.local, math.inf) for link in self._config.link}
        better = self._way.better(self._carrier.following, ages, at)
        if better is not None:
            self._carrier.follow(better)

    def _note_events(self) -> None:
        while (event := self._engine.next_event()) is not None:
            self._numbered += 1
            told = report.of_event(event, self._numbered, now(), time.time())
            self._events = [*self._events[-EVENTS_KEPT + 1 :], told]
            if isinstance(event, Transition):
                self._log_transition(event)
                self._note_handover(event)
                self._tenure_follows()
            elif isinstance(event, Notice):
                self._log.warning("notice", text=event.text)

    def _log_transition(self, event: Transition) -> None:
        """Log a transition. On bad cables a standby looks several times a second, so those that move no role are
        limited."""
        idle = WITHOUT_A_ROLE.issuperset((event.old, event.new))
        unsaid = self._budget.take(now()) if idle else 0
        if unsaid is not None:
            left_out = {"unsaid": unsaid} if unsaid else {}
            self._log.info(
                "transition", old=event.old, new=event.new, cause=event.event, reason=event.reason, **left_out
            )

    def _tenure_follows(self) -> None:
        """Write the role file for transitions that move no address, and follow a peer that became active."""
        if not self._tenure.active:
            status = self._engine.status(now())
            self._tenure.stand_by(status.reason, status.term)
        self._follow()

    def _note_handover(self, event: Transition) -> None:
        if self._handover["state"] != "under way":
            return
        role = self._engine.role
        if role is not Role.ACTIVE:
            took = 1000 * (now() - self._handover_at)
            self._handover |= {"state": "done", "reason": event.reason, "took_ms": round(took, 1)}
        elif event.new == "active":
            self._handover |= {"state": "failed", "reason": self._handover.get("reason") or event.reason}

    # --- commands ----------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """SIGHUP: apply what can change while running. A bad file changes nothing."""
        systemd.reloading()
        try:
            config = load(self._path, SyncConfig)
            for name in SyncConfig.__struct_fields__:
                if name not in {"priority", "failback", "failback_seconds"} and getattr(config, name) != getattr(
                    self._config, name
                ):
                    raise ConfigError(f"{self._path}: {name}: changes only with a restart, which moves no traffic")
            self._config = config
            self._engine.settings = _settings(config, tuple(self._by_text))
            self._log.info("reloaded", path=str(self._path))
        except ConfigError as error:
            self._log.error("reload-failed", reason=str(error), note="what was in force stays")
        systemd.ready(self._summary())

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._stopping:
            return {"error": "this daemon is stopping"}
        match request.get("command"):
            case "status":
                return self._status()
            case "events":
                since = request.get("since", -1)
                return {"events": [e for e in self._events if not isinstance(since, int) or e["number"] > since]}
            case "handover":
                return self._start_handover(force=request.get("force") is True)
            case "handover-state":
                return dict(self._handover)
            case "resync":
                reason = self._carrier.resync()
                return {"started": True} if reason is None else {"error": reason}
            case "doctor":
                return self._examine()
            case other:
                return {"error": f"unknown command {other!r}: expected status, events, handover, resync or doctor"}

    def _start_handover(self, *, force: bool) -> dict[str, Any]:
        at = now()
        if self._engine.role is not Role.ACTIVE:
            return {"error": f"this director is the standby: ask the active one, {self._config.peer}"}
        reason = self._engine.request_handover(at, force)
        if reason is not None:
            return {"error": f"not handed over: {reason}"}
        self._handover_at = at
        self._handover = {"state": "under way", "reason": "", "peer": self._config.peer}
        self._advance()
        return {"started": True}

    def _status(self) -> dict[str, Any]:
        at = now()
        status = self._engine.status(at)
        return report.of_status(
            status,
            self._config,
            at,
            replica=self._carrier.status(at),
            tracking=None if self._tracking is None else self._tracking.status(),
            installed={str(p.address.address) for p in self._network.installed()},
            routes=[self._routes.installed(ip_network(r.to), r.table) for r in self._config.route],
            act_ms=self._act_ms(),
            counters={
                "links": dict(self._links.counters),
                "relay": dict(self._relay.counters),
                "daemon": dict(self._counters),
            },
        )

    def _examine(self) -> dict[str, Any]:
        present = self._network.installed()
        facts = doctor.Facts(
            status=self._status(),
            limitation=self._engine.limitation(),
            problems=self._problems(),
            foreign=tuple(foreign_advice(f) for f in foreign(self._wanted, present)),
            replicates=self._config.replication.mode != "off",
        )
        findings = doctor.examine(facts)
        told = [{"level": str(f.level), "what": f.what, "mend": f.mend} for f in findings]
        return {"schema": report.SCHEMA, "findings": told, "verdict": doctor.verdict(findings)}

    def _problems(self) -> tuple[str, ...]:
        routes = (f"[[route]]: {self._routes.problem}",) if self._routes.problem else ()
        if self._config.replication.mode == "multicast":
            return (multicast.WARNING, *routes)
        return (*(self._replication.problems() if self._replication else ()), *routes)

    def _act_ms(self) -> float | None:
        seconds = self._tenure.acted_seconds
        return None if seconds is None else round(1000 * seconds, 2)

    def _summary(self) -> str:
        status = self._engine.status(now())
        return f"{status.state}: {status.reason}"

    def _complain(self, kind: str, text: str) -> None:
        self._counters[kind] += 1
        at = now()
        if at - self._complaints.get(kind, -ERROR_LOG_SECONDS) >= ERROR_LOG_SECONDS:
            self._complaints[kind] = at
            self._log.error(f"{kind}-failed", reason=text)


def run(path: Path, level: str = "info") -> str | None:
    """Run until told to stop. Returns why it could not start, or None."""
    logs.setup(level)
    process.keep_private()
    descriptors.raise_limit()
    try:
        asyncio.run(Daemon(path).run())
    except (
        ConfigError,
        KeyFileError,
        IpvsError,
        LinkError,
        CurveError,
        NetworkError,
        ReplicationError,
        ControlError,
    ) as error:
        return str(error)
    return None


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _settings(config: SyncConfig, addresses: tuple[str, ...]) -> Settings:
    t = config.timing
    return Settings(
        peer=config.peer,
        addresses=addresses,
        priority=config.priority,
        interval_seconds=t.interval_seconds,
        suspect_intervals=t.missed,
        look_seconds=t.look_seconds,
        looks=t.looks,
        start_seconds=t.start_seconds,
        fail_back=config.failback,
        fail_back_seconds=config.failback_seconds,
    )
