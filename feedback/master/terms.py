"""Terms: what the configuration says of each destination beside its record."""

from __future__ import annotations

import msgspec

from feedback.config import OnFailure, ServiceConfig, on_failure, to_destination
from feedback.master.pool import Role
from feedback.model import DestinationKey, parse_address


class Terms(msgspec.Struct, frozen=True):
    """`stands_for` are those for whom it stands in; `on_failure` is what a failing check does to it."""

    role: Role = Role()
    stands_for: tuple[DestinationKey, ...] = ()
    on_failure: OnFailure = OnFailure.QUIESCE


USUAL = Terms()


def terms(named: ServiceConfig, *, owned: bool) -> dict[DestinationKey, Terms]:
    """The terms of all destinations of a service. Where somebody else owns it, nothing but its weights is ours: a
    failing check removes nobody."""
    stand_ins = _stand_ins(named)
    found = {}
    for destination in named.destination:
        key, role = to_destination(destination, named).key, Role(destination.priority, destination.pool == "spill")
        fails = on_failure(destination, named) if owned else OnFailure.QUIESCE
        found[key] = Terms(role, stand_ins.get(key, ()), fails)
    return found


def _stand_ins(named: ServiceConfig) -> dict[DestinationKey, tuple[DestinationKey, ...]]:
    """For each stand-in, the destinations for which it stands in. A server with several ports here stands in with all
    of them."""
    keys = [(to_destination(d, named).key, d.stand_in) for d in named.destination]
    found: dict[DestinationKey, tuple[DestinationKey, ...]] = {}
    for key, stand_in in keys:
        if stand_in is not None:
            address = parse_address(stand_in)
            for other in [k for k, _ in keys if k.address == address]:
                found[other] = (*found.get(other, ()), key)
    return found
