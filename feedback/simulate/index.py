"""Index: finds the least cost over weight among many destinations without looking at each, for pools of hundreds.

A heap with lazy keys. A cost that rose, because a connection was opened, is noticed when its entry comes to the top. A
cost that may have fallen must be reported by `fell`. Ratios are floats: two fractions of whole numbers below 2**26 that
differ in value differ as floats too, and equal ones are equal, so the order is that of the kernel's products, ties
included.

Invariant: each usable slot has one valid entry, whose key is at most its true key; an entry that `_valid` does not name
is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

from feedback.ipvs.schedulers import Candidate, usable

C = TypeVar("C", bound=Candidate)


class Index(Generic[C]):
    """`slots` are in the order of the list: of equals the first wins."""

    def __init__(self, slots: Sequence[C], cost: Callable[[C], int]) -> None:
        self._slots, self._cost = slots, cost
        self._valid: list[float | None] = [None] * len(slots)
        self._heap: list[tuple[float, int]] = []
        self._place = {id(slot): place for place, slot in enumerate(slots)}
        self._build()

    def _build(self) -> None:
        self._valid = [self._cost(s) / s.weight if usable(s) else None for s in self._slots]
        self._heap = [(key, place) for place, key in enumerate(self._valid) if key is not None]
        heapify(self._heap)

    def fell(self, slot: C) -> None:
        """This slot changed in another way than by `open`: fewer connections, another weight or threshold."""
        if not usable(slot):
            return  # found out at the top
        place = self._place[id(slot)]
        key, valid = self._cost(slot) / slot.weight, self._valid[place]
        if valid is None or key < valid:
            self._valid[place] = key
            heappush(self._heap, (key, place))
            if len(self._heap) > 8 * len(self._slots) + 64:
                self._build()

    def least(self) -> C | None:
        heap, valid = self._heap, self._valid
        while heap:
            key, place = heap[0]
            if valid[place] != key:
                heappop(heap)
                continue
            slot = self._slots[place]
            if not usable(slot):
                valid[place] = None
                heappop(heap)
                continue
            true = self._cost(slot) / slot.weight
            if true <= key:
                return slot
            valid[place] = true
            heapreplace(heap, (true, place))
        return None
