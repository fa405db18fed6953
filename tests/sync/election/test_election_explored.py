"""The election explored: nothing that two directors can meet within a few faults breaks an invariant.

`python -m tests.sync.election.exploration FAULTS` goes deeper than the unit suite has time for.
"""

from __future__ import annotations

import sys

import pytest

from feedback.sync import Election, Heartbeat
from feedback.sync.election.transitions import Event
from tests.sync.election.exploration import Explorer, ViolationError, begin, settled_world


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_any_one_fault_while_both_start_is_survived(order: tuple[int, int]) -> None:
    found = Explorer(begin(order=order), faults=1).run()
    assert found.states > 1000
    assert found.both_heard_max <= 4


def test_any_two_faults_at_any_distance_are_survived(capsys: pytest.CaptureFixture[str]) -> None:
    found = Explorer(settled_world(), faults=2).run()
    with capsys.disabled():
        sys.stdout.write(f" {found}")
    assert found.states > 10_000
    assert found.both_heard_max <= 4
    assert found.longest_healing <= 20


# The exploration can fail: each rule that is broken is found out, with the way there.


class WithoutLook(Election):
    """Takes over on silence alone."""

    def receive_answer(self, address: str, mac: bytes, now: float) -> None:
        pass


class WithoutTerms(Election):
    """Stays active whatever the other claims."""

    def _meaning(self, heartbeat: Heartbeat, now: float) -> tuple[Event, str]:
        event, reason = super()._meaning(heartbeat, now)
        return (Event.PEER_BELOW if event is Event.PEER_ACTIVE and self._m.holds() else event), reason


class Polite(Election):
    """Steps down whenever the other is active too."""

    def _meaning(self, heartbeat: Heartbeat, now: float) -> tuple[Event, str]:
        event, reason = super()._meaning(heartbeat, now)
        return (Event.PEER_ACTIVE if event is Event.PEER_BELOW else event), reason


class WithoutDoubt(Election):
    """Does not notice that it stood still."""

    def _stall(self, seconds: float, now: float) -> None:
        self._m.turn_at = now


class Stubborn(Election):
    """Believes nothing that only the look tells while it is active."""

    def _displaced(self, reason: str, now: float) -> tuple[Event, str]:
        return Event.CONTESTED, reason


BROKEN = [
    (WithoutLook, 1, "takes over, and d[12] has answered for the addresses all the time"),
    (WithoutTerms, 2, "both answer for|not exactly one|comes to no rest"),
    (Polite, 2, "gives way to d[12], whose claim is below its own"),
    (WithoutDoubt, 1, "stood still, and says that it is active in its first turn|takes over, and"),
    (Stubborn, 2, "both answer for .* while the look works"),
]


@pytest.mark.parametrize(("broken", "faults", "wrong"), BROKEN)
def test_a_broken_rule_is_found_out(broken: type[Election], faults: int, wrong: str) -> None:
    with pytest.raises(ViolationError, match=wrong) as caught:
        Explorer(settled_world(broken), faults).run()
    way = str(caught.value).splitlines()
    assert "d1" in way[1] and "d2" in way[1]  # the way there, from the start
    assert len(way) < 60
