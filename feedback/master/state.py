"""State: the little that the kernel's table cannot tell a restarted master, and what the operator ordered.

A weight of 0 has no author in the kernel: without this, an ejection that outlives the master would be taken for the
operator's word and stay for ever. And what another owner of a service wanted is gone once ours is written.
Pure: the daemon keeps it in a file. What does not fit is refused with one line, and the master starts without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

from feedback.master.estimate import Learned
from feedback.master.orders import Order
from feedback.model import DestinationKey, ServiceKey

# Raised when an older master would do harm with it: fields that it does not know are ignored and have defaults here.
VERSION = 1


class StateError(ValueError):
    """One line: what was wrong."""


Number = Annotated[int, msgspec.Meta(ge=0)]


class Cap(msgspec.Struct, frozen=True):
    """A destination's thresholds before those of a trial, and those."""

    upper: Number
    lower: Number
    our_upper: Number = 0
    our_lower: Number = 0


class Ordered(msgspec.Struct, frozen=True):
    """A weight before the operator's order, and the order's."""

    before: Number
    ours: Number


class ServiceState(msgspec.Struct, frozen=True):
    """`zeros`: destinations whose weight of 0 is ours. `owners`: the other owner's last weight of each. `capped`: who
    is on trial. `forced`: weights that an operator's order put in place of somebody else's zero.
    `learned`: how fast each destination is, for a standby or a restarted master to go on with.
    `ordered`: what orders changed. `limited`: destinations whose thresholds are ours, learned, where somebody else owns
    the service."""

    zeros: tuple[str, ...] = ()
    owners: dict[str, Number] = {}
    capped: dict[str, Cap] = {}
    forced: dict[str, Number] = {}
    learned: dict[str, Learned] = {}
    ordered: dict[str, Ordered] = {}
    limited: tuple[str, ...] = ()

    def destinations(self) -> Iterator[str]:
        """Every one that is named."""
        yield from (*self.zeros, *self.owners, *self.capped, *self.forced, *self.learned, *self.ordered, *self.limited)


class State(msgspec.Struct, frozen=True):
    version: int = VERSION
    services: dict[str, ServiceState] = {}
    orders: tuple[Order, ...] = ()


def without_learned(state: State) -> State:
    """What must be on the disk at once; what was learned may be some seconds old."""
    bare = {key: msgspec.structs.replace(service, learned={}) for key, service in state.services.items()}
    return msgspec.structs.replace(state, services=bare)


def encode(state: State) -> bytes:
    return msgspec.json.format(msgspec.json.encode(state, order="deterministic")) + b"\n"


def decode(data: bytes) -> State:
    """Raises StateError."""
    try:
        state = msgspec.json.decode(data, type=State)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(str(error)) from None
    if state.version != VERSION:
        raise StateError(f"is of version {state.version}, this master reads {VERSION}")
    try:
        for key, service in state.services.items():
            ServiceKey.parse(key)
            for destination in service.destinations():
                DestinationKey.parse(destination)
    except ValueError as error:
        raise StateError(str(error)) from None
    return state
