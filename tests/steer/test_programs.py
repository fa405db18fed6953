"""What nft and iptables say is read whatever it is; what they refuse is told in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config.match import parse_match
from feedback.model import Family, Protocol
from feedback.steer import firewall, iptables, nftables
from feedback.steer.errors import SteerError
from feedback.steer.firewall import ForeignMark, Said
from feedback.steer.iptables import Iptables
from feedback.steer.nftables import Nftables
from feedback.steer.plan import Held, Rule, wanted

RULES = wanted({7: [parse_match("203.0.113.0/24 tcp 80,8000-8100", ""), parse_match("203.0.113.9 udp 53", "")]}).rules
WHOLE = 0xFFFF_FFFF


def match(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


SPARES: dict[str, Any] = {
    "match": {"op": "!=", "left": {"fib": {"result": "type", "flags": ["daddr"]}}, "right": "local"}
}
MARK: dict[str, Any] = {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}
NETWORK = match("ip", "daddr", {"prefix": {"addr": "203.0.113.0", "len": 24}})
PORTS = match("tcp", "dport", {"set": [80, {"range": [8000, 8100]}]})
ONE = [match("ip", "daddr", "203.0.113.9"), match("udp", "dport", 53), MARK]
CHAIN = {"family": "inet", "table": "lvs_feedback", "name": "prerouting", "hook": "prerouting", "prio": -140}


def ruleset(*rules: Any, chain: Any = CHAIN) -> str:
    """As nft 1.0.6 says it."""
    entries: list[Any] = [{"metainfo": {}}, {"chain": chain}]
    return json.dumps({"nftables": [*entries, *({"rule": {"expr": rule}} for rule in rules)]})


def test_nfts_rules_are_read_as_ours() -> None:
    assert nftables.read(ruleset([NETWORK, PORTS, SPARES, MARK], ONE)) == Held(RULES, hooked=True, there=True)


@pytest.mark.parametrize(
    "rule",
    [
        [NETWORK, PORTS, MARK],  # a network that spares no local address
        [*ONE[:2], SPARES, MARK],
        [NETWORK, PORTS, SPARES, {"accept": None}],
        [NETWORK, SPARES, MARK],
        [match("ip", "saddr", "203.0.113.9"), *ONE[1:]],
        [match("ip", "daddr", "203.0.113.9", "!="), *ONE[1:]],
        [ONE[0], match("udp", "sport", 53), MARK],
        [ONE[0], match("udp", "dport", "@ports"), MARK],
        [ONE[0], match("icmp", "dport", 53), MARK],
        [*ONE[:2], {"mangle": {"key": {"meta": {"key": "priority"}}, "value": 7}}],
        [*ONE[:2], {"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [7, 1]}}}],
        [*ONE, {"counter": None}],
        [],
        "accept",
        None,
    ],
)
def test_any_other_rule_in_our_table_is_none_of_ours(rule: Any) -> None:
    (found,) = nftables.read(ruleset(rule)).rules
    assert isinstance(found, str)


@pytest.mark.parametrize("changed", [{"hook": "input"}, {"prio": -150}, {"hook": None}, {"name": "other"}])
def test_a_chain_that_packets_do_not_come_by_as_they_should_is_not_hooked(changed: dict[str, Any]) -> None:
    assert not nftables.read(ruleset(ONE, chain=CHAIN | changed)).hooked


words = st.text(max_size=20) | st.integers() | st.none() | st.booleans() | st.floats()
trees = st.recursive(
    words,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["nftables", "rule", "chain", "expr", "match", "mangle", "left", "right", "set", "range", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.text(max_size=60)
    | trees.map(json.dumps)
    | st.lists(trees, max_size=4).map(lambda t: json.dumps({"nftables": t}))
)
def test_whatever_nft_says_is_read_or_refused(told: str) -> None:
    for read in (nftables.read, lambda text: list(nftables.foreign(text))):
        try:
            read(told)
        except SteerError as error:
            assert str(error).isprintable()


lines = st.sampled_from(
    ["*mangle", ":feedback-steer - [0:0]", "-A PREROUTING -j feedback-steer", "-A feedback-steer", "COMMIT", "-A X"]
)


@given(st.lists(st.text(max_size=40) | st.tuples(lines, st.text(max_size=40)).map(" ".join), max_size=6).map("\n".join))
def test_whatever_iptables_says_is_read(told: str) -> None:
    held, jumps = iptables.read(told, Family.IPV4)
    assert jumps >= 0 and all(isinstance(rule, (str, Rule)) for rule in held.rules)
    list(iptables.foreign(told, "iptables"))


@pytest.mark.parametrize(
    "line",
    [
        "-d 203.0.113.0/24 -p tcp -m multiport --dports 80 -j MARK --set-xmark 0x7/0xffffffff",  # spares nobody
        "-d 203.0.113.9/32 -p tcp -m multiport --dports 80 -j MARK --set-xmark 0x7/0xff",
        "-d 203.0.113.9/32 -i eth0 -p tcp -m multiport --dports 80 -j MARK --set-xmark 0x7/0xffffffff",
        "-d 203.0.113.9/32 -p tcp -m multiport --sports 80 -j MARK --set-xmark 0x7/0xffffffff",
        "-s 203.0.113.9/32 -p tcp -m multiport --dports 80 -j MARK --set-xmark 0x7/0xffffffff",
        "-j ACCEPT",
        "",
    ],
)
def test_any_other_line_in_our_chain_is_none_of_ours(line: str) -> None:
    held, _ = iptables.read(f":feedback-steer - [0:0]\n-A feedback-steer {line}\n", Family.IPV4)
    assert held.rules == (f"-A feedback-steer {line}",)


def test_rules_of_others_that_write_marks_are_found_with_their_bits() -> None:
    saved = (
        "*mangle\n-A PREROUTING -p udp -j MARK --set-xmark 0x7/0xffffffff\n-A X -j MARK --set-xmark 0x107/0xff\n"
        "-A X -j MARK --set-xmark zz/0xff\n-A X -j CONNMARK --restore-mark\n"
        "-A feedback-steer -j MARK --set-xmark 0x9/0xffffffff\n"
    )
    found = list(iptables.foreign(saved, "iptables"))
    assert [(mark.value, mark.mask) for mark in found] == [(7, WHOLE), (0x107, 0xFF), (None, 0xFF)]
    assert [mark.gives(7) for mark in found] == [True, True, False]
    told = {"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [MARK]}}]}
    own = {"nftables": [{"rule": {"family": "inet", "table": "lvs_feedback", "chain": "c", "expr": [MARK]}}]}
    assert list(nftables.foreign(json.dumps(told))) == [ForeignMark("nftables: table ip t, chain c", 7, WHOLE)]
    assert list(nftables.foreign(json.dumps(own))) == []
    assert list(nftables.foreign('{"nftables": [{"rule": {"expr": 5}}, {"rule": {"expr": [5, {"mangle": 5}]}}]}')) == []


class Programs:
    """What each program says, and what it was given."""

    def __init__(self, **said: Said) -> None:
        self.said, self.given = said, list[str]()

    def __call__(self, command: Sequence[str], given: str) -> Said:
        self.given.append(given)
        name = command[0].rpartition("-")[2]
        return self.said.get(name, Said(0, "", ""))


def test_a_program_that_is_missing_or_refuses_says_so_in_one_line() -> None:
    missing, refused = Said(None, "", "nft: No such file or directory"), Said(1, "", "nft: not permitted")
    assert Nftables(Programs(nft=missing)).unusable(RULES) == missing.reason
    assert Nftables(Programs(nft=missing)).read(frozenset()) == Held()
    with pytest.raises(SteerError, match="not permitted"):
        Nftables(Programs(nft=refused)).read(frozenset())
    with pytest.raises(SteerError, match="not permitted"):
        Nftables(Programs(nft=refused)).write(RULES, frozenset())
    both = frozenset(Family)
    assert Iptables(Programs(save=missing)).unusable(RULES) == missing.reason
    assert Iptables(Programs(save=missing)).read(both) == Held()
    for programs in (Programs(save=refused), Programs(restore=refused), Programs(save=missing)):
        with pytest.raises(SteerError):
            Iptables(programs).write(RULES, both)


def test_a_jump_too_many_is_taken_away_with_the_next_write() -> None:
    saved = ":feedback-steer - [0:0]\n" + "-A PREROUTING -j feedback-steer\n" * 3
    programs = Programs(save=Said(0, saved, ""))
    Iptables(programs).write(RULES, frozenset({Family.IPV4}))
    assert programs.given[-1].count("-D PREROUTING -j feedback-steer") == 2
    assert programs.given[-1].count("-A PREROUTING -j feedback-steer") == 0


def test_what_is_handed_on_is_one_printable_line() -> None:
    assert firewall.reason("nft", "\n\x1b[31mred\nmore") == "nft: \\x1b[31mred"
    assert firewall.reason("nft", "") == "nft: no reason given"
    assert len(firewall.reason("nft", "x" * 5000)) <= 300


def test_nfts_text_has_the_table_anew_in_one_transaction() -> None:
    made = nftables.text(RULES)
    assert made.startswith("add table inet lvs_feedback\ndelete table inet lvs_feedback\ntable inet lvs_feedback {\n")
    assert (
        "ip daddr 203.0.113.0/24 tcp dport { 80, 8000-8100 } fib daddr type != local meta mark set 0x00000007" in made
    )
    assert "ip daddr 203.0.113.9/32 udp dport { 53 } meta mark set 0x00000007" in made
    assert nftables.text(()) == "add table inet lvs_feedback\ndelete table inet lvs_feedback\n"
    six = Rule(ip_network("2001:db8::/32"), Protocol.SCTP, ((1, 1),), WHOLE)
    assert "ip6 daddr 2001:db8::/32 sctp dport { 1 } fib daddr type != local meta mark set 0xffffffff" in nftables.text(
        [six]
    )
