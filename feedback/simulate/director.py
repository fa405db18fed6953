"""The kernel's table for one service, made fast: destinations, thresholds, memory of closed connections, schedulers.

It has the semantics of `FakeKernel`, which the contract test compares with the real kernel; tests/simulate compares the
two on random scripts. All closed TCP connections and UDP flows live equally long, so a queue is enough to expire them;
those of one look may come in any order.
For `sed`, `nq` and `wlc` each destination has its cost over weight at hand, and an index finds the least among many;
the other schedulers come from feedback.ipvs.schedulers. `smooth` exists in no kernel: it is a round robin without
bursts or resets, the reference for `wrr`. Knows no server; time comes in as `now`.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from feedback.ipvs.fake_table import COUNTERS_SECONDS, Overload
from feedback.ipvs.schedulers import MODELLED, Scheduler, make
from feedback.model import (
    Counters,
    Destination,
    DestinationEntry,
    Edit,
    Protocol,
    Service,
    ServiceEntry,
    SetDestination,
    Snapshot,
)
from feedback.simulate.index import Index

SCANNED = 24  # destinations: with fewer, looking at each one is faster
INF = float("inf")


class Cost(NamedTuple):
    """What a scheduler counts against a destination: at rest, and more for each connection."""

    rest: int
    active: int
    inactive: int


COSTS = {"sed": Cost(1, 1, 0), "nq": Cost(1, 1, 0), "wlc": Cost(0, 256, 1)}


class Slot:
    """One destination. `index` is the server behind it, `place` where it stands in the kernel's list. `price` is
    `cost` over weight, infinite if it is not usable: floats order them as the kernel's products do (index.py)."""

    __slots__ = (
        "active",
        "config",
        "cost",
        "credit",
        "inactive",
        "index",
        "opened",
        "overloaded",
        "place",
        "price",
        "shown",
        "upper",
        "weight",
    )

    def __init__(self, config: Destination, index: int) -> None:
        self.config, self.index, self.weight, self.upper = config, index, config.weight, config.upper
        self.place = 0  # in the kernel's list
        self.active: int = 0
        self.inactive: int = 0
        self.opened = self.shown = self.credit = self.cost = 0
        self.price = INF
        self.overloaded = False

    def reopening(self) -> int:
        upper, lower = self.config.upper, self.config.lower
        return lower or upper - (upper >> 2)

    def reckon(self, cost: Cost) -> None:
        """Set `cost` and `price` by all that counts."""
        self.cost = cost.rest + cost.active * self.active + cost.inactive * self.inactive
        self.price = self.cost / self.weight if self.weight > 0 and not self.overloaded else INF

    def filled(self) -> None:
        """A connection was bound."""
        if self.config.upper and self.active + self.inactive >= self.config.upper:
            self.overloaded = True
            self.price = INF

    def emptied(self) -> None:
        """A connection was forgotten."""
        if not self.config.upper or self.active + self.inactive < self.reopening():
            self.overloaded = False

    def set(self, config: Destination, overload: Overload) -> None:
        before, self.config, self.weight, self.upper = self.config, config, config.weight, config.upper
        if overload is Overload.UNTIL_6_1_176:
            if config.upper == 0 or config.upper > before.upper:
                self.overloaded = False
        elif (config.upper, config.lower) != (before.upper, before.lower):
            self._reconsider()

    def _reconsider(self) -> None:
        total = self.active + self.inactive
        if not self.config.upper or total < self.reopening():
            self.overloaded = False
        elif total >= self.config.upper:
            self.overloaded = True

    def entry(self) -> DestinationEntry:
        return DestinationEntry(self.config, self.active, self.inactive, 0, Counters(connections=self.shown))


