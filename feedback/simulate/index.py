"""Index: finds the least cost over weight among many destinations without looking at each, for pools of hundreds.

A heap with lazy keys. A price that rose, because a connection was opened, is noticed when its entry comes to the top. A
price that may have fallen must be reported by `fell`. Prices are floats: two fractions of whole numbers below 2**26
that differ in value differ as floats too, and equal ones are equal, so the order is that of the kernel's products, ties
included.

Invariant: each usable slot has one valid entry, whose key is at most its price; an entry that `_valid` does not name is
dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import Generic, Protocol, TypeVar


class Priced(Protocol):
    """`place` counts from the head of the list; `price` is infinite if the slot is not usable."""

    @property
    def place(self) -> int: ...
    @property
    def price(self) -> float: ...


P = TypeVar("P", bound=Priced)


class Index(Generic[P]):
    """`slots` are in the order of the list: of equals the first wins."""

    def __init__(self, slots: Sequence[P]) -> None:
        self._slots = slots
        self._build()

    def _build(self) -> None:
        self._valid = [slot.price for slot in self._slots]
        self._heap = [(price, place) for place, price in enumerate(self._valid) if price < inf]
        heapify(self._heap)

    def fell(self, slot: P) -> None:
        """This slot changed in another way than by a connection more: its price may be lower."""
        price, place = slot.price, slot.place
        if price < self._valid[place]:
            self._valid[place] = price
            heappush(self._heap, (price, place))
            if len(self._heap) > 8 * len(self._slots) + 64:
                self._build()

    def least(self) -> P | None:
        heap, valid = self._heap, self._valid
        while heap:
            key, place = heap[0]
            if valid[place] != key:
                heappop(heap)
                continue
            slot = self._slots[place]
            price = slot.price
            if price <= key:
                return slot
            valid[place] = price
            if price < inf:
                heapreplace(heap, (price, place))
            else:
                heappop(heap)
        return None
