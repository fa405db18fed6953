"""Rise and fall, the spread of checks, and what the watch makes of outcomes: pure, on a fake clock."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feedback.config.probe import AgentSource, Check
from feedback.master.claims.asking import FIRST_SECONDS, Asking, Probe, Series, Target
from feedback.master.claims.health import Health, Outcome, Verdict
from feedback.master.claims.watch import Watch
from feedback.master.outcome import By, Zero
from feedback.master.servers.fleet import Source, Trust
from feedback.model import DestinationKey
from tests.master.builders import VIRTUAL, rip

GOOD, BAD = Outcome(True, "status 200"), Outcome(False, "connection refused")
CHECK = Check(rise=1, fall=2)


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


KEYS = tuple(rip(i) for i in range(1, 201))


def targets(count: int) -> tuple[Target, ...]:
    return tuple(Target(k.address, k.port) for k in KEYS[:count])


def test_checks_are_spread_and_each_is_asked_once_an_interval_or_a_little_more_often() -> None:
    series = Series(Check(interval_seconds=2.0))
    series.keep(targets(200), 0.0)
    asked: dict[int, int] = {}
    at = dict.fromkeys(targets(200), 0)
    for tick in range(1000):
        taken = series.take(tick / 10)
        asked[tick] = len(taken)
        for probe in taken:
            at[probe.target] += 1
            series.receive(probe.target, GOOD, tick / 10)
    assert max(asked.values()) < 35  # of 200 in 20 ticks: the first round within a second, then ever more even
    assert max(n for tick, n in asked.items() if tick > 500) < 27
    assert all(50 <= n <= 55 for n in at.values())
    assert sum(n for tick, n in asked.items() if tick <= FIRST_SECONDS * 10) == 200


def test_nobody_is_asked_twice_at_a_time_nor_in_a_hurry_after_a_pause() -> None:
    series, (target,) = Series(Check(interval_seconds=2.0)), targets(1)
    series.keep((target,), 5.0)
    assert len(series.take(6.0)) == 1
    assert series.take(60.0) == []  # still being asked
    series.receive(target, GOOD, 100.0)
    assert len(series.take(100.0)) == 1
    series.receive(target, GOOD, 100.1)
    assert series.take(100.3) == []


@given(st.integers(2, 5), st.floats(0.2, 5), st.floats(0.01, 0.5), st.floats(20, 40))
@example(fall=2, interval=1.0, part=0.5, fault=21.0)
def test_a_silent_server_is_down_within_fall_intervals_the_deadline_within(
    fall: int, interval: float, part: float, fault: float
) -> None:
    """To the moment: probes start when they are due, and a server that says nothing costs the whole deadline."""
    timeout = part * interval
    series, (target,) = Series(Check(interval_seconds=interval, timeout_seconds=timeout, fall=fall)), targets(1)
    series.keep((target,), 0.0)
    subject = series.subject(target)
    assert subject is not None and subject.health is not None
    now = 0.0
    while subject.health.verdict is not Verdict.DOWN:
        now = max(now, subject.due)
        assert series.take(now)
        if now >= fault:
            now += timeout
            series.receive(target, BAD, now)
        else:
            series.receive(target, GOOD, now)
    assert now <= fault + fall * interval + 1e-6


class Watched:
    """Services with the same destinations."""

    def __init__(self, check: Check | None = CHECK, source: AgentSource | None = None, services: int = 1) -> None:
        self.asking = Asking()
        self.watches = [Watch(VIRTUAL, self.asking, check, source) for _ in range(services)]
        self.ask((rip(1), rip(2)), 0.0)

    def ask(self, keys: tuple[DestinationKey, ...], now: float) -> list[Probe]:
        return self.asking.probes([(watch, keys, ()) for watch in self.watches], now)

    def hear(self, result: Outcome | bytes | None, now: float, what: Check | AgentSource | None = None) -> str:
        """What came of the first destination's probe."""
        what = what or CHECK
        return self.asking.receive(Probe(Target(rip(1).address, what.port or 80), what), result, now).problem

    def said(self) -> str:
        zero = self.watches[0].barred(rip(1), serves=True)
        return "" if zero is None else str(zero.why)


def test_before_the_first_outcome_who_serves_goes_on_and_who_does_not_waits() -> None:
    made = Watched()
    assert made.watches[0].barred(rip(1), serves=True) is None
    assert made.watches[0].barred(rip(1), serves=False) == Zero(By.CHECK, "not checked yet")
    made.hear(GOOD, 1.0)
    assert made.watches[0].barred(rip(1), serves=False) is None


