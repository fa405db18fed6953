"""Prior: what the servers of one pool teach about each other, and how connections are counted there.

What one server teaches about the cost of a connection serves all: a server that has never been busy is taken for an
average one of its size. So a pool of unequal machines is nearly right after the first reports, before there is any
traffic. How long connections last, by the director's own counts, decides what a capacity counts (capacity.py).
Invariant: the mean is of the levels of those that have been sampled, less their known differences from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from feedback.master.pool import SATURATED, Row
from feedback.master.servers.capacity import DEFAULT_LEVEL, Capacity
from feedback.master.servers.starved import usual

HELD_ABOVE, HELD_BELOW = 3.0, 1.5  # mean residence in seconds
LOOKS = 100  # between counts: rounding adds up to nothing in so many
KEPT_ABOVE, KEPT_BELOW = 0.3, 0.15  # seconds likewise: clients keep connections, or wait for something else than CPU


class Prior:
    """Of one pool. `held` and `kept` are its mode (capacity.py)."""

    def __init__(self) -> None:
        self.held = self.kept = False
        self.usual = 1.0  # of what a server seems to have, what it gets (starved.py)
        self._rows: list[Row] = []
        self._unsized = 0  # of the seeded ones: their sizes are not known yet
        self._known, self._total = 0, 0.0
        self._uncounted = True
        self._looks = 0

    def follow(self, rows: list[Row]) -> None:
        """These are the pool's rows now. The sum is taken anew, so that no rounding adds up."""
        self._looks += 1
        self.usual = usual([row.capacity.starved.ratio for row in rows])
        if self._uncounted or self._looks % LOOKS == 0 or rows != self._rows:
            self._rows = rows
            self._count()

    def recount(self) -> None:
        """One of them was made anew."""
        self._uncounted = True

    def _count(self) -> None:
        levels = [c.filter.level - (c.offset or 0.0) for c in self._capacities() if c.filter.samples]
        self._known, self._total, self._uncounted = len(levels), sum(levels), False

    def _capacities(self) -> Iterable[Capacity]:
        return (row.capacity for row in self._rows)

    def adopt(self, capacity: Capacity) -> None:
        """A new one: it counts as the pool does."""
        capacity.hold(self.held)
        capacity.kept = self.kept

    def moves(self, capacity: Capacity) -> None:
        """Its level is about to move."""
        if capacity.filter.samples:
            self._known -= 1
            self._total -= capacity.filter.level - (capacity.offset or 0.0)

    def moved(self, capacity: Capacity) -> None:
        if capacity.filter.samples:
            self._known += 1
            self._total += capacity.filter.level - (capacity.offset or 0.0)

    def of(self, capacity: Capacity) -> float | None:
        """A level for a server like this one: the mean of the others, and its known difference from that; None where
        nothing is known."""
        known, total, offset = self._known, self._total, capacity.offset
        if capacity.filter.samples:
            known, total = known - 1, total - capacity.filter.level + (offset or 0.0)
        if known <= 0:
            return None if offset is None else DEFAULT_LEVEL + offset
        return total / known + (offset or 0.0)

    def seed(self, rows: Iterable[Row]) -> None:
        """Start from the weights that the kernel has: a restarted master continues, it does not begin. Takes effect as
        soon as the sizes of all these servers are known."""
        for row in rows:
            row.capacity.seed = float(row.weight)
            self._unsized += row.capacity.cores is None
        if not self._unsized:
            self._place()

    def sized(self) -> None:
        """The size of a seeded one became known."""
        self._unsized -= 1
        if self._unsized == 0:
            self._place()

    def _place(self) -> None:
        seeded = [c for c in self._capacities() if c.seed is not None]
        levels = [log(c.seed / c.cores) for c in seeded if c.seed and c.cores]
        mean = sum(levels) / max(1, len(levels))
        for capacity, level in zip(seeded, levels, strict=True):
            capacity.offset, capacity.seed = level - mean, None
        self._count()

    def residence(self, seconds: float) -> None:
        """How long connections last in this pool, on the mean: decides what capacity counts, with hysteresis. In a
        saturated pool they last because they queue: that tells nothing of them."""
        queues = seconds > KEPT_ABOVE and self._saturated()
        held = seconds >= HELD_BELOW if self.held else seconds > HELD_ABOVE and not queues
        kept = seconds >= KEPT_BELOW if self.kept else seconds > KEPT_ABOVE and not queues
        if (held, kept) == (self.held, self.kept):
            return
        self.held, self.kept = held, kept
        for capacity in self._capacities():
            self.adopt(capacity)
        self._count()

    def _saturated(self) -> bool:
        used = [c.utilisation for c in self._capacities() if c.window is not None]
        return bool(used) and sum(used) / len(used) > SATURATED
