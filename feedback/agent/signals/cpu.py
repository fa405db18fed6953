"""CPU: the host's from /proc/stat, or a cgroup's own quota and use.

Busy is user, nice, system, irq, softirq and steal: stolen time is not available either. I/O wait is a kind of idle time
that misleads on more than one core (PSI io is better). In a cgroup the *binding level* counts: the level with the
smallest quota on the way up, with everything used there, since siblings share the same quota. If nothing is bounded,
the cgroup has the host, and the host's figures are reported.

Invariant: `busy_seconds` never falls while `epoch` stays; `epoch` moves when another level binds or a cgroup is remade.
Source: Documentation/admin-guide/cgroup-v2.rst, proc(5), fs/proc/stat.c (guest time is inside user time).
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from feedback.agent.signals.entitlement import Entitlement
from feedback.agent.signals.files import SignalError, SourceFile, count_of_ranges, keyed, levels, open_if_present
from feedback.wire import Cpu

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
TICK_MICROSECONDS = round(TICK_SECONDS * 1e6)
_RUNNING = b"\nprocs_running "
LIMITS_SECONDS = 1.0  # limits change by hand: once a second is soon enough


class HostCpu:
    """The whole machine. `epoch` never moves: its counters begin anew only with the kernel."""

    epoch = 0

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._stat = SourceFile(proc / "stat")

    def sample(self, now: float) -> Cpu:
        data = self._stat.read()
        first = data[: data.find(b"\n")].split()
        if len(first) < 9 or first[0] != b"cpu":
            raise SignalError(f"{self._stat.path}: no cpu line")
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[1:9])
        return Cpu(
            cores=max(1, data.count(b"\ncpu")),
            busy_seconds=(user + nice + system + irq + softirq + steal) * TICK_SECONDS,
            resolution_seconds=TICK_SECONDS,
            steal_seconds=steal * TICK_SECONDS,
            runnable=_runnable(data),
        )


def _runnable(stat: bytes) -> float | None:
    """Tasks that run or wait for a CPU now, this agent left out. None where a container's /proc leaves the line out."""
    at = stat.rfind(_RUNNING)
    if at < 0:
        return None
    at += len(_RUNNING)
    return max(0, int(stat[at : stat.find(b"\n", at)]) - 1)


class Grain:
    """The grain of a cgroup's CPU counter, found by looking at it.

    A kernel that accounts by ticks (User Mode Linux) lets usage_usec grow by whole ticks only; the greatest common
    divisor of what was seen is then a multiple of the tick. On others it falls to a few microseconds at once. Until
    anything was used, the tick is assumed: claiming precision that is not there is the worse error.
    """

    __slots__ = ("_divisor",)

    def __init__(self) -> None:
        self._divisor = 0

    def see(self, usage_microseconds: int) -> float:
        self._divisor = math.gcd(self._divisor, usage_microseconds)
        if self._divisor % TICK_MICROSECONDS == 0:
            return TICK_SECONDS
        return self._divisor / 1e6 if self._divisor >= 1000 else 0.0


class _Level:
    """One cgroup on the way up: what it may use and what it used."""

    __slots__ = ("quota", "stat")

    def __init__(self, path: Path) -> None:
        self.quota = open_if_present(path / "cpu.max")  # absent where the controller is not enabled
        self.stat = SourceFile(path / "cpu.stat")
        if keyed(self.stat.read(), b"usage_usec") is None:
            raise SignalError(f"{path}: not a cgroup v2 directory: cpu.stat has no usage_usec")

    def cores(self) -> float | None:
        """Quota over period, or None where there is no quota."""
        if self.quota is None:
            return None
        quota, period = self.quota.read().split()
        return None if quota == b"max" else int(quota) / int(period)


class _Service:
    """A cgroup of the service, inside the one that bounds: it may start after the agent, and be away for a while."""

    def __init__(self, bounding: Path, path: Path) -> None:
        self._bounding, self._path = bounding, path
        self._stat: SourceFile | None = None
        self._entitlement: Entitlement | None = None

    def look(self) -> None:
        """Raises SignalError where it is not inside."""
        if self._stat is None and self._path.is_dir():
            self._entitlement = Entitlement(self._bounding, self._path)
            self._stat = SourceFile(self._path / "cpu.stat")

    def used_microseconds(self) -> int | None:
        return _used(self._stat) if self._stat is not None else None

    def entitled(self, cores: float, now: float) -> float | None:
        return self._entitlement.sample(cores, now) if self._entitlement is not None else None


