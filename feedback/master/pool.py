"""Pool: one virtual service and its destinations, with a row for each. Every stage reads and writes it.

A row is made once and kept until its destination is removed, with everything known of it. Each room writes its own
fields and reads the others'. The length of a turn, the flow and the pool's utilisation are stated once, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from feedback.config import OnFailure
from feedback.master.outcome import Fact, Out, Step, Zero
from feedback.model import Destination, DestinationEntry, DestinationKey, Protocol, Service

if TYPE_CHECKING:
    from feedback.master.bounds.eject import Failures, Trial
    from feedback.master.bounds.limits import Limit, Thresholds
    from feedback.master.bounds.sizing import Size
    from feedback.master.claims.absence import Absence
    from feedback.master.claims.claim import Claim
    from feedback.master.claims.health import Checked
    from feedback.master.claims.orders import Order
    from feedback.master.cuts.course import Course, Evicted
    from feedback.master.servers.arrivals import Arrivals
    from feedback.master.servers.capacity import Capacity, Estimate
    from feedback.master.servers.fleet import Server, Source, Trust
    from feedback.master.servers.residence import Residence, Seen
    from feedback.master.servers.window import Window

SATURATED = 0.88  # mean utilisation of a pool: above, capacities freeze, and a queue tells nothing of its server
NEARLY_FULL, FULL = 0.8, 0.95  # of a server: what looks idle in between cannot all be had; above, it has a queue
COUNTS_MOST = 2.0  # times the usual: what one server's word weighs beside the others' in what is said of a pool
WINDOWS_MAX = 50  # kept for one decision: an agent sends no more in a second


class Role(msgspec.Struct, frozen=True):
    """What the operator wants of a destination in a priority pool: the higher the priority, the earlier it is used;
    `spill` puts it behind the whole service pool."""

    priority: int = 0
    spill: bool = False


@dataclass(slots=True, eq=False)
class Row:
    """One destination. `base` is what its owner wants (weight, thresholds, forwarding), `kernel` what is in force, None
    while it is not there, `active`, `inactive` and `weight` its live counts and weight, 0 without one."""

    key: DestinationKey
    base: Destination
    address: str
    name: str  # the key as it is written
    role: Role
    # servers/: what is known of the real server behind it, and what it can complete
    capacity: Capacity
    trust: Trust
    server: Server | None = None  # its agent's stream
    page: Server | None = None  # its exporter's
    source: Source | None = None  # which of them counts
    unread: Fact | None = None  # why its exporter could not be read the last time
    age_seconds: float | None = None
    estimate: Estimate | None = None
    windows: list[Window] = field(default_factory=list)  # of the agent's stream, since the last decision
    window: Window | None = None  # the last one
    # the kernel, as of the last look
    kernel: DestinationEntry | None = None
    weight: int = 0
    active: int = 0
    inactive: int = 0
    arrivals: Arrivals = None  # type: ignore[assignment]  # set by the pipeline that makes the row
    # claims/: whose word holds it
    claim: Claim = None  # type: ignore[assignment]  # set by the claims that make the row
    ours: int = 0  # the weight that we left there, where nothing else is to be known of it; 0: look closer
    zero: Zero | None = None
    order: Order | None = None
    checked: Checked | None = None
    advised: float | None = None  # the part of its share that an agent-check agent asks for
    residence: Residence | None = None  # where the service is to be known passively
    seen: Seen | None = None  # what that says, where nobody says more
    weighed: float | None = None  # the weight that it says in answers to its check
    stands_for: tuple[DestinationKey, ...] = ()  # it gets nothing while all of these serve
    on_failure: OnFailure = OnFailure.QUIESCE
    absence: Absence | None = None  # where a failing check takes it out of the table
    gone: bool = False  # it must not be in the table now
    wavers: bool = False  # the last outcome of its check speaks against the verdict
    evicted: Evicted | None = None  # it lives, and must leave the table until its flows are forgotten
    cut: Course | None = None
    # laws/: `law` is the law's own memory of it; lower tiers get nothing while one before has room
    law: Any = None
    tier: int = 0
    wanted: float = 0.0
    why: Fact | None = None
    of: float = 0.0  # what the law's own fact stands for
    # bounds/
    share: float = 0.0  # what they let through now
    owed: float = 1.0  # its static share, or an equal one
    most: float = 1.0  # what they let through at most
    before: float | None = None  # and at the last decision, None while it was out of service
    ramp: float | None = None  # 0..1 while it is in slow start
    heard: bool = False  # its agent was when the fleet was last well
    out: Out | None = None
    failures: Failures | None = None
    suspect: bool = False  # there were some
    trial: Trial | None = None
    doubt: Any = None
    size: Size | None = None
    thresholds: Thresholds | None = None
    limit: Limit = None  # type: ignore[assignment]  # set by the limits at each decision
    tried: bool = False  # whether a trial's thresholds stand there instead of the usual ones
    # actuate/: `part` goes in; `aim` is the weight, `note` the fact, `stands` the share that it stands for
    part: float = 0.0
    aim: int = 0
    aimed: int | None = None  # the actuator's own; None where nothing was decided
    note: Fact | None = None
    stands: float | None = None
    actuator: Any = None
    # what is decided
    upper: int = 0
    lower: int = 0
    said: list[Step] | None = None  # by the stages between the law and the actuator
    told: list[Step] | None = None  # by claims, after the plan
    trusted: Trust | None = None  # these three at the last decision
    zeroed: Zero | None = None
    ousted: Out | None = None

    def follow(self, old: Row) -> None:
        """Its destination was removed and is there again before anything was decided: an owner's reload. What the
        bounds let through goes on."""
        self.before, self.ramp, self.heard = old.before, old.ramp, old.heard
        self.failures, self.suspect, self.doubt = old.failures, old.suspect, old.doubt

    def say(self, stage: str, fact: Fact, value: float | None) -> None:
        """Of a stage between the law and the actuator."""
        step = Step(stage, fact, value)
        if self.said is None:
            self.said = [step]
        else:
            self.said.append(step)

    def tell(self, stage: str, fact: Fact, value: float | None) -> None:
        """Of what is said after the plan."""
        self.told = [*(self.told or ()), Step(stage, fact, value)]

    @property
    def latest(self) -> list[Window]:
        """The windows since the last decision, or the last one, which may have been seen before."""
        return self.windows or ([self.window] if self.window is not None else [])

    @property
    def quiesced(self) -> bool:
        """Whether somebody's word keeps it at 0."""
        return self.zero is not None


