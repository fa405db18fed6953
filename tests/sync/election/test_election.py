"""The election, scenario by scenario: two directors on a fake network and a fake clock."""

from __future__ import annotations

import itertools
import re

import pytest

from feedback.sync import (
    AnnounceAgain,
    Election,
    Heartbeat,
    PrepareHandover,
    Replica,
    ReplicaState,
    Resume,
    Role,
    Settings,
    State,
    StepDown,
    TakeOver,
)
from feedback.sync.election.election import Notice
from feedback.sync.election.heartbeat import TERM_MAX
from feedback.sync.election.transitions import IGNORED, ROLES, TABLE, Event, TransitionError, row
from tests.sync.election.directors import COMPLETE, VIP, Pair, transitions

BOTH_MAX = 0.06  # two intervals: one to hear, one because it was just sent
D1 = {"d1": Role.ACTIVE, "d2": Role.STANDBY}
D2 = {"d1": Role.STANDBY, "d2": Role.ACTIVE}


# The table


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_each_event_has_one_meaning_in_each_state(state: State, event: Event) -> None:
    assert not ((state, event) in TABLE and event in IGNORED[state])
    if (state, event) not in TABLE and event not in IGNORED[state]:
        with pytest.raises(TransitionError, match=rf"director d1: {event} cannot happen in state {state}"):
            row("d1", state, event)


@pytest.mark.parametrize(("key", "follows"), list(TABLE.items()))
def test_ways_into_and_out_of_activity_say_so(key: tuple[State, Event], follows: tuple[State, object]) -> None:
    holding = (State.ACTIVE, State.HANDING_OVER, State.YIELDING, State.DOUBTING)
    (old, _), (new, do) = key, follows
    if new is State.ACTIVE and old is not State.ACTIVE:
        assert do in (TakeOver, Resume)
    if old in holding and new not in holding:
        assert do is StepDown
    if ROLES[new] is Role.STANDBY and ROLES[old] is Role.UNDECIDED and new is not State.LOOKING:
        assert do is StepDown


# Start


def test_of_two_that_start_together_the_one_of_higher_priority_becomes_active() -> None:
    pair = Pair().start("d1", "d2").run(1.0)
    assert pair.roles() == D1
    assert pair.both_seconds == 0
    assert pair["d2"].roles() == ["StepDown"]


def test_with_equal_priorities_the_greater_name_becomes_active() -> None:
    assert Pair(priority=100).start("d1", "d2").run(1.0).roles() == D2


def test_a_lonely_director_becomes_active_after_the_start_up_time() -> None:
    pair = Pair().start("d2")
    assert 3.0 <= pair.until(lambda: pair["d2"].addresses, 4) <= 3.1


def test_a_late_standby_takes_nothing_whatever_its_priority() -> None:
    pair = Pair().start("d2").run(4.0).start("d1").run(5.0)
    assert pair.roles() == D2
    assert pair["d1"].roles() == ["StepDown"]
    assert pair["d2"].roles() == ["TakeOver"]


def test_a_director_started_without_links_takes_nothing_while_the_addresses_answer() -> None:
    pair = Pair().start("d2").run(4.0)
    pair.cut_links()
    pair.start("d1").run(10.0)
    assert pair.roles() == D2
    assert pair["d1"].election.state is State.WATCHING


def test_nothing_is_said_before_it_is_known_whether_the_addresses_are_there() -> None:
    election = Election(Settings(peer="d2", addresses=(VIP,)), "d1", 1, 0.0)
    for turn in range(500):
        assert election.handle_timer(turn * 0.03) == ()


# Death


@pytest.mark.parametrize("grain", [0.001, 0.01])
@pytest.mark.parametrize("phase_ms", range(0, 40, 3))
def test_the_standby_takes_over_soon_after_the_active_dies(grain: float, phase_ms: int) -> None:
    pair = Pair(grain=grain).settled().run(phase_ms / 1000)
    pair.kill("d1")
    took = pair.until(lambda: pair["d2"].addresses, 1.0)
    assert 0.09 <= took <= 0.16
    decision = pair["d2"].last()
    assert isinstance(decision, TakeOver)
    assert decision.term == 2
    assert "2 looks unanswered; replica complete" in decision.reason


