"""The master's shell: reads the kernel, feeds the controller, sends its edits, answers the control socket.

One asyncio loop. Each turn is a look at the kernel, a decision and one batched send; the watchdog is fed from there
and nowhere else. It decides nothing. On stop nothing is written: the last good weights stay in the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from feedback.config import ConfigError, Exporter, MasterConfig, cuts, load, removes, stand_ins
from feedback.ipvs import Client, EditError, IpvsError, Kernel, sysctl
from feedback.ipvs.text import removal
from feedback.master.claims.asking import Probe, Result
from feedback.master.claims.health import Unasked
from feedback.master.claims.orders import Order
from feedback.master.controller import Controller, Decision
from feedback.master.cuts.course import Cut, Do, Told
from feedback.master.cuts.plan import Summary
from feedback.master.laws import UnknownLawError
from feedback.master.outcome import Status
from feedback.master.servers.fleet import Refused
from feedback.master.shell import commands
from feedback.master.shell.events import Ring, Watcher
from feedback.master.shell.link import Link
from feedback.master.shell.recording import line
from feedback.master.shell.statefile import StateFile
from feedback.master.shell.status import of_master, places
from feedback.master.shell.steering import Steering
from feedback.master.standins import StandIns
from feedback.master.state import StateError
from feedback.model import DestinationKey, Edit, RemoveService, ServiceKey, SetDestination, Snapshot
from feedback.ops import descriptors, logs, process, systemd
from feedback.ops.control import Answer, ControlError, ask, asking, serve
from feedback.ops.curve import CurveError
from feedback.ops.door import quiet
from feedback.ops.feed import Feed
from feedback.ops.keys import KeyFileError, load_secret
from feedback.ops.logs import Log
from feedback.ops.role import Role, RoleFile, RoleSaid
from feedback.ops.tasks import Tasks
from feedback.web.past import Past, Story
from feedback.web.view import View
from feedback.wire import Report

if TYPE_CHECKING:  # imported when the first probe is due, or a service is to be cut
    from feedback.master.shell.cutter import Cutter
    from feedback.master.shell.probes import Probes

LOG_SHARE = 0.05  # a weight is logged when the share it stands for has moved by this part of an equal one
ERROR_LOG_SECONDS = 10.0  # the same failure is said again after this
RECORDERS_MAX = 4
TURN_SECONDS_LEAST = 0.02  # from one turn to the next, however many checks change their verdict
# Cycles are looked for at each of so many new objects, not of 700: a turn of a large fleet makes more than that and no
# cycle, and every look at all objects held it up (150 ms with 10,000 destinations).
YOUNG_OBJECTS = 50_000
PROBE_SECONDS = 0.05  # so late a check may go out
ASKED = ("status", "record", "events", "steer", "steer-remove")
NODEST = "expire_nodest_conn"  # under net.ipv4.vs
NOT_SAVED = "it could not be written to the disk, which is tried again: a master that restarts before does not know it"


class Daemon:
    """One master. `run()` returns when it is told to stop. Raises ConfigError, IpvsError, ControlError, CurveError."""

    def __init__(self, path: Path, open_kernel: Callable[[str | None], Kernel] = Client) -> None:
        self._path, self._config = path, load(path, MasterConfig)
        self._open_kernel = open_kernel
        self._log = Log("master")
        self._controller = Controller(self._config)
        self._stand_ins = StandIns(stand_ins(self._config))
        self._decision: Decision | None = None
        self._counters: Counter[str] = Counter()
        self._logged: dict[tuple[ServiceKey, DestinationKey], float] = {}
        self._complaints: dict[str, float] = {}
        self._state = StateFile(self._config.state)
        self._unsaved = ""  # why the state could not be written, as it was logged
        self._recorders: list[Feed] = []
        self._started = self._turned_at = time.monotonic()
        self._decided_at = self._started
        self._reloaded: tuple[float, bool] | None = None
        self._probes: Probes | None = None
        self._cutter: Cutter | None = None
        self._role_file = RoleFile(self._config.role) if self._config.role else None
        self._role = RoleSaid(Role.ACTIVE)
        self._events, self._watcher = Ring(f"{time.time():.3f}"), Watcher()
        self._tasks = Tasks(self._log, self._failed)
        self._past = Past()
        self._stir = asyncio.Event()  # ends the sleep between two turns

    async def run(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def end() -> None:
            stop.set()
            self._stir.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        quiet(loop, self._counters, self._complain)
        with contextlib.closing(self._open_kernel(self._config.netns)) as self._kernel:
            self._let_flows_go()
            self._restore()
            if self._active():
                self._look()
                self._note_left()
            async with contextlib.AsyncExitStack() as stack:
                pair = load_secret(self._config.key)
                self._link = Link(
                    self._config.listen, pair, self._config.enrolled, self._receive, on_sessions=self._stand_ins.hear
                )
                stack.callback(self._link.close)
                self._link.open()
                server = await serve(self._config.control, self._answer)
                stack.callback(self._close_control, server)
                await self._open_pages(stack)
                self._open_cutter()
                stack.callback(self._close_cutter)
                self._steering = Steering(self._config, self._tell, self._complain)
                self._tasks.start(self._steering.run(), "steering")
                stack.push_async_callback(self._tasks.close)
                systemd.ready(self._status())
                gc.freeze()  # what start-up made stays for ever: walking it again would hold up decisions
                gc.set_threshold(YOUNG_OBJECTS)
                self._tell("started", listen=" ".join(self._config.listen), ownership=self._config.ownership)
                await self._work(stop)
                if self._probes is not None:
                    await self._probes.close()
                self._withdraw()
        systemd.stopping("the weights stay as they are")
        self._log.info("stopped", note="the weights stay as they are")

    async def _open_pages(self, stack: contextlib.AsyncExitStack) -> None:
        """Weights matter more than pages: where these cannot be served, the master works without them."""
        if not self._config.http.listen:
            return
        from feedback.web.server import Server

        server = Server(self._view, partial(self._complain, "page"))
        try:
            await server.open(self._config.http.listen)
        except OSError as error:
            self._log.error("pages-failed", listen=self._config.http.listen, reason=error.strerror, note="none served")
        stack.callback(server.close)

    def _failed(self, name: str, reason: str) -> None:
        """A fault of ours in what runs beside the turns: it is begun again."""
        self._counters["faults"] += 1
        loop = asyncio.get_running_loop()
        loop.call_later(ERROR_LOG_SECONDS, lambda: self._tasks.start(self._steering.run(), name))

    def _view(self) -> View:
        now = time.monotonic()
        story = Story(now, self._past.steps(), self._events.all())
        tell = partial(_with_pair, story, self._config.http.sync if self._role_file is not None else None)
        return View(now - self._turned_at, self._decision_age(now), str(self._role.role), self._document(), tell)

    def _decision_age(self, now: float) -> float | None:
        return None if self._decision is None else now - self._decided_at

    def _open_cutter(self, *, wanted: bool = False) -> None:
        """Where servers are cut. Without the capability they are removed all the same, and their clients not told."""
        if self._cutter is not None or not (wanted or cuts(self._config)):
            return
        from feedback.master.shell.cutter import Cutter

        home = asyncio.get_running_loop()

        def receive(told: Told) -> None:
            with contextlib.suppress(RuntimeError):  # the master stopped meanwhile
                home.call_soon_threadsafe(self._receive_cut, told)

        try:
            self._cutter = Cutter(self._config.netns, receive)
        except (OSError, IpvsError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            note = "servers are removed and their clients not told: it needs CAP_NET_RAW, see docs/failure.md"
            self._log.error("cuts-failed", reason=reason, note=note)

    def _close_cutter(self) -> None:
        if self._cutter is not None:
            self._cutter.close()

    def _cut(self, wanted: tuple[Cut, ...]) -> None:
        if self._cutter is not None:
            self._cutter.do(list(wanted))
            return
        for cut in wanted:
            if cut.do is not Do.FORGET:  # nobody can be told
                summary = None if cut.do is Do.LIST else Summary(0, 0, 0, 0, 0.0)
                self._controller.receive_cut(Told(*cut.place, 0, summary), time.monotonic())

    def _receive_cut(self, told: Told) -> None:
        self._controller.receive_cut(told, time.monotonic())
        self._stir.set()
        if told.summary is not None:
            fields: dict[str, Any] = {"service": str(told.service), "destination": str(told.destination)}
            self._tell("cut", **fields, **structs.asdict(told.summary), reason=str(told.summary))

    def _close_control(self, server: asyncio.Server) -> None:
        server.close()
        self._config.control.unlink(missing_ok=True)

    async def _work(self, stop: asyncio.Event) -> None:
        watchdog, fed = systemd.watchdog_interval_seconds(), 0.0
        while not stop.is_set():
            self._stir.clear()
            active = self._active()
            if active:
                self._turn()
                self._probe()
            now = self._turned_at = time.monotonic()
            if watchdog is not None and now - fed >= min(watchdog, 1.0):
                systemd.watchdog()
                systemd.status(self._status())
                fed = now
            turn = self._controller.next_timer() - now if active else self._config.interval_seconds
            await self._pause(now + max(TURN_SECONDS_LEAST, turn), active)

    async def _pause(self, until: float, active: bool) -> None:
        """Until then or until something stirs, but TURN_SECONDS_LEAST in any case. Checks go out when they are due, not
        only when a turn is: a failure would be found later by a turn for each outcome."""
        await asyncio.sleep(TURN_SECONDS_LEAST)
        while (left := until - time.monotonic()) > 0 and not self._stir.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stir.wait(), min(left, PROBE_SECONDS) if active else left)
            if active and not self._stir.is_set():
                self._probe()

    def _let_flows_go(self, *, wanted: bool = False) -> None:
        """Without this setting the kernel goes on dropping the packets of a removed destination's flows in silence, and
        they revive where it is added again. A standby needs it as well: the mirror removes and adds there."""
        if not (wanted or removes(self._config)):
            return
        try:
            if sysctl.read(NODEST, self._config.netns) == 0:
                sysctl.write(NODEST, 1, self._config.netns)
                self._log.info("setting-changed", name=f"net.ipv4.vs.{NODEST}", old=0, new=1)
        except IpvsError as error:
            note = "flows of a removed server stay until they are idle: see docs/failure.md"
            self._log.error("setting-failed", name=f"net.ipv4.vs.{NODEST}", reason=str(error), note=note)

    def _active(self) -> bool:
        """Whether this director is the active one. A new active one begins as after a restart: with the state and the
        weights that the other left, so that nothing makes a step. Another term tells that somebody else was active for
        less than a turn."""
        said = self._role_file.read() if self._role_file else self._role
        if said != self._role:
            if said != structs.replace(self._role, lacking=said.lacking):
                self._tell("role", role=str(said.role), reason=said.reason, peer=said.peer, term=said.term)
            if said.role is Role.ACTIVE and (self._role.role is not Role.ACTIVE or said.term != self._role.term):
                self._controller, self._watcher = Controller(self._config), Watcher()
                self._state.forget()
                self._restore()
            if self._role.role is Role.ACTIVE and said.role is not Role.ACTIVE:
                self._withdraw()
            self._role = said
        if said.role is not Role.ACTIVE:
            self._decision = None
        return said.role is Role.ACTIVE

    def _withdraw(self) -> None:
        """What is in the kernel for our own checks only."""
        try:
            edits = self._controller.withdrawal(self._kernel.snapshot())
            failed = self._kernel.apply(edits) if edits else ()
        except IpvsError as error:
            self._log.error("withdrawal-failed", reason=str(error))
        else:
            self._note_failures(failed)

    def _restore(self) -> None:
        """A state that cannot be read is put aside, not overwritten. What does not fit in it is dropped and named."""
        path = str(self._state.path)
        try:
            found = self._state.read()
            if found is not None:
                self._controller.restore(found)
        except (OSError, StateError) as error:
            note = f"starting without it: {self._state.put_aside()}"
            self._log.error("state-refused", path=path, reason=str(error), note=note)
        for dropped in self._state.dropped:
            self._log.error("state-entry-refused", path=path, reason=dropped, note="the rest is kept")

    def _note_state(self) -> None:
        """Said when it begins to fail, and when it is over."""
        problem = self._state.problem
        if problem and problem != self._unsaved:
            self._log.error(
                "state-failed",
                reason=problem,
                note="tried again; a master that restarts before forgets it",
            )
        elif self._unsaved and not problem:
            self._log.info("state-saved", path=str(self._state.path))
        self._unsaved = problem

    def _look(self) -> None:
        snapshot, now = self._kernel.snapshot(), time.monotonic()
        self._record(snapshot, now)
        self._decision = None  # nobody reads it any more: what it says of each destination need not be made
        self._controller.receive_kernel(snapshot, now)

    def _record(self, what: Report | Snapshot, now: float) -> None:
        """To those who asked for it; costs nothing while nobody does."""
        if not self._recorders:
            return
        self._recorders = [feed for feed in self._recorders if feed.open]
        if self._recorders:
            said = line(now, what)
            for feed in self._recorders:
                feed.put(said)

    def _start_recording(self) -> Answer:
        if len(self._recorders) >= RECORDERS_MAX:
            return {"error": f"there are {RECORDERS_MAX} recordings already"}
        self._recorders.append(Feed())
        return self._recorders[-1]

    def _turn(self) -> None:
        """One look, one decision, one send. A kernel that cannot be asked is said so and asked again."""
        try:
            self._look()
            self._expire_orders()
            self._decision = decision = self._controller.decide(time.monotonic())
            edits = self._confirmed(decision)
            failed = self._kernel.apply(edits) if edits else ()
        except IpvsError as error:
            self._complain("kernel", str(error))
            self._counters["ipvs_errors"] += 1
            return
        for kind, fields in self._watcher.observe(decision):  # what is told is in force: a place has changed hands
            self._tell(kind, **fields)
        self._counters["edits"] += len(edits)
        self._cut(decision.cuts)
        self._note_failures(failed)
        self._note_removed(edits, failed)
        self._note_faults()
        self._note_changes(decision)
        self._note_foreign()
        self._decided_at = time.monotonic()
        self._remember(decision)
        self._save()

    def _save(self) -> None:
        """In most turns nothing but what was learned has changed, and that is told when it is to be written."""
        state, at = self._state, self._decided_at
        if state.due(at) or not state.holds(self._controller.state(learned=False)):
            state.save(self._controller.state(), at)
        self._note_state()

    def _remember(self, decision: Decision) -> None:
        """For the page's lines; nothing where no pages are served."""
        if self._config.http.listen and self._past.due(self._decided_at):
            self._past.look(self._decided_at, [place for s in decision.services for place in places(s)])

    def _confirmed(self, decision: Decision) -> tuple[Edit, ...]:
        """Beside another owner we look once more just before we write: a zero of his in between would be lost, and he
        does not write it twice. The kernel has no edit that depends on what was there."""
        if self._config.ownership == "table" or not decision.edits:
            return decision.edits
        services = {e.service for e in decision.edits if isinstance(e, SetDestination)}
        return self._controller.confirm(decision.edits, {k: self._kernel.destinations(k) for k in services})

    def _probe(self) -> None:
        """Start what is due of health checks and agent-checks; what comes of them counts in the next turn."""
        now = time.monotonic()
        due = self._controller.probes(now)
        if due and self._probes is None:
            from feedback.master.shell.probes import Probes

            try:
                self._probes = Probes(self._receive_probe)
            except OSError as error:
                self._complain("check", error.strerror or str(error))
        if due and self._probes is not None:
            self._probes.start(due)
        else:
            for probe in due:  # it was not asked: its turn comes again
                self._controller.receive_probe(probe, None, now)

    def _receive_probe(self, probe: Probe, result: Result, now: float) -> None:
        if isinstance(result, Report):
            self._record(result, now)
            self._counters["readings"] += 1
        problem = self._controller.receive_probe(probe, result, now)
        if isinstance(result, Unasked):
            self._complain("check", f"{probe.target}: {result.reason}")
        if problem:
            kind = "exporter" if isinstance(probe.what, Exporter) else "agent-check"
            self._complain(kind, f"{probe.target}: {problem}")
        if self._controller.next_timer() <= now:
            self._stir.set()

    def _receive(self, reports: Sequence[tuple[Report, float]]) -> list[Refused | None]:
        if self._recorders:
            for report, received_at in reports:
                self._record(report, received_at)
        answers = self._controller.receive_reports(reports)
        taken = answers.count(None)
        self._counters["reports"] += taken
        self._counters["reports_refused"] += len(answers) - taken
        return answers

    def _note_failures(self, failed: tuple[EditError, ...]) -> None:
        if failed:
            self._controller.receive_failures([f.edit for f in failed])
            self._counters["ipvs_errors"] += len(failed)
            self._complain("edit", failed[0].text, failed=len(failed))

    def _note_removed(self, edits: tuple[Edit, ...], failed: tuple[EditError, ...]) -> None:
        refused = {f.edit for f in failed}
        for edit in edits:
            if isinstance(edit, RemoveService) and edit not in refused:
                self._tell("service-removed", service=str(edit.service), reason="remove_unlisted")

    def _note_left(self, before: tuple[ServiceKey, ...] = ()) -> None:
        """A service that left the file goes on with its last weights: the kernel has it until somebody removes it."""
        for key in self._controller.left:
            if key not in before and not self._config.remove_unlisted:
                self._tell("service-left", service=str(key), mend=removal(key))

    def _note_faults(self) -> None:
        """Mistakes of ours, which held one service or forgot what was learned of one server."""
        for fault in self._controller.faults:
            self._counters["faults"] += 1
            self._complain("decision", fault.text, where=fault.where)
        self._controller.faults.clear()

    def _note_changes(self, decision: Decision) -> None:
        """One line for a weight that changed what its server gets; under wlc weights move all the time by design."""
        for status in decision.services:
            threshold = LOG_SHARE / max(1, len(status))
            for d in status.news:
                old = d.kernel.destination.weight if d.kernel else 0
                if d.weight != old:
                    self._note_change(d, old, threshold)

    def _note_change(self, of: Status, old: int, threshold: float) -> None:
        key = of.service, of.key
        share = self._logged.get(key)
        if share is not None and abs(of.share - share) < threshold:
            return
        self._logged[key] = of.share
        self._tell(
            "weight-changed",
            service=str(of.service),
            destination=str(of.key),
            old=old,
            new=of.weight,
            share=round(of.share, 4),
            reason="; ".join(str(step.fact) for step in of.steps),
        )

    def _note_foreign(self) -> None:
        for edit in self._controller.foreign_edits:
            self._counters["foreign_edits"] += 1
            where = {"destination": str(edit.destination)} if edit.destination is not None else {}
            self._tell(
                "foreign-edit",
                service=str(edit.service),
                **where,
                what=str(edit.what),
                ours=edit.ours,
                theirs=edit.theirs,
            )
        self._controller.foreign_edits.clear()

    def _tell(self, kind: str, **fields: Any) -> None:
        """Something happened: to the log, and to those who follow the events."""
        self._log.info(kind, **fields)
        self._events.add(kind, time.time(), fields)

    def _expire_orders(self) -> None:
        for order in self._controller.orders.expire(time.time()):
            self._tell_order("order-expired", order)
        for order in self._controller.orders.cut(time.time()):
            service, destination = order.slot
            if service is not None and destination is not None and self._may_cut():
                self._controller.evict(service, destination, order)

    def _tell_order(self, kind: str, order: Order, **fields: Any) -> None:
        where = {k: v for k, v in (("service", order.service), ("destination", order.destination)) if v}
        self._tell(kind, **where, order=str(order), **fields)

    def _complain(self, kind: str, text: str, **fields: Any) -> None:
        now = time.monotonic()
        if now - self._complaints.get(kind, -ERROR_LOG_SECONDS) >= ERROR_LOG_SECONDS:
            self._complaints[kind] = now
            self._log.error(f"{kind}-failed", reason=text, **fields)

    def _reload(self) -> None:
        """SIGHUP: enrolments and configuration, each if it is good; a bad one leaves what was in force."""
        systemd.reloading()
        good = True
        for take in (self._link.reload, self._take_configuration):
            try:
                take()
            except (ConfigError, UnknownLawError, KeyFileError) as error:
                self._log.error("reload-failed", reason=str(error), note="the old configuration stays in force")
                self._events.add("reload-failed", time.time(), {"reason": str(error)})
                good = False
        self._reloaded = (time.monotonic(), good)
        systemd.ready(self._status())

    def _take_configuration(self) -> None:
        config = load(self._path, MasterConfig)
        fixed = ("listen", "key", "enrolled", "control", "state", "role", "netns", "http")
        for name in fixed:
            if getattr(config, name) != getattr(self._config, name):
                raise ConfigError(f"{self._path}: {name}: changes only with a restart")
        before = self._controller.left
        self._controller.reconfigure(config)
        self._stand_ins.follow(stand_ins(config))
        self._config = config
        self._let_flows_go()
        self._open_cutter()
        self._steering.follow(config)
        self._tell("reloaded", path=str(self._path))
        self._note_left(before)

    def _status(self) -> str:
        if self._role.role is not Role.ACTIVE:
            return f"standby: {self._role.reason}"
        states: Counter[str] = Counter()
        for service in self._decision.services if self._decision else ():
            states.update(service.trusts)
        return ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "no destination yet"

    def _answer(self, request: dict[str, Any]) -> Answer:
        command = request.get("command")
        if command not in (*ASKED, *commands.COMMANDS):
            words = ", ".join((*ASKED, *commands.COMMANDS))
            return {"error": f"unknown command {command!r}: expected one of {words}"}
        if command == "events":
            return self._events.since(*_since(request))
        if command in ("steer", "steer-remove"):  # in either role
            if command == "steer-remove":
                self._steering.remove()
                self._tell("steer-removal", by=asking.get().who(request.get("sudo_user")))
            return {"schema": commands.SCHEMA, **self._steering.told()}
        if self._role.role is not Role.ACTIVE:
            peer = self._role.peer or "the other director"
            return {"error": f"this director is the standby: ask the active one, {peer} ({self._role.reason})"}
        if command == "record":
            return self._start_recording()
        if self._decision is None:
            return {"error": "just started: ask again in a second"}
        if command in commands.COMMANDS:
            return self._take_orders(request, self._decision)
        return self._document()()

    def _take_orders(self, request: dict[str, Any], decision: Decision) -> Answer:
        """An operator's drain, override or pause. It is on the disk before it is acknowledged."""
        wall, orders = time.time(), self._controller.orders
        who = asking.get().who(request.pop("sudo_user", None))
        try:
            asked = commands.read(request)
            done = commands.perform(asked, orders, decision.services, who, wall)
            self._act(asked, done, who)
        except commands.CommandError as error:
            return {"error": str(error)}
        for order in done.lifted:
            self._tell_order("order-lifted", order, by=who)
        for order in done.given:
            self._tell_order("order-given", order)
        saved = self._state.insist(self._controller.state(), time.monotonic())
        self._note_state()
        notes = [*done.notes, *([] if saved else [NOT_SAVED])]
        told: dict[str, Any] = {
            name: [commands.as_json(o, wall) for o in getattr(done, name)] for name in ("given", "replaced", "lifted")
        }
        standing = [commands.as_json(o, wall) for o in orders.all()]
        if done.evicted:
            told["places"] = [{"service": str(s), "destination": str(d)} for s, d in done.evicted]
            told["netns"] = self._config.netns
        if done.promoted is not None:
            told["promoted"] = [str(part) for part in done.promoted]
        return {"schema": commands.SCHEMA, **told, "notes": notes, "orders": standing}

    def _act(self, asked: commands.Request, done: commands.Done, who: str) -> None:
        """What is no standing order. Raises CommandError."""
        if done.evicted and not asked.dry_run:
            if not self._may_cut():
                raise commands.CommandError(
                    "clients cannot be told, since the master lacks CAP_NET_RAW: see docs/failure.md"
                )
            if done.clients is not None:
                self._cut_some(done)
                return
            for place in done.evicted:
                self._controller.evict(*place, f"cut by {who or 'nobody known'}: {asked.reason}".rstrip(": "))
        if done.promoted is not None and (why := self._controller.promote(*done.promoted)):
            raise commands.CommandError(f"{done.promoted[1]} in {done.promoted[0]}: {why}")
        if done.evicted or done.promoted is not None:
            self._stir.set()

    def _cut_some(self, done: commands.Done) -> None:
        """The flows of some clients: nothing changes in the table."""
        assert self._decision is not None and self._cutter is not None
        wanted = set(done.evicted)
        for status in self._decision.services:
            for d in status.destinations:
                if (status.service.key, d.key) in wanted and d.kernel is not None:
                    there = d.kernel.destination
                    self._cutter.do([Cut(Do.SOME, status.service.key, there, clients=done.clients)])

    def _may_cut(self) -> bool:
        self._open_cutter(wanted=True)
        self._let_flows_go(wanted=True)
        return self._cutter is not None

    def _document(self) -> Callable[[], dict[str, Any]]:
        """What the control socket and the pages tell, to be made in any thread."""
        now = time.monotonic()
        facts: dict[str, Any] = {
            "director": os.uname().nodename,
            "role": str(self._role.role),
            "role_reason": self._role.reason,
            "connections_lacking": self._role.lacking,
            "uptime_seconds": round(now - self._started, 1),
            "decision_age_seconds": self._decision_age(now),
            "orders": [commands.as_json(o, time.time()) for o in self._controller.orders.all()],
            "left": [str(key) for key in self._controller.left],
            "counters": dict(self._counters) | {f"link_{k}": v for k, v in self._link.counters.items()},
        }
        if self._reloaded is not None:
            facts["reload"] = {"good": self._reloaded[1], "age_seconds": round(now - self._reloaded[0], 1)}
        steering = self._steering.told()
        if steering["state"] != "none":
            facts["steering"] = steering
        for service in self._decision.services if self._decision else ():
            service.keep()
        return partial(of_master, self._decision, facts)


def run(path: Path, level: str = "info") -> str | None:
    """Run until told to stop: why it could not start, or None."""
    logs.setup(level)
    process.keep_private()
    descriptors.raise_limit()
    try:
        asyncio.run(Daemon(path).run())
    except (ConfigError, UnknownLawError, KeyFileError, IpvsError, CurveError, ControlError) as error:
        return str(error)
    return None


def _with_pair(story: Story, path: Path | None) -> Story:
    """Ask the sync daemon of this director, from the thread of the pages: a daemon that hangs holds up nothing else."""
    if path is None:
        return story
    try:
        return structs.replace(story, pair=ask(path, {"command": "status"}, "feedback sync"))
    except ControlError as error:
        return structs.replace(story, pair_problem=str(error))


def _since(request: dict[str, Any]) -> tuple[int, str]:
    number, stream = request.get("since"), request.get("stream")
    return (number if isinstance(number, int) else 0), (stream if isinstance(stream, str) else "")
