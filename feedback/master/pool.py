"""Pool: what a law sees of one service. Frozen; made anew for each decision; no stage changes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from feedback.master.estimate import Estimate
from feedback.master.fleet import Trust, Window
from feedback.master.health import Checked
from feedback.master.orders import Order
from feedback.model import Destination, DestinationEntry, DestinationKey, Reason, Service


class Role(msgspec.Struct, frozen=True):
    """What the operator wants of a destination in a priority pool: the higher the priority, the earlier it is used;
    `spill` puts it behind the whole service pool."""

    priority: int = 0
    spill: bool = False


class Member(msgspec.Struct, frozen=True):
    """One destination: `base` is what the operator wrote (weight, thresholds, forwarding), `kernel` what is in force,
    None while it is not there; `window` is the last window of its agent's stream, unsmoothed, None before the
    first, and `windows` are all that came since the last decision;
    `quiesced` says why it must be at 0, empty if it must not; `barred` says the same where the reason is not the
    operator's but its service, which does not answer the director, or its agent's word. `advised` is the part of its
    share that an agent-check agent asks for, None without one; `checked` how its health check stands; `order` what the
    operator ordered by hand."""

    base: Destination
    kernel: DestinationEntry | None
    trust: Trust
    age_seconds: float | None
    estimate: Estimate | None
    quiesced: str = ""
    window: Window | None = None
    windows: tuple[Window, ...] = ()
    role: Role = Role()
    barred: str = ""
    advised: float | None = None
    checked: Checked | None = None
    order: Order | None = None

    @property
    def latest(self) -> tuple[Window, ...]:
        """Those since the last decision, or the last one, which may have been seen before."""
        return self.windows or ((self.window,) if self.window is not None else ())

    @property
    def key(self) -> DestinationKey:
        return self.base.key


class Pool(msgspec.Struct, frozen=True):
    """`flow` is the service's new connections per second."""

    service: Service
    members: tuple[Member, ...]
    flow: float


class Share(msgspec.Struct, frozen=True):
    """The part (0..1) of the service's connections that a destination should get, and why so far.

    `tier` is how a law says "not before": a tier gets nothing while one of a lower number is in service and not full,
    and shares are then parts of the tier. How that is made is the actuator's business. The line takes it from the law's
    own answer; the guard bounds the values and need not know of it.
    """

    value: float
    reasons: tuple[Reason, ...] = ()
    tier: int = 0

    def because(self, stage: str, text: str, value: float | None = None) -> Share:
        """This share with one reason more, and with a new value if one is given."""
        new = self.value if value is None else value
        return Share(new, (*self.reasons, Reason(stage, text, new)), self.tier)


Shares: TypeAlias = Mapping[DestinationKey, Share]


def normalised(shares: Mapping[DestinationKey, Share]) -> dict[DestinationKey, Share]:
    """The same shares with a sum of 1; as they are if all are 0."""
    total = sum(s.value for s in shares.values())
    if total <= 0:
        return dict(shares)
    return {k: Share(s.value / total, s.reasons, s.tier) for k, s in shares.items()}
