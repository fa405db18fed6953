"""What the agent answers to HAProxy's agent-check: complete each time, smooth, never 0 % by accident."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.agent.agentcheck import AgentCheck
from feedback.agent.load import Sample
from feedback.wire import Application, Cpu, Memory

COMPLETE = re.compile(rb"up (ready|drain) (100|[1-9][0-9]?)%\n")


def sample(at: float, busy: float = 0.0, *, own: float | None = None, entitled: float | None = None,
           available: int = 80, applications: tuple[Application, ...] = (), epoch: int = 0) -> Sample:  # fmt: skip
    cpu = Cpu(2.0, busy, own_seconds=own, entitled=entitled)
    return Sample(at, epoch, cpu, Memory(100, available), applications=applications)


def told(*samples: Sample, question: bytes = b"", seconds: float = 3.0) -> bytes:
    check = AgentCheck(seconds)
    for one in samples:
        check.observe(one)
    return check.answer(question, samples[-1].sampled_at)


@pytest.mark.parametrize(
    "last, expected",
    [
        (sample(3, 0.0), b"up ready 100%\n"),
        (sample(3, 1.5), b"up ready 75%\n"),  # 1.5 of 6 CPU seconds: what is idle
        (sample(3, 6.0), b"up ready 1%\n"),  # a busy server is not a dead one
        (sample(3, 1.5, available=9), b"up ready 38%\n"),  # half way from easy to none
        (sample(3, 1.5, available=1), b"up ready 1%\n"),
        (sample(3, 4.5, own=3.0), b"up ready 75%\n"),  # what the neighbours leave, whatever it uses itself
        (sample(3, 6.0, own=3.0), b"up ready 50%\n"),
        (sample(3, 6.0, own=0.0, entitled=0.25), b"up ready 25%\n"),  # they take all, and would give way
        (sample(3, 1.5, applications=(Application(0, utilisation=0.9),)), b"up ready 10%\n"),
        (sample(3, 1.5, applications=(Application(0, drain=True),)), b"up drain 75%\n"),
    ],
)
def test_the_percentage_is_what_it_has_to_give(last: Sample, expected: bytes) -> None:
    assert told(sample(0, own=None if last.cpu.own_seconds is None else 0.0), last) == expected


@pytest.mark.parametrize(
    "question, expected",
    [
        (b"", b"up ready 40%\n"),  # the worst that is said, and not all of them drain
        (b"80\n", b"up drain 100%\n"),
        (b"443", b"up ready 40%\n"),
        (b"22\n", b"up ready 100%\n"),
        (b"nonsense\r\n", b"up ready 40%\n"),
        (b"\xff\x00", b"up ready 40%\n"),
        (b"9" * 64, b"up ready 40%\n"),
    ],
)
def test_each_service_has_its_answer(question: bytes, expected: bytes) -> None:
    applications = (Application(80, drain=True), Application(443, utilisation=0.6))
    assert told(sample(0), sample(3, applications=applications), question=question) == expected


def test_a_short_burst_moves_it_little() -> None:
    samples = [sample(t / 5, 0.0) for t in range(15)] + [sample(3.0, 0.4)]
    assert told(*samples) == b"up ready 93%\n"


def test_what_is_not_known_or_old_is_not_told() -> None:
    check = AgentCheck(3.0)
    assert check.answer(b"", 0.0) == b""
    check.observe(sample(0.0))
    assert check.answer(b"", 0.1) == b""
    check.observe(sample(0.2))
    assert check.answer(b"", 5.0) == b"up ready 100%\n"
    assert check.answer(b"", 10.3) == b""


def test_counters_that_begin_anew_are_not_compared() -> None:
    assert told(sample(0, 100.0), sample(1, 101.0), sample(2, 0.5, epoch=1)) == b""
    assert told(sample(1, 100.0), sample(2, 0.0, epoch=1), sample(3, 1.0, epoch=1)) == b"up ready 50%\n"


NUMBERS = st.floats(0, 1e9)


@given(
    st.lists(st.tuples(st.floats(0.01, 100), NUMBERS, NUMBERS, st.integers(0, 200), st.booleans()), min_size=2),
    st.binary(max_size=80),
)
def test_every_answer_is_the_complete_state_whatever_the_counters_say(
    rows: list[tuple[float, float, float, int, bool]], question: bytes
) -> None:
    check, at = AgentCheck(3.0), 0.0
    for seconds, busy, own, available, drain in rows:
        at += seconds
        check.observe(sample(at, busy, own=own, available=available, applications=(Application(80, drain=drain),)))
    assert COMPLETE.fullmatch(check.answer(question, at))


def test_a_service_that_was_restarted_leaves_what_is_idle() -> None:
    assert told(sample(0, 0.0, own=50.0), sample(3, 1.5, own=0.1)) == b"up ready 75%\n"
