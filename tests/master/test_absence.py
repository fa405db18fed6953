"""What leaves the table by a failing check: when, what becomes of it, and when it may come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config import ConfigError, MasterConfig, OnFailure, on_failure, parse
from feedback.master.claims.absence import AGAIN_SECONDS, AGAIN_SECONDS_MAX, CLEAN_SECONDS, Absence
from feedback.master.claims.orders import Kind, Order
from feedback.master.controller import Controller
from feedback.master.state import read, sound
from tests.master.builders import VIRTUAL, rip
from tests.master.test_watched import BAD, GOOD, Site

ASKS = 'on_failure = "remove"\n[service.check]\nrise = 1\nfall = 1\ninterval_seconds = 1\n'


def site(servers: int = 3, asks: str = ASKS) -> Site:
    made = Site(0)
    text = f'[[service]]\nvirtual = "{VIRTUAL}"\n' + asks
    text += "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in range(1, servers + 1))
    made.controller, made.servers = Controller(parse(text, MasterConfig)), servers
    made.answers = dict.fromkeys(range(1, servers + 1), GOOD)
    return made


def there(of: Site) -> list[int]:
    return sorted(weights(of))


def weights(of: Site) -> dict[int, int]:
    """Of those that are in the table."""
    entries = of.table.entries[VIRTUAL]
    found = {i: entries.get(rip(i)) for i in range(1, of.servers + 1)}
    return {i: e.destination.weight for i, e in found.items() if e is not None}


def state_of(of: Site, i: int) -> str:
    decision = of.controller.decide(of.now)
    return next(d.state for d in decision.services[0].destinations if d.key == rip(i))


# --- the pipeline ----------------------------------------------------------------------------------------------------


def test_one_that_fails_leaves_the_table_and_the_others_go_on() -> None:
    of = site()
    assert of.run(5) == [100, 100, 100]
    of.answers[2] = BAD
    of.run(3)
    assert there(of) == [1, 3] and state_of(of, 2) == "removed"
    assert of.controller.foreign_edits == []  # it was ours
    assert "check fails" in of.reasons(2)


def test_it_comes_back_by_slow_start() -> None:
    of = site()
    of.reporting = {1, 2, 3}
    of.run(10)
    of.answers[2] = BAD
    of.run(5)
    assert there(of) == [1, 3]
    of.answers[2] = GOOD
    of.run(3)
    early = weights(of)
    assert there(of) == [1, 2, 3] and 0 < early[2] < 0.6 * early[1]
    of.run(20)
    late = weights(of)
    assert late[2] > 0.8 * late[1] and of.controller.foreign_edits == []


def test_without_agents_it_comes_back_with_its_part_of_what_the_others_have() -> None:
    of = site()
    of.run(5)
    of.answers[2] = BAD
    of.run(3)
    of.answers[2] = GOOD
    assert of.run(3) == [100, 100, 100]


def test_the_last_one_stays_since_the_fault_may_be_ours() -> None:
    of = site(2)
    of.run(3)
    of.answers[1] = BAD
    of.run(3)
    assert there(of) == [2]
    of.answers[2] = BAD
    of.run(3)
    assert there(of) == [1, 2] and all(of.table.weights())
    of.answers[2] = GOOD
    of.run(3)
    assert there(of) == [2]


def test_an_order_does_not_keep_a_dead_server_in_the_table() -> None:
    of = site()
    of.run(3)
    of.controller.orders.give(Order(kind=Kind.DRAIN, service=str(VIRTUAL), destination=str(rip(2)), at=1.0))
    of.run(2)
    assert there(of) == [1, 2, 3] and weights(of)[2] == 0
    of.answers[2] = BAD
    of.run(3)
    assert there(of) == [1, 3]
    of.answers[2] = GOOD
    of.run(3)
    assert there(of) == [1, 2, 3] and weights(of)[2] == 0  # it is drained yet


def test_a_pause_removes_nobody() -> None:
    of = site()
    of.run(3)
    pause = Order(kind=Kind.PAUSE, service=str(VIRTUAL), at=1.0)
    of.controller.orders.give(pause)
    of.answers[2] = BAD
    of.run(5)
    assert there(of) == [1, 2, 3]
    of.controller.orders.lift(pause)
    of.run(2)
    assert there(of) == [1, 3]


def test_one_destination_may_have_its_own_way() -> None:
    of = site(2, ASKS)
    text = f'[[service]]\nvirtual = "{VIRTUAL}"\n' + ASKS
    text += "".join(
        f'[[service.destination]]\naddress = "{rip(i).address}"\non_failure = "{how}"\n'
        for i, how in ((1, "remove"), (2, "quiesce"), (3, "remove"))
    )
    of.controller, of.servers, of.answers = Controller(parse(text, MasterConfig)), 3, dict.fromkeys((1, 2, 3), GOOD)
    of.run(3)
    of.answers[2] = of.answers[3] = BAD
    of.run(3)
    assert there(of) == [1, 2] and weights(of)[2] == 0


# --- what is remembered ----------------------------------------------------------------------------------------------


def restarted(of: Site) -> None:
    """As a restart or a takeover: the state by way of the disk, the table as it is."""
    kept, problem = read(sound(of.controller.state())[0])
    assert problem == ()
    text = f'[[service]]\nvirtual = "{VIRTUAL}"\n' + ASKS
    text += "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in range(1, of.servers + 1))
    of.controller = Controller(parse(text, MasterConfig))
    of.controller.restore(kept)


def test_a_restarted_master_does_not_put_it_back_before_its_check_passes() -> None:
    of = site()
    of.run(3)
    of.answers[2] = BAD
    of.run(3)
    restarted(of)
    of.answers[2] = None  # nothing is known of it yet
    of.run(5)
    assert there(of) == [1, 3]
    of.answers[2] = GOOD
    of.run(3)
    assert there(of) == [1, 2, 3] and of.controller.foreign_edits == []


def test_a_flap_is_remembered_over_a_restart() -> None:
    of = site()
    of.run(3)
    for _ in range(2):
        of.answers[2] = BAD
        of.run(2)
        of.answers[2] = GOOD
        of.run(2)
    assert there(of) == [1, 3]  # passes, and waits
    restarted(of)
    of.run(AGAIN_SECONDS - 2)
    assert there(of) == [1, 3] and "failed 2 times in a row" in of.reasons(2)
    of.run(5)
    assert there(of) == [1, 2, 3]


def test_what_an_edited_state_says_is_bounded() -> None:
    state = b'{"services": {"tcp:10.0.0.100:80": {"removed": {"10.0.0.11:80": {"out": true, "times": -1},'
    state += b' "10.0.0.12:80": {"out": true, "times": 999999999999}}}}}'
    found, dropped = read(state)
    assert len(dropped) == 1 and "times" in dropped[0]
    of = site()
    of.controller.restore(found)
    of.run(2)
    assert there(of) == [1, 3]


# --- how long --------------------------------------------------------------------------------------------------------


def test_each_failure_in_a_row_keeps_it_out_longer() -> None:
    absence, now, least = Absence(), 0.0, []
    absence.judge(False, now)
    for _ in range(8):
        now += 1
        absence.judge(True, now)
        left = now
        while absence.out:
            now += 0.5
            absence.judge(False, now)
        least.append(now - left)
    assert least == [0.5, 10, 20, 40, 80, 160, 300, 300] and AGAIN_SECONDS_MAX == 300


def test_one_that_stayed_long_enough_begins_anew() -> None:
    absence = Absence()
    for at, failing in ((0, False), (1, True), (2, False), (3, True), (20, False)):
        absence.judge(failing, at)
    assert absence.times == 2 and not absence.out
    absence.judge(True, 20 + CLEAN_SECONDS + AGAIN_SECONDS + 1)
    assert absence.times == 1


@given(st.lists(st.tuples(st.sampled_from((True, False, None)), st.floats(0.01, 400)), max_size=60))
def test_between_two_removals_there_is_the_time_that_its_failures_ask_for(
    course: list[tuple[bool | None, float]],
) -> None:
    absence, now = Absence(), 0.0
    removed: float | None = None
    for failing, seconds in course:
        now += seconds
        was, least = absence.out, absence.least_seconds
        absence.judge(failing, now)
        if was and not absence.out:
            assert removed is not None and now - removed >= least
        if absence.out and not was:
            removed = now
        assert absence.times or not absence.out


# --- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("virtual", "check", "said", "expected"),
    [
        ("tcp:10.0.0.100:80", True, None, OnFailure.QUIESCE),
        ("udp:10.0.0.100:53", True, None, OnFailure.REMOVE),
        ("udp:10.0.0.100:53", False, None, OnFailure.QUIESCE),
        ("fwmark:7", True, None, OnFailure.QUIESCE),
        ("udp:10.0.0.100:53", True, "quiesce", OnFailure.QUIESCE),
        ("tcp:10.0.0.100:80", True, "cut", OnFailure.CUT),
    ],
)
def test_the_default_is_what_the_protocol_can_bear(
    virtual: str, check: bool, said: str | None, expected: OnFailure
) -> None:
    text = f'[[service]]\nvirtual = "{virtual}"\n' + (f'on_failure = "{said}"\n' if said else "")
    text += "[service.check]\nport = 80\n" if check else ""
    made = parse(text + '[[service.destination]]\naddress = "10.0.0.11"\n', MasterConfig)
    assert on_failure(made.service[0].destination[0], made.service[0]) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('on_failure = "kill"', "service[0].on_failure: 'kill': expected one of cut, quiesce, remove"),
        ('on_failure = "remove"', "service[0].on_failure: 'remove': needs [service.check]"),
        ('on_failure = "cut"\n[service.check]\n', 'on_failure: "cut": only clients of a TCP service can be told'),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text: str, expected: str) -> None:
    virtual = "udp:10.0.0.100:53" if "only clients" in expected else str(VIRTUAL)
    whole = f'[[service]]\nvirtual = "{virtual}"\n{text}\n[[service.destination]]\naddress = "10.0.0.11"\n'
    with pytest.raises(ConfigError) as told:
        parse(whole, MasterConfig)
    assert expected in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("word", ["remove", "cut"])
def test_beside_another_owner_nothing_is_removed(word: str) -> None:
    whole = f'ownership = "weights"\n[[service]]\nvirtual = "{VIRTUAL}"\non_failure = "{word}"\n[service.check]\n'
    with pytest.raises(ConfigError, match='with ownership "weights" only the owner removes'):
        parse(whole, MasterConfig)
