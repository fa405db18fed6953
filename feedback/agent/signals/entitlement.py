"""A service's entitlement: the CPU that cgroup weights leave it while its neighbours take all they can.

A neighbour that uses all idle CPU makes utilisation 1 whatever the service does, and yet it may have hardly any weight:
only cpu.weight shows that. From the binding cgroup down to the service, level by level, the fair share is water-filled:
each busy neighbour gets CPU by weight, none more than its own quota, and the others get what it leaves. Idle neighbours
want nothing. Each one's use since the last look shows whether it is busy, so a new one counts in the next sample.

Source: Documentation/admin-guide/cgroup-v2.rst (cpu.weight, cpu.max), kernel/sched/fair.c.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Optional

import msgspec

from feedback.agent.signals.files import SignalError, SourceFile, keyed, open_if_present

BUSY_CORES = 0.02  # a neighbour that uses less than this is idle
NEIGHBOURS_MAX = 32  # with more, reading them all would cost too much: nothing is said


def fair_share(weight: float, neighbours: list[tuple[float, float]], cores: float) -> float:
    """Cores that `weight` gets beside neighbours (weight, most cores it can use), all of them wanting all they can."""
    left, competing = cores, list(neighbours)
    while True:
        per_weight = left / (weight + sum(w for w, _ in competing))
        capped = [n for n in competing if n[1] < n[0] * per_weight]
        if not capped:
            return weight * per_weight
        left -= sum(most for _, most in capped)
        competing = [n for n in competing if n not in capped]


class _Neighbour(msgspec.Struct):
    stat: SourceFile
    weight: Optional[SourceFile]
    quota: Optional[SourceFile]
    used_seconds: float

    @staticmethod
    def open(path: Path) -> _Neighbour:
        stat = SourceFile(path / "cpu.stat")
        used_seconds = _used_seconds(stat)
        return _Neighbour(stat, open_if_present(path / "cpu.weight"), open_if_present(path / "cpu.max"), used_seconds)

    def uses(self, seconds: float) -> bool:
        """Whether it was busy in the seconds since the last look."""
        before, self.used_seconds = self.used_seconds, _used_seconds(self.stat)
        return self.used_seconds - before >= BUSY_CORES * seconds

    def wants(self) -> tuple[float, float]:
        return _weight(self.weight), _most_cores(self.quota)


class _Level:
    """A cgroup on the way to the service, among its neighbours."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = _Neighbour.open(path)
        self._neighbours: dict[str, _Neighbour] = {}
        self._seen: tuple[int, int] | None = None

    def weighs(self) -> bool:
        """Whether weights are in force here: without the cpu controller threads compete, not cgroups. It may be enabled
        later."""
        if self._own.weight is None:
            self._own.weight = open_if_present(self._path / "cpu.weight")
        return self._own.weight is not None

    def share(self, cores: float, seconds: float) -> float:
        """The cores that this cgroup would get of so many."""
        self._look_around()
        wants = [n.wants() for n in self._neighbours.values() if n.uses(seconds)]
        weight, most = self._own.wants()
        return min(most, fair_share(weight, wants, cores))

    def _look_around(self) -> None:
        """Read the directory again only when a cgroup was made or removed: its link count and time tell."""
        status = self._path.parent.stat()
        seen = (status.st_nlink, status.st_mtime_ns)
        if seen == self._seen:
            return
        with os.scandir(self._path.parent) as entries:
            names = {e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name != self._path.name}
        if len(names) > NEIGHBOURS_MAX:
            raise SignalError(f"{self._path.parent}: more than {NEIGHBOURS_MAX} cgroups")
        for gone in self._neighbours.keys() - names:
            del self._neighbours[gone]
        for name in names - self._neighbours.keys():
            self._neighbours[name] = _Neighbour.open(self._path.parent / name)
        self._seen = seen

    def forget(self) -> None:
        """Something went while it was read: look around anew."""
        self._seen = None
        self._neighbours.clear()


class Entitlement:
    """The way from the cgroup that bounds (left out) down to the service's."""

    def __init__(self, bounding: Path, service: Path) -> None:
        bounding, service = bounding.resolve(), service.resolve()
        if bounding not in service.parents:
            raise SignalError(f"{service}: service_cgroup must lie inside cgroup, {bounding}")
        below = len(service.parts) - len(bounding.parts)
        self._levels = [_Level(path) for path in reversed([service, *service.parents][:below])]
        self._looked_at: float | None = None

    def sample(self, cores: float, now: float) -> float | None:
        """The fraction of the cores, or None where it cannot be told now."""
        before, self._looked_at = self._looked_at, now
        got = cores
        if not all(level.weighs() for level in self._levels):
            return None
        try:
            for level in self._levels:
                got = level.share(got, now - before if before is not None else 0.0)
        except (SignalError, OSError, ValueError):
            for level in self._levels:
                level.forget()
            return None
        return min(1.0, got / cores) if before is not None else None


def _used_seconds(stat: SourceFile) -> float:
    return (keyed(stat.read(), b"usage_usec") or 0) / 1e6


def _weight(file: SourceFile | None) -> float:
    """cpu.weight: 1..10000, 0 for a cgroup that runs only when nobody else wants to (cpu.idle)."""
    return max(0.01, float(file.read())) if file is not None else 100.0


def _most_cores(file: SourceFile | None) -> float:
    if file is None:
        return float("inf")
    quota, period = file.read().split()
    return float("inf") if quota == b"max" else int(quota) / int(period)
