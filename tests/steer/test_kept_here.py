"""On the kernel that runs here, as root, where it has nf_tables: by nft, by both programs called iptables, and with
packets. In namespaces of its own; where one of the programs cannot work here, its tests are skipped and say why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.config.match import parse_match
from feedback.ipvs.namespace import within
from feedback.model import Family
from feedback.steer.firewall import run as start
from feedback.steer.keeper import PROGRAMS, Keeper
from feedback.steer.plan import wanted
from tests.namespaces import ip
from tests.steer import kept
from tests.steer.kept import MARKS, PLACE, Kept, KeptBesideOthers, keeper, netns, run

__all__ = ["keeper", "netns"]
pytestmark = [
    pytest.mark.lab(on="host"),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, for namespaces"),
]

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


# The older iptables is tried in the guest by `make test`, and nf_tables by nft.
@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.long] * (n != "nftables")) for n in PROGRAMS])
def firewall(request: pytest.FixtureRequest, netns: str) -> str:
    name: str = request.param
    why = within(netns, lambda: PROGRAMS[name](start).unusable(wanted(MARKS).rules))
    if why is not None:
        pytest.skip(f"{name} cannot mark here: {why}")
    return name


class TestHere(Kept, KeptBesideOthers):
    def test_packets_for_a_range_come_in_and_nobody_answers_arp_for_it(
        self, firewall: str, netns: str, tmp_path: Path, client: str
    ) -> None:
        # Somebody else's mark on the same packets, where most make theirs, and before ours: ours replaces it.
        run(netns, "nft add table inet other")
        priority = -150 if firewall == "nftables" else -160  # iptables has -150 itself
        run(netns, f"nft add chain inet other marks {{ type filter hook prerouting priority {priority}; }}")
        run(netns, "nft add rule inet other marks tcp dport 8080 meta mark set 0x55")
        made = Keeper(tmp_path / "memory", firewall, PLACE, netns)
        made.want({7: [parse_match("203.0.113.0/24 tcp 8000-8100", ""), parse_match("2001:db8:9::/64 tcp 8080", "")]})
        made.turn()
        listener = within(netns, lambda: server(8080))
        other = within(netns, lambda: server(9000))
        with listener, other:
            assert connects(client, "203.0.113.77", 8080) and connects(client, "2001:db8:9::77", 8080)
            assert not connects(client, "203.0.113.77", 9000) and not connects(client, "2001:db8:a::77", 8080)
            # An address of the director's own that the network contains keeps what it has: no mark, and its ssh.
            run(netns, "ip address add 203.0.113.9/32 dev lo")
            marked = MarkCounter(netns)
            assert connects(client, "203.0.113.9", 8080)
            assert marked.count() == 0 and connects(client, "203.0.113.78", 8080) and marked.count() > 0
            # What doctor warns of.
            run(netns, "sysctl -qw net.ipv4.conf.all.src_valid_mark=1")
            assert not connects(client, "203.0.113.77", 8080)
            run(netns, "sysctl -qw net.ipv4.conf.all.src_valid_mark=0")
            assert connects(client, "203.0.113.77", 8080)
            made.want({})
            made.turn()
            assert not connects(client, "203.0.113.77", 8080)
        # Straight on the link: whoever has it would have to say so.
        run(client, "ip route replace 203.0.113.0/24 dev eth0")
        assert not connects(client, "203.0.113.77", 8080)


def test_an_earlier_program_that_is_gone_is_not_waited_for(
    netns: str, firewall: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where /run outlived a change of the firewall's package."""
    if firewall == "nftables":
        pytest.skip("it would be the first choice anyway")
    (tmp_path / "bin").mkdir()
    for name in (f"{family}tables{firewall.removeprefix('iptables')}" for family in ("ip", "ip6")):
        for what in ("-save", "-restore"):
            found = shutil.which(name + what, path="/usr/sbin")
            assert found
            (tmp_path / "bin" / (name + what)).symlink_to(found)
    monkeypatch.setattr("feedback.steer.firewall.PATH", str(tmp_path / "bin"))
    (tmp_path / "memory").write_text('{"firewall": "nftables", "table": 7433, "priority": 7433}')
    made = Keeper(tmp_path / "memory", "auto", PLACE, netns)
    made.want(MARKS)
    assert made.turn() and made.seen()[0] == firewall and not made.lacking()


