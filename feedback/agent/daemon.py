"""The agent's process: one loop that samples, reports to every master, and waits.

A plain poll() loop without asyncio: it halves the memory, and nothing runs concurrently. Replies are read when the next
sample is due; they are not urgent, and every wake-up costs. This loop feeds the watchdog after a sample, so it shows
that sampling works. Between samples come signals, by a socket, and the kernel's notice of rising pressure, which cuts
an idle wait short.

Invariant: a reload that fails leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import zmq

from feedback import wire
from feedback.agent.agentcheck import AgentCheck
from feedback.agent.desk import Desk
from feedback.agent.load import Load
from feedback.agent.responder import Responder
from feedback.agent.signals.files import SignalError
from feedback.agent.signals.sampler import Sampler, is_portable
from feedback.agent.uplink import State, Uplink
from feedback.config.agent import AgentCheckConfig, AgentConfig
from feedback.config.strict import ConfigError, load
from feedback.ops import keys, logs, systemd
from feedback.ops.keys import KeyFileError, KeyPair

LOG = logs.Log("agent")


class Plan(NamedTuple):
    """A configuration that was checked, with its key."""

    config: AgentConfig
    pair: KeyPair


def check(path: Path) -> Plan:
    """Read configuration and key. Raises ConfigError or KeyFileError."""
    config = load(path, AgentConfig)
    for i, link in enumerate(config.master):
        try:
            keys.public_key(link.public_key)
        except KeyFileError as error:
            raise ConfigError(f"{path}: master[{i}].public_key: {error}") from None
    return Plan(config, keys.load_secret(config.key))


def probe(plan: Plan) -> str:
    """Open every source once and read it: what this agent would report, in a line. Raises SignalError."""
    with contextlib.closing(Sampler(_without_socket(plan.config), time.monotonic)) as sampler:
        sample = sampler.sample()
        absent = ", ".join(sampler.absent())
    memory = f"{sample.memory.available / 2**20:.0f} of {sample.memory.total / 2**20:.0f} MiB available"
    said = f"{plan.config.name}: {sample.cpu.cores:g} cores, {memory}" + (f"; not here: {absent}" if absent else "")
    return said + _advice(plan.config)


def _advice(config: AgentConfig) -> str:
    """Where the service's cgroup is not named but the kernel knows whose its ports are: what could be written."""
    if config.services() or is_portable(config):
        return ""
    from feedback.agent.signals.holders import holders

    found = [
        f"port {port}: the listener is in {' and '.join(sorted(map(str, paths)))}"
        for port, paths in sorted(holders(config.ports).items())
    ]
    if not found:
        return ""
    return f"; {', '.join(found)}: name it as service_cgroup, with all else that serves there (docs/first-director.md)"


def _without_socket(config: AgentConfig) -> AgentConfig:
    """A check must not take the socket of the agent that runs."""
    import msgspec

    return msgspec.structs.replace(config, socket=None)


