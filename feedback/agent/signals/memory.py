"""Memory: what can still be had without swapping, of the host or of the tightest limit on the way up from a cgroup.

In a cgroup `available = limit - (current - inactive_file)`: page cache that nobody needs is given back first. The level
with the least left counts, and never more than the host itself has. Swap-in and OOM kills are cumulative.

Source: Documentation/admin-guide/cgroup-v2.rst (memory), mm/page_alloc.c si_mem_available() by way of psutil.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from feedback.agent.signals.files import SourceFile, keyed, levels, limit, open_if_present
from feedback.wire import Memory

HOST_SECONDS = 1.0  # beside a cgroup's limit the host is only a second bound


class HostMemory:
    """The whole machine, from psutil, with the event counters of /proc/vmstat."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._vmstat = open_if_present(proc / "vmstat")

    def sample(self, now: float) -> Memory:
        memory = psutil.virtual_memory()
        events = self._vmstat.read() if self._vmstat is not None else b""
        return Memory(
            total=memory.total,
            available=memory.available,
            swap_in_pages=keyed(events, b"pswpin"),
            oom_kills=keyed(events, b"oom_kill"),
        )


class _Level:
    __slots__ = ("current", "events", "maximum", "stat")

    def __init__(self, path: Path) -> None:
        self.maximum = SourceFile(path / "memory.max")
        self.current = SourceFile(path / "memory.current")
        self.stat = SourceFile(path / "memory.stat")
        self.events = open_if_present(path / "memory.events")

    def sample(self) -> Memory | None:
        """None where this level has no limit."""
        total = limit(self.maximum.read())
        if total is None:
            return None
        stat = self.stat.read()
        reclaimable = keyed(stat, b"inactive_file") or 0
        left = total - max(0, int(self.current.read()) - reclaimable)
        return Memory(
            total=total,
            available=min(total, max(0, left)),
            swap_in_pages=keyed(stat, b"pswpin"),
            oom_kills=keyed(self.events.read(), b"oom_kill") if self.events is not None else None,
        )


class CgroupMemory:
    """A real server in a cgroup: the level with the least available, or the host where none has a limit."""

    def __init__(self, cgroup: Path, proc: Path = Path("/proc")) -> None:
        self._levels = [_Level(path) for path in levels(cgroup) if (path / "memory.max").exists()]
        self._host = HostMemory(proc)
        self._host_memory: Memory | None = None
        self._host_due = 0.0

    def sample(self, now: float) -> Memory:
        bounded = [memory for level in self._levels if (memory := level.sample()) is not None]
        if not bounded:
            return self._host.sample(now)
        tightest = min(bounded, key=lambda memory: memory.available)
        if self._host_memory is None or now >= self._host_due:
            self._host_memory, self._host_due = self._host.sample(now), now + HOST_SECONDS
        return self._host_memory if self._host_memory.available < tightest.available else tightest
