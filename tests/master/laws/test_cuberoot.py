"""LVS's dynamic feedback: w' = w + 5 cbrt(0.95 - AGGREGATE_LOAD)."""

from __future__ import annotations

import pytest

from feedback.master.laws.field.cuberoot import CubeRoot, adjusted, aggregate
from tests.master.laws.watched import application, later, pool, values, watched, window


@pytest.mark.parametrize(
    ("weight", "load", "expected"),
    [
        (200, 0.95, 200),  # on target
        (200, 0.95 - 0.125, 202.5),  # cbrt(1/8) = 1/2
        (200, 0.95 + 0.125, 197.5),
        (200, 0.95 - 0.001, 200.5),  # a thousandth of load, a fifth of the step for 125 times as much
        (200, 0.95 + 8.0, 190),
        (101, 0.95 + 1.0, 100),  # not under the default weight
        (999, 0.95 - 0.729, 1000),  # not over ten times that
    ],
)
def test_a_weight_moves_by_the_cube_root_of_the_error(weight: float, load: float, expected: float) -> None:
    assert adjusted(weight, load, 100) == pytest.approx(expected)


def test_the_published_coefficients() -> None:
    indices = {"input": 1.0, "cpu": 0.5, "memory": 0.2, "process": 2.0, "response": 1.0}
    assert aggregate(indices) == pytest.approx(0.1 + 0.2 + 0.02 + 0.2 + 0.3)


def test_what_is_not_known_hands_its_coefficient_to_the_rest() -> None:
    assert aggregate({"cpu": 0.5, "memory": 0.25}) == pytest.approx((0.4 * 0.5 + 0.1 * 0.25) / 0.5)
    assert aggregate({"memory": 0.25}) == pytest.approx(0.25)


def test_a_turn_by_hand() -> None:
    """Latencies 10 and 30 ms: responses 0.5 and 1.5; rates 150 and 50: inputs 1.5 and 0.5."""
    fast = window(
        1.0, busy=0.4, rate=150, memory_available=0.5, runnable=0.5, applications=(application(latency_seconds=0.01),)
    )
    slow = window(
        1.0, busy=1.0, rate=50, memory_available=0.1, runnable=20.0, applications=(application(latency_seconds=0.03),)
    )
    loads = [
        0.1 * 1.5 + 0.4 * 0.4 + 0.1 * 0.5 + 0.1 * 0.5 + 0.3 * 0.5,
        0.1 * 0.5 + 0.4 * 1.0 + 0.1 * 0.9 + 0.1 * 8.0 + 0.3 * 1.5,
    ]
    assert loads == pytest.approx([0.56, 1.79])
    expected = [100 + 5 * 0.39 ** (1 / 3), 100.0]
    law = CubeRoot()
    assert values(law, pool(watched(1, fast), watched(2, slow)), 1.0) == pytest.approx(expected)


def test_response_is_the_time_a_connection_stays_where_nobody_says_it() -> None:
    """Active 20 and 5 at 50/s: 0.4 and 0.1 s, relative 1.6 and 0.4. Inputs are 1."""
    members = pool(
        watched(1, window(1.0, busy=0.5, rate=50), active=20), watched(2, window(1.0, busy=0.5, rate=50), active=5)
    )
    loads = [(0.1 + 0.4 * 0.5 + 0.1 * 0.2 + 0.3 * r) / 0.9 for r in (1.6, 0.4)]
    assert values(CubeRoot(), members, 1.0) == pytest.approx([100 + 5 * (0.95 - x) ** (1 / 3) for x in loads])


def test_every_five_seconds_and_only_by_more_than_one() -> None:
    law, members = CubeRoot(), pool(watched(1, window(0.0, busy=0.2)), watched(2, window(0.0, busy=1.0)))
    first = values(law, members, 0.0)
    assert first[0] > 104 and first[1] == pytest.approx(100 + 5 * (0.95 - 0.84) ** (1 / 3))
    assert values(law, later(members, 4.8), 4.8) == first
    second = values(law, later(members, 5.0), 5.0)
    assert second[0] > first[0] + 4
    nearly = pool(watched(1, window(10.0, busy=0.9, runnable=1.876)), watched(2))
    assert aggregate({"cpu": 0.9, "memory": 0.2, "process": 1.876}) == pytest.approx(0.946)
    assert values(law, nearly, 10.0) == second  # 5 cbrt(0.004) is less than one


def test_the_trap_below_target_all_weights_end_at_the_upper_clamp() -> None:
    law = CubeRoot()
    members = pool(watched(1, window(0.0, busy=0.8, rate=10)), watched(2, window(0.0, busy=0.2, rate=10)))
    for turn in range(400):
        values(law, later(members, 5.0 * turn), 5.0 * turn)
    assert values(law, members, 2000.0) == [1000, 1000]


def test_a_default_weight_of_zero_stays_zero() -> None:
    assert values(CubeRoot(), pool(watched(1, window(1.0, busy=0.1), static=0)), 1.0) == [0]
