"""The scenarios, one file each. Add one: its file here, its name in NAMES, its figures in docs and tests."""

from __future__ import annotations

from importlib import import_module

from feedback.lab.error import LabError
from feedback.lab.scenarios.scenario import Scenario

NAMES = (
    *("hog", "join", "memory", "blackhole", "overload", "overflow", "spillover", "silence", "chaos"),
    "adopt",
    *("takeover", "handover", "latejoin", "splitlinks", "restart", "chaospair"),
)


def named(name: str) -> Scenario:
    """Raises LabError."""
    if name not in NAMES:
        raise LabError(f"there is no scenario {name!r}: choose from {', '.join(NAMES)}")
    scenario: Scenario = import_module(f"feedback.lab.scenarios.{name}").SCENARIO
    return scenario