@pytest.mark.parametrize(
    ("replica", "loss"),
    [
        (Replica(), "no replica"),
        (Replica(ReplicaState.CATCHING_UP, 120, 4000), "replica catching up, 120 of 4000: connections not copied yet"),
        (Replica(ReplicaState.BEHIND), r"replica behind since 3\.\d s: connections opened since then are lost"),
    ],
)
def test_a_takeover_by_an_incomplete_standby_says_what_is_lost(replica: Replica, loss: str) -> None:
    pair = Pair().settled()
    pair["d2"].election.receive_replica(replica, pair.now)
    pair.run(3.0)
    pair.kill("d1")
    pair.run(0.5)
    decision = pair["d2"].last()
    assert isinstance(decision, TakeOver)
    assert re.search(loss, decision.reason)


def test_a_returning_director_stays_standby() -> None:
    pair = Pair().settled()
    pair.kill("d1")
    pair.run(1.0).start("d1").run(10.0)
    assert pair.roles() == D2
    assert pair.both_seconds == 0
    assert pair["d2"].roles() == ["TakeOver"]


# The daemon alone


@pytest.mark.parametrize("name", ["d1", "d2"])
@pytest.mark.parametrize("seconds", [0.05, 0.12, 0.5, 5.0])
def test_a_stopped_daemon_changes_no_role(name: str, seconds: float) -> None:
    pair = Pair().settled()
    pair[name].daemon = "stopped"
    pair.run(seconds)
    assert pair.answering() == ["d1"]
    pair[name].daemon = "running"
    pair.run(2.0)
    assert pair.roles() == D1
    assert pair.answering() == ["d1"]
    assert pair["d2"].roles() == []
    assert "StepDown" not in pair["d1"].roles()


@pytest.mark.parametrize("name", ["d1", "d2"])
@pytest.mark.parametrize("seconds", [0.02, 0.2, 5.0])
def test_a_killed_and_restarted_daemon_changes_no_role(name: str, seconds: float) -> None:
    pair = Pair().settled()
    pair[name].daemon = "dead"
    pair.run(seconds)
    assert pair.answering() == ["d1"]
    pair.start(name)
    pair.until(lambda: pair.roles() == D1, 0.2)
    pair.run(2.0)
    assert pair.roles() == D1
    assert pair.answering() == ["d1"]
    assert "TakeOver" not in pair["d1"].roles() + pair["d2"].roles()


def test_both_daemons_restarted_at_once_change_no_role() -> None:
    pair = Pair().settled()
    pair["d1"].daemon = pair["d2"].daemon = "dead"
    pair.run(1.0).start("d2", "d1").run(1.0)
    assert pair.roles() == D1
    assert pair["d2"].roles() == ["StepDown"]
    assert pair["d1"].roles() == ["Resume"]


def test_a_restarted_active_without_any_peer_resumes_soon() -> None:
    pair = Pair().settled()
    pair.kill("d2")
    pair["d1"].daemon = "dead"
    pair.run(0.1).start("d1")
    assert pair.until(lambda: pair["d1"].election.role is Role.ACTIVE, 1.0) < 0.5
    assert pair["d1"].roles() == ["Resume"]


def test_a_machine_that_dies_while_its_stopped_daemon_is_watched_is_taken_over() -> None:
    pair = Pair().settled()
    pair["d1"].daemon = "stopped"
    pair.run(1.0)
    assert pair["d2"].election.state is State.WATCHING
    pair.kill("d1")
    assert pair.until(lambda: pair["d2"].addresses, 1.0) <= 0.1


# The whole machine


def test_a_paused_active_steps_down_on_waking_before_it_says_that_it_is_active() -> None:
    pair = Pair().settled()
    pair["d1"].power = "paused"
    pair.run(5.0)
    assert pair.answering() == ["d2"]
    transitions(pair, "d1")
    pair["d1"].power = "on"
    pair.run(2.0)
    assert pair.roles() == D2
    assert transitions(pair, "d1")[0] == "active>doubting"
    assert pair["d1"].roles() == ["StepDown"]
    assert pair["d2"].roles() == ["TakeOver"]
    assert pair.both_seconds <= BOTH_MAX


