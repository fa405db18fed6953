"""Outcome: a decision on one destination, as data. Its words are made when somebody reads them.

Each stage that acts leaves a `Step`: its name, a fact, and the value after it. A fact is a small frozen struct with its
numbers, whose `str()` is the sentence for people; a law's may be a plain string. Nothing here or elsewhere parses such
a sentence: what others act upon (`zero`, `out`) is a type. Frozen, so that a page may be made from it in any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from feedback.model import Destination, DestinationEntry, DestinationKey, Reason, ServiceKey, Setting

if TYPE_CHECKING:
    from feedback.master.claims.health import Checked
    from feedback.master.claims.orders import Order
    from feedback.master.servers.capacity import Estimate
    from feedback.master.servers.fleet import Source, Trust


class Fact(Protocol):
    """Anything whose `str()` is a sentence for people."""

    def __str__(self) -> str: ...


class Step(msgspec.Struct, frozen=True, gc=False):
    """A stage's action, and the value (a share, a weight, a threshold) after it."""

    stage: str
    fact: Fact
    value: float | None = None


class By(StrEnum):
    """Whose word keeps a destination at 0."""

    CONFIGURATION = "configuration"
    OWNER = "owner"  # somebody else wrote the zero
    CHECK = "check"  # the director's own health check
    ADVICE = "advice"  # its agent-check agent
    STAND_IN = "stand-in"  # the configuration: until the one fails for which it stands in
    ORDER = "order"  # the operator, by hand


class Zero(msgspec.Struct, frozen=True, gc=False):
    """Why a destination must get nothing."""

    by: By
    why: Fact

    @property
    def barred(self) -> bool:
        """Whether no person has said so: then it ends by itself."""
        return self.by is By.CHECK or self.by is By.ADVICE or self.by is By.STAND_IN


class StandsBy(msgspec.Struct, frozen=True, gc=False):
    """Why a stand-in gets nothing: the others serve."""

    others: tuple[str, ...]

    def __str__(self) -> str:
        return f"stands in for {' and '.join(self.others)}, and gets nothing while {_serve(len(self.others))}"


def _serve(number: int) -> str:
    return "it serves" if number == 1 else "they serve"


class Out(StrEnum):
    """Why a bound, and nobody's word, keeps a destination at 0."""

    EJECTED = "ejected"
    LOST = "lost"


class Noted(msgspec.Struct, frozen=True, gc=False):
    scheduler: str
    note: Fact

    def __str__(self) -> str:
        return f"{self.scheduler}: {self.note}"


class OfPool(msgspec.Struct, frozen=True, gc=False):
    """A weight that stands for nothing but its share."""

    share: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % of the pool"


class Chain(msgspec.Struct, frozen=True, gc=False):
    """What every stage did to one destination, as it was left in its row: the law's fact and what it stands for (none
    where somebody's word came before); what was said until the actuator; the actuator's weight (None where nothing was
    decided) with its note, or the share that it stands for where there is none; and what was told after."""

    why: Fact | None
    of: float
    said: Sequence[Step] | None
    scheduler: str
    aimed: int | None
    note: Fact | None
    share: float
    told: Sequence[Step] | None

    @property
    def steps(self) -> tuple[Step, ...]:
        law = [] if self.why is None else [Step("law", self.why, self.of)]
        note = OfPool(self.share) if self.note is None else self.note
        acted = [] if self.aimed is None else [Step("actuate", Noted(self.scheduler, note), self.aimed)]
        return (*law, *(self.said or ()), *acted, *(self.told or ()))


class Status(msgspec.Struct, frozen=True, gc=False):
    """One destination in one decision: what it should have, and what that rests on. `kernel` is what was in force, None
    while it is not there. `share` is the part of the service's connections that the weight stands for."""

    service: ServiceKey
    key: DestinationKey
    weight: int
    share: float
    upper: int
    lower: int
    chain: Chain
    base: Destination
    kernel: DestinationEntry | None
    trust: Trust
    age_seconds: float | None
    estimate: Estimate | None
    zero: Zero | None
    out: Out | None
    checked: Checked | None
    order: Order | None
    gone: bool = False  # it must not be in the table
    source: Source | None = None  # of what is known of it
    unread: Fact | None = None  # why its exporter could not be read the last time

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of all stages, in order."""
        return self.chain.steps

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The chain from report to weight in words."""
        return tuple(Reason(s.stage, str(s.fact), s.value) for s in self.steps)

    @property
    def setting(self) -> Setting:
        return Setting(self.service, self.key, self.weight, self.share, self.upper, self.lower, self.reasons)

    @property
    def state(self) -> str:
        """One word for people."""
        if self.gone:
            return "removed"
        if self.zero is not None:
            if self.zero.by is By.STAND_IN:
                return "standby"
            return "barred" if self.zero.barred else "quiesced"
        return str(self.trust)

    @property
    def serves(self) -> bool:
        """Whether it gets connections, or would as soon as the tiers before it are full."""
        return self.kernel is not None and self.zero is None and self.out is None
