"""HAProxy's agent-check grammar as its manual gives it, and what stays from one line to the next."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.agent.agentcheck import AgentCheck
from feedback.master.claims.advice import RATIO_MAX, Advice, AdviceError
from tests.agent.test_agentcheck import sample


def after(*lines: bytes) -> Advice:
    advice = Advice()
    for line in lines:
        advice.observe(line, 1.0)
    return advice


@pytest.mark.parametrize(
    "lines, ratio, bar",
    [
        ([b"75%\n"], 0.75, ""),
        ([b"up 75%\n"], 0.75, ""),
        ([b"up ready 75%\r\n"], 0.75, ""),
        ([b"UP,READY,\t75%\n"], 0.75, ""),
        ([b"75% 30%\n"], 0.3, ""),  # the last of a kind
        ([b"75%\nup 10%\n"], 0.75, ""),  # the first line
        ([b"100000%\n"], RATIO_MAX, ""),
        ([b"maxconn:30 50%\n"], 0.5, ""),
        ([b"nonsense 50% failed\n"], 0.5, ""),  # an unknown word costs nothing, and `failed` is one
        ([b"50% # 99% down\n"], 0.5, ""),
        ([b"down # the disk is full\n"], 1.0, "its agent says down"),
        ([b"fail\n"], 1.0, "its agent says fail"),
        ([b"stopped\n"], 1.0, "its agent says stopped"),
        ([b"maint\n"], 1.0, "its agent says maint"),
        ([b"drain 40%\n"], 0.4, "its agent says drain"),
        ([b"drain\n", b"80%\n"], 0.8, "its agent says drain"),  # sticky: only `ready` lifts it
        ([b"drain\n", b"ready 80%\n"], 0.8, ""),
        ([b"down\n", b"ready\n"], 1.0, "its agent says down"),
        ([b"down\n", b"up\n"], 1.0, ""),
        ([b"0%\n"], 0.0, "its agent says 0 %"),
        ([b"0%\n", b"up\n"], 0.0, "its agent says 0 %"),
        ([b"30%\n", b"up\n"], 0.3, ""),
    ],
)
def test_words_mean_what_they_mean_to_haproxy(lines: list[bytes], ratio: float, bar: str) -> None:
    advice = after(*lines)
    assert (advice.ratio, advice.bar()) == (ratio, bar)


def test_an_absolute_weight_is_one_of_the_base_weights_scale() -> None:
    advice = after(b"weight:50\n")
    assert (advice.of(100), advice.of(50), advice.of(0)) == (0.5, 1.0, 1.0)
    assert after(b"weight:0\n").bar() == "its agent says 0 %"
    assert after(b"weight:50%\n").of(7) == 0.5
    assert after(b"weight:50\n", b"70%\n").of(10) == 0.7


@pytest.mark.parametrize(
    "line", [b"", b"75%", b"up ready", b"\n", b"#\n", b"75\n", b"-5%\n", b"5.5%\n", b"\xff%\n", b"weight:\n"]
)
def test_what_says_nothing_changes_nothing(line: bytes) -> None:
    advice = after(b"drain 30%\n")
    with pytest.raises(AdviceError):
        advice.observe(line, 9.0)
    assert (advice.ratio, advice.bar(), advice.heard_at) == (0.3, "its agent says drain", 1.0)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused_and_never_more(line: bytes) -> None:
    advice = Advice()
    try:
        advice.observe(line, 1.0)
    except AdviceError:
        assert not advice.heard
    assert 0 <= advice.ratio <= RATIO_MAX
    assert 0 <= advice.of(100) <= RATIO_MAX


@given(st.floats(0, 1), st.integers(0, 100))
def test_what_our_agent_answers_is_understood(busy: float, available: int) -> None:
    check = AgentCheck(3.0)
    check.observe(sample(0.0))
    check.observe(sample(3.0, busy * 6, available=available))
    line = check.answer(b"", 3.0)
    said = re.search(rb"(\d+)%", line)
    assert said is not None
    advice = after(line)
    assert (advice.ratio, advice.bar()) == (int(said[1]) / 100, "")
