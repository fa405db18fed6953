"""What the doctor finds about marks and ranges: each finding with what mends it, and nothing where all is well."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from msgspec import structs

from feedback.config.match import parse_match
from feedback.doctor import Facts, Level, Steered
from feedback.doctor.steering import examine
from feedback.model import Family, Service, ServiceEntry, ServiceKey, Snapshot
from feedback.steer.firewall import ForeignMark
from feedback.steer.routing import BLACKHOLE, LOCAL, PolicyRule, Route

MARKS = {7: [parse_match("203.0.113.0/24 tcp 80", ""), parse_match("10.0.0.100 tcp 443", "")]}
WELL = Steered(marks=MARKS, table=7433, priority=7433)
THERE = Snapshot((ServiceEntry(Service(ServiceKey.marked(7))),))
WHOLE = 0xFFFF_FFFF


def local(network: str, table: int = 255) -> Route:
    return Route(ip_network(network), table, 2, LOCAL)


def rule(priority: int, mark: int, mask: int) -> PolicyRule:
    return PolicyRule(Family.IPV4, priority, mark, mask, 100, 3, True)


def found(snapshot: Snapshot | None = THERE, adopts: bool = False, **changed: Any) -> list[tuple[Level, str, str]]:
    facts = Facts(snapshot=snapshot, adopts=adopts, steered=structs.replace(WELL, **changed))
    return [(f.level, f.what, f.mend) for f in examine(facts)]


def test_nothing_is_found_where_all_is_well_or_nothing_is_steered() -> None:
    assert found() == [] and list(examine(Facts())) == []
    usual = (local("127.0.0.0/8"), local("10.0.0.100/32"), local("203.0.113.1/32"), local("::1/128"))
    before = (rule(100, 0x100, WHOLE), rule(32766, 0, 0), rule(8000, 7, WHOLE))
    foreign = (ForeignMark("x", 8, WHOLE), ForeignMark("x", None, WHOLE), ForeignMark("x", 0x100, 0xFF00))
    assert found(local=usual, policy=before, foreign_marks=foreign, moving=frozenset({ip_address("10.0.0.100")})) == []


@pytest.mark.parametrize(
    ("changed", "level", "what", "mend"),
    [
        ({"problem": "nft: Operation not permitted"}, Level.ERROR, "not permitted", "sudo"),
        (
            {"lacking": ("the policy rule of mark 7 (ipv4) is missing", "x")},
            Level.ERROR,
            "mark 7 (ipv4) is missing, and 1 more: packets for 10.0.0.100/32 and 1 more do not reach IPVS",
            "systemctl reload feedback-master",
        ),
        (
            {"foreign_marks": (ForeignMark("iptables -t mangle -A X", 7, WHOLE),)},
            Level.ERROR,
            "somebody else marks packets with 7 too: iptables -t mangle -A X",
            "another mark",
        ),
        (
            {"foreign_marks": (ForeignMark("nft", 0xF07, 0xFF),)},
            Level.ERROR,
            "marks packets with 7 too",
            "another mark",
        ),
        ({"policy": (rule(100, 1, 1),)}, Level.ERROR, "takes packets of mark 7", "set priority = 99"),
        ({"policy": (rule(1, 7, WHOLE),)}, Level.ERROR, "comes before ours at 7433", "move that rule behind 7433"),
        (
            {"strangers": (Route(ip_network("192.0.2.0/24"), 7433, 4, BLACKHOLE),)},
            Level.ERROR,
            "a route to 192.0.2.0/24 in table 7433",
            "set another table in [steer]",
        ),
        (
            {"local": (local("203.0.113.0/25", 254),)},
            Level.ERROR,
            "203.0.113.0/25 is local in table 254: this host answers ARP for 203.0.113.0/24 of fwmark:7 in either role",
            "ip route del local 203.0.113.0/25 dev lo table 254",
        ),
        (
            {"local": (local("10.0.0.100/32"),), "paired": True},
            Level.ERROR,
            "both directors would answer for it",
            "[[address]] in sync.toml",
        ),
        (
            {
                "local": (local("203.0.113.9/32"),),
                "paired": True,
                "moving": frozenset({ip_address("203.0.113.9")}),
            },
            Level.ADVICE,
            "203.0.113.9 is a VIP here, so 203.0.113.0/24 tcp 80 does not mark its packets",
            'name it by itself in match too: "203.0.113.9 tcp ..."',
        ),
        ({"valid_marks": ("all",)}, Level.ERROR, "martians", "net.ipv4.conf.all.src_valid_mark=0"),
        ({"proxies": ("eth0",)}, Level.WARNING, "proxy_arp is 1 on eth0", "net.ipv4.conf.eth0.proxy_arp=0"),
        ({"snapshot": Snapshot()}, Level.ERROR, "fwmark:7: has a match, but the kernel has no such", "sync doctor"),
        ({"snapshot": Snapshot(), "adopts": True}, Level.ERROR, "no such service", "ipvsadm -A -f 7"),
    ],
)
def test_what_is_wrong_is_one_finding_with_what_mends_it(
    changed: dict[str, Any], level: Level, what: str, mend: str
) -> None:
    [(its, said, mending)] = found(**changed)
    assert (its, what in said, mend in mending) == (level, True, True), (said, mending)


def test_a_single_director_may_have_the_addresses_that_it_marks() -> None:
    assert found(local=(local("10.0.0.100/32"),), paired=False) == []
