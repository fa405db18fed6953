"""Robinhood: one PID for each server towards the mean utilisation."""

from __future__ import annotations

import pytest

from feedback.master.laws.field.cycle import Observed
from feedback.master.laws.field.pid import INTEGRAL, PROPORTIONAL, STEP_MAX, Loop, Pid, utilisations
from feedback.master.pool import Pool
from feedback.master.servers.fleet import Trust
from tests.master.builders import rip
from tests.master.laws.watched import later, pool, values, watched, window


def test_a_loop_gives_the_change_of_a_pid() -> None:
    loop = Loop()
    assert loop.step(0.4) == pytest.approx(0.2 * 0.4)
    assert loop.step(0.4) == pytest.approx(0.2 * 0.4)
    assert loop.step(0.1) == pytest.approx(0.1 * -0.3 + 0.2 * 0.1)
    loop.rest()
    assert loop.step(-0.5) == pytest.approx(-0.1)


def test_a_change_is_bounded() -> None:
    loop = Loop()
    assert abs(loop.step(-1.0)) <= STEP_MAX
    assert loop.step(1.0) == pytest.approx(min(STEP_MAX, PROPORTIONAL * 2 + INTEGRAL))


def test_a_turn_by_hand() -> None:
    """Used 0.3 and 0.6 of a mean of 0.45: errors 1/3 and -1/3, weights 1.067 and 0.933, whose mean is 1."""
    members = pool(watched(1, window(0.0, busy=0.3)), watched(2, window(0.0, busy=0.6)))
    law = Pid()
    assert values(law, members, 0.0) == pytest.approx([1 + 0.2 / 3, 1 - 0.2 / 3])
    assert values(law, later(members, 0.8), 0.8) == pytest.approx([1 + 0.2 / 3, 1 - 0.2 / 3])
    again = [(1 + 0.2 / 3) ** 2, (1 - 0.2 / 3) ** 2]
    assert values(law, later(members, 1.0), 1.0) == pytest.approx([2 * w / sum(again) for w in again])


def test_it_starts_from_the_static_weights() -> None:
    assert values(Pid(), pool(watched(1, static=100), watched(2, static=300), watched(3, static=0)), 0.0) == [
        0.5,
        1.5,
        1,
    ]


def observed(busy: float, **more: float) -> Observed:
    return Observed(busy=busy, memory_available=0.8, **({"cores": 1.0} | more))


def test_utilisation_is_the_greatest_of_cpu_and_in_flight() -> None:
    seen = {rip(1): observed(0.6, application_in_flight=2), rip(2): observed(0.2, application_in_flight=14)}
    assert utilisations(seen) == pytest.approx({rip(1): 0.6, rip(2): 0.4 * 14 / 8})  # mean CPU 0.4, mean in flight 8
    assert utilisations(seen | {rip(3): observed(0.4)}) == {rip(1): 0.6, rip(2): 0.2, rip(3): 0.4}
    assert utilisations({rip(1): observed(0.3, application_utilisation=0.9)}) == {rip(1): 0.9}


@pytest.mark.parametrize(
    "out",
    [
        watched(3, window(0.0, busy=0.0), weight=0),
        watched(3, window(0.0, busy=0.0), quiesced="drain"),
        watched(3, window(0.0, busy=0.0), trust=Trust.LOST),
        watched(3),
    ],
)
def test_nothing_is_added_up_for_a_server_out_of_the_loop(out: object) -> None:
    law, members = Pid(), pool(watched(1, window(0.0, busy=0.5)), watched(2, window(0.0, busy=0.5)), out)  # type: ignore[arg-type]
    for turn in range(100):
        assert values(law, later(members, float(turn)), float(turn)) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(("one", "other"), [(1.0, 0.96), (0.001, 0.02)])
def test_a_pool_that_is_full_or_idle_keeps_its_weights(one: float, other: float) -> None:
    law, members = Pid(), pool(watched(1, window(0.0, busy=one)), watched(2, window(0.0, busy=other)))
    for turn in range(50):
        assert values(law, later(members, float(turn)), float(turn)) == [1, 1]


@pytest.mark.parametrize("delay", [0, 1, 2, 3])
def test_unequal_servers_come_to_one_utilisation_whatever_the_delay(delay: int) -> None:
    """Turn after turn on a plant that answers `delay` turns late; little overshoot, no swing at the end."""
    law, speeds = Pid(), [1.0, 2.0, 4.0, 8.0]
    past = [[1.0] * 4] * (delay + 1)
    spreads = []
    for turn in range(120):
        weights = past[-1 - delay]
        used = [min(1.0, 0.6 * sum(speeds) * w / sum(weights) / s) for w, s in zip(weights, speeds, strict=True)]
        past.append(values(law, _pool(used, float(turn)), float(turn)))
        spreads.append(max(used) - min(used))
    assert max(spreads[60:]) < 0.02
    assert max(w[3] for w in past) < 1.15 * past[-1][3]


def _pool(used: list[float], now: float) -> Pool:
    return pool(*(watched(i, window(now, busy=u)) for i, u in enumerate(used, 1)))
