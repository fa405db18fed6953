"""What a host keeps back, told by how long work waits for a CPU."""

from __future__ import annotations

from math import factorial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.master.servers.starved import LEAST, Starved, used_of_all, usual

FRACTIONS = st.floats(0.0, 1.0)


def waits(cores: int, part: float) -> float:
    """The part of the time in which more want to run than there are processors, of which this part is used: M/M/k's,
    which is also that of equal shares whatever the work is like."""
    offered = cores * part
    idle = sum(offered**n / factorial(n) for n in range(cores))
    full = offered**cores / factorial(cores) / (1 - part)
    return full / (idle + full) * part


def run(starved: Starved, cores: int, seconds: float, *, waited: float, used: float, usual: float = 1.0) -> None:
    for _ in range(int(5 * seconds)):
        starved.observe(waited, used, cores, 0.2, usual)


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("part", [0.7, 0.8, 0.9, 0.95])
def test_waiting_tells_what_part_is_used(cores: int, part: float) -> None:
    assert used_of_all(waits(cores, part), cores * part) == pytest.approx(part, rel=0.08)


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_server_that_has_what_it_seems_to_have_is_believed(cores: int, part: float) -> None:
    starved = Starved()
    run(starved, cores, 20, waited=waits(cores, part), used=part)
    assert starved.left == 1.0


@pytest.mark.parametrize("cores", [2, 4, 8, 16])
def test_a_server_that_gets_half_is_found_out_in_seconds_and_believed_again(cores: int) -> None:
    starved = Starved()
    run(starved, cores, 10, waited=waits(cores, 0.4), used=0.4)
    run(starved, cores, 3, waited=waits(cores // 2, 0.8), used=0.4)
    assert starved.left == pytest.approx(0.5, abs=0.1)
    run(starved, cores, 5, waited=waits(cores, 0.4), used=0.4)
    assert starved.left == 1.0


def test_where_work_comes_in_bursts_it_waits_everywhere_and_nobody_is_starved() -> None:
    pool = [Starved() for _ in range(4)]
    for _ in range(100):
        ratio = usual(s.ratio for s in pool)
        for k, starved in enumerate(pool):
            starved.observe(0.18 + 0.02 * k, 0.3, 8.0, 0.2, ratio)
    assert pool[0].ratio < 0.7
    assert [s.left for s in pool] == [1.0] * 4


@given(st.lists(st.tuples(FRACTIONS, FRACTIONS, st.floats(1e-3, 1e4), st.floats(1e-3, 60.0)), max_size=20), FRACTIONS)
def test_whatever_a_window_says_a_part_is_left(windows: list[tuple[float, float, float, float]], pool: float) -> None:
    starved = Starved()
    for waited, used, cores, seconds in windows:
        starved.observe(waited, used, cores, seconds, usual([pool]))
        assert LEAST <= starved.left <= 1.0
        assert 0.0 < starved.ratio <= 1.0


def test_on_one_processor_it_is_exact() -> None:
    assert used_of_all(0.49, 0.7) == pytest.approx(0.7, abs=0.005)
