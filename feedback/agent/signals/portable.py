"""Portable signals, from psutil on every system that it supports: CPU times, memory, swap, packets received.

Linux's own files have more (a cgroup, pressure, TCP's counters) and cost less: the other modules here read them. This
one is used on systems without such files, or with `signals = "portable"`.

Source: psutil's documentation. A field that a system lacks is absent from psutil's answer.
"""

from __future__ import annotations

import os
from typing import Any

import psutil

from feedback.agent.signals.files import SignalError
from feedback.wire import Cpu, Memory

SWAP_SECONDS = 1.0  # between looks at swap: reading it takes longer than all the rest
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # guest time is inside user time


class PortableCpu:
    """The whole machine. `epoch` never moves: its counters begin anew only with the kernel."""

    epoch = 0

    def sample(self, now: float) -> Cpu:
        times = _asked("cpu_times")
        return Cpu(
            cores=max(1, psutil.cpu_count() or 1),
            busy_seconds=sum(getattr(times, name, 0.0) for name in _BUSY),
            resolution_seconds=TICK_SECONDS,
            steal_seconds=getattr(times, "steal", None),
        )


class PortableMemory:
    """The whole machine, with what was swapped in since it started."""

    def __init__(self) -> None:
        self._swap_in_pages: int | None = None
        self._swap_due = float("-inf")

    def sample(self, now: float) -> Memory:
        memory = _asked("virtual_memory")
        if now >= self._swap_due:
            self._swap_in_pages, self._swap_due = _swap_in_pages(), now + SWAP_SECONDS
        return Memory(memory.total, min(memory.total, memory.available), swap_in_pages=self._swap_in_pages)


class PortableTraffic:
    """Packets received by all interfaces: where TCP's counters are not known, they tell that something begins."""

    def sample(self) -> int | None:
        counters = psutil.net_io_counters()  # None where there is no interface
        return counters.packets_recv if counters is not None else None


def _swap_in_pages() -> int | None:
    try:
        return psutil.swap_memory().sin // PAGE_BYTES
    except (OSError, RuntimeError, psutil.Error):  # no swap there, or none that may be looked at
        return None


def _asked(name: str) -> Any:
    """Raises SignalError."""
    try:
        return getattr(psutil, name)()
    except (OSError, RuntimeError, psutil.Error) as error:
        raise SignalError(f"psutil.{name}: {error}") from None
