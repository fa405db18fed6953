"""A law's own turns: what is averaged, what is not counted, when the next one is."""

from __future__ import annotations

import pytest

from feedback.master.laws.field.cycle import Cycle
from feedback.master.servers.fleet import Trust
from tests.master.builders import estimate, replace, rip
from tests.master.laws.watched import application, pool, watched, window


def test_a_turn_is_the_mean_over_the_windows_since_the_last_one() -> None:
    cycle = Cycle(1.0)
    assert cycle.turn(pool(watched(1, window(10.0, busy=0.9, rate=10))), 10.0) is not None
    assert cycle.turn(pool(watched(1, window(10.2, busy=0.2, rate=20))), 10.2) is None
    assert cycle.turn(pool(watched(1, window(10.8, seconds=0.6, busy=0.6, rate=40))), 10.8) is None
    seen = cycle.turn(pool(watched(1, window(11.0, busy=0.6, rate=15))), 11.0)
    assert seen is not None
    assert seen[rip(1)].busy == pytest.approx((0.2 * 0.2 + 0.6 * 0.6 + 0.6 * 0.2) / 1.0)
    assert seen[rip(1)].completions == pytest.approx((20 * 0.2 + 40 * 0.6 + 15 * 0.2) / 1.0)


def test_no_window_is_counted_twice_and_none_of_a_silent_agent() -> None:
    cycle = Cycle(1.0)
    silent = watched(2, window(9.0, busy=0.5), trust=Trust.STALE)
    members = pool(watched(1, window(10.0, busy=0.5)), silent)
    assert set(cycle.turn(members, 10.0) or {}) == {rip(1)}
    for now in (10.2, 10.4, 10.6, 10.8):
        assert cycle.turn(members, now) is None
    assert cycle.turn(members, 11.0) == {}


def test_the_first_turn_waits_for_a_word() -> None:
    cycle = Cycle(5.0)
    assert cycle.turn(pool(watched(1)), 0.0) is None
    assert cycle.turn(pool(watched(1)), 100.0) is None
    assert cycle.turn(pool(watched(1, window(100.2))), 100.2) is not None
    assert cycle.turn(pool(watched(1, window(105.0))), 105.0) is None
    assert cycle.turn(pool(watched(1, window(105.2))), 105.2) is not None


def test_the_application_of_this_port_speaks_before_the_one_of_all() -> None:
    said = (application(0, in_flight=1), application(80, in_flight=7), application(443, in_flight=9))
    seen = Cycle(1.0).turn(pool(watched(1, window(1.0, applications=said, cpu_pressure=0.4))), 1.0)
    assert seen is not None
    assert seen[rip(1)].application_in_flight == 7
    assert seen[rip(1)].cpu_pressure == 0.4
    assert seen[rip(1)].application_latency is None


def test_connections_that_stay_open_are_not_negative_completions() -> None:
    seen = Cycle(1.0).turn(pool(watched(1, window(1.0, completions=-3.0, opened=2.0))), 1.0)
    assert seen is not None
    assert seen[rip(1)].completions == 0.0
    assert seen[rip(1)].opened == pytest.approx(10.0)


def test_where_the_agent_cannot_count_the_directors_rate_stands_in() -> None:
    """UDP: no connections of the agent's; 50/s by the director."""
    udp = replace(watched(1, window(1.0, busy=0.5)), estimate=estimate(100.0, utilisation=0.5))
    seen = Cycle(1.0).turn(pool(udp), 1.0)
    assert seen is not None
    assert (seen[rip(1)].opened, seen[rip(1)].completions) == (50.0, 50.0)


def test_windows_that_come_together_are_all_counted() -> None:
    cycle = Cycle(1.0)
    first, second = window(10.2, busy=0.2, rate=20), window(10.4, busy=0.6, rate=40)
    both = replace(watched(1, second), windows=[first, second])
    seen = cycle.turn(pool(both), 10.4)
    assert seen is not None
    assert (seen[rip(1)].busy, seen[rip(1)].completions) == (pytest.approx(0.4), pytest.approx(30))
    assert cycle.turn(pool(watched(1, second)), 11.4) == {}, "and none again"