def test_a_pause_that_the_clock_did_not_count_is_resolved_at_once() -> None:
    pair = Pair().settled()
    pair["d1"].power = "paused"
    pair.run(5.0)
    pair["d1"].power, pair["d1"].clock_skips = "on", 5.0
    pair.run(2.0)
    assert pair.roles() == D2
    assert pair["d1"].roles() == ["StepDown"]
    assert pair.both_seconds <= BOTH_MAX + 0.03


def test_a_paused_active_that_wakes_without_links_steps_down_by_the_look() -> None:
    pair = Pair().settled()
    pair["d1"].power = "paused"
    pair.run(5.0)
    pair.cut_links()
    pair["d1"].power = "on"
    pair.run(2.0)
    assert pair.answering() == ["d2"]
    assert pair.both_seconds <= BOTH_MAX


@pytest.mark.parametrize("milliseconds", range(60, 220, 10))
def test_a_short_pause_of_the_active_ends_with_exactly_one(milliseconds: int) -> None:
    pair = Pair().settled()
    pair["d1"].power = "paused"
    pair.run(milliseconds / 1000)
    pair["d1"].power = "on"
    pair.run(1.0)
    assert len(pair.answering()) == 1
    assert sorted(pair.roles().values()) == [Role.ACTIVE, Role.STANDBY]
    assert pair.both_seconds <= BOTH_MAX
    for machine in pair.machines.values():
        machine.log.clear()
    pair.run(2.0)
    assert pair["d1"].roles() == pair["d2"].roles() == []


def test_a_standby_that_stood_still_takes_nothing() -> None:
    pair = Pair().settled()
    pair["d2"].power = "paused"
    pair.run(5.0)
    pair["d2"].power = "on"
    transitions(pair, "d2")
    pair.run(1.0)
    assert pair.roles() == D1
    assert pair["d1"].roles() == pair["d2"].roles() == []
    assert transitions(pair, "d2") == []  # it does not take its own silence for the peer's


# Links


def test_links_cut_one_after_another_change_nothing_while_the_look_works() -> None:
    pair = Pair(links=3).settled()
    for link in pair.links:
        pair.cut_links(link)
        pair.run(1.0)
    assert pair.answering() == ["d1"]
    assert pair["d2"].election.state is State.WATCHING
    pair.heal()
    pair.run(1.0)
    assert pair.roles() == D1
    assert pair["d1"].roles() == pair["d2"].roles() == []


@pytest.mark.parametrize("sender", ["d1", "d2"])
def test_links_cut_in_one_direction_change_nothing_while_the_look_works(sender: str) -> None:
    pair = Pair().settled()
    pair.cut = {(link, sender) for link in pair.links}
    pair.run(3.0)
    assert pair.answering() == ["d1"]
    pair.heal()
    pair.run(1.0)
    assert pair.roles() == D1
    assert pair["d1"].roles() == pair["d2"].roles() == []


def split(pair: Pair | None = None) -> Pair:
    pair = pair or Pair().settled()
    pair.cut_links()
    pair.data = False
    pair.run(2.0)
    assert pair.answering() == ["d1", "d2"]
    pair.both_seconds, pair._both_since = 0.0, None
    for machine in pair.machines.values():
        machine.log.clear()
    return pair


def test_a_healed_split_leaves_the_later_claim_at_once_and_nothing_flaps() -> None:
    pair = split()
    pair.heal()
    pair.run(5.0)
    assert pair.roles() == D2
    assert pair["d1"].roles() == ["StepDown"]
    assert pair["d2"].roles() == []
    assert any(isinstance(d, AnnounceAgain) for _, d in pair["d2"].log)
    assert pair.both_seconds <= BOTH_MAX + 0.03


def test_one_healed_link_is_enough() -> None:
    pair = split()
    pair.cut = {("link1", "d1"), ("link1", "d2")}
    pair.run(5.0)
    assert pair.answering() == ["d2"]
    assert pair.both_seconds <= BOTH_MAX + 0.03