class CgroupCpu:
    """A real server in a cgroup, or the host if that is the topmost. `services` are the cgroups inside it that work for
    the service: what they use and are entitled to is taken together, and told while all of them are there."""

    def __init__(self, cgroup: Path, services: tuple[Path, ...] = (), proc: Path = Path("/proc")) -> None:
        self._levels = [_Level(path) for path in levels(cgroup)]
        self._cpuset = open_if_present(cgroup / "cpuset.cpus.effective")
        self._services = [_Service(cgroup, path) for path in services if path != cgroup]
        self._host = HostCpu(proc)
        self._grain = Grain()
        self._binding: _Level | None = None
        self._cores = 0.0
        self._limits_due = 0.0
        self._busy = 0
        self._reopened = 0
        self.epoch = 0

    def sample(self, now: float) -> Cpu:
        if now >= self._limits_due:
            for service in self._services:
                service.look()
            self._find_binding(self._host.sample(now).cores)
            self._limits_due = now + LIMITS_SECONDS
        own = self._own_microseconds()
        if self._binding is None:
            return self._of_host(self._host.sample(now), own, now)
        data = self._binding.stat.read()
        busy = keyed(data, b"usage_usec")
        if busy is None:
            raise SignalError(f"{self._binding.stat.path}: no usage_usec")
        throttled = keyed(data, b"throttled_usec")
        self._watch(busy, self._binding.stat.reopened)
        return Cpu(
            cores=self._cores,
            busy_seconds=busy / 1e6,
            resolution_seconds=self._grain.see(busy),
            own_seconds=own / 1e6 if own is not None else None,
            entitled=self._entitled(now),
            throttled_seconds=throttled / 1e6 if throttled is not None else None,
        )

    def _of_host(self, host: Cpu, own: float | None, now: float) -> Cpu:
        """Nothing bounds the cgroup: it has the host, and the host's other load takes from it."""
        return Cpu(
            cores=host.cores,
            busy_seconds=host.busy_seconds,
            resolution_seconds=host.resolution_seconds,
            own_seconds=own / 1e6 if own is not None else None,
            entitled=self._entitled(now),
            steal_seconds=host.steal_seconds,
            runnable=host.runnable,
        )

    def _entitled(self, now: float) -> float | None:
        """Only where the cgroup itself binds, or is the whole host: else what its siblings could claim is not known."""
        whole = self._binding is self._levels[0] or (self._binding is None and len(self._levels) == 1)
        if not whole or not self._services:
            return None
        share = _together([service.entitled(self._cores, now) for service in self._services])
        return min(1.0, share) if share is not None else None

    def _own_microseconds(self) -> float | None:
        return _together([service.used_microseconds() for service in self._services] or [_used(self._levels[0].stat)])

    def _find_binding(self, host_cores: float) -> None:
        """The level with the smallest quota; of equals the highest, for its siblings' use counts too."""
        binding, cores = None, host_cores
        cpus = count_of_ranges(self._cpuset.read()) if self._cpuset is not None else 0
        if 0 < cpus < host_cores:
            binding, cores = self._levels[0], float(cpus)
        for level in self._levels:
            quota = level.cores()
            if quota is not None and quota <= cores:
                binding, cores = level, quota
        if binding is not self._binding and self._cores:
            self._renew()
        self._binding, self._cores = binding, cores

    def _watch(self, busy: int, reopened: int) -> None:
        if busy < self._busy or reopened != self._reopened:
            self._renew()
        self._busy, self._reopened = busy, reopened

    def _renew(self) -> None:
        self.epoch += 1
        self._grain = Grain()
        self._busy = 0


def _together(parts: list[int | None] | list[float | None]) -> float | None:
    """Their sum, where all are known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _used(stat: SourceFile) -> int | None:
    """None while the cgroup is away (its unit restarts): that must not silence the agent."""
    try:
        return keyed(stat.read(), b"usage_usec")
    except SignalError:
        return None
