"""New connections a second: as lively as the agents say, and not far from what the director counts."""

from __future__ import annotations

import pytest

from feedback.master.pool import Row
from feedback.master.servers import arrivals as counting
from feedback.master.servers.arrivals import Arrivals
from tests.master.builders import member

SERVERS, RATE = 4, 50.0


def counted(*said: float, kernel: float = RATE, refreshes: int = 3) -> list[Row]:
    """Servers whose agents say so many a second, and for which the kernel counts RATE, in steps of two seconds."""
    rows = []
    for i, rate in enumerate(said, 1):
        row = member(i)
        row.capacity.rate = rate
        row.arrivals = Arrivals()
        for k in range(refreshes):
            row.arrivals.look(round(kernel * 2 * k), 2.0 * k)
        rows.append(row)
    return rows


def flow(rows: list[Row], now: float) -> float:
    return counting.flow([row.capacity.rate for row in rows], [row.arrivals.now(now) for row in rows])


def test_what_all_agents_see_counts_at_once() -> None:
    """Three times as many come as the kernel counted last."""
    assert flow(counted(*[3 * RATE] * SERVERS), 4.0) == pytest.approx(3 * RATE * SERVERS)


@pytest.mark.parametrize(("lie", "counts"), [(1e6, 2.0), (0.0, 0.5)])
def test_one_agents_word_counts_within_a_factor_of_two_of_the_directors_count(lie: float, counts: float) -> None:
    assert flow(counted(lie, RATE, RATE, RATE), 4.0) == pytest.approx(RATE * (SERVERS - 1 + counts))


def test_before_the_kernel_has_counted_one_agents_word_counts_as_four_usual_ones() -> None:
    assert flow(counted(1e6, RATE, RATE, RATE, refreshes=1), 1.0) == pytest.approx(RATE * (SERVERS - 1 + 4))


def test_what_the_kernel_counts_no_more_is_forgotten() -> None:
    rows = counted(*[0.0] * SERVERS)
    assert flow(rows, 4.0) == pytest.approx(SERVERS * RATE / 4)  # half of what may have become half
    assert flow(rows, 24.0) < 0.1


def test_the_first_move_of_a_counter_is_no_rate() -> None:
    """It came as soon after the first look as it happened to."""
    arrivals = Arrivals()
    arrivals.look(0, 10.0)
    arrivals.look(100, 10.1)
    assert arrivals.now(10.1) is None
    arrivals.look(200, 12.1)
    assert arrivals.now(12.1) == pytest.approx(50.0)
    arrivals.look(5, 14.1)  # taken out, and added anew
    assert arrivals.now(14.1) is None
