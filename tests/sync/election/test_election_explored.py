"""The election explored: nothing that two directors can meet within a few faults breaks an invariant.

`python -m tests.sync.election.exploration FAULTS` goes deeper than the unit suite has time for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from feedback.sync import Election, Heartbeat
from feedback.sync.election import meaning
from feedback.sync.election.course import Course
from feedback.sync.election.meaning import of_heartbeat
from feedback.sync.election.transitions import Event
from tests.sync.election.exploration import Explorer, ViolationError, begin, settled_world


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_any_one_fault_while_both_start_is_survived(order: tuple[int, int]) -> None:
    found = Explorer(begin(order=order), faults=1).run()
    assert found.states > 1000
    assert found.both_heard_max <= 4


@pytest.mark.parametrize(("faults", "states"), [(1, 200), pytest.param(2, 10_000, marks=pytest.mark.long)])
def test_any_faults_at_any_distance_are_survived(faults: int, states: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = Explorer(settled_world(), faults).run()
    with capsys.disabled():
        sys.stdout.write(f" {found}")
    assert found.states > states
    assert found.both_heard_max <= 4
    assert found.longest_healing <= 20


# The exploration can fail: each rule that is broken is found out, with the way there.


class WithoutLook(Election):
    """Takes over on silence alone."""

    def receive_answer(self, address: str, mac: bytes, now: float) -> None:
        pass


class WithoutDoubt(Election):
    """Does not notice that it stood still."""

    def _stall(self, seconds: float, now: float) -> None:
        self._m.turn_at = now


def without_terms(course: Course, heartbeat: Heartbeat, now: float) -> tuple[Event, str]:
    """Stays active whatever the other claims."""
    event, reason = of_heartbeat(course, heartbeat, now)
    return (Event.PEER_BELOW if event is Event.PEER_ACTIVE and course.m.holds() else event), reason


def polite(course: Course, heartbeat: Heartbeat, now: float) -> tuple[Event, str]:
    """Steps down whenever the other is active too."""
    event, reason = of_heartbeat(course, heartbeat, now)
    return (Event.PEER_ACTIVE if event is Event.PEER_BELOW else event), reason


def stubborn(course: Course, reason: str, now: float) -> tuple[Event, str]:
    """Believes nothing that only the look tells while it is active."""
    return Event.CONTESTED, reason


BROKEN = [
    (WithoutLook, 1, "takes over, and d[12] has answered for the addresses all the time"),
    (without_terms, 2, "both answer for|not exactly one|comes to no rest"),
    (polite, 2, "gives way to d[12], whose claim is below its own"),
    (WithoutDoubt, 1, "stood still, and says that it is active in its first turn|takes over, and"),
    pytest.param(stubborn, 2, "both answer for .* while the look works", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("broken", "faults", "wrong"), BROKEN)
def test_a_broken_rule_is_found_out(
    broken: type[Election] | Callable[..., tuple[Event, str]], faults: int, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(broken, type):
        monkeypatch.setattr(meaning, "of_contest" if broken is stubborn else "of_heartbeat", broken)
    election = broken if isinstance(broken, type) else Election
    with pytest.raises(ViolationError, match=wrong) as caught:
        Explorer(settled_world(election), faults).run()
    way = str(caught.value).splitlines()
    assert "d1" in way[1] and "d2" in way[1]  # the way there, from the start
    assert len(way) < 60
