"""A server as processor sharing on cores: each job runs on at most one core, and all jobs run at the same pace.

Therefore virtual time works: a job that arrives at virtual time v with cost c ends at v + c whatever comes later, and
every event costs O(log n). Knows no connection and no scheduler. Times are the world's seconds; costs are seconds of a
core of speed 1.

Invariant: `jobs` is a heap of (virtual end, request), and `virtual` moves only in `advance`.
"""

from __future__ import annotations

from heapq import heappop, heappush

from feedback.simulate.lies import Lie

INF = float("inf")
ALLOTTED_MIN = 1e-3  # cores: a server whose neighbours take everything still makes some progress


class Server:
    """`available` is the part of the cores that the neighbours leave. `starved` is the part of that which the host
    takes and no counter shows. `boot` counts restarts. `alarm` is the earliest event that the world has for this
    server. Counters are cumulative since the boot."""

    __slots__ = (
        "alarm",
        "allotted",
        "available",
        "base_speed",
        "boot",
        "busy_seconds",
        "cores",
        "down",
        "errors",
        "failing",
        "finished",
        "full_rate",
        "io_seconds",
        "jobs",
        "lie",
        "open",
        "opened",
        "rate",
        "silent",
        "speed",
        "starved",
        "stolen_cores",
        "stolen_seconds",
        "updated_at",
        "virtual",
        "waiting_seconds",
    )

    def __init__(self, cores: float, speed: float) -> None:
        self.cores, self.base_speed = cores, speed
        self.io_seconds = 0.0
        self.failing = self.down = self.silent = False
        self.lie: Lie | None = None
        self.boot = 0
        self.alarm = INF
        self.virtual, self.updated_at = 0.0, 0.0
        self.jobs: list[tuple[float, int]] = []
        self._grant(1.0, 0.0, speed)
        self.rate = speed
        self._reset()

    def _reset(self) -> None:
        self.busy_seconds = self.stolen_seconds = self.waiting_seconds = 0.0
        self.opened = self.open = self.finished = self.errors = 0

    def _grant(self, available: float, starved: float, speed: float) -> None:
        self.available, self.starved, self.speed = available, starved, speed
        self.allotted = max(ALLOTTED_MIN, self.cores * available * (1 - starved))
        self.stolen_cores = (1 - available) * self.cores
        self.full_rate = speed * self.allotted  # of all jobs together, while every core is busy

    @property
    def capacity_cores(self) -> float:
        """Cores of speed 1 that useful work can have now."""
        return 0.0 if self.down or self.failing else self.cores * self.available * (1 - self.starved) * self.speed

    def advance(self, now: float) -> None:
        elapsed = now - self.updated_at
        self.updated_at = now
        if self.stolen_cores:
            self.stolen_seconds += self.stolen_cores * elapsed
        running = len(self.jobs)
        if running:
            self.virtual += self.rate * elapsed
            if running > self.allotted:
                self.busy_seconds += self.allotted * elapsed
                self.waiting_seconds += elapsed
            else:
                self.busy_seconds += running * elapsed

    def _pace(self) -> None:
        running = len(self.jobs)
        self.rate = self.speed if running <= self.allotted else self.full_rate / running

    def add(self, now: float, cost: float, request: int) -> float:
        """Returns the new value of `due`. It is called most often of all, so it does the work of `advance` and `_pace`
        itself."""
        elapsed = now - self.updated_at
        self.updated_at = now
        if self.stolen_cores:
            self.stolen_seconds += self.stolen_cores * elapsed
        jobs, allotted, virtual = self.jobs, self.allotted, self.virtual
        running = len(jobs)
        if running > allotted:
            self.virtual = virtual = virtual + self.rate * elapsed
            self.busy_seconds += allotted * elapsed
            self.waiting_seconds += elapsed
        elif running:
            self.virtual = virtual = virtual + self.rate * elapsed
            self.busy_seconds += running * elapsed
        heappush(jobs, (virtual + cost, request))
        running += 1
        self.rate = rate = self.speed if running <= allotted else self.full_rate / running
        left = jobs[0][0] - virtual
        return now + left / rate if left > 0.0 else now

    def due(self) -> float:
        """When the next job ends if nothing comes in between; infinity when idle."""
        if not self.jobs:
            return INF
        left = self.jobs[0][0] - self.virtual
        return self.updated_at + left / self.rate if left > 0.0 else self.updated_at

    def ended(self, now: float) -> list[int]:
        """Remove and return the requests whose CPU work is done by now."""
        self.advance(now)
        jobs, limit = self.jobs, self.virtual + 1e-9
        if not jobs or jobs[0][0] > limit:
            return []
        done = [heappop(jobs)[1]]
        while jobs and jobs[0][0] <= limit:
            done.append(heappop(jobs)[1])
        running = len(jobs)
        self.rate = self.speed if running <= self.allotted else self.full_rate / running
        return done

    def change(self, now: float, available: float | None, speed: float | None, starved: float | None = None) -> None:
        """`speed` is a factor on the server's own."""
        self.advance(now)
        self._grant(
            self.available if available is None else available,
            self.starved if starved is None else starved,
            self.speed if speed is None else self.base_speed * speed,
        )
        self._pace()

    def stop(self, now: float) -> list[int]:
        """Everything in it is lost. Returns the requests that were there."""
        self.advance(now)
        lost = [request for _, request in self.jobs]
        self.jobs.clear()
        self.down = True
        self._pace()
        return lost

    def start(self, now: float) -> None:
        self.advance(now)
        self.down = False
        self.boot += 1
        self._reset()
