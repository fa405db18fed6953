"""The page's past: means of ten seconds, fifteen minutes of them, and no more memory than said."""

from __future__ import annotations

import sys
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.web.lines import HEIGHT, WIDTH, path
from feedback.web.past import FIGURES, LOOK_SECONDS, PLACES_MAX, STEP_SECONDS, STEPS, Figures, Past, Place

WEB = "tcp:10.0.0.100:80"
SHARE, LATENCY = FIGURES.index("share"), FIGURES.index("latency")


def of(share: float | None, latency: float | None = None) -> Figures:
    return (share, None, 3.0, None, latency)


def seen(*shares: float | None) -> list[tuple[Place, Figures]]:
    return [((WEB, f"10.0.0.{11 + i}:80"), of(share)) for i, share in enumerate(shares)]


def test_a_step_is_the_mean_of_what_was_known_in_ten_seconds() -> None:
    past = Past()
    for second in range(11):
        past.look(float(second), [((WEB, "a"), of(0.2 if second < 5 else 0.4, 0.003 if second == 4 else None))])
    (step,) = past.steps()
    assert step.at == STEP_SECONDS
    assert step.value((WEB, "a"), SHARE) == pytest.approx((5 * 0.2 + 6 * 0.4) / 11)
    assert step.value((WEB, "a"), LATENCY) == pytest.approx(0.003)
    assert isnan(step.value((WEB, "b"), SHARE)) and isnan(step.value((WEB, "a"), FIGURES.index("load")))


def test_looks_are_due_once_a_second() -> None:
    past = Past()
    assert past.due(0.0)
    past.look(0.0, seen(0.5))
    assert not past.due(LOOK_SECONDS - 0.1) and past.due(LOOK_SECONDS)


def test_places_that_come_and_go_keep_what_was_theirs() -> None:
    past = Past()
    for second in range(4):
        past.look(float(second), seen(1.0))
    for second in range(4, 15):
        past.look(float(second), seen(0.25, 0.75))
    first, second_step = past.steps()
    assert (first.value((WEB, "10.0.0.11:80"), SHARE), second_step.value((WEB, "10.0.0.11:80"), SHARE)) == (1.0, 0.25)
    assert isnan(first.value((WEB, "10.0.0.12:80"), SHARE))


def test_fifteen_minutes_are_kept_in_the_memory_that_is_said() -> None:
    past, many = Past(), [((WEB, f"{i}"), of(0.5)) for i in range(200)]
    for second in range(int(STEP_SECONDS) * (STEPS + 20)):
        past.look(float(second), many)
    steps = past.steps()
    assert len(steps) == STEPS
    assert sum(sys.getsizeof(step.values) for step in steps) <= 1850 * len(many)
    assert all(step.places is steps[0].places for step in steps), "the places are kept once"


def test_of_too_many_places_no_past_is_kept() -> None:
    past = Past()
    for second in range(30):
        past.look(float(second), [((WEB, str(i)), of(0.5)) for i in range(PLACES_MAX + 1)])
    assert past.steps() == ()


def test_an_unknown_value_is_a_gap_and_a_lone_one_is_seen() -> None:
    drawn = path([(30, 0.0), (20, nan), (10, 1.0), (0, 1.0), (-1, 1.0), (40, 1.0)], 30, 1.0, WIDTH, HEIGHT)
    assert drawn == f"M0 {HEIGHT - 0.5:g}h.5M60 0.5h.5L90 0.5"


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(allow_nan=True, allow_infinity=True)), max_size=30),
    st.floats(0, 1e12),
)
def test_whatever_the_values_a_line_stays_inside(points: list[tuple[float, float]], top: float) -> None:
    drawn = path(points, 900, top, WIDTH, HEIGHT)
    for part in drawn.replace("h.5", "").replace("M", " ").replace("L", " ").split(" ")[1::2]:
        assert 0 <= float(part) <= WIDTH
    for part in drawn.replace("h.5", "").replace("M", " ").replace("L", " ").split(" ")[2::2]:
        assert 0 <= float(part) <= HEIGHT
