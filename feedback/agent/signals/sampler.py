"""All sources of one configuration, read together into one `Sample`.

CPU and memory must be there; everything else is optional. The sample's time is taken between CPU and connections: a
capacity is one over the other, so both must belong to the same moment.

Two sets of sources: Linux's own files, and what psutil tells on any system. Applications and their socket are alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Optional, Protocol

import msgspec

from feedback.agent.load import Sample
from feedback.agent.signals.applications import ApplicationSource
from feedback.agent.signals.connections import ConnectionSource, open_connections
from feedback.agent.signals.cpu import CgroupCpu, HostCpu
from feedback.agent.signals.files import SignalError, topmost
from feedback.agent.signals.listeners import ListenerSource
from feedback.agent.signals.memory import CgroupMemory, HostMemory
from feedback.agent.signals.portable import PortableCpu, PortableMemory, PortableTraffic
from feedback.agent.signals.pressure import PressureSource, open_pressure, open_trigger
from feedback.config.agent import AgentConfig
from feedback.wire import Cpu, Memory


class CpuSource(Protocol):
    epoch: int

    def sample(self, now: float) -> Cpu: ...


class MemorySource(Protocol):
    def sample(self, now: float) -> Memory: ...


class Sources(msgspec.Struct):
    """The sources read at each sample, until `close`. None: this machine does not have that source."""

    cpu: CpuSource
    memory: MemorySource
    pressure: Optional[PressureSource] = None
    connections: Optional[ConnectionSource] = None
    listeners: Optional[ListenerSource] = None
    traffic: Optional[PortableTraffic] = None
    trigger: Optional[int] = None

    def close(self) -> None:
        if self.listeners is not None:
            self.listeners.close()
        if self.trigger is not None:
            os.close(self.trigger)
            self.trigger = None


def of_linux(config: AgentConfig, proc: Path) -> Sources:
    """Raises SignalError where CPU or memory cannot be read."""
    cpu = _cpu(config, proc)
    memory = CgroupMemory(config.cgroup, proc) if config.cgroup is not None else HostMemory(proc)
    pressure, connections = open_pressure(config.cgroup, proc), open_connections(proc)
    # Last, what must be closed again: nothing that comes after may fail.
    listeners = ListenerSource(config.ports, proc) if config.ports else None
    trigger = open_trigger(config.cgroup, proc) if pressure is not None else None
    return Sources(cpu, memory, pressure, connections, listeners, trigger=trigger)


def of_psutil() -> Sources:
    return Sources(PortableCpu(), PortableMemory(), traffic=PortableTraffic())


def is_portable(config: AgentConfig) -> bool:
    """Whether psutil's signals are those in force. Raises SignalError where the configuration needs Linux's own."""
    if config.signals == "auto" and sys.platform == "linux":
        return False
    if config.cgroup is not None or config.services():
        raise SignalError("cgroup and service_cgroup: the signals of this agent are portable: only Linux has cgroups")
    return True


class Sampler:
    """Reads every signal of one real server. Raises SignalError where CPU or memory cannot be read."""

    def __init__(self, config: AgentConfig, clock: Callable[[], float], proc: Path = Path("/proc")) -> None:
        self._clock = clock
        self._sources = of_psutil() if is_portable(config) else of_linux(config, proc)
        self._expected = ("pressure", "connections", *(["listeners"] if config.ports else []))
        try:
            self._applications = ApplicationSource(config.socket) if config.socket is not None else None
        except SignalError:
            self._sources.close()
            raise

    @property
    def applications(self) -> ApplicationSource | None:
        return self._applications

    @property
    def trigger(self) -> int | None:
        """A descriptor that polls POLLPRI when CPU pressure sets in."""
        return self._sources.trigger

    def absent(self) -> list[str]:
        """Signals that this machine does not have, for the log."""
        absent = [name for name in self._expected if getattr(self._sources, name) is None]
        return absent + (["pressure-trigger"] if self.trigger is None else [])

    def sample(self) -> Sample:
        try:
            return self._sample()
        except (ValueError, IndexError) as error:
            raise SignalError(f"a kernel file has an unexpected form: {error}") from error

    def _sample(self) -> Sample:
        sources, now = self._sources, self._clock()
        cpu = sources.cpu.sample(now)
        sampled_at = self._clock()
        return Sample(
            connections=sources.connections.sample(now) if sources.connections is not None else None,
            sampled_at=sampled_at,
            epoch=sources.cpu.epoch,
            cpu=cpu,
            memory=sources.memory.sample(now),
            pressure=sources.pressure.sample(now) if sources.pressure is not None else None,
            listeners=sources.listeners.sample(now) if sources.listeners is not None else (),
            applications=self._applications.sample(now) if self._applications is not None else (),
            received_packets=sources.traffic.sample() if sources.traffic is not None else None,
        )

    def close(self) -> None:
        self._sources.close()
        if self._applications is not None:
            self._applications.close()


def _cpu(config: AgentConfig, proc: Path) -> CpuSource:
    """The source for the cgroup that bounds the real server, or for the host if none does."""
    services = config.services()
    if config.cgroup is not None:
        return CgroupCpu(config.cgroup, services, proc)
    return CgroupCpu(topmost(services[0]), services, proc) if services else HostCpu(proc)