@pytest.mark.parametrize(("before", "after"), [("d1", "d2"), ("d2", "d1")])
def test_a_split_of_which_only_the_data_path_heals_leaves_the_one_that_superseded_the_other(
    before: str, after: str
) -> None:
    pair = Pair().settled()
    if before == "d2":
        assert pair["d1"].election.request_handover(pair.now) is None
        pair.run(0.5)
    pair = split(pair)
    pair.data = True
    pair.run(5.0)
    assert pair.answering() == [after]
    assert pair.both_seconds <= 0.5
    assert pair[before].roles() == ["StepDown"]
    assert pair[after].roles() == []


def test_a_standby_that_is_deaf_takes_over_and_the_active_one_that_hears_it_does_not_take_back() -> None:
    """No link, and d2 hears nothing of d1 on the service network, while d1 hears d2: d1's looks go unanswered too, and
    only d2's announcements tell it that d2 serves."""
    pair = Pair().settled()
    pair.cut_links()
    pair.deaf = {"d2"}
    pair.run(10.0)
    assert pair.answering() == ["d2"] and pair["d1"].roles() == ["StepDown"]
    assert pair.both_seconds <= 0.1
    pair.heal()
    pair.run(2.0)
    assert pair.answering() == ["d2"] and pair["d1"].roles() == ["StepDown"] and pair["d2"].roles() == ["TakeOver"]


def test_a_peer_that_announced_itself_and_is_silent_for_long_is_taken_over_after_all() -> None:
    pair = Pair(announced_seconds=5.0).settled()
    pair.cut_links()
    pair.deaf = {"d2"}
    pair.run(2.0)
    pair.kill("d2")
    pair.run(1.0)
    assert pair.answering() == []
    pair.run(5.0)
    assert pair.answering() == ["d1"]


def test_two_that_start_together_without_links_are_told_apart_by_the_look() -> None:
    pair = Pair()
    pair.cut_links()
    pair.start("d1", "d2").run(6.0)
    assert pair.answering() == ["d2"]
    assert pair.both_seconds == 0


def test_a_claim_of_a_peer_that_is_heard_moves_nothing() -> None:
    pair = Pair().settled()
    pair["d1"].election.receive_claim(VIP, pair["d2"].mac, pair.now)
    pair.run(0.5)
    assert pair["d1"].roles() == []
    assert pair.roles() == D1


def test_an_active_that_stood_still_alone_gives_its_peer_the_time_to_speak() -> None:
    pair = Pair().settled()
    pair.kill("d2")
    pair["d1"].daemon = "stopped"
    pair.run(1.0)
    pair["d1"].daemon = "running"
    pair.run(0.002)
    assert 0.08 <= pair.until(lambda: pair["d1"].election.state is State.ACTIVE, 1.0) <= 0.2
    assert pair["d1"].roles() == ["Resume"]


def test_two_that_never_heard_each_other_settle_by_the_look_alone() -> None:
    pair = Pair()
    pair.cut_links()
    pair.data = False
    pair.start("d1", "d2").run(5.0)
    assert pair.answering() == ["d1", "d2"]
    pair.both_seconds, pair._both_since, pair.data = 0.0, None, True
    pair.run(5.0)
    assert len(pair.answering()) == 1
    assert pair.both_seconds <= 1.0
    for machine in pair.machines.values():
        machine.log.clear()
    pair.heal()
    pair.run(3.0)
    assert len(pair.answering()) == 1
    assert pair["d1"].roles() == pair["d2"].roles() == []


def test_whoever_gets_the_addresses_of_a_kernel_without_a_daemon_gives_way_in_time() -> None:
    pair = Pair().settled()
    pair["d1"].daemon = "dead"
    pair.data = False
    pair.run(2.0)
    assert pair.answering() == ["d1", "d2"]
    pair.both_seconds, pair._both_since, pair.data = 0.0, None, True
    pair.run(3.0)
    assert pair.answering() == ["d1"]
    assert pair.both_seconds <= 1.0
    pair.start("d1").run(1.0)
    assert pair.roles() == D1


def test_a_strangers_answer_moves_nothing() -> None:
    pair = Pair().settled()
    pair.cut_links()
    pair.run(0.5)
    for machine in pair.machines.values():
        machine.election.receive_claim(VIP, b"strang", pair.now)
        machine.election.receive_answer("10.9.9.9", pair["d2"].mac, pair.now)
        machine.election.receive_claim(VIP, machine.mac, pair.now)
    pair.run(1.0)
    assert pair.answering() == ["d1"]
    assert dict(pair["d1"].election.status(pair.now).refused)["foreign-address"] == 1


