"""Traits: what a weight means to each of the kernel's schedulers, in one table that everything else reads.

A new scheduler is a line here and an actuator. A scheduler outside the table only gets zero or not.
Source: net/netfilter/ipvs/ip_vs_*.c.
"""

from __future__ import annotations

import msgspec

from feedback.model import WEIGHT_MAX, Protocol, Service


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """`proportional`: weights in force are in proportion to capacities (not ranks, counts or places). `looks`: an
    actuator gains by a closer look than the configured interval. `counts`: a weight or a limit is a number of active
    connections, so that the size of each server must be known; `admits`: a weight is the number that it admits.
    `blind`: asks only whether a weight is zero. `weight_max`: the largest that is safe in the kernel's arithmetic."""

    proportional: bool = True
    looks: bool = False
    counts: bool = False
    admits: bool = False
    blind: bool = False
    weight_max: int = WEIGHT_MAX


TRAITS = {
    "sed": Traits(looks=True),
    "nq": Traits(looks=True),
    "wrr": Traits(looks=True),
    "wlc": Traits(),
    "lblc": Traits(counts=True),
    "lblcr": Traits(counts=True),
    "twos": Traits(weight_max=256),
    "mh": Traits(),
    "sh": Traits(),
    "fo": Traits(proportional=False),
    "ovf": Traits(proportional=False, counts=True, admits=True),
    "rr": Traits(blind=True),
    "lc": Traits(blind=True),
    "dh": Traits(blind=True),
}
UNKNOWN = Traits()


def traits(scheduler: str) -> Traits:
    return TRAITS.get(scheduler, UNKNOWN)


def closer_look(service: Service) -> bool:
    """Whether a look between two decisions is no write yet and shows something sooner: UDP is never active."""
    return traits(service.scheduler).looks and service.key.protocol is not Protocol.UDP
