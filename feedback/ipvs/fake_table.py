"""The kernel's state for one service of a `FakeKernel`: its destinations, their connections, the overload flag.

Mutable and without I/O; time comes in as `now`. Knows no netlink errno: what is refused is decided in fake.py.
Source: net/netfilter/ipvs/ip_vs_ctl.c and ip_vs_conn.c; measured on 6.1.176 and 6.12.117.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from feedback.ipvs.schedulers import MODELLED, Scheduler, make
from feedback.model import Counters, Destination, DestinationEntry, DestinationKey, Protocol, Service, ServiceEntry

COUNTERS_SECONDS = 2.0  # the estimator's period: what netlink shows of the counters is as old as this


class Overload(Enum):
    """When a destination is marked full and open again; kernels differ, and no weight or threshold shows it.

    UNTIL_6_1_176: marked only when a connection is bound; an edit that raises the upper threshold, or sets it to 0,
    opens it at once, and one that lowers it marks nothing until the next connection has leaked through.
    SINCE_6_1_192: an edit that changes a threshold marks and opens by the count of that moment, with hysteresis.
    """

    UNTIL_6_1_176 = "until 6.1.176"
    SINCE_6_1_192 = "since 6.1.192"


@dataclass(eq=False)
class FakeDestination:
    """One destination. Counted against the thresholds are active and inactive connections together."""

    config: Destination
    overload: Overload
    active: int = 0
    inactive: int = 0
    overloaded: bool = False
    opened: int = 0  # connections ever, since zeroed
    shown: int = 0  # of these, what netlink shows
    owner: FakeService | None = None

    @property
    def weight(self) -> int:
        return self.config.weight

    @property
    def total(self) -> int:
        return self.active + self.inactive

    def bind(self, *, active: bool) -> None:
        self.opened += 1
        if active:
            self.active += 1
        else:
            self.inactive += 1
        if self.config.upper and self.total >= self.config.upper:
            self.overloaded = True

    def unbind(self, *, active: bool) -> None:
        if active:
            self.active -= 1
        else:
            self.inactive -= 1
        if not self.config.upper or self.total < self._reopening():
            self.overloaded = False

    def set(self, config: Destination) -> None:
        before, self.config = self.config, config
        if self.overload is Overload.UNTIL_6_1_176:
            if config.upper == 0 or config.upper > before.upper:
                self.overloaded = False
        elif (config.upper, config.lower) != (before.upper, before.lower):
            self._reconsider()

    def _reconsider(self) -> None:
        if not self.config.upper or self.total < self._reopening():
            self.overloaded = False
        elif self.total >= self.config.upper:
            self.overloaded = True

    def _reopening(self) -> int:
        """Fewer connections than this open it again: the lower threshold, or three quarters of the upper."""
        upper, lower = self.config.upper, self.config.lower
        return lower or upper - (upper >> 2)

    def entry(self) -> DestinationEntry:
        return DestinationEntry(self.config, self.active, self.inactive, 0, Counters(connections=self.shown))


@dataclass(eq=False)
class FakeService:
    """One service: destinations in the kernel's order, the newest at the head."""

    config: Service
    destinations: list[FakeDestination] = field(default_factory=list)
    scheduler: Scheduler[FakeDestination] | None = None
    opened: int = 0
    shown: int = 0

    def __post_init__(self) -> None:
        self._make_scheduler()

    def _make_scheduler(self) -> None:
        self.scheduler = make(self.config.scheduler) if self.config.scheduler in MODELLED else None
        self.told()

    def told(self) -> None:
        if self.scheduler is not None:
            self.scheduler.changed(self.destinations)

    def set(self, config: Service) -> None:
        before, self.config = self.config, config
        if config.scheduler != before.scheduler:
            self._make_scheduler()

    def find(self, key: DestinationKey) -> FakeDestination | None:
        return next((d for d in self.destinations if d.config.key == key), None)

    def add(self, destination: FakeDestination) -> None:
        if destination.owner is not self:  # out of the trash of a service that was made anew
            destination.opened = destination.shown = 0
            destination.owner = self
        self.destinations.insert(0, destination)
        self.told()

    def remove(self, destination: FakeDestination) -> None:
        if self.scheduler is not None:
            self.scheduler.removing(self.destinations, destination)
        self.destinations.remove(destination)
        self.told()

    def choose(self) -> FakeDestination | None:
        """Raises NotImplementedError for a scheduler that is not modelled."""
        if self.scheduler is None:
            raise NotImplementedError(f"the fake does not model scheduler {self.config.scheduler}")
        return self.scheduler.choose(self.destinations)

    @property
    def counts_active(self) -> bool:
        """The kernel counts no UDP flow as active."""
        return self.config.key.protocol is not Protocol.UDP

    def refresh(self) -> None:
        self.shown = self.opened
        for destination in self.destinations:
            destination.shown = destination.opened

    def zero(self) -> None:
        self.opened = self.shown = 0
        for destination in self.destinations:
            destination.opened = destination.shown = 0

    def entry(self, *, filled: bool) -> ServiceEntry:
        inside = tuple(d.entry() for d in self.destinations) if filled else ()
        return ServiceEntry(self.config, inside, Counters(connections=self.shown))
