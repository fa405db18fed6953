"""Memory available without swapping, of the host or under the tightest limit above a cgroup.

In a cgroup `available = limit - (current - inactive_file)`: page cache that nobody needs is given back first. The level
with the least left counts, and never more than the host itself has. Swap-in and OOM kills are cumulative.

The host's figures come straight from /proc/meminfo at each sample; psutil, which opens the file anew and parses all of
it (five times the cost), is used for the second bound once a second, and on kernels without MemAvailable.

Source: Documentation/admin-guide/cgroup-v2.rst (memory), mm/page_alloc.c si_mem_available().
"""

from __future__ import annotations

from pathlib import Path

import psutil

from feedback.agent.signals.files import SourceFile, keyed, levels, limit, open_if_present
from feedback.wire import Memory

HOST_SECONDS = 1.0  # how often to read what is large and urgent to nobody
AVAILABLE_SECONDS = 0.35  # every other sample at five a second


class HostMemory:
    """The whole machine, with the event counters of /proc/vmstat."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._meminfo = SourceFile(proc / "meminfo")
        self._vmstat = open_if_present(proc / "vmstat")
        self._swap_in_pages: int | None = None
        self._oom_kills: int | None = None
        self._events_due = self._due = float("-inf")
        self._told: Memory | None = None

    def sample(self, now: float) -> Memory:
        if self._told is None or now >= self._due:
            self._told, self._due = self._read(now), now + AVAILABLE_SECONDS
        return self._told

    def _read(self, now: float) -> Memory:
        data = self._meminfo.read()
        total, available = kibibytes(data, b"MemTotal:"), kibibytes(data, b"MemAvailable:")
        if total is None or available is None:
            total, available = host_bytes()
        if self._vmstat is not None and now >= self._events_due:
            events, self._events_due = self._vmstat.read(), now + HOST_SECONDS
            self._swap_in_pages, self._oom_kills = keyed(events, b"pswpin"), keyed(events, b"oom_kill")
        return Memory(
            total=total,
            available=min(total, available),
            swap_in_pages=self._swap_in_pages,
            oom_kills=self._oom_kills,
        )


def kibibytes(data: bytes, key: bytes) -> int | None:
    """A line of /proc/meminfo in bytes. None if absent."""
    start = data.find(key)
    if start < 0:
        return None
    return int(data[start + len(key) : data.find(b"kB", start)]) * 1024


def host_bytes() -> tuple[int, int]:
    """Total and available of the host, the latter estimated by psutil where the kernel does not tell."""
    memory = psutil.virtual_memory()
    return memory.total, memory.available


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
        self._host_available = 0
        self._host_due = float("-inf")

    def sample(self, now: float) -> Memory:
        bounded = [memory for level in self._levels if (memory := level.sample()) is not None]
        if not bounded:
            return self._host.sample(now)
        tightest = min(bounded, key=lambda memory: memory.available)
        if now >= self._host_due:
            self._host_available, self._host_due = host_bytes()[1], now + HOST_SECONDS
        return tightest if tightest.available <= self._host_available else self._host.sample(now)