# Reach


def reach(pair: Pair, **reached: bool) -> None:
    for name, value in reached.items():
        pair[name].election.receive_reach("10.0.0.1", value, pair.now)


def test_an_active_that_reaches_nothing_hands_over_to_a_complete_peer_that_does() -> None:
    pair = Pair().settled()
    reach(pair, d1=True, d2=True)
    pair.run(0.5)
    reach(pair, d1=False)
    pair.run(2.0)
    assert pair.roles() == D2
    assert pair["d2"].roles() == ["TakeOver"]
    assert "d1 hands over" in pair["d2"].last().reason  # type: ignore[union-attr]
    pair.run(30.0)
    assert pair.roles() == D2


@pytest.mark.parametrize("why", ["unreached", "incomplete", "silent"])
def test_an_active_that_reaches_nothing_stays_when_the_peer_is_no_better(why: str) -> None:
    pair = Pair().settled()
    reach(pair, d1=False, d2=why != "unreached")
    if why == "incomplete":
        pair["d2"].election.receive_replica(Replica(ReplicaState.BEHIND), pair.now)
    if why == "silent":
        pair["d2"].daemon = "dead"
    pair.run(20.0)
    assert pair.answering() == ["d1"]


def test_a_standby_that_reaches_nothing_takes_over_only_when_it_does() -> None:
    pair = Pair().settled()
    reach(pair, d2=False)
    pair.kill("d1")
    pair.run(3.0)
    assert pair.answering() == []
    assert "none of 1 reach targets answers" in pair["d2"].election.status(pair.now).reason
    reach(pair, d2=True)
    assert pair.until(lambda: pair["d2"].addresses, 1.0) <= 0.1


def test_a_standby_whose_service_interface_is_down_takes_nothing() -> None:
    pair = Pair().settled()
    pair["d2"].election.receive_interface("eth0", False, pair.now)
    pair.cut_links()
    pair.data = False
    pair.run(3.0)
    assert pair.answering() == ["d1"]
    assert pair["d2"].election.limitation() == "eth0 has no carrier"


def test_an_isolated_active_claims_nothing_until_it_is_sure() -> None:
    pair = Pair().settled()
    reach(pair, d1=True, d2=True)
    pair.cut_links()
    pair.data = False
    reach(pair, d1=False)
    pair.run(2.0)
    assert pair["d1"].election.state is State.DOUBTING
    assert pair["d2"].election.role is Role.ACTIVE
    pair.both_seconds, pair._both_since, pair.data = 0.0, None, True
    pair.run(1.0)
    assert pair.answering() == ["d2"]
    assert pair.both_seconds <= 0.1


def test_an_isolated_active_goes_on_when_it_reaches_again_and_nobody_took_over() -> None:
    pair = Pair().settled()
    pair.kill("d2")
    reach(pair, d1=False)
    pair.run(5.0)
    assert pair["d1"].election.state is State.DOUBTING
    assert pair.answering() == ["d1"]
    reach(pair, d1=True)
    pair.run(0.3)
    assert pair["d1"].election.role is Role.ACTIVE


# Handover


def test_a_planned_handover_is_quick_and_leaves_no_gap() -> None:
    pair = Pair().settled()
    assert pair["d1"].election.request_handover(pair.now) is None
    gap = 0.0
    for _ in range(1000):
        pair.run(0.001)
        gap += 0.001 * (not pair.answering())
    assert gap == 0.0
    assert pair.roles() == D2
    assert pair.both_seconds <= 0.01
    assert pair["d2"].roles() == ["TakeOver"]
    assert pair["d1"].roles() == ["StepDown"]


