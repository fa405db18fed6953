"""From marks to rules, policy rules and routes, and from what is there to what is to be done."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config.match import Match, parse_match
from feedback.model import Family, Protocol
from feedback.steer import iptables, plan
from feedback.steer.plan import Held, Lookup, Rule, Seen, Wanted, lacking

BOTH = frozenset(Family)


def match(text: str) -> Match:
    return parse_match(text, "here")


WANTED = plan.wanted(
    {7: [match("203.0.113.0/24 tcp 80"), match("2001:db8:9::/64 tcp 443")], 8: [match("0.0.0.0/0 tcp 80")]}
)
MADE = Seen(Held(WANTED.rules, True, True), WANTED.lookups, WANTED.defaults)


def test_the_most_specific_network_is_marked_last() -> None:
    made = plan.wanted(
        {7: [match("203.0.113.9 tcp 80"), match("0.0.0.0/0 tcp 80")], 8: [match("203.0.113.0/24 tcp 80")]}
    )
    assert [(str(rule.network), rule.mark) for rule in made.rules] == [
        ("0.0.0.0/0", 7),
        ("203.0.113.0/24", 8),
        ("203.0.113.9/32", 7),
    ]
    assert [rule.spares_local for rule in made.rules] == [True, True, False]


def test_a_mark_has_a_policy_rule_in_each_of_its_families_and_a_family_one_route() -> None:
    assert WANTED.lookups == {Lookup(Family.IPV4, 7), Lookup(Family.IPV6, 7), Lookup(Family.IPV4, 8)}
    assert WANTED.defaults == BOTH


def test_ports_that_one_rule_cannot_hold_are_put_into_several() -> None:
    ports = ",".join(f"{n * 10}-{n * 10 + 1}" for n in range(1, 9)) + ",1000,1002"
    rules = plan.wanted({7: [match(f"203.0.113.0/24 tcp {ports}")]}).rules
    assert len(match("10.0.0.1 tcp " + ",".join(f"{n * 300}-{n * 300 + 1}" for n in range(1, 65))).parts) == 10
    slots = [sum(1 if a == b else 2 for a, b in rule.ports) for rule in rules]
    assert slots == [14, 4]
    assert [span for rule in rules for span in rule.ports] == list(match(f"203.0.113.0/24 tcp {ports}").ports)


def test_where_all_is_there_nothing_is_to_be_done() -> None:
    assert not plan.plan(WANTED, MADE)
    assert lacking(WANTED, MADE) == ()
    assert not plan.plan(Wanted(), Seen())


@pytest.mark.parametrize(
    "held",
    [
        Held(),
        Held(WANTED.rules, hooked=False, there=True),
        Held(WANTED.rules[:-1], True, True),
        Held((*WANTED.rules, "-A feedback-steer -j ACCEPT"), True, True),
        Held((*WANTED.rules, WANTED.rules[0]), True, True),
        Held(WANTED.rules[::-1], True, True),
        Held((), True, True),
    ],
)
def test_marks_that_are_not_just_as_wanted_are_made_anew(held: Held) -> None:
    made = plan.plan(WANTED, Seen(held, WANTED.lookups, WANTED.defaults))
    assert made == plan.Plan(rules=WANTED.rules)


def test_a_firewall_that_words_our_rules_in_its_own_way_is_not_written_again_and_again() -> None:
    spelt = tuple(f"rule {n}" for n in range(len(WANTED.rules)))
    seen = Seen(Held(spelt, True, True), WANTED.lookups, WANTED.defaults)
    assert plan.plan(WANTED, seen).rules == WANTED.rules
    assert not plan.plan(WANTED, seen, spelt)


def test_what_is_gone_is_added_and_what_nobody_wants_any_more_is_removed() -> None:
    seen = Seen(
        MADE.held, WANTED.lookups - {Lookup(Family.IPV4, 8)} | {Lookup(Family.IPV6, 9)}, frozenset({Family.IPV4})
    )
    made = plan.plan(WANTED, seen)
    assert (made.rules, made.add_lookups, made.add_defaults) == (None, (Lookup(Family.IPV4, 8),), (Family.IPV6,))
    assert (made.remove_lookups, made.remove_defaults) == ((Lookup(Family.IPV6, 9),), ())
    assert lacking(WANTED, seen) == (
        "the policy rule of mark 8 (ipv4) is missing",
        "the table's local route (ipv6) is missing",
    )


def test_what_others_made_at_our_place_is_used_and_never_removed() -> None:
    seen = Seen(MADE.held, frozenset(), frozenset(), others=WANTED.lookups, other_defaults=BOTH)
    assert not plan.plan(WANTED, seen)
    gone = plan.plan(Wanted(), seen)
    assert gone == plan.Plan(rules=())


def test_nothing_wanted_takes_all_of_ours_away() -> None:
    made = plan.plan(Wanted(), MADE)
    assert made.rules == () and set(made.remove_lookups) == WANTED.lookups and set(made.remove_defaults) == BOTH
    assert not plan.plan(Wanted(), Seen())


ports = st.lists(
    st.tuples(st.integers(1, 65535), st.integers(0, 200)).map(lambda p: (p[0], min(65535, sum(p)))),
    min_size=1,
    max_size=60,
)
networks = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
    lambda n: ip_network(n, strict=False)
) | st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda n: ip_network(n, strict=False))


@given(
    st.dictionaries(
        st.integers(1, 2**32 - 1), st.lists(st.tuples(networks, st.sampled_from(Protocol), ports)), max_size=4
    )
)
def test_what_iptables_is_given_is_read_back_as_the_same(given: dict[int, list[tuple]]) -> None:  # type: ignore[type-arg]
    marks = {mark: [Match(n, p, tuple(sorted(s))) for n, p, s in each] for mark, each in given.items()}
    wanted = plan.wanted(marks)
    assert all(len(rule.ports) <= 15 for rule in wanted.rules)
    for family in Family:
        own = tuple(rule for rule in wanted.rules if rule.family is family)
        held, jumps = iptables.read(iptables.text(own, jumps=0), family)
        assert (held, jumps) == (Held(own, hooked=True, there=True), 1)


def test_a_rule_knows_its_family() -> None:
    assert Rule(ip_network("::/0"), Protocol.TCP, ((80, 80),), 7).family is Family.IPV6
