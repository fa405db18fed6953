"""Samples -> reports, with boot, sequence, and the time of the next one. Pure: time comes with the sample.

A report carries raw counters; the only decision made here is the cadence. While anything changes (CPU, connections,
memory, waiting, an application's report) and for a few seconds after, reports go at the fast interval; at rest at the
idle one. A wake (the onset of pressure) makes the next report a moving one whatever the counters say.

Invariant: within a boot the sequence grows by one a report; counters that restart begin a new boot.
"""

from __future__ import annotations

from typing import Optional

import msgspec

from feedback.wire import PROTOCOL, Application, Connections, Cpu, Listener, Memory, Pressure, Report

QUIET_SECONDS = 3.0  # how long things must rest before reports become rare
UTILISATION_MOVES = 0.05  # of the cores
OPENED_PER_SECOND_MOVES = 2.0  # a health check now and then is rest
RECEIVED_PER_SECOND_MOVES = 50.0  # packets: a quiet network has a few, and each report is answered by one
AVAILABLE_MOVES = 0.01  # of total memory
WAITING_MOVES = 0.01  # of the time


class Sample(msgspec.Struct, frozen=True, gc=False):
    """All signals at one moment. `epoch` moves when the CPU counters begin anew."""

    sampled_at: float
    epoch: int
    cpu: Cpu
    memory: Memory
    pressure: Optional[Pressure] = None
    connections: Optional[Connections] = None
    listeners: tuple[Listener, ...] = ()
    applications: tuple[Application, ...] = ()
    received_packets: Optional[int] = None  # cumulative; known only where `connections` is not


class Load:
    """Makes the reports of one agent. `boot` is unique to this start of the agent."""

    def __init__(
        self,
        name: str,
        addresses: tuple[str, ...],
        boot: str,
        interval_seconds: float,
        idle_interval_seconds: float,
    ) -> None:
        self._name = name
        self._addresses = addresses
        self._boot = boot
        self._interval_seconds = interval_seconds
        self._idle_interval_seconds = max(interval_seconds, idle_interval_seconds)
        self._sequence = 0
        self._before: Sample | None = None
        self._moved_at = float("-inf")
        self._woken = True  # a master should learn quickly of an agent that is new

    def wake(self) -> None:
        """Something outside the counters says that things begin to move."""
        self._woken = True

    def report(self, sample: Sample) -> Report:
        """The report of this sample; its `interval_seconds` is when to take the next one."""
        interval_seconds = self._cadence(sample)
        if self._before is not None and self._before.epoch != sample.epoch:
            self._sequence = 0
        self._before = sample
        report = Report(
            version=PROTOCOL,
            agent=self._name,
            boot=f"{self._boot}.{sample.epoch}",
            sequence=self._sequence,
            sampled_at=sample.sampled_at,
            interval_seconds=interval_seconds,
            addresses=self._addresses,
            cpu=sample.cpu,
            memory=sample.memory,
            pressure=sample.pressure,
            connections=sample.connections,
            listeners=sample.listeners,
            applications=sample.applications,
        )
        self._sequence += 1
        return report

    def _cadence(self, sample: Sample) -> float:
        before = self._before
        if self._woken or before is None or before.epoch != sample.epoch or moves(before, sample):
            self._moved_at = sample.sampled_at
        self._woken = False
        rests = sample.sampled_at - self._moved_at >= QUIET_SECONDS
        return self._idle_interval_seconds if rests else self._interval_seconds


def moves(before: Sample, after: Sample) -> bool:
    """Whether anything happened between two samples that a master should follow closely."""
    seconds = after.sampled_at - before.sampled_at
    if seconds <= 0:
        return True
    busy = after.cpu.busy_seconds - before.cpu.busy_seconds
    available = abs(after.memory.available - before.memory.available)
    return (
        busy >= UTILISATION_MOVES * after.cpu.cores * seconds
        or after.cpu.cores != before.cpu.cores
        or available >= AVAILABLE_MOVES * after.memory.total
        or after.memory.oom_kills != before.memory.oom_kills
        or _opened(before, after) >= OPENED_PER_SECOND_MOVES * seconds
        or _received(before, after) >= RECEIVED_PER_SECOND_MOVES * seconds
        or _waited_seconds(before, after) >= WAITING_MOVES * seconds
        or any(listener.backlog for listener in after.listeners)
        or after.applications != before.applications
    )


def _opened(before: Sample, after: Sample) -> int:
    if before.connections is None or after.connections is None:
        return 0
    return after.connections.opened - before.connections.opened


def _received(before: Sample, after: Sample) -> int:
    if before.received_packets is None or after.received_packets is None:
        return 0
    return after.received_packets - before.received_packets


def _waited_seconds(before: Sample, after: Sample) -> float:
    """The longest wait for any resource."""
    if before.pressure is None or after.pressure is None:
        return 0.0
    return max(
        after.pressure.cpu_some - before.pressure.cpu_some,
        after.pressure.memory_some - before.pressure.memory_some,
        after.pressure.io_some - before.pressure.io_some,
    )