def test_the_standby_can_ask_for_the_handover() -> None:
    pair = Pair().settled()
    assert pair["d2"].election.request_handover(pair.now) is None
    pair.run(0.5)
    assert pair.roles() == D2


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda p: p.kill("d2"), "d2 is not heard"),
        (lambda p: p["d2"].election.receive_replica(Replica(ReplicaState.CATCHING_UP, 1, 9), p.now), "1 of 9"),
        (lambda p: p["d2"].election.receive_reach("gw", False, p.now), "d2 reaches nothing"),
    ],
)
def test_a_handover_is_refused_with_its_reason(spoil: object, why: str) -> None:
    pair = Pair().settled()
    spoil(pair)  # type: ignore[operator]
    pair.run(0.3)
    refusal = pair["d1"].election.request_handover(pair.now)
    assert refusal is not None
    assert why in refusal
    assert pair["d1"].election.status(pair.now).handover_limitation == refusal
    pair.run(1.0)
    assert pair.answering() == ["d1"]


def test_force_hands_over_to_an_incomplete_peer() -> None:
    pair = Pair().settled()
    pair["d2"].election.receive_replica(Replica(ReplicaState.CATCHING_UP, 1, 9), pair.now)
    pair.run(0.1)
    assert pair["d1"].election.request_handover(pair.now) is not None
    assert pair["d1"].election.request_handover(pair.now, force=True) is None
    pair.run(0.5)
    assert pair.roles() == D2


def test_a_standby_that_falls_behind_during_the_handover_stops_it() -> None:
    pair = Pair().settled()
    pair["d1"].prepares = False
    assert pair["d1"].election.request_handover(pair.now) is None
    pair.run(0.1)
    pair["d2"].election.receive_replica(Replica(ReplicaState.BEHIND), pair.now)
    pair.run(0.1)
    assert pair["d1"].roles() == ["Resume"]
    assert pair.roles() == D1


def test_a_handover_that_is_not_prepared_in_time_ends_as_it_was() -> None:
    pair = Pair().settled()
    pair["d1"].prepares = False
    assert pair["d1"].election.request_handover(pair.now) is None
    pair.run(3.0)
    assert pair["d1"].roles() == ["Resume"]
    pair["d1"].election.receive_handed_over(pair.now)
    pair.run(1.0)
    assert pair.roles() == D1


def test_a_handover_that_nobody_requested_is_not_tried_again_at_once() -> None:
    pair = Pair(hold_seconds=10.0, handover_seconds=2.0).settled()
    pair["d1"].prepares = False
    reach(pair, d1=False, d2=True)
    pair.run(15.0)
    assert len([d for _, d in pair["d1"].log if isinstance(d, PrepareHandover)]) == 2


def test_a_peer_that_dies_while_it_is_yielded_to_leaves_the_active_in_place() -> None:
    pair = Pair().settled()
    assert pair["d1"].election.request_handover(pair.now) is None
    pair.kill("d2")
    pair.run(2.0)
    assert pair.answering() == ["d1"]
    assert pair.roles() == {"d1": Role.ACTIVE}


def test_fail_back_is_off_unless_asked_for_and_then_waits_for_its_time() -> None:
    pair = Pair(fail_back=True, fail_back_seconds=5.0).settled()
    pair.kill("d1")
    pair.run(1.0).start("d1").run(1.0)
    pair["d1"].election.receive_replica(COMPLETE, pair.now)
    pair.run(4.5)
    assert pair.roles() == D2
    pair.run(12.0)
    assert pair.roles() == D1
    pair["d2"].election.receive_replica(COMPLETE, pair.now)
    pair.run(30.0)
    assert pair.roles() == D1  # the lesser one wishes nothing


# Odd words


def beat(election: Election, boot: int, sequence: int, now: float, **fields: object) -> Heartbeat:
    """A heartbeat of the peer that proves itself fresh."""
    mine = election.heartbeat(now)
    base: dict[str, object] = {
        "name": election.settings.peer,
        "boot": boot,
        "sequence": sequence,
        "role": Role.STANDBY,
        "term": 1,
        "priority": 1,
        "heard_boot": mine.boot,
        "heard_sequence": mine.sequence,
    }
    return Heartbeat(**base | fields)  # type: ignore[arg-type]


def active_d1() -> tuple[Election, float]:
    election = Election(Settings(peer="d2", addresses=(VIP,)), "d1", 1, 0.0)
    election.receive_installed(True)
    election.receive_heartbeat(beat(election, 2, 1, 0.01), "l", 0.01)
    assert election.role is Role.ACTIVE
    return election, 0.02


