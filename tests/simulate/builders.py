"""Small cases for the tests of the model."""

from __future__ import annotations

from typing import Any

from feedback.simulate.case import Case, Load, ServerCase


def case(*, cores: tuple[float, ...] = (1.0,), part: float = 0.5, **fields: Any) -> Case:
    """Exponential costs of 10 ms, no noise, unless told otherwise."""
    fields = {"name": "test", "cost_cv": 1.0, "noise": 0.0, "timeout_seconds": 1000.0} | fields
    return Case(server=tuple(ServerCase(cores=c) for c in cores), load=(Load(part=part),), **fields)
