"""Orders: an operator's drains, overrides and pauses. Pure data and its meaning.

Owns the orders in force, and their last word on a setting. Times are wall-clock seconds since 1970, because an order
survives restarts and takeovers, and a monotonic clock does not. Knows no law and no kernel. Invariants: a destination
has at most one order, the newest; only a forced order raises an owner's zero; during a pause only drains and overrides
write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec

from feedback.model import WEIGHT_MAX, DestinationKey, ServiceKey

ORDERS_MAX = 10_000


class Kind(StrEnum):
    DRAIN = "drain"
    OVERRIDE = "override"
    PAUSE = "pause"


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`service` is empty for a pause of everything, `destination` for every pause. `weight` is an override's. `until`
    is None for one that stands until it is lifted. `cut_at`: when the flows of a drained one are cut that are left."""

    kind: Kind
    service: str = ""
    destination: str = ""
    weight: Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_MAX)] = 0
    force: bool = False
    who: str = ""
    reason: str = ""
    at: float = 0.0
    until: float | None = None
    cut_at: float | None = None

    @property
    def slot(self) -> Slot:
        """The service or destination that the order is about. Raises ValueError if it cannot be parsed."""
        service = ServiceKey.parse(self.service) if self.service else None
        return service, DestinationKey.parse(self.destination) if self.destination else None

    def takes_out(self) -> bool:
        return self.kind is not Kind.PAUSE and self.weight == 0

    def __str__(self) -> str:
        what = {Kind.DRAIN: "drained", Kind.OVERRIDE: f"weight {self.weight}", Kind.PAUSE: "paused"}[self.kind]
        return f"{what} by {self.who or 'nobody known'}" + (f": {self.reason}" if self.reason else "")


Slot: TypeAlias = tuple[ServiceKey | None, DestinationKey | None]


class Standing(msgspec.Struct, frozen=True):
    """The orders for one service."""

    paused: Order | None = None
    destinations: Mapping[DestinationKey, Order] = {}


NONE = Standing()


class Orders:
    """The orders in force."""

    def __init__(self, orders: Iterable[Order] = ()) -> None:
        """Raises ValueError for one that is about nothing that can be parsed."""
        self._standing: dict[ServiceKey | None, dict[DestinationKey | None, Order]] = {}
        for order in orders:
            self.give(order)

    def all(self) -> tuple[Order, ...]:
        """In the order of their giving."""
        found = (order for orders in self._standing.values() for order in orders.values())
        return tuple(sorted(found, key=lambda o: o.at))

    def give(self, order: Order) -> Order | None:
        """Returns the one that it replaces."""
        service, destination = order.slot
        there = self._standing.setdefault(service, {})
        before = there.get(destination)
        there[destination] = order
        return before

    def lift(self, order: Order) -> None:
        service, destination = order.slot
        there = self._standing.get(service, {})
        there.pop(destination, None)
        if not there:
            self._standing.pop(service, None)

    def expire(self, wall: float) -> tuple[Order, ...]:
        """Drop those whose time is over, and return them."""
        if not self._standing:
            return ()
        over = tuple(o for o in self.all() if o.until is not None and o.until <= wall)
        for order in over:
            self.lift(order)
        return over

    def cut(self, wall: float) -> tuple[Order, ...]:
        """The orders whose flows must be cut now, each once."""
        due = tuple(o for o in self.all() if o.cut_at is not None and o.cut_at <= wall) if self._standing else ()
        for order in due:
            self.give(msgspec.structs.replace(order, cut_at=None))
        return due

    def of(self, service: ServiceKey) -> Standing:
        there = self._standing.get(service, {})
        paused = there.get(None) or self._standing.get(None, {}).get(None)
        mine = {key: order for key, order in there.items() if key is not None}
        return Standing(paused, mine) if paused or mine else NONE
