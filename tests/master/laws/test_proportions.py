"""IBM Network Dispatcher's manager: columns, proportions, weightbound, smoothing index, sensitivity."""

from __future__ import annotations

import pytest

from feedback.master.laws.field.proportions import ColumnOptions, Proportions, ProportionsOptions, goodness, smoothed
from feedback.master.servers.fleet import Trust
from tests.master.builders import rip
from tests.master.laws.watched import application, later, pool, values, watched, window

SYSTEM_ONLY = ColumnOptions(active=0, new=0, system=100)


def test_goodness_is_one_at_the_mean() -> None:
    column = {rip(1): 0.0, rip(2): 10.0, rip(3): 20.0, rip(4): None}
    assert goodness(column) == {rip(1): 2.0, rip(2): 1.0, rip(3): 0.0, rip(4): 1.0}
    assert goodness({rip(1): 0.0, rip(2): 0.0}) == {rip(1): 1.0, rip(2): 1.0}


@pytest.mark.parametrize(("index", "expected"), [(1.0, 16.0), (1.5, 14.0), (4.0, 11.5), (0.5, 16.0)])
def test_the_smoothing_index_divides_the_change(index: float, expected: float) -> None:
    assert smoothed(10, 16, index) == pytest.approx(expected)


def test_half_the_weightbound_to_begin_with() -> None:
    assert values(Proportions(), pool(watched(1), watched(2)), 0.0) == [10, 10]


def test_active_and_new_by_default() -> None:
    """Active 4, 12 (mean 8): 1.5, 0.5. New 30, 10 (mean 20): 0.5, 1.5. Together 1: nothing to do."""
    law = Proportions()
    even = pool(watched(1, window(0.0, rate=30), active=4), watched(2, window(0.0, rate=10), active=12))
    assert values(law, even, 0.0) == [10, 10]
    """New 10, 10: goodness 1.25, 0.75; wanted 12.5, 7.5; smoothed by 1.5: 11.67, 8.33."""
    uneven = pool(watched(1, window(2.0, rate=10), active=4), watched(2, window(2.0, rate=10), active=12))
    assert values(law, uneven, 2.0) == [12, 8]
    assert values(law, later(uneven, 3.8), 3.8) == [12, 8]
    """Then 11.67 + (12.5 - 11.67) / 1.5 = 12.22: still 12, and 7.78: 8."""
    assert values(law, later(uneven, 4.0), 4.0) == [12, 8]


def test_system_and_port_have_a_say_when_they_are_given_one() -> None:
    said = [(application(latency_seconds=s),) for s in (0.01, 0.03)]
    members = pool(
        watched(1, window(0.0, busy=0.9, applications=said[0])), watched(2, window(0.0, busy=0.3, applications=said[1]))
    )
    system = ProportionsOptions(proportions=SYSTEM_ONLY, smoothing=1.0)
    assert values(Proportions(system), members, 0.0) == [5, 15]  # 2 - 0.9/0.6 = 0.5
    port = ProportionsOptions(proportions=ColumnOptions(active=0, new=0, port=1), smoothing=1.0)
    assert values(Proportions(port), members, 0.0) == [15, 5]  # 2 - 0.01/0.02


def test_weights_stay_in_1_to_weightbound() -> None:
    members = pool(watched(1, window(0.0, busy=1.0)), watched(2, window(0.0, busy=0.0)))
    assert values(Proportions(ProportionsOptions(proportions=SYSTEM_ONLY, smoothing=1.0)), members, 0.0) == [1, 20]


def test_sensitivity_five_percent_of_the_total() -> None:
    """20 servers, total 200: a change of 10 in all is not more than 5 %, one of 12 is."""

    def of(hot: int) -> list[float]:
        busy = [0.6] * hot + [0.4] * hot + [0.5] * (20 - 2 * hot)
        members = [watched(i, window(0.0, busy=b)) for i, b in enumerate(busy, 1)]
        return values(Proportions(ProportionsOptions(proportions=SYSTEM_ONLY, smoothing=2.0)), pool(*members), 0.0)

    assert of(5) == [10] * 20
    assert of(6) == [9] * 6 + [11] * 6 + [10] * 8


def test_a_high_index_still_arrives() -> None:
    law = Proportions(ProportionsOptions(proportions=SYSTEM_ONLY, smoothing=5.0))
    members = pool(watched(1, window(0.0, busy=0.4)), watched(2, window(0.0, busy=0.6)))
    for turn in range(40):
        values(law, later(members, 2.0 * turn), 2.0 * turn)
    assert values(law, members, 80.0) == [12, 8]


def test_all_down_is_half_the_weightbound_for_everybody() -> None:
    law = Proportions(ProportionsOptions(proportions=SYSTEM_ONLY))
    values(law, pool(watched(1, window(0.0, busy=0.9)), watched(2, window(0.0, busy=0.1))), 0.0)
    gone = [watched(i, window(0.0), trust=Trust.LOST) for i in (1, 2)]
    assert values(law, pool(*gone), 20.0) == [10, 10]
    assert values(law, pool(watched(1, window(22.0, busy=0.9)), watched(2, window(22.0, busy=0.1))), 22.0) == [5, 15]


def test_the_reason_is_the_managers_report() -> None:
    shares = Proportions().shares(pool(watched(1, window(0.0, rate=10), active=4), watched(2)), 0.0)
    assert str(shares[rip(1)].why) == "active 4, new 10, system 0: 10 -> 7 of 20"