def test_the_units_one_capability_is_enough_for_nf_tables(netns: str, firewall: str) -> None:
    """As nobody, with CAP_NET_ADMIN. The older iptables needs CAP_NET_RAW too: examples/iptables-legacy.conf."""
    capabilities = "net_admin,+net_raw" if firewall == "iptables-legacy" else "net_admin"
    confined = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    confined += [f"--bounding-set=-all,+{capabilities}", f"--inh-caps=-all,+{capabilities}"]
    confined += [f"--ambient-caps=-all,+{capabilities}", "env", f"XTABLES_LOCKFILE=/tmp/steer-{os.getpid()}.lock"]
    program = PROGRAMS[firewall](lambda command, given: start([*confined, *command], given))
    rules, both = wanted(MARKS).rules, frozenset(Family)
    try:
        within(netns, lambda: program.write(rules, both))
        assert within(netns, lambda: program.read(both)).rules == rules
        within(netns, lambda: program.write((), both))
        assert not within(netns, lambda: program.read(both)).there
    finally:
        Path(f"/tmp/steer-{os.getpid()}.lock").unlink(missing_ok=True)


class MarkCounter:
    """Packets with mark 7 that come in."""

    def __init__(self, netns: str) -> None:
        self._netns = netns
        run(netns, "nft add table inet counting")
        run(netns, "nft add chain inet counting in { type filter hook input priority 0; }")
        run(netns, "nft add rule inet counting in meta mark 7 counter")

    def count(self) -> int:
        return int(run(self._netns, "nft list chain inet counting in").partition("packets ")[2].split()[0])


@pytest.fixture
def client(netns: str) -> Iterator[str]:
    """A namespace with a route for the ranges to the director's address."""
    name = f"{netns}-c"
    ip(f"netns add {name}")
    ip(f"link add eth0 netns {netns} type veth peer name eth0 netns {name}")
    for where, number in ((netns, 1), (name, 2)):
        ip("link set eth0 up", where)
        ip(f"address add 10.0.0.{number}/24 dev eth0", where)
        ip(f"address add fd00::{number}/64 dev eth0 nodad", where)
    ip("route add 203.0.113.0/24 via 10.0.0.1", name)
    ip("route add 2001:db8::/32 via fd00::1", name)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def server(port: int) -> socket.socket:
    """One that may answer from an address that is not this host's: what IPVS does without it."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    listener.bind(("::", port))
    listener.listen()
    return listener


def connects(netns: str, address: str, port: int) -> bool:
    def connect() -> bool:
        try:
            socket.create_connection((address, port), timeout=0.5).close()
        except OSError:
            return False
        return True

    return within(netns, connect)


def test_two_who_write_at_once_lose_nothing(netns: str, firewall: str, tmp_path: Path) -> None:
    """Somebody else adds rules while a keeper writes its own again and again."""
    if firewall == "nftables":
        pytest.skip("its transactions are the kernel's")
    made = Keeper(tmp_path / "memory", firewall, PLACE, netns)
    failed: list[BaseException] = []

    def write() -> None:
        try:
            for n in range(20):
                made.want({7 + n % 2: MARKS[7]})
                made.turn()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for n in range(20):
        run(netns, f"{firewall} -w 5 -t mangle -A FORWARD -p udp -m multiport --dports {n + 1} -j ACCEPT")
    thread.join()
    assert failed == []
    assert run(netns, f"{firewall}-save").count("-A FORWARD") == 20


def test_a_chain_that_somebody_elses_rule_jumps_to_is_not_removed(netns: str, tmp_path: Path, firewall: str) -> None:
    if firewall == "nftables":
        pytest.skip("nobody can lead to a base chain")
    kept.a_chain_that_somebody_leads_to_is_not_taken_away_under_him(netns, tmp_path, firewall)