class Director:
    """`destinations` are in the order in which they were added, one for each server. `writes` counts the edits that
    were applied. Nothing happens after `until`, so what would be forgotten later is not stored."""

    def __init__(
        self,
        service: Service,
        destinations: Iterable[Destination],
        *,
        overload: Overload = Overload.UNTIL_6_1_176,
        fin_seconds: float = 120.0,
        udp_seconds: float = 300.0,
        until: float = INF,
        scanned: int = SCANNED,
    ) -> None:
        self.slots = [Slot(d, i) for i, d in enumerate(destinations)]
        self.order: list[Slot] = []
        self.service, self._overload = service, overload
        self._udp = service.key.protocol is Protocol.UDP
        self._linger = udp_seconds if self._udp else fin_seconds
        self._until = until
        self._closed: deque[tuple[float, Slot]] = deque()
        self._forget_at = INF  # the first of them
        self._keys = {s.config.key: s for s in self.slots}
        self._refresh_at = COUNTERS_SECONDS
        self.writes = 0
        self._scheduler: Scheduler[Slot] | None = None
        self._choose = self._chooser(service.scheduler)
        for slot in self.slots:  # wrr's cursor remembers each addition
            self.order.insert(0, slot)  # as the kernel does
            self._told()
        for place, slot in enumerate(self.order):
            slot.place = place
        self._cost = COSTS.get(service.scheduler)
        if self._cost is not None:
            _rest, active, inactive = self._cost
            self._opened = inactive if self._udp else active  # how a connection changes the cost
            self._ended = (inactive if self._linger > 0 else 0) - active
            for slot in self.slots:
                slot.reckon(self._cost)
        self._scanned = service.scheduler in ("sed", "wlc") and len(self.slots) <= scanned
        self._index = Index(self.order) if self._cost is not None and len(self.slots) > scanned else None

    def _chooser(self, name: str) -> Callable[[], Slot | None]:
        match name:
            case "sed" | "wlc":
                return self._cheapest
            case "nq":
                return self._nq
            case "smooth":
                return self._smooth
        if name not in MODELLED:
            raise ValueError(f"scheduler {name} is not modelled")
        scheduler: Scheduler[Slot] = make(name)
        self._scheduler = scheduler
        return partial(scheduler.choose, self.order)

    def _told(self) -> None:
        if self._scheduler is not None:
            self._scheduler.changed(self.order)

    # --- time --------------------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Forget the connections that are due, and refresh the counters that netlink shows every 2 s."""
        if now >= self._forget_at:
            self._forget(now)
        if now >= self._refresh_at:
            self._refresh_at = (now // COUNTERS_SECONDS + 1) * COUNTERS_SECONDS
            for slot in self.slots:
                slot.shown = slot.opened

    def _forget(self, now: float) -> None:
        closed = self._closed
        while closed and closed[0][0] <= now:
            slot = closed.popleft()[1]
            slot.inactive -= 1
            if slot.overloaded:
                slot.emptied()
            self._changed(slot)
        self._forget_at = closed[0][0] if closed else INF

    def remember(self, closed: Iterable[tuple[float, Slot]]) -> None:
        """Add closed connections from before the start, each with the moment when it is forgotten. Call it once, before
        time moves."""
        self._closed = deque(sorted(closed, key=itemgetter(0)))
        for _, slot in self._closed:
            slot.inactive += 1
        if self._closed:
            self._forget_at = self._closed[0][0]
        for slot in self.slots:
            self._changed(slot)

    # --- connections -------------------------------------------------------------------------------------------------

    def open(self, now: float) -> Slot | None:
        """The destination to which the scheduler sends a new connection; None if it is refused."""
        if now >= self._forget_at or now >= self._refresh_at:
            self.advance(now)
        if self._scanned:  # as `_cheapest` does, without the call
            slot, least = None, INF
            for candidate in self.order:
                if candidate.price < least:
                    slot, least = candidate, candidate.price
        else:
            slot = self._choose()
        if slot is None:
            return None
        slot.opened += 1
        if self._udp:
            slot.inactive += 1
            self._remember(now + self._linger, slot)
        else:
            slot.active += 1
        if self._cost is not None:
            slot.cost += self._opened
            slot.price = slot.cost / slot.weight
        if slot.upper:
            slot.filled()
        return slot

    def close(self, slot: Slot, now: float) -> None:
        """The connection is over. A TCP connection becomes inactive; of a UDP flow the kernel sees no end."""
        if self._udp:
            return
        slot.active -= 1
        if self._linger > 0:
            slot.inactive += 1
            self._remember(now + self._linger, slot)
        elif slot.overloaded:
            slot.emptied()
        if self._cost is not None:
            slot.cost += self._ended
            if slot.weight > 0 and not slot.overloaded:
                slot.price = slot.cost / slot.weight
                if self._index is not None:
                    self._index.fell(slot)

    def _remember(self, moment: float, slot: Slot) -> None:
        if moment > self._until:
            return
        closed = self._closed
        if closed and moment < closed[-1][0]:
            insort(closed, (moment, slot), key=itemgetter(0))
        else:
            closed.append((moment, slot))
        self._forget_at = closed[0][0]

    def _changed(self, slot: Slot) -> None:
        """Its connections, weight or thresholds."""
        if self._cost is not None:
            slot.reckon(self._cost)
            if self._index is not None:
                self._index.fell(slot)

    # --- what a master sees and does ---------------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        self.advance(now)
        return Snapshot((ServiceEntry(self.service, tuple(s.entry() for s in self.order)),))

    def apply(self, edits: Iterable[Edit]) -> None:
        """Only edits of existing destinations: the service belongs to somebody else here."""
        for edit in edits:
            if not isinstance(edit, SetDestination):
                raise TypeError(f"the model's service is not the master's to change: {edit}")
            slot = self._keys[edit.destination.key]
            slot.set(edit.destination, self._overload)
            self._changed(slot)
            self.writes += 1
            self._told()

    # --- schedulers: ip_vs_sed.c, ip_vs_nq.c, ip_vs_wlc.c; ties go to the head of the list ---------------------------

    def _cheapest(self) -> Slot | None:
        if self._index is not None:
            return self._index.least()
        found, least = None, INF
        for slot in self.order:
            if slot.price < least:
                found, least = slot, slot.price
        return found

    def _nq(self) -> Slot | None:
        for slot in self.order:
            if slot.active == 0 and slot.price < INF:
                return slot
        return self._cheapest()

    def _smooth(self) -> Slot | None:
        """Every destination earns its weight; the one that has most is chosen, and pays the sum of all weights."""
        richest, most, total = None, -INF, 0
        for slot in self.order:
            weight = slot.weight
            if weight > 0 and not slot.overloaded:
                total += weight
                slot.credit = credit = slot.credit + weight
                if credit > most:
                    richest, most = slot, credit
        if richest is not None:
            richest.credit -= total
        return richest
