"""feedbackd's law: weight = 100 (1 - load)."""

from __future__ import annotations

import pytest

from feedback.master.laws.field.linear import Linear, health
from tests.master.laws.watched import later, pool, values, watched, window


@pytest.mark.parametrize(("busy", "expected"), [(0.0, 100), (0.25, 75), (0.9, 10), (0.99, 1), (1.0, 1)])
def test_health_is_linear_in_what_is_idle(busy: float, expected: float) -> None:
    assert health(busy) == pytest.approx(expected)


def test_weights_are_the_health_of_this_moment() -> None:
    law, members = Linear(), pool(watched(1, window(1.0, busy=0.2)), watched(2, window(1.0, busy=0.7)))
    assert values(law, members, 1.0) == pytest.approx([80, 30])
    turned = pool(watched(1, window(2.0, busy=0.7)), watched(2, window(2.0, busy=0.2)))
    assert values(law, turned, 2.0) == pytest.approx([30, 80])


def test_between_two_turns_it_stays() -> None:
    law, members = Linear(), pool(watched(1, window(1.0, busy=0.2)))
    assert values(law, members, 1.0) == pytest.approx([80])
    busier = pool(watched(1, window(1.2, busy=0.9)))
    assert values(law, busier, 1.2) == pytest.approx([80])
    assert values(law, later(busier, 2.0), 2.0) == pytest.approx([10])


def test_who_has_not_reported_is_an_average_server() -> None:
    law = Linear()
    assert values(law, pool(watched(1, static=7), watched(2, static=9)), 0.0) == [7, 9]
    members = pool(watched(1, window(1.0, busy=0.2)), watched(2, window(1.0, busy=0.6)), watched(3))
    assert values(law, members, 1.0) == pytest.approx([80, 40, 60])
