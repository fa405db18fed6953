"""Actuate: shares -> integer weights, in the way of the scheduler that this service uses. One file a way.

| scheduler | a weight is | file | scale | written |
|---|---|---|---|---|
| `sed`, `nq` | a stock | stock.py | mean 100, 1..1000 | dead band |
| `sed` with tiers | a stock above any count | tiers.py | up to 2**31 - 1 | dead band |
| `wlc` | a stock with two minutes of memory | memory.py | largest 20,000 | each tick |
| `lblc`, `lblcr` | a stock and a limit | locality.py | what a server can hold | 10 %, every 5 s |
| `twos` | a number of lots | draw.py | mean 64, at most 256 | dead band |
| `wrr` | a flow | flow.py | mean 16, 1..64 | dead band, after 5 to 50 connections a server |
| `mh` | places in a table | table.py | largest 63, no common divisor | 10 %, every 10 s |
| `sh` | buckets | table.py | sum 256 | 10 %, every 60 s |
| `fo` | a rank | order.py | 1..n | another is better by 20 % for 10 s |
| `ovf` | a number of active connections | count.py | what one holds, less one | falling at once, rising every 5 s |
| `rr`, `lc`, `dh` | zero or not | presence.py | the kernel's own | when it changes |

All write all edits of a decision at once; to come into service or out of it never waits. Knows no law.
"""

from __future__ import annotations

from math import inf

from feedback.master.actuate.count import Count
from feedback.master.actuate.draw import Draw
from feedback.master.actuate.flow import Flow
from feedback.master.actuate.locality import Locality
from feedback.master.actuate.memory import Memory
from feedback.master.actuate.order import Order
from feedback.master.actuate.presence import Presence
from feedback.master.actuate.stock import Stock
from feedback.master.actuate.table import Buckets, Permuted
from feedback.master.actuate.tiers import Cascade, Stepped
from feedback.master.actuate.weight import LOOK_SECONDS, Actuator, Wanted, Weight, Weights
from feedback.model import Protocol, Service

__all__ = ["LOOK_SECONDS", "Actuator", "Wanted", "Weight", "Weights", "for_scheduler", "look_seconds"]


def look_seconds(service: Service) -> float:
    """How often to look and decide while connections come: where a look is no write yet, and something is seen sooner.
    `sed` and `nq` have a neighbour's news acted upon at once; `wrr` looks at nothing itself. Else infinity."""
    quick = service.scheduler in {"sed", "nq", "wrr"} and service.key.protocol is not Protocol.UDP
    return LOOK_SECONDS if quick else inf


def for_scheduler(scheduler: str, dead_band: float) -> Actuator:
    """A fresh actuator for one service. A scheduler that we do not know is only set to zero or not."""
    match scheduler:
        case "sed":
            return Cascade(Stock(dead_band), dead_band)
        case "fo":
            return Order()
        case "ovf":
            return Count(dead_band)
        case _:
            return Stepped(_flat(scheduler, dead_band))


def _flat(scheduler: str, dead_band: float) -> Actuator:
    match scheduler:
        case "nq":
            return Stock(dead_band)
        case "wlc":
            return Memory()
        case "lblc" | "lblcr":
            return Locality()
        case "twos":
            return Draw(dead_band)
        case "wrr":
            return Flow(dead_band)
        case "mh":
            return Permuted()
        case "sh":
            return Buckets()
        case _:
            return Presence(scheduler)
