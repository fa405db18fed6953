"""Over which link a standby follows, as time passes."""

import math

import pytest

from feedback.sync.way import Way

A, B = "tcp://a", "tcp://b"


@pytest.mark.parametrize(
    ("following", "ages", "expected"),
    [
        (None, {A: 0.02, B: 0.03}, A),
        (None, {A: math.inf, B: 0.03}, B),
        (None, {A: 0.3, B: 0.5}, None),
        (None, {}, None),
        (A, {A: 0.02, B: 0.01}, None),
        (A, {A: 0.5, B: 0.6}, None),
    ],
)
def test_a_link_is_taken_that_is_heard_and_kept_while_it_speaks(
    following: str | None, ages: dict[str, float], expected: str | None
) -> None:
    assert Way().better(following, ages, 10.0) == expected


def test_a_link_that_stays_silent_is_left_for_one_that_is_heard() -> None:
    way = Way()
    assert way.better(A, {A: 0.21, B: 0.01}, 10.0) is None
    assert way.better(A, {A: 0.27, B: 0.01}, 10.06) == B


def test_after_a_stall_the_link_whose_heartbeats_are_read_last_is_not_left() -> None:
    way = Way()
    assert way.better(A, {A: 0.4, B: 0.0}, 10.0) is None
    assert way.better(A, {A: 0.0, B: 0.0}, 10.001) is None
    assert way.better(A, {A: 0.4, B: 0.0}, 11.0) is None, "a second stall is another one"
    assert way.better(A, {A: 0.02, B: 0.02}, 11.06) is None


def test_a_peer_that_leads_from_an_endpoint_nobody_configured_any_more_is_left() -> None:
    way = Way()
    assert way.better("tcp://gone", {A: 0.01, B: 0.02}, 10.0) is None
    assert way.better("tcp://gone", {A: 0.01, B: 0.02}, 10.06) == A
