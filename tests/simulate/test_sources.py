"""The law `capacity` without agents in the model: by pages of exporters, and by nothing but what the director sees."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest

from feedback.simulate import suite
from feedback.simulate.case import Case
from feedback.simulate.figures import figures
from feedback.simulate.policy import EXPORTER, NO_AGENT, PLAIN, Policy, make
from feedback.simulate.run import run


def half(name: str) -> Case:
    """The case with half of its cores, so that it runs in a second."""
    case = suite.named(name)
    servers = [msgspec.structs.replace(server, cores=max(1, round(server.cores / 2))) for server in case.server]
    return msgspec.structs.replace(case, server=tuple(servers))


@cache
def p99_ms(case: str, law: str, scheduler: str = "sed") -> float:
    return figures(run(half(case), Policy(law, scheduler), 1), None)["p99_ms"]


long = pytest.mark.long


@pytest.mark.parametrize(
    "case", [pytest.param("cold-start", marks=long), "antagonists", pytest.param("kept", marks=long)]
)
def test_pages_once_a_second_are_nearly_as_good_as_agents(case: str) -> None:
    assert p99_ms(case, EXPORTER) <= 1.1 * p99_ms(case, "capacity")


@pytest.mark.parametrize(
    "case, scheduler, gain",
    [
        pytest.param("cold-start", "sed", 1.2, marks=long),
        ("antagonists", "sed", 1.2),
        pytest.param("kept", "sed", 5.0, marks=long),
        pytest.param("kept", "wlc", 5.0, marks=long),
        pytest.param("kept", "wrr", 5.0, marks=long),
        pytest.param("slow-io", "sed", 1.0, marks=long),
    ],
)
def test_what_the_director_sees_is_better_than_nothing(case: str, scheduler: str, gain: float) -> None:
    assert p99_ms(case, PLAIN, scheduler) >= gain * p99_ms(case, NO_AGENT, scheduler)


def test_neither_is_told_by_agents() -> None:
    case = half("cold-start")
    assert not make(Policy(NO_AGENT, "sed"), "tcp:10.0.0.100:80", case).listens
    assert make(Policy(EXPORTER, "sed"), "tcp:10.0.0.100:80", case).report_seconds >= 1
