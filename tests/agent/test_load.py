from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback import wire
from feedback.agent.load import QUIET_SECONDS, Load, Sample, moves
from feedback.wire import Application, Connections, Cpu, Listener, Memory, Pressure

FAST, IDLE = 0.2, 1.0


def sample(at: float, epoch: int = 0, **changes: Any) -> Sample:
    values: dict[str, Any] = {
        "cpu": Cpu(cores=2, busy_seconds=10.0),
        "memory": Memory(total=1000, available=500),
        "pressure": Pressure(0, 0, 0, 0, 0),
        "connections": Connections(opened=100, established=3),
    }
    return Sample(sampled_at=at, epoch=epoch, **(values | changes))


def load() -> Load:
    return Load("rs1", ("10.0.0.11",), "boot", FAST, IDLE)


MOVEMENTS = {
    "cpu": {"cpu": Cpu(cores=2, busy_seconds=10.2)},
    "quota": {"cpu": Cpu(cores=1, busy_seconds=10.0)},
    "memory": {"memory": Memory(total=1000, available=480)},
    "oom": {"memory": Memory(total=1000, available=500, oom_kills=1)},
    "connections": {"connections": Connections(opened=105, established=3)},
    "waiting": {"pressure": Pressure(0.5, 0, 0, 0, 0)},
    "backlog": {"listeners": (Listener(80, 1, 128),)},
    "application": {"applications": (Application(drain=True),)},
}
RESTS = {
    "nothing": {},
    "a little cpu": {"cpu": Cpu(cores=2, busy_seconds=10.05)},
    "a health check": {"connections": Connections(opened=101, established=3)},
    "an empty queue": {"listeners": (Listener(80, 0, 128),)},
    "pressure unknown": {"pressure": None},
    "packets where they were not known before": {"received_packets": 1000},
}


@pytest.mark.parametrize("changes", MOVEMENTS.values(), ids=MOVEMENTS.keys())
def test_what_a_master_should_follow_closely_moves(changes: dict[str, Any]) -> None:
    assert moves(sample(0.0), sample(1.0, **changes))


@pytest.mark.parametrize("changes", RESTS.values(), ids=RESTS.keys())
def test_small_things_are_rest(changes: dict[str, Any]) -> None:
    assert not moves(sample(0.0), sample(1.0, **changes))


def test_packets_show_the_start_of_a_load_where_connections_are_unknown() -> None:
    before = sample(0.0, connections=None, received_packets=100)
    assert moves(before, sample(1.0, connections=None, received_packets=150))
    assert not moves(before, sample(1.0, connections=None, received_packets=149))


def test_an_agent_starts_fast_and_becomes_slow_when_nothing_moves() -> None:
    source = load()
    assert source.report(sample(0.0)).interval_seconds == FAST
    assert source.report(sample(QUIET_SECONDS - 0.1)).interval_seconds == FAST
    assert source.report(sample(QUIET_SECONDS)).interval_seconds == IDLE


def test_a_movement_makes_it_fast_again() -> None:
    source = load()
    source.report(sample(0.0))
    source.report(sample(10.0))
    assert source.report(sample(11.0, **MOVEMENTS["cpu"])).interval_seconds == FAST


def test_a_wake_makes_it_fast_again() -> None:
    source = load()
    source.report(sample(0.0))
    assert source.report(sample(10.0)).interval_seconds == IDLE
    source.wake()
    assert source.report(sample(10.1)).interval_seconds == FAST


def test_counters_that_begin_anew_begin_a_new_boot() -> None:
    source = load()
    first = [source.report(sample(t)) for t in (0.0, 0.2)]
    second = [source.report(sample(t, epoch=1)) for t in (0.4, 0.6)]
    assert [r.sequence for r in first + second] == [0, 1, 0, 1]
    assert first[0].boot == first[1].boot != second[0].boot == second[1].boot


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), min_size=1, max_size=50))
def test_sequence_grows_by_one_and_the_interval_is_one_of_two(steps: list[tuple[float, float]]) -> None:
    source, at, busy = load(), 0.0, 0.0
    for expected, (seconds, used) in enumerate(steps):
        at, busy = at + seconds, busy + used
        report = source.report(sample(at, cpu=Cpu(cores=2, busy_seconds=busy)))
        assert report.sequence == expected
        assert report.interval_seconds in {FAST, IDLE}


def test_a_report_survives_the_wire() -> None:
    report = load().report(sample(1.5, listeners=(Listener(80, 0, 128),), applications=(Application(port=80),)))
    assert wire.decode_report(wire.encode(report)) == report
    assert msgspec.structs.asdict(report)["addresses"] == ("10.0.0.11",)
