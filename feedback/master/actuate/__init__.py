"""Actuate: shares -> integer weights, in the way of the scheduler that this service uses. One file a way.

A weight means something else to each scheduler: a stock (`sed`, stock.py), a flow (`wrr`, flow.py), a stock with memory
(`wlc`, memory.py). Knows no law.
"""

from __future__ import annotations

from feedback.master.actuate.flow import Flow
from feedback.master.actuate.memory import Memory
from feedback.master.actuate.presence import Hold
from feedback.master.actuate.stock import Stock
from feedback.master.actuate.weight import Actuator, Weight, Weights

__all__ = ["Actuator", "Flow", "Hold", "Memory", "Stock", "Weight", "Weights", "for_scheduler"]


def for_scheduler(scheduler: str, dead_band: float) -> Actuator:
    match scheduler:
        case "sed" | "nq":
            return Stock(dead_band)
        case "wlc":
            return Memory()
        case "wrr":
            return Flow(dead_band)
        case _:
            return Hold(scheduler)
