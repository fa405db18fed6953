"""Pressure stall information: how long work waited for CPU, memory and I/O; of the host or of a cgroup.

Only the `total` counters are taken (microseconds, brought up to date at each read); the averages are ten seconds old.
A kernel without PSI has none of this and the agent does without. A trigger on CPU pressure wakes the agent at its
onset; without CAP_SYS_RESOURCE the kernel grants one with a window of two seconds or none at all.

Source: Documentation/accounting/psi.rst, kernel/sched/psi.c psi_trigger_create().
"""

from __future__ import annotations

import os
from pathlib import Path

from feedback.agent.signals.files import SignalError, SourceFile, open_if_present
from feedback.wire import Pressure

# Stall and window in microseconds, the most useful first. Unprivileged triggers need a multiple of 2 s (Linux 6.5).
OTHERS_SECONDS = 0.35  # memory's and I/O's, every other sample at five a second: weights follow them over seconds
TRIGGERS = (b"some 50000 500000", b"some 200000 2000000")


class PressureSource:
    """The three files of one place: /proc/pressure/{cpu,memory,io}, or a cgroup's {cpu,memory,io}.pressure."""

    def __init__(self, cpu: SourceFile, memory: SourceFile, io: SourceFile) -> None:
        self._cpu, self._memory, self._io = cpu, memory, io
        self._others = (0.0, 0.0, 0.0, 0.0)
        self._others_due = float("-inf")

    def sample(self, now: float) -> Pressure | None:
        try:
            if now >= self._others_due:
                self._others, self._others_due = self._read_others(), now + OTHERS_SECONDS
            return Pressure(total_seconds(self._cpu.read(), b"some"), *self._others)
        except SignalError:  # CONFIG_PSI without psi=1: the files are there and reading says EOPNOTSUPP
            return None

    def _read_others(self) -> tuple[float, float, float, float]:
        """memory_some, memory_full, io_some, io_full."""
        memory, io = self._memory.read(), self._io.read()
        return (
            total_seconds(memory, b"some"),
            total_seconds(memory, b"full"),
            total_seconds(io, b"some"),
            total_seconds(io, b"full"),
        )


def open_pressure(cgroup: Path | None, proc: Path = Path("/proc")) -> PressureSource | None:
    """The cgroup's, else the host's, else None."""
    for paths in _places(cgroup, proc):
        files = [file for path in paths if (file := open_if_present(path)) is not None]
        if len(files) == len(paths):
            return PressureSource(*files)
    return None


def _places(cgroup: Path | None, proc: Path) -> list[list[Path]]:
    names = ("cpu", "memory", "io")
    host = [proc / "pressure" / name for name in names]
    # Never the host's for a cgroup: other tenants' waiting is not this real server's.
    return [host] if cgroup is None else [[cgroup / f"{name}.pressure" for name in names]]


def total_seconds(data: bytes, kind: bytes) -> float:
    """`some avg10=... total=N` -> N in seconds; 0 where the line is missing."""
    start = data.find(kind + b" ")
    if start < 0:
        return 0.0
    start = data.find(b"total=", start) + 6
    end = data.find(b"\n", start)
    return int(data[start : end if end >= 0 else None]) / 1e6


def open_trigger(cgroup: Path | None, proc: Path = Path("/proc")) -> int | None:
    """A descriptor that polls POLLPRI at the onset of CPU pressure, or None where the kernel grants none."""
    path = proc / "pressure" / "cpu" if cgroup is None else cgroup / "cpu.pressure"
    for trigger in TRIGGERS:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            os.write(descriptor, trigger + b"\0")
            return descriptor
        except OSError:
            os.close(descriptor)
    return None
