"""The last words on sessions: the latest wins, so many bytes and so long, and all of it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sessions import (
    BYTES_MAX,
    KEPT_SECONDS,
    MESSAGE_BYTES_MAX,
    REPEAT_SECONDS,
    VALUE_BYTES_MAX,
    Sessions,
)
from feedback.wire import PROTOCOL, REPORT_BYTES_MAX, Session, encode
from feedback.wire import Sessions as Said


def values(sessions: Sessions) -> dict[tuple[int, str], str]:
    return {key: value for key, _, value in sessions.latest()}


def test_the_latest_word_of_a_session_wins_whatever_the_order_of_arrival() -> None:
    sessions = Sessions()
    sessions.hear(80, "u7", "new", 2.0)
    sessions.hear(80, "u7", "old", 1.0)
    sessions.hear(81, "u7", "another port", 1.0)
    assert values(sessions) == {(80, "u7"): "new", (81, "u7"): "another port"}


def test_a_session_is_forgotten_a_minute_after_its_last_word() -> None:
    sessions = Sessions()
    sessions.take((Session(80, "a", "x", 50.0), Session(80, "b", "y", 0.0)), 100.0)
    sessions.expire(50.0 + KEPT_SECONDS)
    assert len(sessions) == 2
    sessions.expire(50.1 + KEPT_SECONDS)
    assert values(sessions) == {(80, "b"): "y"}


def test_where_there_are_too_many_the_one_that_said_nothing_for_the_longest_goes() -> None:
    sessions = Sessions()
    sessions.hear(80, "first", "x" * VALUE_BYTES_MAX, 0.0)
    sessions.hear(80, "second", "x" * VALUE_BYTES_MAX, 0.1)
    sessions.hear(80, "first", "y" * VALUE_BYTES_MAX, 0.2)
    for i in range(BYTES_MAX):
        sessions.hear(80, f"s{i}", "z" * VALUE_BYTES_MAX, 1.0 + i)
        if (80, "second") not in values(sessions):
            break
    assert (80, "first") in values(sessions)


def test_a_value_that_is_too_long_is_refused_by_its_bytes() -> None:
    with pytest.raises(ValueError, match="258 bytes, at most 256"):
        Sessions().hear(80, "u7", "\u00e9" * 129, 0.0)


def test_what_is_told_is_not_told_again_until_it_changes_or_was_long_ago() -> None:
    sessions = Sessions()
    sessions.hear(80, "u7", "1", 0.0)
    assert sessions.news(0.0) == (Session(80, "u7", "1", 0.0),)
    sessions.hear(80, "u7", "1", 0.5)  # the same again
    assert sessions.news(1.0) == ()
    sessions.hear(80, "u7", "2", 1.5)
    assert sessions.news(2.0) == (Session(80, "u7", "2", 0.5),)
    assert sessions.news(2.0 + REPEAT_SECONDS - 0.1) == ()
    assert sessions.news(2.0 + REPEAT_SECONDS) == (Session(80, "u7", "2", 10.5),)


def test_all_of_it_is_told_again_to_who_comes_later() -> None:
    sessions = Sessions()
    sessions.hear(80, "u7", "1", 0.0)
    assert sessions.news(0.0) and not sessions.news(1.0)
    sessions.retell()
    assert sessions.news(1.0) == (Session(80, "u7", "1", 1.0),)


def test_a_word_that_came_while_the_clock_was_read_is_no_older_than_now() -> None:
    sessions = Sessions()
    sessions.hear(80, "u7", "1", 1.001)
    assert sessions.news(1.0) == (Session(80, "u7", "1", 0.0),)


words = st.lists(
    st.tuples(
        st.integers(0, 65535),
        st.from_regex(r"[!-~]{1,64}", fullmatch=True),
        st.text(max_size=VALUE_BYTES_MAX // 4),
    ),
    max_size=200,
)


@given(words)
def test_everything_is_told_in_messages_that_a_master_takes(said: list[tuple[int, str, str]]) -> None:
    sessions = Sessions()
    for i, (port, session, value) in enumerate(said):
        sessions.hear(port, session, value, float(i) / 1000)
    kept = values(sessions)
    told: dict[tuple[int, str], str] = {}
    while news := sessions.news(1.0):
        assert len(encode(Said(PROTOCOL, "a" * 64, news))) <= REPORT_BYTES_MAX
        told |= {(w.port, w.session): w.value for w in news}
    assert told == kept
    again = [word for message in sessions.all(1.0) for word in message]
    assert {(w.port, w.session): w.value for w in again} == kept
    assert sessions._bytes <= BYTES_MAX
    assert MESSAGE_BYTES_MAX < REPORT_BYTES_MAX
