"""Bounds: which are in force, and what holds them."""

import math

import pytest

from feedback.lab.bounds import Bound, judge, shortfalls


@pytest.mark.parametrize(
    ("bound", "got", "ok"),
    [
        (Bound("x", least=1), 1.0, True),
        (Bound("x", least=1), 0.9, False),
        (Bound("x", most=1), 1.0, True),
        (Bound("x", most=1), 1.1, False),
        (Bound("x", least=1, most=2), 0.9, False),
        (Bound("x", least=1, most=2), 2.1, False),
        (Bound("x", least=1, most=2), 1.5, True),
        (Bound("x", most=1), math.inf, False),
        (Bound("x", least=1), math.nan, False),
        (Bound("x", most=1), math.nan, False),
        (Bound("x", least="y"), 5.0, True),
        (Bound("x", least="y"), 4.9, False),
        (Bound("x", most="y"), 5.1, False),
        (Bound("x", least="nothing"), 4.0, False),  # held to a figure that is not there
        (Bound("nothing", least="y"), 4.0, None),
    ],
)
def test_a_bound_is_held_by_a_figure_within_it(bound: Bound, got: float, ok: bool | None) -> None:
    (check,) = judge([bound], {"x": got, "y": 5.0})
    assert check.ok is ok
    assert bool(shortfalls([check])) is (ok is False)


@pytest.mark.parametrize(
    ("bound", "figures", "in_force"),
    [
        (Bound("x", least=1, when="adopted"), {"adopted": 1.0}, True),
        (Bound("x", least=1, when="adopted"), {"adopted": 0.0}, False),
        (Bound("x", least=1, when="adopted"), {}, False),
        (Bound("x", least=1, unless="adopted"), {"adopted": 1.0}, False),
        (Bound("x", least=1, unless="adopted"), {"adopted": 0.0}, True),
        (Bound("x", least=1, unless="adopted"), {}, True),
    ],
)
def test_a_condition_is_a_figure_that_is_not_0(bound: Bound, figures: dict[str, float], in_force: bool) -> None:
    assert bool(judge([bound], figures | {"x": 0.0})) is in_force


def test_a_shortfall_says_what_is_and_what_was_wanted() -> None:
    bounds = [
        Bound("gain", least=5),
        Bound("errors", most=0),
        Bound("kept", least=1, most=1),
        Bound("lost", most="all"),
    ]
    lines = shortfalls(judge(bounds, {"gain": 4.8371, "errors": 2, "kept": 2, "lost": 3, "all": 2}))
    assert lines == [
        "gain is 4.837, wanted at least 5",
        "errors is 2, wanted at most 0",
        "kept is 2, wanted at most 1",
        "lost is 3, wanted at most 2",
    ]


@pytest.mark.parametrize(
    ("bound", "wanted"),
    [
        (Bound("x", least=5), ">= 5"),
        (Bound("x", most=0.1), "<= 0.1"),
        (Bound("x", least=1.08, most=1.25), "1.08 to 1.25"),
        (Bound("x", least=1, most=1), "1"),
        (Bound("x", least="y"), ">= 1008"),
    ],
)
def test_what_is_wanted_is_told_in_a_word_or_two(bound: Bound, wanted: str) -> None:
    assert judge([bound], {"x": 1.0, "y": 1008.0})[0].wanted() == wanted
