"""Sizing: how many active connections each destination of one service can hold, learned.

Two bounds, and the tighter one holds. **Load**: by Little's law a server that completes `capacity` connections a second
holds capacity * residence of them at full load. The residence is the larger of the latency that the operator accepts
and what connections last while the pool is calm, or at least not saturated (people think between requests); measured
in a saturated one it would grow with the queue and bound nothing. **Memory**: what is free, but for a reserve, over
what a connection costs, which is the slope of memory used against connections established.

In a tier that fills one server after another (`exact`) underestimating hurts: later servers get what the first could
take. There the open connections of a server, over its utilisation, bound the room from below while it is not saturated.
Before anything was measured in the pool nothing bounds it.

Knows no threshold and no kernel. Source: Netflix's concurrency-limits and Envoy's gradient controller search for this
number by its effect on latency; the agents tell the capacity, so it needs no search.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, exp, inf, sqrt

import msgspec

from feedback.master.outcome import Fact
from feedback.master.pool import FULL, SATURATED, Pool, Row
from feedback.master.servers.arrivals import COUNTED_SECONDS
from feedback.master.servers.capacity import Estimate
from feedback.master.servers.filter import FORGET_SECONDS
from feedback.master.servers.prior import QUEUE_SECONDS
from feedback.master.servers.window import Window

CALM = 0.7  # utilisation of a server below which it is not full before the next look
RESIDENCE_SECONDS = 10.0  # several of the kernel's counts, and a change of what clients do shows soon
CONNECTIONS_PER_CORE_MIN = 2  # one that is worked for, one that comes next
MEMORY_RESERVE = 0.05  # of the total
SPREAD_MIN, CORRELATION_MIN = 5.0, 0.5  # connections; what a slope must rest on
UNKNOWN_PER_CORE = 1000  # connections, where nothing at all is known
USED_MIN = 0.25  # of a server: below, its connections tell nothing


class OfMemory(msgspec.Struct, frozen=True, gc=False):
    connections: int

    def __str__(self) -> str:
        return f"memory for {self.connections} connections"


class Held(msgspec.Struct, frozen=True, gc=False):
    connections: int

    def __str__(self) -> str:
        return f"{self.connections} open connections use it fully"


class OfLoad(msgspec.Struct, frozen=True, gc=False):
    capacity: float
    residence: float
    connections: int

    def __str__(self) -> str:
        return f"{self.capacity:.1f}/s of {self.residence:.2f} s each are {self.connections} connections"


class Unmeasured(msgspec.Struct, frozen=True, gc=False):
    connections: int

    def __str__(self) -> str:
        return f"nothing measured yet in this pool: {self.connections} connections"


class OfUse(msgspec.Struct, frozen=True, gc=False):
    opened: float
    used: float
    connections: int

    def __str__(self) -> str:
        return f"{self.opened:.0f} open connections use {100 * self.used:.0f} % of it: {self.connections} at least"


class Room(msgspec.Struct, frozen=True, gc=False):
    """`connections` active ones, and why; `memory_bound` is what memory alone allows, None while that is not known."""

    connections: int
    memory_bound: int | None
    why: Fact


class Memory:
    """Bytes used against connections, weighted exponentially in time: a slope, its covariance and correlation."""

    __slots__ = ("_at", "_cross", "_mean_n", "_mean_used", "_spread_n", "_spread_used")

    def __init__(self) -> None:
        self._at: float | None = None
        self._mean_n = self._mean_used = self._spread_n = self._spread_used = self._cross = 0.0

    def observe(self, window: Window) -> None:
        if window.established is None or not window.memory_total or window.end == self._at:
            return
        n, used = float(window.established), window.memory_total * (1 - window.memory_available)
        if self._at is None:
            self._mean_n, self._mean_used, self._at = n, used, window.end
            return
        blend = 1 - exp(-max(0.0, window.end - self._at) / FORGET_SECONDS)
        self._at = window.end
        off_n, off_used = n - self._mean_n, used - self._mean_used
        self._mean_n += blend * off_n
        self._mean_used += blend * off_used
        keep = 1 - blend
        self._spread_n = keep * (self._spread_n + blend * off_n * off_n)
        self._spread_used = keep * (self._spread_used + blend * off_used * off_used)
        self._cross = keep * (self._cross + blend * off_n * off_used)

    def per_connection(self) -> float | None:
        """Bytes; None while connections have not varied enough, or memory does not follow them."""
        if self._spread_n < SPREAD_MIN**2 or self._cross <= 0:
            return None
        if self._cross**2 < CORRELATION_MIN**2 * self._spread_n * self._spread_used:
            return None
        return self._cross / self._spread_n


@dataclass(slots=True, eq=False)
class Size:
    """Of one row: the slope of its memory, and its open connections and utilisation, over two seconds."""

    memory: Memory = field(default_factory=Memory)
    opened: float = 0.0
    used: float = 0.0


class Sizing:
    """The sizes of one service's destinations. `latency_seconds` is what the operator accepts at full load."""

    def __init__(self, latency_seconds: float) -> None:
        self._latency = latency_seconds
        self._stood = self._opened = 0.0  # connection seconds, and connections, fading over ten seconds
        self._at: float | None = None
        self._queued_at = -inf
        self.queues = False  # whether the pool is saturated, or just was: its queues do not end with one report
        self._measured = False
        self._arriving = 0.0  # connections in the next two turns

    def observe(self, pool: Pool) -> None:
        seconds = 0.0 if self._at is None else max(0.0, pool.now - self._at)
        self._at, self._arriving = pool.now, 2 * pool.interval_seconds * pool.flow
        if pool.crowding >= SATURATED:
            self._queued_at = pool.now
        self.queues = pool.now - self._queued_at < QUEUE_SECONDS
        if pool.flow > 0 and not self.queues:
            weight = seconds * (1 - pool.crowding / SATURATED)  # the calmer, the less they wait
            keep = exp(-weight / RESIDENCE_SECONDS)
            self._stood = self._stood * keep + weight * sum(row.active for row in pool.rows)
            self._opened = self._opened * keep + weight * pool.flow
        blend = 1 - exp(-seconds / COUNTED_SECONDS)
        self._measured = False
        for row in pool.rows:
            size = row.size
            if size is None:
                size = row.size = Size()
            for window in row.latest:
                size.memory.observe(window)
            size.opened += blend * (row.active - size.opened)
            used = 0.0
            if row.estimate is not None:
                used = row.estimate.utilisation
                self._measured = self._measured or row.estimate.samples > 0
            size.used += blend * (used - size.used)

    def room(self, row: Row, *, exact: bool = False, alone: bool = False) -> Room | None:
        """None while nothing is known of the server. `alone`: it gets all that comes until it is full."""
        estimate = row.estimate
        if estimate is None:
            return None
        count, why = self._by_load(estimate)
        if exact:
            count, why = self._by_use(row, estimate, count, why, self._arriving if alone else 0.0)
        bound = self._by_memory(row)
        if bound is not None and bound < count:
            return Room(max(1, bound), bound, OfMemory(bound))
        return Room(count, bound, why)

    def _by_load(self, estimate: Estimate) -> tuple[int, Fact]:
        least = ceil(CONNECTIONS_PER_CORE_MIN * estimate.cores)
        if estimate.held:
            count = max(least, ceil(estimate.capacity + sqrt(estimate.capacity)))  # the mean of a count that varies
            return count, Held(count)
        residence = max(self._latency, self._stood / self._opened if self._opened else 0.0)
        count = max(least, ceil(estimate.capacity * residence))
        return count, OfLoad(estimate.capacity, residence, count)

    def _by_use(self, row: Row, estimate: Estimate, count: int, why: Fact, arriving: float) -> tuple[int, Fact]:
        if not self._measured:
            count = ceil(UNKNOWN_PER_CORE * max(1.0, estimate.cores))
            return count, Unmeasured(count)
        size = row.size or Size()
        most_used, now = max(size.used, estimate.utilisation), row.active
        least = int(size.opened / max(size.used, USED_MIN) * _trusted(most_used))
        if now and arriving and most_used < CALM:
            least = max(least, ceil(now / CALM + arriving))
        return (count, why) if least <= count else (least, OfUse(size.opened, size.used, least))

    def _by_memory(self, row: Row) -> int | None:
        """The window is older than the kernel's count: connections opened since then have not used their memory yet."""
        window = row.window
        if window is None or window.established is None or row.size is None or row.kernel is None:
            return None
        each = row.size.memory.per_connection()
        if each is None:
            return None
        free = (window.memory_available - MEMORY_RESERVE) * window.memory_total
        return max(0, min(row.active, window.established) + int(free / each))


def _trusted(used: float) -> float:
    """How far open connections over utilisation tell what a server can hold: once it is saturated, both grow for ever
    and their ratio with them."""
    return max(0.0, min(1.0, (FULL - used) / (FULL - SATURATED)))
