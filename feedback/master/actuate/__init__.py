"""Actuate: shares -> integer weights, as this service's scheduler needs them. One file for each method.

| scheduler | a weight is | file | scale | written |
|---|---|---|---|---|
| `sed`, `nq` | a stock | sed.py | mean 1000, 1..65,535 | dead band |
| `sed` with tiers | a stock above any count | tiers.py | up to 2**31 - 1 | dead band |
| `wlc` | a stock with two minutes of memory | wlc.py | largest 20,000 | each tick |
| `lblc`, `lblcr` | a stock and a limit | lblc.py | what a server can hold | 10 %, every 5 s |
| `twos` | a number of lots | twos.py | mean 64, at most 256 | dead band |
| `wrr` | a flow | wrr.py | mean 16, 1..64 | dead band, after 5 to 50 connections a server |
| `mh` | places in a table | hashed.py | largest 63, no common divisor | 10 %, every 10 s |
| `sh` | buckets | hashed.py | sum 256 | 10 %, every 60 s |
| `fo` | a rank | fo.py | 1..n | another is better by 20 % for 10 s |
| `ovf` | a number of active connections | ovf.py | what one holds, less one | falling at once, rising every 5 s |
| `rr`, `lc`, `dh` | zero or not | zero.py | the kernel's own | when it changes |

All write all edits of a decision at once. Entering or leaving service never waits. Knows no law.
"""

from __future__ import annotations

from collections.abc import Callable

from feedback.master.actuate.fo import Order
from feedback.master.actuate.hashed import Buckets, Permuted
from feedback.master.actuate.lblc import Locality
from feedback.master.actuate.ovf import Count
from feedback.master.actuate.sed import Stock
from feedback.master.actuate.tiers import Cascade, Stepped
from feedback.master.actuate.twos import Draw
from feedback.master.actuate.weight import LOOK_SECONDS, Actuator
from feedback.master.actuate.wlc import Memory
from feedback.master.actuate.wrr import Flow
from feedback.master.actuate.zero import Presence

__all__ = ["LOOK_SECONDS", "Actuator", "for_scheduler"]

# By scheduler, made with the dead band. `fo`, `ovf` and `sed` hold a tier back themselves.
ACTUATORS: dict[str, Callable[[float], Actuator]] = {
    "sed": lambda dead_band: Cascade(Stock(dead_band), dead_band),
    "nq": lambda dead_band: Stepped(Stock(dead_band)),
    "wlc": lambda _: Stepped(Memory()),
    "lblc": lambda _: Stepped(Locality()),
    "lblcr": lambda _: Stepped(Locality()),
    "twos": lambda dead_band: Stepped(Draw(dead_band)),
    "wrr": lambda dead_band: Stepped(Flow(dead_band)),
    "mh": lambda _: Stepped(Permuted()),
    "sh": lambda _: Stepped(Buckets()),
    "fo": lambda _: Order(),
    "ovf": Count,
}


def for_scheduler(scheduler: str, dead_band: float) -> Actuator:
    """A fresh actuator for one service. A scheduler that we do not know is only set to zero or not."""
    make = ACTUATORS.get(scheduler)
    return make(dead_band) if make is not None else Stepped(Presence(scheduler))
