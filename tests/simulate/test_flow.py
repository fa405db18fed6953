"""Requests from arrival to answer: what the scheduler sees when it chooses; two ways to find what ends agree."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import pytest

from feedback.simulate import flow
from feedback.simulate.case import Case, Change
from feedback.simulate.draws import generator
from feedback.simulate.policy import Policy
from feedback.simulate.run import run
from feedback.simulate.traffic import make
from feedback.simulate.world import World
from tests.simulate.builders import case

FALL = (Change(at_seconds=3.0, servers=(1,), down=True), Change(at_seconds=5.0, servers=(1,), down=False, speed=0.5))
SLOW = (Change(at_seconds=1.0, servers=(0,), io_seconds=0.05), Change(at_seconds=4.0, servers=(2,), failing=True))
CASES: dict[str, dict[str, Any]] = {
    "short": {},
    "slow": {"change": SLOW},
    "fall": {"change": FALL, "timeout_seconds": 1.0},
    "kept": {"keep_seconds": 0.5},
    "kept-fall": {"keep_seconds": 0.5, "change": FALL},
    "held": {"hold_seconds": 2.0, "change": FALL, "timeout_seconds": 1.0},
    "forgetful": {"change": SLOW, "fin_seconds": 0.5},
}


def pool(name: str) -> Case:
    return case(cores=(1.0, 2.0, 4.0), part=0.7, seconds=8.0, **CASES[name])


@pytest.mark.parametrize("scheduler", ["sed", "wlc", "wrr"])
@pytest.mark.parametrize("name", ["short", "slow", "kept"])
def test_the_scheduler_sees_exactly_the_connections_that_are_open(name: str, scheduler: str) -> None:
    made = pool(name)
    traffic = make(made, generator(1, "traffic"))
    world = World(made, Policy("plain", scheduler), traffic, generator(1, "world"))
    seen: list[int] = []
    choose = world.director._choose

    def chosen() -> Any:
        seen.append(sum(slot.active for slot in world.director.slots))
        return choose()

    world.director._choose, world.director._scanned = chosen, False
    trace = world.run()
    keep = traffic.keep or [0.0] * len(traffic.at)
    rows = zip(trace.at, trace.latency, keep, strict=True)
    ends = sorted(at + latency + kept for at, latency, kept in rows if latency == latency)
    assert len(seen) == len(trace.at) > 1000
    assert seen == [bisect_left(trace.at, at) - bisect_right(ends, at) for at in trace.at]


@pytest.mark.parametrize("scheduler", ["sed", "wlc", "wrr"])
@pytest.mark.parametrize("name", CASES)
def test_looking_at_each_server_and_at_a_heap_of_alarms_agree(
    name: str, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = []
    for scanned in (24, 0):
        monkeypatch.setattr(flow, "SCANNED", scanned)
        traces.append(run(pool(name), Policy("capacity", scheduler), seed=1))
    one, two = traces
    assert [repr(latency) for latency in one.latency] == [repr(latency) for latency in two.latency]
    assert (one.outcome, one.seconds, one.wanted, one.writes) == (two.outcome, two.seconds, two.wanted, two.writes)
