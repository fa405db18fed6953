"""All sources of one configuration, read together into one `Sample`.

CPU and memory must be there; everything else is left out where the kernel or the configuration has none. The sample's
time is taken between CPU and connections: a capacity is one over the other, so both must belong to the same moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from feedback.agent.load import Sample
from feedback.agent.signals.applications import ApplicationSource
from feedback.agent.signals.connections import open_connections
from feedback.agent.signals.cpu import CgroupCpu, HostCpu
from feedback.agent.signals.files import SignalError, topmost
from feedback.agent.signals.listeners import ListenerSource
from feedback.agent.signals.memory import CgroupMemory, HostMemory
from feedback.agent.signals.pressure import open_pressure, open_trigger
from feedback.config import AgentConfig
from feedback.wire import Cpu, Memory


class CpuSource(Protocol):
    epoch: int

    def sample(self, now: float) -> Cpu: ...


class MemorySource(Protocol):
    def sample(self, now: float) -> Memory: ...


class Sampler:
    """Reads every signal of one real server. Raises SignalError where CPU or memory cannot be read."""

    def __init__(self, config: AgentConfig, clock: Callable[[], float], proc: Path = Path("/proc")) -> None:
        self._clock = clock
        self._cpu = _cpu(config, proc)
        self._memory: MemorySource = HostMemory(proc)
        if config.cgroup is not None:
            self._memory = CgroupMemory(config.cgroup, proc)
        self._pressure = open_pressure(config.cgroup, proc)
        self._connections = open_connections(proc)
        # Last, what must be closed again: nothing that comes after may fail.
        self._applications = ApplicationSource(config.socket) if config.socket is not None else None
        self._listeners = ListenerSource(config.ports, proc) if config.ports else None
        self.trigger = open_trigger(config.cgroup, proc) if self._pressure is not None else None

    @property
    def applications(self) -> ApplicationSource | None:
        return self._applications

    def absent(self) -> list[str]:
        """Signals that this kernel does not have, for the log."""
        names = {"pressure": self._pressure, "connections": self._connections, "pressure-trigger": self.trigger}
        return [name for name, source in names.items() if source is None]

    def sample(self) -> Sample:
        try:
            return self._sample()
        except (ValueError, IndexError) as error:
            raise SignalError(f"a kernel file has an unexpected form: {error}") from error

    def _sample(self) -> Sample:
        now = self._clock()
        cpu = self._cpu.sample(now)
        sampled_at = self._clock()
        return Sample(
            connections=self._connections.sample(now) if self._connections is not None else None,
            sampled_at=sampled_at,
            epoch=self._cpu.epoch,
            cpu=cpu,
            memory=self._memory.sample(now),
            pressure=self._pressure.sample() if self._pressure is not None else None,
            listeners=self._listeners.sample(now) if self._listeners is not None else (),
            applications=self._applications.sample(now) if self._applications is not None else (),
        )

    def close(self) -> None:
        if self._listeners is not None:
            self._listeners.close()
        if self._applications is not None:
            self._applications.close()
        if self.trigger is not None:
            os.close(self.trigger)
            self.trigger = None


def _cpu(config: AgentConfig, proc: Path) -> CpuSource:
    """Of the cgroup that bounds the real server; of the host where none does."""
    services = config.services()
    if config.cgroup is not None:
        return CgroupCpu(config.cgroup, services, proc)
    return CgroupCpu(topmost(services[0]), services, proc) if services else HostCpu(proc)