@dataclass(slots=True, eq=False)
class Pool:
    """`flow` is the service's new connections per second, `utilisation` what is used of what all can have, weighted by
    capacity, `crowding` the same, or of most servers, whichever is more: above SATURATED there may be queues. `seconds`
    is the real time since the last decision (0 at the first), `interval_seconds` the configured one between two, `held`
    why everything stays as it is."""

    service: Service
    rows: list[Row] = field(default_factory=list)
    flow: float = 0.0
    now: float = 0.0
    seconds: float = 0.0
    interval_seconds: float = 0.2
    utilisation: float = 0.0
    crowding: float = 0.0
    held: Fact | None = None
    holder: DestinationKey | None = None  # of the first place, where the law keeps it (cuts/succession.py)
    heir: DestinationKey | None = None  # and who is to have it

    @property
    def udp(self) -> bool:
        return self.service.key.protocol is Protocol.UDP


class Share(msgspec.Struct, frozen=True, gc=False):
    """A law's answer for one destination: the part of the service's connections that it should get, in any unit, and
    why. `tier` is how a law says "not before": a tier gets nothing while one of a lower number is in service and not
    full, and shares are then parts of the tier. How that is made is the actuator's business.

    `of` is the value that `why` stands for, `more` what the law did to it afterwards."""

    value: float
    why: Fact = ""
    tier: int = 0
    of: float | None = None
    more: tuple[Step, ...] = ()

    def because(self, stage: str, fact: Fact, value: float | None = None) -> Share:
        """This share with one reason more, and with a new value if one is given."""
        new = self.value if value is None else value
        if not self.why:
            return Share(new, fact, self.tier)
        first = self.value if self.of is None else self.of
        return Share(new, self.why, self.tier, first, (*self.more, Step(stage, fact, new)))


Shares: TypeAlias = Mapping[DestinationKey, Share]


def utilisation(estimates: Sequence[Estimate]) -> float:
    """What is used of what these servers can have, weighted by capacity."""
    capacities = [of.capacity for of in estimates]
    most = COUNTS_MOST * median_low(capacities) if capacities else 0.0
    if capacities and max(capacities) > most:
        capacities = [capacity if capacity < most else most for capacity in capacities]
    total = sum(capacities)
    used = sum([of.utilisation * capacity for of, capacity in zip(estimates, capacities, strict=True)])
    return used / total if total else 0.0


def crowding(estimates: Sequence[Estimate]) -> float:
    """How far most of these servers are used, whatever their capacity: what a single one says of its own changes little
    here."""
    return median_low([of.utilisation for of in estimates]) if estimates else 0.0


def estimates(rows: Iterable[Row]) -> list[Estimate]:
    """Of those of which something is known."""
    return [row.estimate for row in rows if row.estimate is not None]