class Running:
    """Everything that one configuration needs while it is in force."""

    def __init__(self, plan: Plan, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        config = plan.config
        self.plan = plan
        self.sampler = Sampler(config, time.monotonic)
        self.uplinks = [Uplink(context, link, plan.pair, LOG) for link in config.master]
        self.load = Load(
            config.name, config.addresses, os.urandom(8).hex(), config.interval_seconds, config.idle_interval_seconds
        )
        self.agent_check: AgentCheck | None = None
        self.responder: Responder | None = None
        self.desk: Desk | None = None
        try:
            self._open_desk(config, context)
            if config.agent_check is not None:
                self._open_agent_check(config.agent_check)
        except SignalError:
            self.close()
            raise

    def _open_desk(self, config: AgentConfig, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        own = self.sampler.applications.sessions if self.sampler.applications is not None else None
        if own is not None or config.sessions is not None:
            self.desk = Desk(config.name, config.master, self.plan.pair, context, LOG, own, config.sessions)

    def _open_agent_check(self, config: AgentCheckConfig) -> None:
        self.agent_check = AgentCheck(config.smoothing_seconds)
        self.responder = Responder(config.listen, config.networks(), self.agent_check.answer)

    def report(self, now: float) -> float:
        """Sample and send: how long until the next. Raises SignalError."""
        sample = self.sampler.sample()
        if self.desk is not None and self.desk.turn(now):
            self.load.wake()
        report = self.load.report(sample)
        if self.agent_check is not None:
            self.agent_check.observe(sample)
        data = wire.encode(report)
        for uplink in self.uplinks:
            uplink.tick(now)
            uplink.send(data)
        return report.interval_seconds

    def sessions_due(self) -> float:
        """When words on sessions want attention between samples."""
        source = self.sampler.applications
        due = source.due() if source is not None else math.inf
        return min(due, self.desk.due()) if self.desk is not None else due

    def turn_sessions(self, now: float) -> None:
        source = self.sampler.applications
        if source is not None and source.due() <= now:
            source.listen(now)
        if self.desk is not None and self.desk.due() <= now:
            self.desk.turn(now)

    def close(self) -> None:
        for uplink in self.uplinks:
            uplink.close()
        if self.desk is not None:
            self.desk.close()
        self.sampler.close()
        if self.responder is not None:
            self.responder.close()


class Daemon:
    """The loop. `run` returns when it is told to stop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        plan = check(path)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._running = Running(plan, self._context)
        except SignalError:
            self._context.term()
            raise
        self._poll = select.poll()
        self._wakeup, self._wakeup_write = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wakeup_write.setblocking(False)
        self._poll.register(self._wakeup, select.POLLIN)
        self._trigger: int | None = None
        self._heeded = False
        self._watch_trigger()
        self._interval_seconds = self._running.plan.config.interval_seconds
        self._stopping = False
        self._reload_wanted = False
        self._failed = ""  # the signal error already logged
        self._refused_datagrams = 0
        self._told: tuple[int, float, str] | None = None  # what systemd knows
        self._watchdog_seconds = systemd.watchdog_interval_seconds()
        self._watchdog_due = 0.0

    def run(self) -> None:
        with self._signals():
            LOG.info("agent-started", name=self._running.plan.config.name, absent=self._running.sampler.absent())
            systemd.ready("sampling")
            gc.collect()
            gc.freeze()  # what start-up made stays for ever: never walk it again
            due = time.monotonic()
            while not self._stopping:
                now = time.monotonic()
                if now >= due:
                    self._sample(now)
                    due = max(due + self._interval_seconds, now)
                if self._wait(due) or self._reload_wanted:
                    due = time.monotonic()
                if self._reload_wanted:
                    self._reload()
            systemd.stopping("stopping")
            LOG.info("agent-stopped")

    def close(self) -> None:
        self._running.close()
        self._context.term()
        self._wakeup.close()
        self._wakeup_write.close()

    def _sample(self, now: float) -> None:
        try:
            self._interval_seconds = self._running.report(now)
            self._failed = ""
        except SignalError as error:
            # No report is better than half of one: the master takes silence for silence, not for death.
            self._interval_seconds = self._running.plan.config.idle_interval_seconds
            if str(error) != self._failed:
                LOG.error("signal-failed", reason=str(error))
                self._failed = str(error)
        self._heed_trigger()
        self._tell_datagrams()
        self._tell_status()
        if self._watchdog_seconds is not None and now >= self._watchdog_due:
            systemd.watchdog()
            self._watchdog_due = now + self._watchdog_seconds / 2

    def _wait(self, due: float) -> bool:
        """Wait until due, or less. True if pressure set in while reports were rare."""
        running, responder = self._running, self._running.responder
        sessions_due = running.sessions_due()
        due = min(due, sessions_due)
        if responder is not None:
            due = min(due, responder.due())
        found = self._poll.poll(max(0, math.ceil((due - time.monotonic()) * 1000)))
        if not found and responder is None and sessions_due == math.inf:
            return False  # nearly always
        if responder is not None:
            mine = [descriptor for descriptor, _ in found if responder.owns(descriptor)]
            found = [(descriptor, events) for descriptor, events in found if descriptor not in mine]
            responder.turn(mine, time.monotonic())
        running.turn_sessions(time.monotonic())
        woken = False
        for descriptor, events in found:
            if descriptor == self._wakeup.fileno():
                self._wakeup.recv(512)
            elif events & (select.POLLERR | select.POLLNVAL):
                self._poll.unregister(descriptor)  # the cgroup behind the trigger is gone
                self._trigger = None
            else:
                running.load.wake()
                woken = True
        return woken

    def _reload(self) -> None:
        """Change over to what the file says now; on any error keep what runs."""
        self._reload_wanted = False
        systemd.reloading()
        old = self._running.plan
        try:
            plan = check(self._path)
        except (ConfigError, KeyFileError) as error:
            LOG.error("reload-failed", reason=str(error), kept="the old configuration")
        else:
            self._replace(plan, old)
        self._told = None
        systemd.ready("sampling")

    def _replace(self, plan: Plan, old: Plan) -> None:
        # The old one is closed first: both would want the same socket for applications.
        self._unwatch_trigger()
        self._running.close()
        try:
            self._running = Running(plan, self._context)
            LOG.info("reloaded", name=plan.config.name)
        except SignalError as error:
            LOG.error("reload-failed", reason=str(error), kept="the old configuration")
            self._running = Running(old, self._context)
        self._watch_trigger()

    def _watch_trigger(self) -> None:
        self._trigger = self._running.sampler.trigger
        if self._trigger is not None:
            self._heeded = False
            self._poll.register(self._trigger, 0)
        if self._running.responder is not None:
            self._running.responder.attach(self._poll)

    def _heed_trigger(self) -> None:
        """Pressure makes rare reports frequent. While they are frequent, waking up for it would be of no use."""
        rare = self._interval_seconds > self._running.plan.config.interval_seconds
        if rare != self._heeded and self._trigger is not None:
            # With no event wanted poll() still takes what the kernel has to tell, so nothing old is told later.
            self._poll.modify(self._trigger, select.POLLPRI if rare else 0)
            self._heeded = rare

    def _unwatch_trigger(self) -> None:
        if self._trigger is not None:
            self._poll.unregister(self._trigger)
            self._trigger = None

    def _tell_datagrams(self) -> None:
        """An application's mistake is told when it begins, not at each datagram."""
        source = self._running.sampler.applications
        if source is not None and source.refused != self._refused_datagrams:
            if self._refused_datagrams == 0:
                LOG.warning("datagram-refused", socket=str(source.path), reason=source.problem)
            self._refused_datagrams = source.refused

    def _tell_status(self) -> None:
        connected = [uplink.state for uplink in self._running.uplinks].count(State.CONNECTED)
        told = (connected, self._interval_seconds, self._failed)
        if told == self._told:
            return
        self._told = told
        masters = f"{connected} of {len(self._running.uplinks)} masters, every {self._interval_seconds:g} s"
        systemd.status(f"no report: {self._failed}" if self._failed else masters)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop, SIGHUP reloads; the pipe wakes poll(), which would otherwise go on waiting."""
        handlers = {signal.SIGTERM: self._on_stop, signal.SIGINT: self._on_stop, signal.SIGHUP: self._on_reload}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        wakeup_before = signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload_wanted = True


def run(path: Path) -> str | None:
    """Run until told to stop: why it could not start, or None."""
    logs.setup()
    try:
        with contextlib.closing(Daemon(path)) as daemon:
            daemon.run()
    except (ConfigError, KeyFileError) as error:
        return str(error)
    except SignalError as error:
        return f"{path}: {error}"
    return None
