"""A server as processor sharing on cores: each job runs on at most one core, and all jobs run at the same pace.

Therefore virtual time works: a job that arrives at virtual time v with cost c ends at v + c whatever comes later, and
every event costs O(log n). Knows no connection and no scheduler. Times are the world's seconds; costs are seconds of a
core of speed 1.

Invariant: `jobs` is a heap of (virtual end, request), and no job ends before `alarm`. Later arrivals can only delay an
end, so the server may have nothing to end at its alarm.
"""

from __future__ import annotations

from heapq import heappop, heappush

from feedback.simulate.lies import Lie

INF = float("inf")
ALLOTTED_MIN = 1e-3  # cores: a server whose neighbours take everything still makes some progress
SAME = 1e-9  # virtual seconds: ends that are closer come at the same moment
NONE = -1  # instead of a request


class Server:
    """`available` is the part of the cores that the neighbours leave. `starved` is the part of that which the host
    takes and no counter shows. `boot` counts restarts. `alarms` is a heap of (alarm, `index`) of many servers, to which
    this one adds its own where it becomes earlier. Counters are cumulative since the boot."""

    __slots__ = (
        "alarm",
        "alarms",
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
        "index",
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

    def __init__(
        self, cores: float, speed: float, index: int = 0, alarms: list[tuple[float, int]] | None = None
    ) -> None:
        self.cores, self.base_speed, self.index, self.alarms = cores, speed, index, alarms
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

    def add(self, now: float, cost: float, request: int) -> None:
        """A new job. This and `end` are called most often of all, so they do the work of `advance` and `_pace`
        themselves."""
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
        due = now + left / rate if left > 0.0 else now
        if due < self.alarm:
            self._wake(due)

    def _wake(self, due: float) -> None:
        self.alarm = due
        if self.alarms is not None:
            heappush(self.alarms, (due, self.index))

    def due(self) -> float:
        """When the next job ends if nothing comes in between; infinity when idle."""
        if not self.jobs:
            return INF
        left = self.jobs[0][0] - self.virtual
        return self.updated_at + left / self.rate if left > 0.0 else self.updated_at

    def end(self) -> int:
        """Let time come to `alarm`. Remove and return a request whose CPU work is done then, or NONE. The next alarm
        may be at the same moment."""
        now, jobs, allotted = self.alarm, self.jobs, self.allotted
        elapsed = now - self.updated_at
        self.updated_at = now
        if self.stolen_cores:
            self.stolen_seconds += self.stolen_cores * elapsed
        running = len(jobs)
        if not running:
            self.alarm = INF
            return NONE
        self.virtual = virtual = self.virtual + self.rate * elapsed
        if running > allotted:
            self.busy_seconds += allotted * elapsed
            self.waiting_seconds += elapsed
        else:
            self.busy_seconds += running * elapsed
        left = jobs[0][0] - virtual
        if left > SAME:
            self.alarm = now + left / self.rate
            return NONE
        request = heappop(jobs)[1]
        running -= 1
        self.rate = rate = self.speed if running <= allotted else self.full_rate / running
        if not running:
            self.alarm = INF
        elif (left := jobs[0][0] - virtual) > SAME:
            self.alarm = now + left / rate
        return request

    def change(self, now: float, available: float | None, speed: float | None, starved: float | None = None) -> None:
        """`speed` is a factor on the server's own."""
        self.advance(now)
        self._grant(
            self.available if available is None else available,
            self.starved if starved is None else starved,
            self.speed if speed is None else self.base_speed * speed,
        )
        self._pace()
        if self.due() < self.alarm:
            self._wake(self.due())

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
