"""Prior: what the servers of one pool reveal about each other, and how connections are counted there.

One server's cost of a connection informs all: a server that has never been busy is assumed to be average for its size.
So a pool of unequal machines is nearly right after the first reports, before there is any traffic. How long connections
last, by the director's own counts, decides what a capacity counts (capacity.py).

A level rests on an agent's report, so each is limited to a factor of two from the median: one agent moves the mean by
no more than that over their number. Invariant: the levels are of those that have been sampled, less their known
differences.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from math import inf, log
from statistics import median_low

from feedback.master.pool import COUNTS_MOST, SATURATED, Row
from feedback.master.servers.capacity import DEFAULT_LEVEL, Capacity
from feedback.master.servers.starved import usual

HELD_SECONDS = 3.0  # mean residence: from above this until below half of it
LOOKS = 100  # between counts: rounding adds up to nothing in so many
APART = log(COUNTS_MOST)  # from the median: further a level is not believed; servers of one size differ by some 30 %
QUEUE_SECONDS = 5.0  # a queue does not end with the first report that says so
KEPT_SECONDS = 0.3  # from half of this on more and more: clients keep connections, or wait for something else than CPU


class Prior:
    """The prior of one pool, and how its connections are counted (capacity.py): `held` the open ones, otherwise those
    that end, and as far as clients keep them (`kept`, 0..1) those that came and are open."""

    def __init__(self) -> None:
        self.held = False
        self.kept = 0.0
        self.usual = 1.0  # of what a server seems to have, what it gets (starved.py)
        self.starves = False  # whether any of them gets less
        self._rows: list[Row] = []
        self._unsized = 0  # of the seeded ones: their sizes are not known yet
        self._levels: list[float] = []  # in order
        self._total = 0.0
        self._displaced: list[Capacity] = []  # whose places are not yet those of their levels
        self._uncounted = True
        self._looks = 0
        self._queued_at = -inf

    def follow(self, rows: list[Row]) -> None:
        """These are the pool's rows now. They are counted anew, so that no rounding adds up."""
        self._looks += 1
        if self.starves:
            ratios = [row.capacity.starved.ratio for row in rows]
            self.usual, self.starves = usual(ratios), any(ratio < 1 for ratio in ratios)
        else:
            self.usual = 1.0
        if self._uncounted or self._looks % LOOKS == 0 or (rows is not self._rows and rows != self._rows):
            self._rows = rows
            self._count()

    def recount(self) -> None:
        """One of them was made anew."""
        self._uncounted = True

    def _count(self) -> None:
        self._levels, self._uncounted = [], False
        for capacity in self._displaced:
            capacity.displaced = False
        self._displaced.clear()
        for capacity in self._capacities():
            capacity.placed = capacity.in_pool()
            if capacity.placed is not None:
                self._levels.append(capacity.placed)
        self._levels.sort()
        self._total = sum(self._levels)

    def _capacities(self) -> Iterable[Capacity]:
        return (row.capacity for row in self._rows)

    def adopt(self, capacity: Capacity) -> None:
        """A new one: it counts as the pool does."""
        capacity.hold(self.held)

    def moved(self, capacity: Capacity) -> None:
        """Its level has: it gets its place when somebody asks for one."""
        if not capacity.displaced:
            capacity.displaced = True
            self._displaced.append(capacity)

    def _place(self, capacity: Capacity) -> None:
        levels, before = self._levels, capacity.placed
        if before is not None:
            at = bisect_left(levels, before)
            if at < len(levels) and levels[at] == before:
                del levels[at]
                self._total -= before
        capacity.placed = after = capacity.in_pool()
        capacity.displaced = False
        if after is not None:
            insort(levels, after)
            self._total += after

    def others(self, capacity: Capacity) -> int:
        """How many others have been sampled."""
        return len(self._levels) - (capacity.placed is not None)

    def of(self, capacity: Capacity) -> float | None:
        """A level for a server like this one: the mean of the others, and its known difference from that; None where
        nothing is known."""
        for displaced in self._displaced:
            self._place(displaced)
        self._displaced.clear()
        levels, own, offset = self._levels, capacity.placed, capacity.offset
        count = self.others(capacity)
        if count <= 0:
            return None if offset is None else DEFAULT_LEVEL + offset
        skipped = len(levels) if own is None else bisect_left(levels, own)  # its place, which does not count
        middle = (count - 1) // 2
        usual, total = levels[middle + (middle >= skipped)], self._total - (own or 0.0)
        place = 0
        while levels[place] < usual - APART:
            total += (usual - APART - levels[place]) * (place != skipped)
            place += 1
        place = len(levels) - 1
        while levels[place] > usual + APART:
            total -= (levels[place] - usual - APART) * (place != skipped)
            place -= 1
        return total / count + (offset or 0.0)

    def seed(self, rows: Iterable[Row]) -> None:
        """Start from the weights that the kernel has: a restarted master continues, it does not begin. Takes effect as
        soon as the sizes of all these servers are known."""
        for row in rows:
            row.capacity.seed = float(row.weight)
            self._unsized += row.capacity.cores is None
        if not self._unsized:
            self._settle()

    def sized(self) -> None:
        """The size of a seeded one became known."""
        self._unsized -= 1
        if self._unsized == 0:
            self._settle()

    def _settle(self) -> None:
        seeded = [c for c in self._capacities() if c.seed is not None]
        levels = [log(c.seed / c.cores) for c in seeded if c.seed and c.cores]
        usual = median_low(levels) if levels else 0.0
        for capacity, level in zip(seeded, levels, strict=True):
            capacity.offset, capacity.seed = level - usual, None
        self._count()

    def residence(self, seconds: float, now: float) -> None:
        """How long connections last in this pool, on the mean: decides what capacity counts, `held` with hysteresis. In
        a saturated pool, and just after, they last because they queue: that tells nothing of them."""
        kept = min(1.0, max(0.0, 2 * seconds / KEPT_SECONDS - 1))
        if kept and self._saturated():
            self._queued_at = now
        queues = now - self._queued_at < QUEUE_SECONDS
        self.kept = min(kept, self.kept) if queues else kept
        held = seconds >= HELD_SECONDS / 2 if self.held else seconds > HELD_SECONDS and not queues
        if held != self.held:
            self.held = held
            for capacity in self._capacities():
                self.adopt(capacity)
            self._count()

    def _saturated(self) -> bool:
        used = [c.utilisation for c in self._capacities() if c.window is not None]
        return bool(used) and median_low(used) > SATURATED
