"""The scenarios: one file each, or a package if one file would be too long. A file is registered by being here."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from feedback.lab.error import LabError
from feedback.lab.scenario import Scenario


def names() -> tuple[str, ...]:
    """Their names in alphabetical order. Imports none of them."""
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def named(name: str) -> Scenario:
    """Raises LabError."""
    if name not in names():
        raise LabError(f"there is no scenario {name!r}: choose from {', '.join(names())}")
    scenario: Scenario = import_module(f"feedback.lab.scenarios.{name}").SCENARIO
    return scenario
