"""A server as processor sharing on cores: each job runs on at most one core, and all jobs run at the same pace.

So virtual time works: a job that arrives at virtual time v with cost c ends at v + c whatever comes later, and every
event costs O(log n). Knows no connection and no scheduler; times are the world's seconds, costs seconds of a core of
speed 1. Invariant: `jobs` is a heap of (virtual end, request), and `virtual` moves only in `advance`.
"""

from __future__ import annotations

from heapq import heappop, heappush

from feedback.simulate.lies import Lie

ALLOTTED_MIN = 1e-3  # cores: a server whose neighbours take everything still moves


class Server:
    """`available` is what the neighbours leave, `starved` the part of that which the host takes and no counter shows,
    `boot` counts restarts, `alarm` is the earliest event that the world
    has for this server. Counters are cumulative since the boot."""

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
        "io_seconds",
        "jobs",
        "lie",
        "open",
        "opened",
        "rate",
        "silent",
        "speed",
        "starved",
        "stolen_seconds",
        "updated_at",
        "virtual",
        "waiting_seconds",
    )

    def __init__(self, cores: float, speed: float) -> None:
        self.cores, self.base_speed, self.speed = cores, speed, speed
        self.available, self.starved, self.allotted = 1.0, 0.0, cores
        self.io_seconds = 0.0
        self.failing = self.down = self.silent = False
        self.lie: Lie | None = None
        self.boot = 0
        self.alarm = float("inf")
        self.rate, self.virtual, self.updated_at = speed, 0.0, 0.0
        self.jobs: list[tuple[float, int]] = []
        self._reset()

    def _reset(self) -> None:
        self.busy_seconds = self.stolen_seconds = self.waiting_seconds = 0.0
        self.opened = self.open = self.finished = self.errors = 0

    @property
    def capacity_cores(self) -> float:
        """Cores of speed 1 that useful work can have now."""
        return 0.0 if self.down or self.failing else self.cores * self.available * (1 - self.starved) * self.speed

    def advance(self, now: float) -> None:
        elapsed = now - self.updated_at
        self.updated_at = now
        self.stolen_seconds += (1 - self.available) * self.cores * elapsed
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
        self.rate = self.speed if running <= self.allotted else self.speed * self.allotted / running

    def add(self, now: float, cost: float, request: int) -> None:
        self.advance(now)
        heappush(self.jobs, (self.virtual + cost, request))
        self._pace()

    def due(self) -> float:
        """When the next job ends if nothing comes in between; infinity when idle."""
        if not self.jobs:
            return float("inf")
        return self.updated_at + max(0.0, self.jobs[0][0] - self.virtual) / self.rate

    def ended(self, now: float) -> list[int]:
        """Requests whose CPU work is done by now, taken out."""
        self.advance(now)
        limit, done = self.virtual + 1e-9, []
        while self.jobs and self.jobs[0][0] <= limit:
            done.append(heappop(self.jobs)[1])
        if done:
            self._pace()
        return done

    def change(self, now: float, available: float | None, speed: float | None, starved: float | None = None) -> None:
        """`speed` is a factor on the server's own."""
        self.advance(now)
        if available is not None:
            self.available = available
        if starved is not None:
            self.starved = starved
        self.allotted = max(ALLOTTED_MIN, self.cores * self.available * (1 - self.starved))
        if speed is not None:
            self.speed = self.base_speed * speed
        self._pace()

    def stop(self, now: float) -> list[int]:
        """Everything in it is lost: the requests that were."""
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
