"""Rise and fall, the spread of checks, and what the watch makes of outcomes: pure, on a fake clock."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config.probe import AgentSource, Check
from feedback.master.claims.health import FIRST_SECONDS, Health, Outcome, Probe, Schedule, Verdict, Watch
from feedback.master.outcome import By, Zero
from feedback.master.servers.fleet import Trust
from feedback.model import DestinationKey
from tests.master.builders import VIRTUAL, rip

GOOD, BAD = Outcome(True, "status 200"), Outcome(False, "connection refused")


@pytest.mark.parametrize(
    "outcomes, verdict",
    [
        ("", Verdict.UNKNOWN),
        ("+", Verdict.UP),  # the first decides
        ("-", Verdict.DOWN),
        ("+--", Verdict.UP),
        ("+---", Verdict.DOWN),
        ("+--+--", Verdict.UP),  # in a row, not in all
        ("---+", Verdict.DOWN),
        ("---++", Verdict.UP),
        ("---+-+", Verdict.DOWN),
        ("+---+-++", Verdict.UP),
    ],
)
def test_it_takes_so_many_in_a_row(outcomes: str, verdict: Verdict) -> None:
    health = Health(rise=2, fall=3)
    for sign in outcomes:
        health.observe(GOOD if sign == "+" else BAD)
    assert health.verdict is verdict


@given(st.lists(st.booleans()), st.integers(1, 5), st.integers(1, 5))
def test_the_verdict_is_what_the_last_long_row_said(outcomes: list[bool], rise: int, fall: int) -> None:
    health = Health(rise, fall)
    for good in outcomes:
        before = health.verdict
        health.observe(Outcome(good, ""))
        if health.verdict is not before:  # it never changes against the outcome that is before our eyes
            assert health.verdict is (Verdict.UP if good else Verdict.DOWN)
    for good, times, verdict in ((True, rise, Verdict.UP), (False, fall, Verdict.DOWN)):
        for _ in range(times):
            health.observe(Outcome(good, ""))
        assert health.verdict is verdict


def test_checks_are_spread_and_each_is_asked_once_an_interval() -> None:
    schedule, keys = Schedule(2.0), tuple(rip(i) for i in range(1, 201))
    asked: dict[int, int] = {}
    at = dict.fromkeys(keys, 0)
    for tick in range(1000):
        taken = schedule.take(keys, tick / 10)
        asked[tick] = len(taken)
        for key in taken:
            at[key] += 1
            schedule.done(key)
    assert max(asked.values()) < 35  # of 200 in 20 ticks: the first round within a second, then ever more even
    assert max(n for tick, n in asked.items() if tick > 500) < 25
    assert all(47 <= n <= 53 for n in at.values())
    assert sum(n for tick, n in asked.items() if tick <= FIRST_SECONDS * 10) == 200


def test_nobody_is_asked_twice_at_a_time_nor_in_a_hurry_after_a_pause() -> None:
    schedule, keys = Schedule(2.0), (rip(1),)
    assert schedule.take(keys, 5.0) in ([], [rip(1)])
    schedule.take(keys, 6.0)
    assert schedule.take(keys, 60.0) == []  # still being asked
    schedule.done(rip(1))
    schedule.late(100.0)
    assert schedule.take(keys, 100.0) == [rip(1)]
    schedule.done(rip(1))
    schedule.late(100.1)
    assert schedule.take(keys, 100.3) == []


def watch(check: Check | None = Check(rise=1, fall=2), source: AgentSource | None = None) -> Watch:  # noqa: B008
    made = Watch(VIRTUAL, check, source)
    made.probes((rip(1), rip(2)), 0.0)
    return made


def said(watch: Watch) -> str:
    zero = watch.barred(rip(1), serves=True)
    return "" if zero is None else str(zero.why)


def test_before_the_first_outcome_who_serves_goes_on_and_who_does_not_waits() -> None:
    made = watch()
    assert made.barred(rip(1), serves=True) is None
    assert made.barred(rip(1), serves=False) == Zero(By.CHECK, "not checked yet")
    made.receive(Probe(VIRTUAL, rip(1), Check(rise=1, fall=2)), GOOD, 1.0)
    assert made.barred(rip(1), serves=False) is None


def test_a_failing_check_bars_and_says_what_was_seen() -> None:
    made, probe = watch(), Probe(VIRTUAL, rip(1), Check(rise=1, fall=2))
    for outcome, expected in [
        (GOOD, ""),
        (BAD, ""),
        (BAD, "check fails: connection refused"),
        (GOOD, ""),
    ]:
        made.receive(probe, outcome, 1.0)
        assert said(made) == expected


def test_an_agents_silence_makes_its_word_old_and_nothing_else() -> None:
    source = AgentSource(interval_seconds=1.0)
    made, probe = watch(None, source), Probe(VIRTUAL, rip(1), source)
    assert made.trust(rip(1), 0.0, 2.0, 15.0) == (Trust.NEVER, None)
    assert made.receive(probe, b"up 60%\n", 10.0) == ""
    for now, trust in [(10.0, Trust.FRESH), (12.9, Trust.FRESH), (14.0, Trust.STALE), (26.0, Trust.LOST)]:
        made.receive(probe, None, now)  # could not be reached
        assert made.trust(rip(1), now, 2.0, 15.0) == (trust, now - 10.0)
        assert made.barred(rip(1), serves=True) is None
        assert made.advice(rip(1)).ratio == 0.6  # type: ignore[union-attr]


def test_a_line_that_says_nothing_is_told_and_changes_nothing() -> None:
    source = AgentSource()
    made, probe = watch(None, source), Probe(VIRTUAL, rip(1), source)
    made.receive(probe, b"drain 60%\n", 1.0)
    assert "nothing to be understood" in made.receive(probe, b"hello\n", 2.0)
    assert made.receive(probe, b"75%", 2.0) == "a line without its end"
    assert made.barred(rip(1), serves=True) == Zero(By.ADVICE, "its agent says drain")


def test_what_was_asked_before_a_reload_is_not_taken() -> None:
    made = watch()
    made.receive(Probe(VIRTUAL, rip(1), Check(type="http")), BAD, 1.0)
    assert made.checked(rip(1)).up is None  # type: ignore[union-attr]


def test_thousands_cost_a_turn_little() -> None:
    made, keys = watch(), tuple(rip(i) for i in range(1, 240))
    keys = tuple(DestinationKey(k.address, port) for k in keys for port in range(1, 21))
    made.probes(keys, 0.0)
    began = time.process_time()
    for turn in range(10):
        made.probes(keys, turn / 5)
    assert time.process_time() - began < 1.0  # 0.03 s; it was 10 s when it was quadratic
