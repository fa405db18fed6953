"""The model against queueing theory: what processor sharing must give if the servers are right."""

from __future__ import annotations

from statistics import mean

import pytest

from feedback.simulate.draws import generator
from feedback.simulate.policy import Policy
from feedback.simulate.run import run
from feedback.simulate.servers import NONE, Server
from feedback.simulate.trace import Trace
from tests.simulate.builders import case


def latency(trace: Trace, start: float = 20.0) -> float:
    return mean(x for at, x in zip(trace.at, trace.latency, strict=True) if at >= start and x == x)


def ended(server: Server, moment: float) -> list[int]:
    """What the server ends until then."""
    found = []
    while server.alarm <= moment + 1e-9:
        found.append(server.end())
    return [request for request in found if request != NONE]


@pytest.mark.parametrize("part", [0.3, 0.7])
def test_the_mean_of_mm1ps_is_cost_over_what_is_left(part: float) -> None:
    trace = run(case(part=part, seconds=600.0), Policy("plain", "sed"), seed=1)
    assert latency(trace) == pytest.approx(0.010 / (1 - part), rel=0.06)


@pytest.mark.parametrize("cv", [0.0, 2.0])
def test_the_mean_of_mg1ps_does_not_depend_on_how_costs_vary(cv: float) -> None:
    trace = run(case(part=0.6, seconds=900.0, cost_cv=cv), Policy("plain", "sed"), seed=2)
    assert latency(trace) == pytest.approx(0.010 / 0.4, rel=0.08)


def test_four_cores_wait_as_erlang_says() -> None:
    """M/M/4 at 0.7: mean time in the system is cost * (1 + C / (4 * 0.3)), Erlang's C(4, 2.8) = 0.4287."""
    trace = run(case(cores=(4.0,), part=0.7, seconds=300.0), Policy("plain", "sed"), seed=3)
    assert latency(trace) == pytest.approx(0.010 * (1 + 0.4287 / 1.2), rel=0.04)


def test_what_servers_used_is_what_requests_cost() -> None:
    made = case(cores=(2.0, 1.0), part=0.5, seconds=60.0)
    trace = run(made, Policy("plain", "sed"), seed=4)
    used = sum(sum(u * c for u, c in zip(s.utilisation, (2, 1), strict=True)) for s in trace.seconds)
    assert used / 60 == pytest.approx(0.5 * 3, rel=0.05)
    assert sum(sum(s.requests) for s in trace.seconds) == len(trace.at)


def test_jobs_share_the_cores_and_each_runs_on_one_at_most() -> None:
    server = Server(cores=2.0, speed=1.0)
    for number in range(4):
        server.add(0.0, 1.0, number)
    assert server.due() == pytest.approx(2.0)  # four jobs on two cores
    assert sorted(ended(server, 2.0)) == [0, 1, 2, 3]
    assert server.busy_seconds == pytest.approx(4.0)
    server.add(2.0, 1.0, 9)
    assert server.due() == pytest.approx(3.0)  # alone it has one core, not two


def test_a_neighbour_slows_what_runs_and_is_counted_apart() -> None:
    server = Server(cores=2.0, speed=1.0)
    server.add(0.0, 1.0, 0)
    server.add(0.0, 1.0, 1)
    server.change(0.5, available=0.5, speed=None)
    assert server.due() == pytest.approx(1.5)
    assert sorted(ended(server, 1.5)) == [0, 1]
    assert (server.busy_seconds, server.stolen_seconds) == (pytest.approx(2.0), pytest.approx(1.0))


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    made = case(cores=(1.0, 2.0), seconds=5.0, noise=0.02)
    one, two, other = (run(made, Policy("capacity", "sed"), seed=s) for s in (1, 1, 2))
    assert (one.at, one.latency, one.wanted, one.writes) == (two.at, two.latency, two.wanted, two.writes)
    assert one.at != other.at


def test_policies_share_their_arrivals() -> None:
    made = case(cores=(1.0, 2.0), seconds=5.0)
    plain, oracle = (run(made, Policy(law, "sed"), seed=1) for law in ("plain", "oracle"))
    assert plain.at == oracle.at
    assert plain.latency != oracle.latency


def test_streams_of_different_purposes_are_independent() -> None:
    assert generator(1, "traffic").random() != generator(1, "world").random()
