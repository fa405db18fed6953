"""The worst that the agent of one server can do by what it says, in the model: docs/security.md has the figures."""

from __future__ import annotations

import math

import pytest

from feedback import wire
from feedback.simulate import figures
from feedback.simulate.case import Case, Change, Load, ServerCase
from feedback.simulate.lies import Lie, told
from feedback.simulate.policy import Policy
from feedback.simulate.run import run
from feedback.wire import Connections, Cpu, Memory, Report

LIES_AT, SECONDS = 10.0, 40.0
UP = (Lie.IDLE, Lie.FAST, Lie.LARGE, Lie.HUGE)
DOWN = (Lie.DEAD, Lie.FAILING, Lie.SWINGING)


def case(lie: Lie, servers: int) -> Case:
    """Equal servers at 60 %; the first one's agent lies from a moment on. Connections of 10 ms of CPU, 400 a second
    and server: what a lie draws above 1.7 times an equal share queues."""
    return Case(
        name="lies",
        server=(ServerCase(cores=4.0, count=servers),),
        load=(Load(part=0.6),),
        change=(Change(at_seconds=LIES_AT, servers=(0,), lie=lie),),
        seconds=SECONDS,
        cost_cv=1.0,
        application=True,
    )


def shares(lie: Lie, servers: int, scheduler: str) -> tuple[list[float], float]:
    """The liar's part of each second's requests, in equal shares; and the part of all requests that failed since."""
    trace = run(case(lie, servers), Policy("capacity", scheduler), 1)
    drawn = [servers * s.requests[0] / sum(s.requests) for s in trace.seconds if s.at > LIES_AT]
    return drawn, figures.error_shares(figures.over(trace, LIES_AT), trace.case.timeout_seconds)["errors"]


@pytest.mark.parametrize("scheduler", ["sed", *(pytest.param(name, marks=pytest.mark.long) for name in ("wlc", "wrr"))])
@pytest.mark.parametrize("lie", UP)
def test_who_says_that_it_has_room_draws_what_it_can_serve_and_little_more(lie: Lie, scheduler: str) -> None:
    drawn, errors = shares(lie, 8, scheduler)
    assert max(drawn) < 4.05, "the ceiling"
    assert sum(drawn) / len(drawn) < 1.75
    assert errors < 0.01


@pytest.mark.parametrize("scheduler", ["sed", pytest.param("wrr", marks=pytest.mark.long)])
@pytest.mark.parametrize("lie", UP)
def test_in_a_small_pool_it_gets_its_way_for_seconds_only(lie: Lie, scheduler: str) -> None:
    """Of four servers, four equal shares are everything: then doubt is what bounds it."""
    drawn, errors = shares(lie, 4, scheduler)
    assert sum(part > 2 for part in drawn) <= 8
    assert sum(drawn) / len(drawn) < 1.5
    assert errors < 0.10


@pytest.mark.parametrize("lie", DOWN)
def test_a_server_that_reports_itself_dead_loses_its_share_and_harms_no_other(lie: Lie) -> None:
    drawn, errors = shares(lie, 8, "sed")
    assert sum(drawn) / len(drawn) < 0.3
    assert errors == 0


def test_an_honest_pool_is_never_doubted() -> None:
    made = Case(
        name="honest",
        server=(ServerCase(cores=1.0), ServerCase(cores=8.0, count=2), ServerCase(cores=2.0)),
        load=(Load(part=0.3), Load(at_seconds=15.0, part=0.85)),
        seconds=40.0,
    )
    trace = run(made, Policy("capacity", "sed"), 1)
    late = [w.values for w in trace.wanted if w.at > 25.0]
    for i, true in enumerate((1 / 19, 8 / 19, 8 / 19, 2 / 19)):
        assert sum(v[i] for v in late) / len(late) == pytest.approx(true, rel=0.2)


@pytest.mark.parametrize("lie", Lie)
def test_every_lie_is_one_that_the_wire_takes(lie: Lie) -> None:
    """What it does not take (NaN, negative numbers, more than is finite) is refused there: tests/fuzz."""
    truth = Report(version=wire.PROTOCOL, agent="rs0", boot="b", sequence=1, sampled_at=1050.0, interval_seconds=0.2,
                   addresses=("10.0.0.1",), cpu=Cpu(4.0, 100.0), memory=Memory(1 << 33, 1 << 32),
                   connections=Connections(1000, 10))  # fmt: skip
    said = told(lie, truth)
    assert said != truth
    assert wire.decode_report(wire.encode(said)) == said
    assert math.isfinite(said.cpu.busy_seconds)
