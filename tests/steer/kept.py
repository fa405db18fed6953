"""What holds of marks, rules and routes on a real kernel, by each program; run in two places by the test modules."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.config.match import parse_match
from feedback.steer.errors import SteerError
from feedback.steer.keeper import Keeper
from feedback.steer.plan import wanted
from feedback.steer.routing import Place
from tests.namespaces import inside

PLACE = Place(table=7433, priority=7433)
MARKS = {
    7: [parse_match("203.0.113.0/24 tcp 80,443,8000-8100", ""), parse_match("2001:db8:9::/64 tcp 443", "")],
    8: [parse_match("0.0.0.0/0 udp 53", ""), parse_match("203.0.113.9 udp 53,1001,1003,1005-1007", "")],
}
FOREIGN = (
    "ip rule add fwmark 0x100 lookup 100 priority 100",
    "ip rule add fwmark 0x9 lookup 7433 priority 7433",  # at our very place, and not ours
    "ip route add blackhole 192.0.2.0/24 table 7433",
    "ip -6 route add blackhole 2001:db8:2::/64 table 7433",
)
FOREIGN_OF = {
    "nftables": (
        "nft add table inet foreign",
        "nft add chain inet foreign marks { type filter hook prerouting priority mangle; }",
        "nft add rule inet foreign marks udp dport 9 meta mark set 0x100",
    ),
    **{
        program: (
            f"{program} -t mangle -N foreign",
            f"{program} -t mangle -A PREROUTING -p udp -m multiport --dports 9 -j foreign",
            f"{program} -t mangle -A foreign -j MARK --set-xmark 0x100/0xff00",
            f"{program.replace('iptables', 'ip6tables')} -t mangle -A FORWARD -j ACCEPT",
        )
        for program in ("iptables", "iptables-legacy")
    },
}
UNDONE = (
    "ip rule del fwmark 7",
    "ip -6 rule flush",
    "ip route flush table 7433 type local",
    "ip -6 route flush table 7433",
    "ip link set lo down",
)
UNDONE_OF = {
    "nftables": (
        "nft delete table inet lvs_feedback",
        "nft flush chain inet lvs_feedback prerouting",
        "nft insert rule inet lvs_feedback prerouting accept",
        "nft flush ruleset",
    ),
    **{
        program: (
            f"{program} -t mangle -F feedback-steer",
            f"{program} -t mangle -D feedback-steer 2",
            f"{program} -t mangle -I feedback-steer -j ACCEPT",
            f"{program} -t mangle -D PREROUTING -j feedback-steer",
            f"{program} -t mangle -A PREROUTING -j feedback-steer",
            f"{program} -t mangle -F",
            f"{program.replace('iptables', 'ip6tables')} -t mangle -F PREROUTING",
        )
        for program in ("iptables", "iptables-legacy")
    },
}
READ = ("ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all")
READ_OF = {
    "nftables": ("nft list ruleset",),
    "iptables": ("iptables-save", "ip6tables-save"),
    "iptables-legacy": ("iptables-legacy-save", "ip6tables-legacy-save"),
}

numbers = itertools.count(1)


def run(netns: str, command: str) -> str:
    done = subprocess.run(inside(netns, *command.split()), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def said(netns: str, firewall: str) -> dict[str, list[str]]:
    """Without the comments, which have the time of day."""
    commands = (*READ, *READ_OF[firewall])
    return {c: [line for line in run(netns, c).splitlines() if not line.startswith("#")] for c in commands}


def ordered(told: dict[str, list[str]]) -> dict[str, list[str]]:
    """A policy rule that comes back stands behind those of its priority, which is no matter."""
    return {command: sorted(lines) if "rule" in command else lines for command, lines in told.items()}


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"steer-{os.getpid()}-{next(numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    run(name, "ip link set lo up")
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def keeper(tmp_path: Path, netns: str, firewall: str) -> Keeper:
    made = Keeper(tmp_path / "memory", firewall, PLACE, netns)
    made.want(MARKS)
    return made


class Kept:
    """Subclasses have the fixture `firewall`, a name of keeper.PROGRAMS that works here."""

    def test_everything_is_made_once_and_read_back_as_wanted(self, keeper: Keeper, netns: str, firewall: str) -> None:
        assert keeper.lacking()
        plan = keeper.turn()
        assert plan.rules and len(plan.add_lookups) == 3 and len(plan.add_defaults) == 2
        name, seen = keeper.seen()
        assert (name, seen.held.rules) == (firewall, wanted(MARKS).rules)
        assert not keeper.turn() and not keeper.lacking()
        rules = run(netns, "ip rule") + run(netns, "ip -6 rule")
        assert rules.count("7433:\tfrom all fwmark 0x7 lookup 7433") == 2

    def test_removed_it_is_byte_for_byte_as_before(self, keeper: Keeper, netns: str, firewall: str) -> None:
        for command in (*FOREIGN, *FOREIGN_OF[firewall]):
            run(netns, command)
        before = said(netns, firewall)
        keeper.turn()
        assert all(after != before[command] for command, after in said(netns, firewall).items())
        keeper.want({})
        assert keeper.turn()
        assert said(netns, firewall) == before
        assert not keeper.turn() and said(netns, firewall) == before

    def test_a_memory_that_cannot_be_written_makes_nothing(self, netns: str, firewall: str, tmp_path: Path) -> None:
        for command in FOREIGN_OF[firewall]:  # so that iptables has the table before
            run(netns, command)
        before = said(netns, firewall)
        made = Keeper(tmp_path / "none" / "memory", firewall, PLACE, netns)
        made.want(MARKS)
        with pytest.raises(SteerError, match="nothing is made that could not be found again"):
            made.turn()
        assert said(netns, firewall) == before


class KeptBesideOthers:
    """The rest of it. Subclasses are as those of Kept."""

    def test_what_is_undone_is_back_at_the_next_turn(self, keeper: Keeper, netns: str, firewall: str) -> None:
        keeper.turn()
        made = ordered(said(netns, firewall))
        for command in (*UNDONE, *UNDONE_OF[firewall]):
            run(netns, command)
            if "lo down" in command:
                run(netns, "ip link set lo up")
            if "rule flush" in command:  # of IPv6's there is only one, and the local one stays
                run(netns, "ip -6 rule add lookup main priority 32766")
            assert ordered(said(netns, firewall)) != made, command
            assert keeper.turn(), command
            assert ordered(said(netns, firewall)) == made, command
            assert not keeper.turn(), command

    def test_another_keeper_knows_what_an_earlier_one_made(
        self, keeper: Keeper, netns: str, firewall: str, tmp_path: Path
    ) -> None:
        """As after a restart with another configuration, of other marks, another table and another priority."""
        for command in FOREIGN_OF[firewall]:  # so that iptables has the table before
            run(netns, command)
        before = said(netns, firewall)
        keeper.turn()
        other = Keeper(tmp_path / "memory", firewall, Place(table=99, priority=4000), netns)
        other.want({9: [parse_match("198.51.100.0/24 tcp 80", "")]})
        assert other.turn()
        rules = run(netns, "ip rule") + run(netns, "ip -6 rule")
        assert rules.count("lookup 99") == 1 and "7433" not in rules
        assert run(netns, "ip route show table 7433") == "" and "default" in run(netns, "ip route show table 99")
        assert [rule.mark for rule in other.seen()[1].held.rules if not isinstance(rule, str)] == [9]
        other.want({})
        other.turn()
        assert said(netns, firewall) == before
        assert not (tmp_path / "memory").exists()

    def test_remains_in_other_places_are_removed_when_nothing_is_wanted(
        self, keeper: Keeper, netns: str, firewall: str, tmp_path: Path
    ) -> None:
        for command in FOREIGN_OF[firewall]:
            run(netns, command)
        before = said(netns, firewall)
        keeper.turn()
        other = Keeper(tmp_path / "memory", firewall, Place(table=99, priority=4000), netns)
        other.want({})
        assert other.turn() and not other.turn()
        assert said(netns, firewall) == before

    def test_marks_of_others_are_found_and_ours_are_not_among_them(
        self, keeper: Keeper, netns: str, firewall: str
    ) -> None:
        for command in FOREIGN_OF[firewall]:
            run(netns, command)
        keeper.turn()
        found = keeper.foreign()
        assert {(mark.value, mark.gives(0x100), mark.gives(7)) for mark in found} == {(0x100, True, False)}

    def test_a_policy_rule_for_some_of_the_packets_does_not_replace_ours(
        self, keeper: Keeper, netns: str, firewall: str
    ) -> None:
        some = "from 10.0.0.0/8 fwmark 0x7 lookup 7433"
        run(netns, f"ip rule add {some} priority 7433")
        run(netns, "ip rule add fwmark 0x8 lookup 7433 priority 7433")  # which does it
        keeper.turn()
        rules = run(netns, "ip rule")
        assert "from all fwmark 0x7 lookup 7433 proto 251" in rules and rules.count("fwmark 0x8") == 1
        keeper.want({})
        keeper.turn()
        assert some in run(netns, "ip rule") and run(netns, "ip rule").count("fwmark") == 2


# Of iptables alone.


def a_chain_that_somebody_leads_to_is_not_taken_away_under_him(netns: str, tmp_path: Path, firewall: str) -> None:
    made = Keeper(tmp_path / "memory", firewall, PLACE, netns)
    made.want(MARKS)
    made.turn()
    run(netns, f"{firewall} -t mangle -A INPUT -j feedback-steer")
    made.want({})
    with pytest.raises(SteerError, match="-A INPUT -j feedback-steer: is not ours"):
        made.turn()
    run(netns, f"{firewall} -t mangle -D INPUT -j feedback-steer")
    made.turn()
    assert "feedback-steer" not in run(netns, f"{firewall}-save")
