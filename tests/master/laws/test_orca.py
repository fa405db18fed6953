"""gRPC's weighted_round_robin: qps / (utilisation + errors * penalty), blackout, expiry."""

from __future__ import annotations

import pytest

from feedback.master.laws.field.orca import Orca, weight
from feedback.master.pool import Pool
from feedback.master.servers.fleet import Trust
from tests.master.laws.watched import application, later, pool, values, watched, window


@pytest.mark.parametrize(
    ("qps", "utilisation", "errors", "expected"),
    [
        (100, 0.5, 0.0, 200),
        (100, 0.5, 0.5, 100),
        (100, 0.25, 1.0, 80),
        (0, 0.5, 0.0, 0),
        (100, 0.0, 0.0, 0),
        (100, 0.0, 1.0, 0),
    ],
)
def test_the_formula(qps: float, utilisation: float, errors: float, expected: float) -> None:
    assert weight(qps, utilisation, errors) == pytest.approx(expected)


def run(law: Orca, members: Pool, start: float, end: float) -> list[float]:
    out, now = [], start
    while now <= end:
        out = values(law, later(members, now), now)
        now += 1.0
    return out


TWO = pool(watched(1, window(0.0, busy=0.5, rate=100)), watched(2, window(0.0, busy=0.8, rate=40)))


def test_equal_until_the_blackout_is_over_then_the_weights() -> None:
    law = Orca()
    assert run(law, TWO, 0.0, 9.0) == [1, 1]
    assert run(law, TWO, 10.0, 10.0) == pytest.approx([200, 50])


def test_unknown_is_the_mean_of_the_known() -> None:
    """The third was heard of at 8 s and has its blackout until 18 s; the fourth never completes anything."""
    law, idle = Orca(), watched(4, window(0.0, busy=0.3, rate=0))
    run(law, pool(*TWO.rows, watched(3), idle), 0.0, 7.0)
    three = pool(*TWO.rows, watched(3, window(0.0, busy=0.1, rate=65)), idle)
    assert run(law, three, 8.0, 17.0) == pytest.approx([200, 50, 125, 125])
    assert run(law, three, 18.0, 18.0) == pytest.approx([200, 50, 650, 300])


def test_a_weight_expires_after_three_minutes_and_then_waits_again() -> None:
    law, third = Orca(), watched(3, window(0.0, busy=0.5, rate=200))
    run(law, pool(*TWO.rows, third), 0.0, 10.0)
    gone = pool(*TWO.rows, watched(3, window(10.0), trust=Trust.STALE))
    assert run(law, gone, 11.0, 189.0) == pytest.approx([200, 50, 400])
    assert run(law, gone, 190.0, 190.0) == pytest.approx([200, 50, 125])
    assert run(law, pool(*TWO.rows, third), 191.0, 200.0) == pytest.approx([200, 50, 125])
    assert run(law, pool(*TWO.rows, third), 201.0, 201.0) == pytest.approx([200, 50, 400])


def test_after_being_out_of_service_it_waits_again() -> None:
    law, third = Orca(), watched(3, window(0.0, busy=0.5, rate=200))
    run(law, pool(*TWO.rows, third), 0.0, 10.0)
    run(law, pool(*TWO.rows, watched(3, window(0.0, busy=0.5, rate=200), quiesced="drain")), 11.0, 11.0)
    assert run(law, pool(*TWO.rows, third), 12.0, 12.0) == pytest.approx([200, 50, 125])


def test_fewer_than_two_known_are_all_equal() -> None:
    assert run(Orca(), pool(TWO.rows[0], watched(2), watched(3)), 0.0, 30.0) == [1, 1, 1]
    assert run(Orca(), pool(TWO.rows[0]), 0.0, 30.0) == [1]


def test_the_application_speaks_first_and_its_errors_count() -> None:
    said = (application(80, utilisation=0.8, completions=20, errors=4),)
    members = pool(TWO.rows[0], watched(2, window(0.0, busy=0.1, rate=100, applications=said)))
    assert run(Orca(), members, 0.0, 10.0) == pytest.approx([200, 100 / (0.8 + 0.2)])


def test_updates_come_every_second_over_all_the_windows_between() -> None:
    law = Orca()
    run(law, TWO, 0.0, 10.0)
    busy = [pool(*(watched(i, window(now, busy=b, rate=100)) for i in (1, 2))) for now, b in ((10.2, 0.2), (11.0, 0.8))]
    assert values(law, busy[0], 10.2) == pytest.approx([200, 50])
    assert values(law, busy[1], 11.0) == pytest.approx([200, 200])
