"""A firewall beside IPVS: each thing that loses connections is found, with what mends it, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.doctor import Facts, Finding, Level, examine
from feedback.doctor.rulesets import Rule, of_iptables, of_nftables, stateful, untracked
from feedback.model import Forward, ServiceKey
from tests.doctor.test_findings import entry, facts, server

WEB, OTHER, FTP = "tcp:10.0.0.100:80", "tcp:10.0.0.100:81", "tcp:10.0.0.100:21"
STATE = of_iptables("-A INPUT -m conntrack --ctstate INVALID -j DROP", 4)
NOTRACK = of_iptables("-A PREROUTING -d 10.0.0.100/32 -p tcp -m tcp --dport 80 -j CT --notrack", 4)
TRACKED = {"conntrack": 1}
ROOMY = {"net.netfilter.nf_conntrack_max": 262_144, "net.netfilter.nf_conntrack_count": 1000}
WRITES = {"mode": "auto", "problem": ""}
MODULES = frozenset({"ip_vs", "nf_conntrack_netlink"})


def routed(key: str = WEB) -> Any:
    return entry(server(1), key=key)


def masqueraded(key: str = OTHER) -> Any:
    return entry(server(1, forward=Forward.MASQUERADE), key=key)


def found(*entries: Any, vs: dict[str, int] = TRACKED, **known: Any) -> tuple[Finding, ...]:
    made: Facts = facts(*entries, **{"modules": MODULES, "rules": STATE, **known})
    return tuple(f for f in examine(_with(made, vs)) if f.area in ("firewall", "modules") or "conntrack=0" in f.what)


def _with(made: Facts, vs: dict[str, int]) -> Facts:
    return msgspec.structs.replace(made, vs={**made.vs, **vs})


def test_where_all_is_as_it_should_be_nothing_is_found() -> None:
    known = {"rules": (*STATE, *NOTRACK), "host": ROOMY, "tracking": WRITES, "ledger": 1000}
    assert found(routed(), masqueraded(), **known) == ()
    assert found(routed(), masqueraded(), rules=(), vs={"conntrack": 0}) == ()  # no firewall, no tracking


@pytest.mark.parametrize(
    ("entries", "known", "level", "said", "mend"),
    [
        ((routed(),), {}, Level.ERROR, "second packet is INVALID", "iptables -t raw -A PREROUTING -d 10.0.0.100 -p"),
        ((routed(),), {"vs": {"conntrack": 0}}, Level.WARNING, "packets is NEW", "--dport 80 -j CT --notrack"),
        ((routed(),), {"rules": (*STATE, *of_iptables("-A PREROUTING -d 10.0.0.99 -j CT --notrack", 4))}, Level.ERROR,
         "INVALID", "10.0.0.100"),
        ((routed("tcp:[fd00::100]:80"),), {"rules": (*STATE, *NOTRACK)}, Level.ERROR, "INVALID", "ip6tables -t raw"),
        ((masqueraded(),), {"vs": {"conntrack": 0}}, Level.WARNING, "conntrack=0", "net.ipv4.vs.conntrack=1"),
        ((masqueraded(),), {"host": {"net.netfilter.nf_conntrack_tcp_loose": 0}, "tracking": {"mode": "off"}},
         Level.ERROR, "nf_conntrack_tcp_loose=0", '[conntrack] mode = "auto"'),
        ((masqueraded(),), {"conntrackd": True}, Level.WARNING, "answers from the VIP", "IPv4_address 10"),
        ((masqueraded(),), {"host": {**ROOMY, "net.netfilter.nf_conntrack_count": 250_000}}, Level.WARNING,
         "250000 are there", "nf_conntrack_max=500000"),
        ((masqueraded(),), {"host": ROOMY, "ledger": 300_000}, Level.ERROR, "300000 connections would come", "600000"),
        ((masqueraded(FTP),), {}, Level.ERROR, "ip_vs_ftp is not loaded", "modprobe ip_vs_ftp"),
        ((masqueraded(FTP),), {"modules": frozenset({"ip_vs_ftp"}), "tracking": WRITES}, Level.ERROR,
         "nf_conntrack_netlink is not loaded", "modprobe nf_conntrack_netlink"),
        ((masqueraded(FTP),), {"modules": frozenset({"ip_vs_ftp"}), "vs": {"conntrack": 0}, "rules": ()}, Level.ERROR,
         "conntrack=0", "net.ipv4.vs.conntrack=1"),
    ],
)  # fmt: skip
def test_what_loses_connections_is_found(
    entries: tuple[Any, ...], known: dict[str, Any], level: Level, said: str, mend: str
) -> None:
    made = found(*entries, **known)
    assert len(made) == 1, made
    assert made[0].level is level and said in made[0].what and mend in made[0].mend, made[0]


# --- rules -----------------------------------------------------------------------------------------------------------

KEY, KEY6 = ServiceKey.parse(WEB), ServiceKey.parse("tcp:[fd00::100]:80")


@pytest.mark.parametrize(
    ("line", "covers"),
    [
        ("-A PREROUTING -j NOTRACK", True),
        ("-A PREROUTING -d 10.0.0.0/24 -j CT --notrack", True),
        ("-A PREROUTING -d 10.0.0.100/32 -p tcp -m multiport --dports 443,80:90 -j CT --notrack", True),
        ("-A PREROUTING -i eth0 -p tcp -m set --match-set vips dst -j CT --notrack", True),  # who knows
        ("-A PREROUTING ! -d 10.0.0.100/32 -j CT --notrack", True),  # not understood: never reported as missing
        ("-A PREROUTING -p udp -j CT --notrack", False),
        ("-A PREROUTING -p tcp --dport 81 -j CT --notrack", False),
        ("-A PREROUTING -d 10.0.1.0/24 -j CT --notrack", False),
        ("-A PREROUTING -d 10.0.0.100/32 -j CT --helper ftp", False),
        ("-A PREROUTING -d 'unbalanced -j CT --notrack", True),
    ],
)
def test_an_iptables_rule_covers_what_it_says(line: str, covers: bool) -> None:
    assert untracked(of_iptables(f"*raw\n:PREROUTING ACCEPT\n{line}\nCOMMIT\n", 4), KEY) is covers
    assert not untracked(of_iptables(line, 4), KEY6)


def nft(*expressions: Any, family: str = "inet") -> tuple[Rule, ...]:
    rule = {"family": family, "table": "t", "chain": "c", "handle": 1, "expr": [*expressions, {"notrack": None}]}
    return of_nftables(json.dumps({"nftables": [{"metainfo": {}}, {"rule": rule}]}))


def match(left: Any, right: Any, op: str = "==") -> Any:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, name: str) -> Any:
    return {"payload": {"protocol": protocol, "field": name}}


@pytest.mark.parametrize(
    ("expressions", "covers"),
    [
        ((), True),
        ((match(payload("ip", "daddr"), "10.0.0.100"), match(payload("tcp", "dport"), 80)), True),
        ((match(payload("ip", "daddr"), {"prefix": {"addr": "10.0.0.0", "len": 24}}),), True),
        ((match(payload("ip", "daddr"), {"set": ["10.0.0.99", "10.0.0.100"]}),), True),
        ((match(payload("ip", "daddr"), "@vips"),), True),
        ((match(payload("tcp", "dport"), {"set": [443, {"range": [70, 90]}]}),), True),
        ((match(payload("tcp", "dport"), 81, op="!="),), True),
        ((match(payload("tcp", "dport"), 81),), False),
        ((match(payload("udp", "dport"), 80),), False),
        ((match(payload("th", "dport"), 80),), True),
        ((match({"meta": {"key": "l4proto"}}, "udp"),), False),
        ((match(payload("ip", "daddr"), "10.0.0.99"),), False),
    ],
)
def test_an_nftables_rule_covers_what_it_says(expressions: tuple[Any, ...], covers: bool) -> None:
    assert untracked(nft(*expressions), KEY) is covers
    assert not untracked(nft(*expressions, family="ip6"), KEY)


def test_a_rule_for_what_is_untracked_looks_at_no_state() -> None:
    assert stateful(of_iptables("-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT", 4)) is None
    assert stateful(of_iptables("-A INPUT -m state --state NEW,ESTABLISHED -j ACCEPT", 4)) is not None
    assert stateful(nft(match({"ct": {"key": "state"}}, {"set": ["established"]}, op="in"))) is not None


@given(st.text(), st.text())
def test_no_text_is_too_odd(text: str, key: str) -> None:
    of_iptables(f"-A {text}", 4)
    of_nftables(text)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["nftables", "rule", "expr", "match", "left", "right", "op", "payload", "field", "set", "prefix"]),
    inner | st.sampled_from(["==", "daddr", "dport"]))))  # fmt: skip
def test_no_ruleset_is_too_odd(thing: Any) -> None:
    daddr = {"payload": {"protocol": thing, "field": "dport"}}
    matches = [{"match": thing}, {"match": {"op": "==", "left": daddr, "right": thing}}, thing]
    rules = [{"rule": {"family": family, "expr": matches}} for family in ("ip", thing)]
    for ruleset in ([*rules, thing, {"rule": {"family": "ip", "expr": thing}}], thing):
        of_nftables(json.dumps({"nftables": ruleset}))
