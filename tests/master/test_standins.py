"""Words on sessions go to whoever stands in, and to nobody else; what was said is told again to who comes later."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from feedback.config import ConfigError, MasterConfig, parse, stand_ins
from feedback.master.claims.orders import Kind, Order
from feedback.master.controller import Controller, Decision
from feedback.master.shell.events import Watcher
from feedback.master.standins import StandIns
from feedback.sessions import KEPT_SECONDS
from feedback.wire import PROTOCOL, Session, Sessions
from tests.master.builders import VIRTUAL, rip
from tests.master.test_watched import BAD, GOOD, Site

RS1, RS2, RS4 = (ip_address(f"10.0.0.1{n}") for n in (1, 2, 4))
TEXT = """
[[service]]
virtual = "tcp:10.0.0.100:80"
[[service.destination]]
address = "10.0.0.11"
stand_in = "10.0.0.14"
[[service.destination]]
address = "10.0.0.12"
{second}
[[service.destination]]
address = "10.0.0.14"
{third}
"""


def config(second: str = "", third: str = "") -> MasterConfig:
    return parse(TEXT.format(second=second, third=third), MasterConfig)


def said(agent: str, *words: Session) -> Sessions:
    return Sessions(PROTOCOL, agent, words)


@pytest.fixture
def those() -> StandIns:
    return StandIns(stand_ins(config()))


def test_a_word_goes_to_whoever_stands_in_for_its_port(those: StandIns) -> None:
    word = Session(80, "u7", "17408")
    assert those.hear(said("rs1", word), frozenset({RS1}), 0.0) == [(RS4, said("rs1", word))]
    assert those.hear(said("rs1", Session(443, "u7", "x")), frozenset({RS1}), 0.0) == []
    everything = Session(0, "u8", "of all ports")
    assert those.hear(said("rs1", everything), frozenset({RS1}), 0.0) == [(RS4, said("rs1", everything))]


def test_of_a_server_for_which_nobody_stands_in_nothing_is_kept(those: StandIns) -> None:
    assert those.hear(said("rs2", Session(80, "u7", "x")), frozenset({RS2}), 0.0) == []
    assert those._speakers == {}


def test_who_comes_later_is_told_all_until_it_is_too_old(those: StandIns) -> None:
    those.hear(said("rs1", Session(80, "a", "1"), Session(80, "b", "2")), frozenset({RS1}), 0.0)
    those.hear(said("rs1", Session(80, "b", "3")), frozenset({RS1}), 30.0)
    assert those.hear(said("rs2"), frozenset({RS2}), 31.0) == []
    told = those.hear(said("rs4"), frozenset({RS4}), 31.0)
    assert told == [(RS4, said("rs1", Session(80, "a", "1", 31.0), Session(80, "b", "3", 1.0)))]
    told = those.hear(said("rs4"), frozenset({RS4}), KEPT_SECONDS + 1)
    assert told == [(RS4, said("rs1", Session(80, "b", "3", 31.0)))]


def test_another_configuration_forgets_who_has_no_stand_in_any_more(those: StandIns) -> None:
    those.hear(said("rs1", Session(80, "a", "1")), frozenset({RS1}), 0.0)
    those.follow({})
    assert those.hear(said("rs4"), frozenset({RS4}), 1.0) == []
    assert those._speakers == {}


def test_words_that_are_too_long_are_dropped(those: StandIns) -> None:
    assert those.hear(said("rs1", Session(80, "a", "\U0001f427" * 65)), frozenset({RS1}), 0.0) == []


@pytest.mark.parametrize(
    ("second", "third", "said"),
    [
        ('stand_in = "10.0.0.99"', "", r"destination\[1\].stand_in: 10.0.0.99 is no destination of this service"),
        ('stand_in = "10.0.0.12"', "", r"destination\[1\].stand_in: 10.0.0.12 is this destination itself"),
        ("", 'stand_in = "10.0.0.12"', r"destination\[0\].stand_in: 10.0.0.14 has a stand-in itself"),
        ('stand_in = "there"', "", r"destination\[1\].stand_in: 'there' is not an IPv4 or IPv6 address"),
    ],
)
def test_who_cannot_stand_in_is_refused_in_a_line(second: str, third: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(second, third)


# --- the weight ------------------------------------------------------------------------------------------------------


def site(*stand_in: int, asks: str = "", reporting: bool = False) -> Site:
    """Three servers, of which the last stands in for these."""
    made = Site(0)
    text = f'[[service]]\nvirtual = "{VIRTUAL}"\n{asks}\n[service.check]\nrise = 1\nfall = 1\ninterval_seconds = 1\n'
    for i in (1, 2, 3):
        text += f'[[service.destination]]\naddress = "{rip(i).address}"\n'
        text += f'stand_in = "{rip(3).address}"\n' if i in stand_in else ""
    made.controller, made.servers = Controller(parse(text, MasterConfig)), 3
    made.answers = dict.fromkeys((1, 2, 3), GOOD)
    made.reporting = {1, 2, 3} if reporting else set()
    return made


def state_of(of: Site, i: int) -> str:
    return next(d.state for d in of.controller.decide(of.now).services[0].destinations if d.key == rip(i))


@pytest.mark.parametrize("reporting", [False, True])
def test_it_gets_nothing_until_the_other_fails_and_then_all_of_its_part_at_once(reporting: bool) -> None:
    of = site(1, reporting=reporting)
    assert of.run(10)[2] == 0
    assert state_of(of, 3) == "standby" and f"stands in for {rip(1)}, and gets nothing while it serves" in of.reasons(3)
    of.answers[1] = BAD
    weights = of.run(2)
    assert weights[0] == 0 and weights[2] >= 0.9 * weights[1] > 0
    of.answers[1] = GOOD
    weights = of.run(15)
    assert weights[0] > 0 and weights[2] == 0
    assert of.controller.foreign_edits == []


def test_it_stands_in_for_several() -> None:
    of = site(1, 2)
    assert of.run(5) == [100, 100, 0]
    of.answers[2] = BAD
    assert of.run(2) == [100, 0, 100]
    of.answers[1] = BAD
    assert of.run(2) == [0, 0, 100]


def test_one_that_is_drained_is_stood_in_for() -> None:
    of = site(1)
    of.run(5)
    of.controller.orders.give(Order(kind=Kind.DRAIN, service=str(VIRTUAL), destination=str(rip(1)), at=1.0))
    assert of.run(2) == [0, 100, 100]


def test_a_stand_in_that_fails_is_not_used() -> None:
    of = site(1)
    of.run(5)
    of.answers[3] = BAD
    of.run(2)
    assert state_of(of, 3) == "barred"
    of.answers[1] = BAD
    assert of.run(2) == [0, 100, 0]


def test_a_restart_of_the_master_changes_nothing() -> None:
    of = site(1)
    of.run(5)
    state = of.controller.state()
    again = site(1)
    again.table = of.table
    again.controller.restore(state)
    assert again.run(3) == [100, 100, 0]
    again.answers[1] = BAD
    assert again.run(3) == [0, 100, 100]


def test_it_takes_over_where_the_other_is_removed() -> None:
    of = site(1, asks='on_failure = "remove"')
    assert of.run(5) == [100, 100, 0]
    of.answers[1] = BAD
    of.run(2)
    entries = of.table.entries[VIRTUAL]
    assert rip(1) not in entries and entries[rip(3)].destination.weight == 100


def test_what_happens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    of, watcher = site(1), Watcher()
    told: list[tuple[str, str]] = []
    decide = of.controller.decide

    def observed(now: float) -> Decision:
        decision = decide(now)
        told.extend((kind, fields["destination"]) for kind, fields in watcher.observe(decision))
        return decision

    monkeypatch.setattr(of.controller, "decide", observed)
    of.run(5)  # the first checks
    told.clear()
    of.answers[1] = BAD
    of.run(2)
    assert told == [("barred", str(rip(1))), ("stands-in", str(rip(3)))]
    told.clear()
    of.answers[1] = GOOD
    of.run(2)
    assert told == [("unbarred", str(rip(1))), ("relieved", str(rip(3)))]
