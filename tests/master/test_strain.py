"""What holds a server back although its CPU does not."""

from __future__ import annotations

import pytest

from feedback.master.laws.capacity import Capacity
from feedback.master.laws.strain import CUT_MIN, Strain, memory_factor
from feedback.master.servers.window import Window
from tests.master.builders import member, pool, replace, rip
from tests.master.stages import Ruled
from tests.master.test_eject import window


def seen(now: float, **changes: object) -> Window:
    return replace(window(now), **changes)


def follow(strain: Strain, start: float, seconds: float, *, hot: bool = False, **changes: object) -> float:
    for k in range(1, round(seconds / 0.2)):
        strain.follow(seen(start + k / 5, **changes), hot)
    return strain.factor


@pytest.mark.parametrize("available, factor", [(1.0, 1), (0.15, 1), (0.10, 0.5), (0.05, 0.05), (0.0, 0.05)])
def test_memory_takes_nothing_until_little_is_left(available: float, factor: float) -> None:
    assert memory_factor(available) == pytest.approx(factor)


def test_memory_that_falls_fast_counts_before_it_is_gone() -> None:
    strain = Strain()
    for k in range(1, 40):
        strain.follow(seen(k / 5, memory_available=0.6 - 0.01 * k), False)
    assert strain.factor < 0.3  # 21 % left, and 5 % less each second
    assert "at this trend" in str(strain.why or "")


def test_what_memory_takes_it_gives_back_slowly() -> None:
    strain = Strain()
    strain.follow(seen(0.2, memory_available=0.10), False)
    strain.follow(seen(0.4, memory_available=0.10), False)
    assert strain.factor == pytest.approx(0.5)
    strain.follow(seen(0.6, memory_available=0.16), False)
    assert strain.factor == pytest.approx(0.52)
    assert "recovering" in str(strain.why or "")
    strain.follow(seen(0.8, memory_available=0.07), False)
    assert strain.factor < 0.25
    for k in range(5, 60):
        strain.follow(seen(k / 5, memory_available=0.5), False)
    assert strain.factor == 1.0
    assert not str(strain.why or "")


def test_a_pool_that_fills_up_is_no_leak_while_much_is_left() -> None:
    strain = Strain()
    for k in range(1, 20):
        strain.follow(seen(k / 5, memory_available=0.9 - 0.03 * k), False)
    assert strain.factor == 1.0


@pytest.mark.parametrize(
    "sign",
    [{"memory_pressure": 0.1}, {"swap_in_pages": 100}, {"overflows": 1}],
)
def test_a_drowning_server_is_cut_once_a_second_and_comes_back_slowly(sign: dict[str, object]) -> None:
    strain = Strain()
    assert follow(strain, 0, 2.5, **sign) == pytest.approx(0.7**3, rel=0.01)
    assert follow(strain, 10, 30, **sign) == pytest.approx(CUT_MIN)
    assert follow(strain, 40, 4) == pytest.approx(CUT_MIN)
    assert CUT_MIN < follow(strain, 44, 5) < 0.5
    assert follow(strain, 49, 30) == 1.0


def test_while_the_pool_is_hot_nobody_is_cut_for_drowning() -> None:
    assert follow(Strain(), 0, 5, hot=True, overflows=3) == 1.0


def test_memory_still_counts_while_the_capacities_of_a_hot_pool_are_frozen() -> None:
    law = Ruled(Capacity())
    law.shares(pool(member(1), member(2)), 0.0)
    full = replace(member(1, utilisation=0.99, capacity=50), window=replace(window(0.2), memory_available=0.06))
    out = law.shares(pool(full, member(2, utilisation=0.99, capacity=300)), 0.2)
    assert out[rip(2)].value == pytest.approx(100)  # frozen
    assert out[rip(1)].value == pytest.approx(10)
    assert "memory" in " ".join(str(step.fact) for step in out[rip(1)].more)
