"""Servers that fail fast: who goes, for how long, and how many at most."""

from __future__ import annotations

import msgspec
import pytest

from feedback.config import Guards
from feedback.master.eject import Ejector
from feedback.master.fleet import ApplicationWindow, Window
from feedback.master.guard import Guard
from feedback.master.pool import Member, Pool
from tests.master.builders import member, pool, rip, shares


def window(end: float, *, answers: int = 0, errors: int = 0, resets: int = 0, opened: float = 20.0) -> Window:
    word = (ApplicationWindow(80, answers, errors, None, None, None, False),) if answers or errors else ()
    return Window(
        start=end - 0.2,
        end=end,
        cores=1.0,
        busy=0.1,
        own=None,
        entitled=None,
        grain_seconds=0.0,
        opened=opened,
        completions=opened,
        memory_available=0.8,
        swap_in_pages=0,
        resets=resets,
        applications=word,
    )


def at(now: float, *errors: float, answers: int = 20) -> Pool:
    """A pool in which server i answers 100 times a second, with this part of errors."""
    return pool(*(seen(i, window(now, answers=answers, errors=round(answers * e))) for i, e in enumerate(errors, 1)))


def seen(i: int, w: Window, **kw: str) -> Member:
    return msgspec.structs.replace(member(i, **kw), window=w)


def test_a_server_that_answers_with_errors_is_out_within_a_second() -> None:
    ejector, out = Ejector(), []
    for k in range(1, 6):
        out.append(set(ejector.ejected(at(k / 5, 1.0, 0.0, 0.0, 0.0), k / 5)))
    assert out[-1] == {rip(1)}
    assert {rip(1)} in out[:2]


def test_a_few_answers_prove_nothing() -> None:
    ejector = Ejector()
    assert not ejector.ejected(at(0.2, 1.0, 0.0, 0.0, answers=5), 0.2)


def test_a_port_where_nobody_listens_is_out() -> None:
    ejector, out = Ejector(), {}
    for k in range(1, 5):
        now = k / 5
        dead = seen(1, window(now, resets=20, opened=0.0))
        out = ejector.ejected(pool(dead, *(seen(i, window(now)) for i in (2, 3))), now)
    assert set(out) == {rip(1)}


def test_clients_that_go_away_are_no_failure_of_the_server() -> None:
    ejector = Ejector()
    for k in range(1, 50):
        now = k / 5
        aborted = seen(1, window(now, resets=30, opened=40.0))
        assert not ejector.ejected(pool(aborted, *(seen(i, window(now)) for i in (2, 3))), now)


def test_the_same_window_is_counted_once() -> None:
    ejector, same = Ejector(), at(0.2, 1.0, 0.0, 0.0, answers=10)
    for k in range(20):
        assert not ejector.ejected(same, 0.2 + k / 100)


def test_it_is_out_for_longer_each_time_and_the_times_start_anew_when_it_was_clean() -> None:
    ejector, spans, until = Ejector(), [], 0.0

    def spell(now: float, errors: float) -> None:
        nonlocal until
        out = now < until
        text = ejector.ejected(at(now, 0.0 if out else errors, 0.0, 0.0), now).get(rip(1), "")
        if text and not out:
            span = float(text.split("out for ")[1].split(" s")[0])
            spans.append(span)
            until = now + span

    for k in range(1, 5 * 60):
        spell(k / 5, 1.0)
    assert spans == [5, 10, 15, 20, 25]
    for k in range(5 * 60, 5 * 120):
        spell(k / 5, 0.0)
    for k in range(5 * 120, 5 * 124):
        spell(k / 5, 1.0)
    assert spans[5:] == [5]


def test_when_everybody_fails_nobody_is_singled_out() -> None:
    ejector = Ejector()
    for k in range(1, 20):
        assert not ejector.ejected(at(k / 5, 0.5, 0.5, 0.5, 0.5), k / 5)


def test_at_most_a_third_is_out() -> None:
    ejector = Ejector()
    for k in range(1, 20):
        out = ejector.ejected(at(k / 5, 1.0, 0.9, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0), k / 5)
    assert set(out) == {rip(1), rip(2)}


def test_a_pool_of_one_keeps_its_server() -> None:
    ejector = Ejector()
    for k in range(1, 20):
        assert not ejector.ejected(at(k / 5, 1.0), k / 5)


def test_the_guard_gives_an_ejected_server_nothing_and_lets_it_back_slowly() -> None:
    guard = Guard(Guards())
    seen_shares = []
    for k in range(1, 60):
        now = k / 5
        out = guard.apply(at(now, 1.0 if now < 1 else 0.0, 0.0, 0.0), shares(1, 1, 1), now)
        seen_shares.append(out.shares[rip(1)].value)
    assert 0.0 in seen_shares
    back = next(i for i in range(10, 59) if seen_shares[i - 1] == 0.0 and seen_shares[i] > 0)
    assert 0 < seen_shares[back] < 0.1


def test_an_ejection_never_empties_what_the_operator_left() -> None:
    guard = Guard(Guards())
    for k in range(1, 20):
        now = k / 5
        failing = seen(1, window(now, answers=20, errors=20))
        others = [seen(i, window(now, answers=20), quiesced="theirs") for i in (2, 3)]
        out = guard.apply(pool(failing, *others), shares(1, 1, 1), now)
        assert out.shares[rip(1)].value == pytest.approx(1.0)