def test_a_term_at_its_end_still_has_an_order() -> None:
    election, now = active_d1()
    election.receive_heartbeat(beat(election, 2, 2, now, term=TERM_MAX), "l", now)
    assert election.status(now).term == TERM_MAX
    claim = beat(election, 2, 3, now, role=Role.ACTIVE, term=TERM_MAX, priority=1)
    election.receive_heartbeat(claim, "l", now)
    assert election.state is State.ACTIVE
    claim = beat(election, 2, 4, now, role=Role.ACTIVE, term=TERM_MAX, priority=65535)
    election.receive_heartbeat(claim, "l", now)
    assert election.role is Role.STANDBY


def test_a_peer_of_another_version_is_alive_is_said_once_and_starts_no_war() -> None:
    election, now = active_d1()
    while election.next_event():
        pass
    for sequence in range(2, 50):
        now += 0.03
        election.receive_heartbeat(beat(election, 2, sequence, now, name="unknown", version=2), "l", now)
        election.handle_timer(now)
    notices = []
    while event := election.next_event():
        notices.append(event)
    texts = [n.text for n in notices if isinstance(n, Notice)]
    assert len(notices) == len(texts) == 1
    assert "d2 speaks protocol 2, this side 1" in texts[0]
    assert election.request_handover(now) == "d2 speaks protocol 2: whether it is complete is unknown"
    assert dict(election.status(now).refused) == {"version": 48}


def test_no_takeover_from_an_active_peer_of_another_version_while_it_is_heard() -> None:
    election = Election(Settings(peer="d2", addresses=(VIP,)), "d1", 1, 0.0)
    election.receive_installed(False)
    now = 0.0
    for sequence in range(1, 200):
        now += 0.03
        fields = {"name": "unknown", "version": 9, "role": Role.ACTIVE}
        election.receive_heartbeat(beat(election, 2, sequence, now, **fields), "l", now)
        decisions = election.handle_timer(now)
        assert not any(isinstance(d, TakeOver) for d in decisions)
    assert election.role is Role.STANDBY


BAD_BEATS: list[tuple[dict[str, object], str]] = [
    ({"name": "d3"}, "name"),
    ({"name": "d1"}, "name"),
    ({"name": "d1", "boot": 1}, "reflected"),
    ({"heard_boot": 7}, "hello"),
    ({"heard_sequence": 9999}, "hello"),
    ({"sequence": 1}, "replayed"),
    ({"boot": 3, "heard_boot": 0}, "hello"),
]


@pytest.mark.parametrize(("fields", "kind"), BAD_BEATS)
def test_what_proves_nothing_has_no_effect_and_is_counted(fields: dict[str, object], kind: str) -> None:
    election, now = active_d1()
    claim = {"boot": 2, "sequence": 2, "role": Role.ACTIVE, "term": 99} | fields
    boot, sequence = int(str(claim.pop("boot"))), int(str(claim.pop("sequence")))
    election.receive_heartbeat(beat(election, boot, sequence, now, **claim), "l", now)
    assert election.role is Role.ACTIVE
    assert election.status(now).term == 1
    assert dict(election.status(now).refused) == {kind: 1}


# Clocks and timers


def test_a_timer_may_come_early_twice_and_late() -> None:
    pair = Pair().settled()
    election = pair["d2"].election
    election.handle_timer(pair.now)
    assert election.handle_timer(pair.now) == ()
    assert election.handle_timer(pair.now - 50) == ()
    assert election.next_timer() > pair.now
    pair.run(1.0)
    assert pair.roles() == D1


def test_what_was_decided_is_said_again_while_it_has_no_effect() -> None:
    election, now = active_d1()
    election.receive_installed(False)
    said = []
    for turn in range(100):
        said += [d for d in election.handle_timer(now + turn * 0.03) if isinstance(d, Resume)]
    assert len(said) == 3  # on entry, and after one and two seconds
    assert said[-1].reason == "active, and the addresses are not there"


@pytest.mark.parametrize(("name", "peer", "addresses"), [("d1", "d1", (VIP,)), ("d1", "d2", ())])
def test_settings_that_make_no_pair_are_refused(name: str, peer: str, addresses: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"d1|VIP"):
        Election(Settings(peer=peer, addresses=addresses), name, 1, 0.0)
