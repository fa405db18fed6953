"""What is inferred of a neighbour: quickly what is far out of the noise, and nothing out of noise alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.master.servers.neighbour import MOST, Neighbour

VARIANCE = 0.01  # of what a window's work should have cost: 10 %


def feed(neighbour: Neighbour, own: float, taken: float, windows: int, seed: int = 1) -> list[float]:
    draw, parts = random.Random(seed), []
    for _ in range(windows):
        expected = own * (1 + draw.gauss(0, VARIANCE**0.5))
        neighbour.observe(own + taken, expected, VARIANCE, 0.2)
        parts.append(neighbour.part)
    return parts


def test_one_who_takes_half_is_seen_at_the_first_window_and_forgotten_at_the_next() -> None:
    neighbour = Neighbour()
    feed(neighbour, own=0.3, taken=0.0, windows=20)
    assert feed(neighbour, own=0.3, taken=0.5, windows=1) == [pytest.approx(0.5, abs=0.1)]
    assert feed(neighbour, own=0.3, taken=0.0, windows=1) == [pytest.approx(0.0, abs=0.1)]


def test_noise_alone_makes_no_neighbour() -> None:
    for seed in range(5):
        parts = feed(Neighbour(), own=0.6, taken=0.0, windows=300, seed=seed)
        assert sum(1 for part in parts if part) / len(parts) < 0.1
        assert sum(parts) / len(parts) < 0.01


def test_a_small_one_is_found_by_and_by() -> None:
    parts = feed(Neighbour(), own=0.5, taken=0.1, windows=50)
    assert sum(parts[10:]) / 40 == pytest.approx(0.1, abs=0.03)


def test_what_the_service_has_had_beside_one_who_takes_all_the_rest_is_left_to_it() -> None:
    """Its share falls meanwhile, and with it what it uses."""
    falling, proven = Neighbour(), Neighbour()
    proven.proves = True
    for neighbour in (falling, proven):
        for own in (0.5,) * 20:
            neighbour.observe(own, own, VARIANCE, 1.0)
        for own in (0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.2, 0.2):
            neighbour.observe(1.0, own, VARIANCE, 1.0)
    assert (falling.part, falling.denied) == (pytest.approx(0.8, abs=0.05),) * 2
    assert (proven.part, proven.denied) == (pytest.approx(0.8, abs=0.05), pytest.approx(0.5, abs=0.05))
    for _ in range(10):
        proven.observe(0.3, 0.3, VARIANCE, 1.0)
    assert proven.part == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 5), st.floats(0, 10), st.floats(0, 60)), max_size=30))
def test_a_part_is_a_part_whatever_is_seen(windows: list[tuple[float, float, float, float]]) -> None:
    for proves in (False, True):
        neighbour = Neighbour()
        neighbour.proves = proves
        for used, own, variance, seconds in windows:
            neighbour.observe(used, own, variance, seconds)
            assert 0 <= neighbour.denied <= neighbour.part <= MOST


def test_less_than_a_twentieth_of_the_server_is_nobody() -> None:
    neighbour = Neighbour()
    for _ in range(50):
        neighbour.observe(0.24, 0.2, 1e-6, 0.2)
        assert neighbour.part == 0


def test_one_who_takes_much_less_of_a_sudden_is_believed_at_once() -> None:
    neighbour = Neighbour()
    for _ in range(30):
        neighbour.observe(0.9, 0.4, 0.05, 0.2)
    assert neighbour.part == pytest.approx(0.5, abs=0.01)
    neighbour.observe(0.5, 0.4, 0.05, 0.2)
    assert neighbour.part < 0.16