def test_a_failing_check_bars_and_says_what_was_seen() -> None:
    made = Watched()
    for outcome, expected in [
        (GOOD, ""),
        (BAD, ""),
        (BAD, "check fails: connection refused"),
        (GOOD, ""),
    ]:
        made.hear(outcome, 1.0)
        assert made.said() == expected


def test_an_agents_silence_makes_its_word_old_and_nothing_else() -> None:
    source = AgentSource(interval_seconds=1.0)
    made = Watched(None, source)
    watch = made.watches[0]
    assert watch.source(rip(1), 0.0, 2.0, 15.0) == (None, Trust.NEVER, None)
    assert made.hear(b"up 60%\n", 10.0, source) == ""
    for now, trust in [(10.0, Trust.FRESH), (12.9, Trust.FRESH), (14.0, Trust.STALE), (26.0, Trust.LOST)]:
        made.hear(None, now, source)  # could not be reached
        assert watch.source(rip(1), now, 2.0, 15.0) == (Source.AGENT_CHECK, trust, now - 10.0)
        assert watch.barred(rip(1), serves=True) is None
        assert watch.advice(rip(1)).ratio == 0.6  # type: ignore[union-attr]


def test_a_line_that_says_nothing_is_told_and_changes_nothing() -> None:
    source = AgentSource()
    made = Watched(None, source)
    made.hear(b"drain 60%\n", 1.0, source)
    assert "nothing understood" in made.hear(b"hello\n", 2.0, source)
    assert made.hear(b"75%", 2.0, source) == "a line without its end"
    assert made.watches[0].barred(rip(1), serves=True) == Zero(By.ADVICE, "its agent says drain")


def test_what_was_asked_before_a_reload_is_not_taken() -> None:
    made = Watched()
    made.hear(BAD, 1.0, Check(type="http"))
    assert made.watches[0].checked(rip(1)).up is None  # type: ignore[union-attr]


def test_services_that_share_a_check_ask_once_and_all_read_the_answer() -> None:
    made = Watched(Check(rise=1, fall=1), services=50)
    probes = made.ask((rip(1), rip(2)), FIRST_SECONDS)
    assert sorted(str(p.target) for p in probes) == [str(rip(1)), str(rip(2))]
    made.asking.receive(next(p for p in probes if p.target.address == rip(2).address), BAD, 1.5)
    assert [bool(watch.barred(rip(2), serves=True)) for watch in made.watches] == [True] * 50
    assert not any(watch.barred(rip(1), serves=True) for watch in made.watches)


def test_fifty_ports_of_a_server_cost_one_probe_where_the_check_has_a_port() -> None:
    asking, check = Asking(), Check(port=8080)
    ports = {port: Watch(VIRTUAL, asking, check, None) for port in range(8000, 8050)}
    wanted = [(watch, (DestinationKey(rip(1).address, port),), ()) for port, watch in ports.items()]
    asking.probes(wanted, 0.0)
    assert asking.probes(wanted, FIRST_SECONDS) == [Probe(Target(rip(1).address, 8080), check)]


def test_a_question_that_nobody_asks_any_more_is_forgotten_and_one_that_stays_goes_on() -> None:
    made = Watched(Check(rise=1, fall=1), services=2)
    made.hear(BAD, 1.0, Check(rise=1, fall=1))
    made.watches = [
        made.watches[1],
        Watch(VIRTUAL, made.asking, Check(rise=1, fall=1), None),
    ]  # as a reload makes one anew
    made.ask((rip(1), rip(2)), 2.0)
    assert all(watch.barred(rip(1), serves=True) for watch in made.watches)
    made.ask((), 3.0)
    made.ask((rip(1), rip(2)), 4.0)
    assert not any(watch.barred(rip(1), serves=True) for watch in made.watches)


def test_thousands_cost_a_turn_little() -> None:
    made, keys = Watched(), tuple(rip(i) for i in range(1, 240))
    keys = tuple(DestinationKey(k.address, port) for k in keys for port in range(1, 21))
    made.ask(keys, 0.0)
    began = time.process_time()
    for turn in range(10):
        made.ask(keys, turn / 5)
    assert time.process_time() - began < 1.0  # 0.03 s; it was 10 s when it was quadratic
