"""What holds for every law that is registered: inside a real controller, and on any pool at all."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.master.laws import load, names
from feedback.master.pool import Pool, Row, Shares
from feedback.master.servers.capacity import Estimate
from feedback.master.servers.fleet import Trust
from feedback.master.servers.window import ApplicationWindow, Window
from feedback.model import WEIGHT_MAX, Destination, DestinationEntry, Service
from tests.master.builders import VIRTUAL, replace, rip, row
from tests.master.laws.plant import SPEEDS, Plant
from tests.master.stages import Ruled

part = st.floats(0, 1)
number = st.floats(0, 1e6)
count = st.integers(0, 10**9)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    seconds = draw(st.floats(0.001, 5))
    return Window(
        start=0.0,
        end=seconds,
        cores=draw(st.floats(0.01, 1024)),
        busy=draw(st.floats(0, 1.5)),
        own=draw(st.none() | part),
        entitled=draw(st.none() | part),
        grain_seconds=0.01,
        opened=draw(st.none() | number),
        completions=draw(st.none() | st.floats(-1e6, 1e6)),
        memory_available=draw(part),
        swap_in_pages=draw(count),
        memory_total=draw(count),
        established=draw(st.none() | count),
        runnable=draw(st.none() | number),
        cpu_pressure=draw(st.none() | part),
        memory_pressure=draw(part),
        applications=draw(st.lists(applications, max_size=2).map(tuple)),
    )


applications = st.builds(
    ApplicationWindow,
    port=st.sampled_from([0, 80, 443]),
    completions=st.none() | count,
    errors=st.none() | count,
    utilisation=st.none() | part,
    in_flight=st.none() | count,
    latency_seconds=st.none() | number,
    drain=st.booleans(),
)
estimates = st.builds(
    Estimate,
    capacity=st.floats(0.001, 1e9),
    deviation=part,
    available=part,
    utilisation=part,
    rate=number,
    cores=st.floats(0.01, 1024),
    memory_available=part,
    samples=count,
)


@st.composite
def members(draw: st.DrawFn, i: int) -> Row:
    """Any member: also none of the data, or a window that does not fit the rest."""
    kernel = None
    if draw(st.booleans()):
        destination = Destination(rip(i), weight=draw(st.integers(0, 70_000)))
        kernel = DestinationEntry(destination, draw(count), draw(count))
    return row(
        base=Destination(rip(i), weight=draw(st.sampled_from([0, 1, 100, 65_535]))),
        kernel=kernel,
        trust=draw(st.sampled_from(Trust)),
        age_seconds=draw(st.none() | number),
        known=draw(st.none() | estimates),
        quiesced=draw(st.sampled_from(["", "by the operator"])),
        window=draw(st.none() | windows()),
    )


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    there = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
    return Pool(Service(VIRTUAL), [draw(members(i)) for i in there], draw(st.just(0.0) | number))


def values(shares: Shares) -> dict[object, object]:
    return {k: (s.value, s.tier, str(s.why), [str(step.fact) for step in s.more]) for k, s in shares.items()}


@pytest.mark.parametrize("name", names())
@settings(max_examples=settings.default.max_examples // 5)
@given(st.lists(st.tuples(pools(), st.sampled_from([0.2, 1.0, 5.0, 30.0, 400.0])), min_size=1, max_size=4))
def test_any_pool_gets_finite_shares_with_reasons_and_always_the_same(
    name: str, turns: list[tuple[Pool, float]]
) -> None:
    law, twin, now = Ruled(load(name)), Ruled(load(name)), 1000.0
    for pool, pause in turns:
        now += pause
        same = Pool(pool.service, [replace(row) for row in pool.rows], pool.flow)  # before a law remembers anything
        shares = law.shares(pool, now)
        assert shares.keys() == {m.key for m in pool.rows}
        assert all(isfinite(s.value) and s.value >= 0 and str(s.why) for s in shares.values())
        assert values(shares) == values(twin.shares(same, now))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("scheduler", ["sed", "wrr"])
def test_it_runs_in_a_controller_for_a_minute_and_the_pool_is_never_all_zero(name: str, scheduler: str) -> None:
    plant = Plant(name, scheduler)
    for _ in range(300):
        plant.tick()
        weights = plant.weights()
        assert len(weights) == len(SPEEDS)
        assert all(0 <= w <= WEIGHT_MAX for w in weights)
        assert any(weights)


def spread(name: str, seconds: int) -> float:
    """Difference of the highest and the lowest utilisation, mean of the last ten seconds."""
    plant = Plant(name, "wrr")
    seen = []
    for _ in range(5 * seconds):
        plant.tick()
        seen.append(max(plant.used) - min(plant.used))
    return sum(seen[-50:]) / 50


def test_linear_never_finds_the_ratio_of_unequal_servers_and_orca_and_pid_do() -> None:
    assert spread("linear", 120) > 0.4
    assert spread("orca", 120) < 0.15
    assert spread("pid", 120) < 0.15


def test_linear_swings_on_unequal_servers_and_orca_does_not() -> None:
    def swing(name: str) -> float:
        plant, seen = Plant(name, "sed"), []
        for _ in range(600):
            plant.tick()
            seen.append(plant.weights())
        return max(max(w) / min(w) for w in zip(*seen[-100:], strict=True))

    assert swing("linear") > 5
    assert swing("orca") < 1.1
