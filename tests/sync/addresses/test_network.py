"""Addresses on real kernels: two directors, a client and a switch, each in a namespace of its own.

Nothing here needs IPVS; it is the client's neighbour cache and the directors' kernels that are asked. Times are printed
(`-s`), not asserted: the machine may be busy.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest

from feedback.ipvs.namespace import within
from feedback.sync.addresses import packets, rtnetlink
from feedback.sync.addresses.errors import NetworkError
from feedback.sync.addresses.network import Network
from feedback.sync.addresses.packets import Address, Answer, Claim, Echo
from feedback.sync.addresses.plan import Present, VirtualAddress, foreign, plan

pytestmark = pytest.mark.lab

VIP = VirtualAddress.parse("10.0.0.100", "eth0")
VIP6 = VirtualAddress.parse("2001:db8::100", "eth0")
GATEWAY = VirtualAddress.parse("10.0.0.254/24", "eth0")
WANTED = (VIP, VIP6, GATEWAY)
CLIENT, CLIENT6 = ip_address("10.0.0.1"), ip_address("2001:db8::1")
ANSWER_SECONDS = 60.0

_numbers = itertools.count(1)


class Site:
    """Client 10.0.0.1, directors 10.0.0.2 and .3, real server .4, on one switch."""

    hosts = ("client", "d1", "d2", "rs")

    def __init__(self) -> None:
        self.run = f"net-{os.getpid()}-{next(_numbers)}"
        self.open: list[Network | Pinger] = []
        self.built: list[str] = []

    def netns(self, host: str) -> str:
        return f"{self.run}-{host}"

    def build(self) -> None:
        _ip([f"netns add {self.netns(host)}" for host in ("switch", *self.hosts)])
        self.built = ["switch", *self.hosts]
        lines = ["link add bridge type bridge mcast_snooping 0", "link set bridge up"]
        for host in self.hosts:
            lines.append(f"link add {host} type veth peer name eth0 netns {self.netns(host)}")
            lines.append(f"link set {host} master bridge up")
        self.ip("switch", *lines)
        for number, host in enumerate(self.hosts, 1):
            within(self.netns(host), _without_detection)
            self.ip(
                host,
                "link set lo up",
                "link set eth0 up",
                f"address add 10.0.0.{number}/24 dev eth0",
                f"address add 2001:db8::{number}/64 dev eth0 nodad",
            )

        for host in self.hosts:
            until(functools.partial(self.settled, host), f"{host} has no link-local address")

    def link_local(self, host: str) -> str:
        words = self.ask(host, "-6", "-brief", "address", "show", "dev", "eth0", "scope", "link").split()
        return words[2].split("/")[0]

    def settled(self, host: str) -> bool:
        """A link that has just come up has its link-local address, and the route to others', a moment later."""
        addresses = within(self.netns(host), Path("/proc/thread-self/net/if_inet6").read_text)
        return "fe80" in [line[:4] for line in addresses.splitlines()]

    def remove(self) -> None:
        for made in self.open:
            made.close()
        _ip([f"netns delete {self.netns(host)}" for host in self.built])

    def ip(self, host: str, *lines: str) -> None:
        _ip(lines, "-n", self.netns(host))

    def ask(self, host: str, *arguments: str) -> str:
        command = ["ip", "-n", self.netns(host), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def network(self, host: str, wanted: tuple[VirtualAddress, ...] = WANTED, **more: object) -> Network:
        made = Network(wanted, netns=self.netns(host), **more)  # type: ignore[arg-type]
        self.open.append(made)
        return made

    def mac(self, host: str) -> str:
        return self.ask(host, "-brief", "link", "show", "eth0").split()[2]

    def neighbour(self, address: Address) -> str | None:
        """The MAC that the client has for it."""
        words = self.ask("client", "neighbour", "show", str(address)).split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else None

    def pinger(self, address: Address, host: str = "client") -> Pinger:
        made = within(self.netns(host), lambda: Pinger(address))
        self.open.append(made)
        return made


def _ip(lines: Sequence[str], *options: str) -> None:
    """One process for all of them: in the guest its start costs more than what it does."""
    subprocess.run(["ip", *options, "-batch", "-"], input="\n".join(lines).encode(), check=True)


def _without_detection() -> None:
    """No wait for a link-local address to be found unique: 1-2 s for each test."""
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("0", encoding="ascii")
    Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("0", encoding="ascii")
    Path("/proc/sys/net/ipv6/conf/eth0/router_solicitations").write_text("0", encoding="ascii")


class Pinger:
    """ICMP echoes, one after another."""

    def __init__(self, address: Address) -> None:
        self.address = address
        ipv6 = isinstance(address, IPv6Address)
        family, protocol = (socket.AF_INET6, 58) if ipv6 else (socket.AF_INET, 1)
        self.sock = socket.socket(family, socket.SOCK_RAW, protocol)
        self.kind, self.start = (129, 0) if ipv6 else (0, 20)
        self.sequence = 0

    def close(self) -> None:
        self.sock.close()

    def once(self, seconds: float) -> bool:
        self.sequence += 1
        self.sock.sendto(packets.echo_request(self.address, 77, self.sequence), (str(self.address), 0))
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(200)[self.start :]
            except TimeoutError:
                return False
            if data[0] == self.kind and struct.unpack_from("!HH", data, 4) == (77, self.sequence):
                return True
        return False

    def until(self, every: float = 0.01) -> float:
        """Seconds until one is answered."""
        began = time.perf_counter()
        while not self.once(every):
            if time.perf_counter() - began > ANSWER_SECONDS:
                pytest.fail(f"{self.address} does not answer in {ANSWER_SECONDS} s")
        return time.perf_counter() - began


def heard(listener: Network, count: int = 1, seconds: float = ANSWER_SECONDS) -> list[Answer | Claim | Echo]:
    """What is read until so many have come, or the time is over."""
    found: list[Answer | Claim | Echo] = []
    end = time.perf_counter() + seconds
    while len(found) < count and time.perf_counter() < end:
        found += listener.read()
        time.sleep(0.001)
    return found


def until(true: Callable[[], bool], what: str) -> None:
    end = time.perf_counter() + ANSWER_SECONDS
    while not true():
        if time.perf_counter() > end:
            pytest.fail(what)


@pytest.fixture
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("a lab test: needs root")
    made = Site()
    try:
        made.build()
        yield made
    finally:
        made.remove()


# --- takeover --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", WANTED, ids=["vip", "ipv6", "gateway"])
def test_the_client_follows_an_announcement_at_once(site: Site, taken: VirtualAddress) -> None:
    d1, d2 = site.network("d1"), site.network("d2")
    d1.add([taken])
    pinger = site.pinger(taken.address)
    pinger.until()
    assert site.neighbour(taken.address) == site.mac("d1")
    site.ip("switch", "link set d1 down")
    assert not pinger.once(0.1)

    began = time.perf_counter()
    assert d2.add([taken]) == ()
    added = time.perf_counter()
    assert d2.announce([taken]) == ()
    announced = time.perf_counter()
    pinger.until()
    answered = time.perf_counter()
    print(  # noqa: T201
        f"{taken}: add {(added - began) * 1e3:.2f} ms, announce {(announced - added) * 1e3:.2f} ms, "
        f"ping answered {(answered - began) * 1e3:.2f} ms after the call of add"
    )
    assert site.neighbour(taken.address) == site.mac("d2")


def test_a_lost_announcement_leaves_the_client_at_the_old_director_and_a_repeated_one_mends_it(site: Site) -> None:
    d1, d2 = site.network("d1"), site.network("d2")
    d1.add([VIP, VIP6])
    pingers = [site.pinger(VIP.address), site.pinger(VIP6.address)]
    for pinger in pingers:
        pinger.until()
    site.ip("switch", "link set d1 down", "link set d2 nomaster")  # d2's port is up, and nothing leaves it
    d2.add([VIP, VIP6])
    assert d2.announce([VIP, VIP6]) == ()
    site.ip("switch", "link set d2 master bridge")
    for pinger in pingers:
        assert not pinger.once(0.3)
        assert site.neighbour(pinger.address) == site.mac("d1")
    d2.announce([VIP, VIP6])
    for pinger in pingers:
        pinger.until()
        assert site.neighbour(pinger.address) == site.mac("d2")


def test_a_client_without_an_entry_makes_none_and_is_answered_when_it_asks(site: Site) -> None:
    d2 = site.network("d2")
    pinger, pinger6 = site.pinger(VIP.address), site.pinger(VIP6.address)
    d2.add([VIP, VIP6])
    pinger.until()  # the kernel answers at once, without any announcement
    pinger6.until()  # no duplicate address detection
    site.ip("client", "neighbour flush dev eth0")
    d2.announce([VIP, VIP6])
    assert site.neighbour(VIP.address) is None
    assert site.neighbour(VIP6.address) is None
    assert pinger.until() < ANSWER_SECONDS
    assert pinger6.until() < ANSWER_SECONDS


def test_an_address_that_is_removed_falls_silent_and_works_again_when_it_is_back(site: Site) -> None:
    d1 = site.network("d1")
    d1.add(WANTED)
    pingers = [site.pinger(wanted.address) for wanted in WANTED]
    for pinger in pingers:
        pinger.until()
    assert d1.remove(WANTED) == ()
    for pinger in pingers:
        assert not pinger.once(0.1)
    assert d1.add(WANTED) == ()
    for pinger in pingers:
        pinger.until()


def test_a_packet_that_still_comes_to_the_old_director_is_passed_on_to_the_new_one(site: Site) -> None:
    """Between the removal and the announcement, or where the announcement was lost: if it forwards, as directors do."""
    d1, d2 = site.network("d1"), site.network("d2")
    for name in ("ip_forward", "conf/all/send_redirects", "conf/eth0/send_redirects"):
        value = "1" if name == "ip_forward" else "0"
        within(site.netns("d1"), functools.partial(Path("/proc/sys/net/ipv4", name).write_text, value))
    d1.add([VIP])
    pinger = site.pinger(VIP.address)
    pinger.until()
    site.pinger(CLIENT, "d2").until()  # or it asks for the client, as the VIP, and that is an announcement in itself
    d1.remove([VIP])
    d2.add([VIP])
    pinger.until()
    assert site.neighbour(VIP.address) == site.mac("d1")


def test_an_ipv6_address_answers_when_add_returns(site: Site) -> None:
    d1, pinger = site.network("d1"), site.pinger(VIP6.address)
    within(site.netns("d1"), lambda: Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("1"))
    d1.add([VIP6])
    pinger.until()
    for _ in range(20):
        d1.remove([VIP6])
        d1.add([VIP6])
        assert pinger.once(1.0)


def test_the_ipv6_address_is_no_source_of_the_directors_own_connections(site: Site) -> None:
    near = VirtualAddress.parse("2001:db8::ffff:1", "eth0")  # its bits are nearest to those of the destination below
    d1 = site.network("d1", (near,))
    d1.add([near])

    def source() -> str:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.connect(("2001:db8::ffff:2", 9))
            return str(sock.getsockname()[0])

    assert within(site.netns("d1"), source) == "2001:db8::2"


# --- whose address it is ---------------------------------------------------------------------------------------------


def test_a_restarted_daemon_knows_its_own_addresses_and_leaves_the_others(site: Site) -> None:
    site.ip("d1", f"address add {VIP.address}/32 dev eth0")  # somebody's before we came
    first = site.network("d1")
    made = plan(WANTED, first.installed(), active=True)
    assert set(made.add) == {VIP6, GATEWAY}
    assert first.add(WANTED) == ()  # all the same, as one may have come since
    first.close()

    second = site.network("d1")
    assert plan(WANTED, second.installed(), active=True) == plan((), (), active=True)
    assert foreign(WANTED, second.installed()) == (Present(VIP, ours=False),)
    going = plan(WANTED, second.installed(), active=False).remove
    assert set(going) == {VIP6, GATEWAY}
    assert second.remove(going) == ()
    assert second.remove(going) == ()
    left = site.ask("d1", "-oneline", "address", "show", "dev", "eth0")
    assert "10.0.0.100/32" in left
    assert "10.0.0.2/24" in left
    assert "2001:db8::2/64" in left
    assert "10.0.0.254" not in left
    assert "2001:db8::100" not in left


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 5.18: it passes over IFA_PROTO."""
    body, entry = rtnetlink.address_body, rtnetlink.entry

    def unmarked(wanted: VirtualAddress, index: int) -> bytes:
        return body(wanted, index)[:-8]

    def unread(data: bytes) -> rtnetlink.Entry:
        read = entry(data)
        return rtnetlink.Entry(read.index, read.address, read.prefix, 0, read.secondary, read.body)

    monkeypatch.setattr(rtnetlink, "address_body", unmarked)
    monkeypatch.setattr(rtnetlink, "entry", unread)


def test_on_a_kernel_that_keeps_no_protocol_a_file_remembers(site: Site, tmp_path: Path, forgetful: None) -> None:
    memory = tmp_path / "addresses"
    site.ip("d1", f"address add {VIP.address}/32 dev eth0")
    first = site.network("d1", memory=memory)
    first.add(plan(WANTED, first.installed(), active=True).add)
    first.close()
    second = site.network("d1", memory=memory)
    going = plan(WANTED, second.installed(), active=False).remove
    assert set(going) == {VIP6, GATEWAY}
    second.remove(going)
    assert memory.read_text() == ""
    third = site.network("d1", memory=memory)
    assert plan(WANTED, third.installed(), active=False).remove == ()


def test_a_kernel_that_keeps_the_protocol_needs_no_file(site: Site, tmp_path: Path) -> None:
    d1 = site.network("d1", memory=tmp_path / "addresses")
    d1.add(WANTED)
    assert not (tmp_path / "addresses").exists()


def test_a_gateway_that_is_the_primary_address_does_not_take_the_hosts_own_along(site: Site) -> None:
    site.ip("d1", "address delete 10.0.0.2/24 dev eth0")
    d1 = site.network("d1")
    d1.add([GATEWAY])
    site.ip("d1", "address add 10.0.0.2/24 brd + dev eth0")  # comes later: secondary
    before = {p for p in d1.installed() if p.address.address == ip_address("10.0.0.2")}
    assert [p.secondary for p in before] == [True]
    assert d1.remove([GATEWAY]) == ()
    left = site.ask("d1", "-4", "-oneline", "address", "show", "dev", "eth0")
    assert "10.0.0.2/24 brd 10.0.0.255" in left
    assert "10.0.0.254" not in left
    site.pinger(CLIENT, "d1").until()


def test_a_vip_of_one_address_stays_when_the_primary_of_its_network_goes(site: Site) -> None:
    wide = VirtualAddress.parse("10.0.0.101/24", "eth0")
    d1 = site.network("d1", (VIP, wide))
    d1.add([VIP, wide])
    site.ip("d1", "address delete 10.0.0.2/24 dev eth0")
    left = {p.address for p in d1.installed()}
    assert VIP in left
    assert wide not in left, "promote_secondaries is on: this shows nothing"


# --- looks -----------------------------------------------------------------------------------------------------------


def test_a_look_is_answered_by_the_peers_kernel_though_no_process_of_it_runs(site: Site) -> None:
    d1 = site.network("d1")
    d1.add(WANTED)
    d1.close()
    d2 = site.network("d2")
    began = time.perf_counter()
    assert d2.look(WANTED) == ()
    answers = heard(d2, 3)
    took = time.perf_counter() - began
    print(f"3 looks answered after {took * 1e3:.2f} ms")  # noqa: T201
    assert set(answers) == {Answer(wanted.address, site.mac("d1")) for wanted in WANTED}
    assert site.ask("d1", "neighbour", "show", "10.0.0.3") == "", "the look has left a trace"


@pytest.mark.parametrize("cut", ["switch link set d1 down", "d1 link set eth0 down"])
def test_a_look_is_not_answered_when_the_peers_link_is_down(site: Site, cut: str) -> None:
    d1, d2 = site.network("d1"), site.network("d2")
    d1.add(WANTED)
    d2.look(WANTED)
    assert len(heard(d2, 3)) == 3
    host, command = cut.split(" ", 1)
    site.ip(host, command)
    assert d2.look(WANTED) == ()
    assert heard(d2, 1, 0.1) == []
    assert not d1.link_up("eth0")
    assert d2.link_up("eth0")


def test_a_director_whose_own_link_is_down_is_told_that_it_cannot_look_or_announce(site: Site) -> None:
    d2 = site.network("d2")
    same = d2.fileno()
    site.ip("d2", "link set eth0 down")
    assert [(r.address, r.reason) for r in d2.look(WANTED)] == [(w, "eth0 is down") for w in WANTED]
    assert [r.reason for r in d2.announce([VIP])] == ["eth0 is down"]
    assert d2.read() == []
    site.ip("d2", "link set eth0 up")
    site.network("d1").add([VIP])
    until(lambda: d2.look([VIP]) == () and heard(d2, 1, 0.05) != [], "no answer after the link is back")
    assert d2.fileno() == same


def test_an_interface_that_was_made_anew_is_used(site: Site) -> None:
    d2 = site.network("d2")
    same = d2.fileno()
    site.ip("switch", "link delete d2")
    assert d2.add([VIP])[0].reason.startswith("there is no interface eth0 here")
    assert d2.look([VIP])[0].reason.startswith("there is no interface eth0 here")
    assert d2.remove([VIP]) == ()
    assert d2.macs() == {}
    assert not d2.link_up("eth0")
    site.ip("switch", f"link add d2 type veth peer name eth0 netns {site.netns('d2')}", "link set d2 master bridge up")
    site.ip("d2", "link set eth0 up")
    site.network("d1").add([VIP])
    until(lambda: d2.look([VIP]) == () and heard(d2, 1, 0.05) != [], "no answer on the new interface")
    assert d2.fileno() == same
    assert d2.macs() == {"eth0": site.mac("d2")}


def test_a_real_server_is_silent_with_arp_ignore_and_seen_by_its_mac_without(site: Site) -> None:
    d2 = site.network("d2", (VIP,))
    site.ip("rs", f"address add {VIP.address}/32 dev lo")
    within(site.netns("rs"), lambda: Path("/proc/sys/net/ipv4/conf/all/arp_ignore").write_text("1"))
    d2.look([VIP])
    assert heard(d2, 1, 0.1) == []
    within(site.netns("rs"), lambda: Path("/proc/sys/net/ipv4/conf/all/arp_ignore").write_text("0"))
    d2.look([VIP])
    assert heard(d2) == [Answer(VIP.address, site.mac("rs"))]


def test_the_peers_announcement_is_heard(site: Site) -> None:
    d1, d2 = site.network("d1"), site.network("d2")
    d1.announce(WANTED)
    assert set(heard(d2, 5)) == {Claim(wanted.address, site.mac("d1")) for wanted in WANTED}
    assert d1.read() == []  # not by itself


def test_an_own_announcement_that_comes_back_is_not_heard_as_somebody_elses(site: Site) -> None:
    d1, d2 = site.network("d1"), site.network("d2")
    reflected = [packets.gratuitous_request(site.mac("d2"), VIP.address)]
    d1._port("eth0").send(VIP.address, reflected)
    until(lambda: d2._epoll.poll(0) != [], "the frame did not come back")
    assert d2.read() == []


def test_no_traffic_wakes_the_listener(site: Site) -> None:
    d2 = site.network("d2")
    d2.add([VIP, VIP6])
    site.pinger(VIP.address).until()
    site.pinger(VIP6.address).until()
    d2.read()

    def flood() -> None:
        for family, to in ((socket.AF_INET, VIP), (socket.AF_INET6, VIP6)):
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                for _ in range(1000):
                    sock.sendto(b"x" * 100, (str(to.address), 9))

    within(site.netns("client"), flood)
    for sock in d2._ports["eth0"].sockets.values():
        statistics = sock.getsockopt(263, 6, 8)  # SOL_PACKET, PACKET_STATISTICS
        assert struct.unpack("=II", statistics) == (0, 0)
    assert d2._epoll.poll(0) == []
    # Neither do neighbours that ask for each other, nor the flood of ARP of a large network.
    site.ip("client", "neighbour flush dev eth0")
    site.pinger(ip_address("10.0.0.4")).until()
    site.pinger(ip_address("2001:db8::4")).until()
    assert d2._epoll.poll(0) == []
    site.network("d1").announce([VIP])
    assert len(heard(d2, 2)) == 2


# --- reach -----------------------------------------------------------------------------------------------------------


def test_targets_on_the_link_and_behind_a_router_are_reached(site: Site) -> None:
    beyond, beyond6 = ip_address("192.0.2.1"), ip_address("2001:db8:1::1")
    site.ip("client", f"address add {beyond}/32 dev lo", f"address add {beyond6}/128 dev lo")
    site.ip("d2", f"route add {beyond} via {CLIENT}", f"route add {beyond6} via {CLIENT6}")
    local = ip_address(site.link_local("client") + "%eth0")
    targets = (CLIENT, CLIENT6, local, beyond, beyond6)
    d2 = site.network("d2", (VIP,), targets=targets)
    assert d2.reach(targets) == ()
    mac = site.mac("client")
    on_link = {Answer(target, mac) for target in targets[:3]}
    assert set(heard(d2, 5)) == on_link | {Echo(beyond), Echo(beyond6)}
    site.ip("switch", "link set client down")
    assert d2.reach(targets) == ()
    assert heard(d2, 1, 0.1) == []


def test_a_target_that_cannot_be_asked_is_told(site: Site) -> None:
    own, nowhere, bare, unnamed = map(ip_address, ("10.0.0.3", "192.0.2.1", "fe80::1", "10.0.0.77"))
    d2 = site.network("d2", (VIP,), targets=[own, nowhere, bare])
    assert [refusal.reason for refusal in d2.reach([own, nowhere, bare, unnamed])] == [
        "10.0.0.3 is an address of this host, which proves nothing: name one beyond a link",
        "there is no route to 192.0.2.1: see `ip route get 192.0.2.1`",
        "fe80::1 is on every link: name the interface too, as in fe80::1%eth0",
        "10.0.0.77 was not named as a target at the start: its answer would not be heard",
    ]


# --- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interface", "said"),
    [("eth7", "there is no interface eth7 here: `ip -brief link` lists them"), ("lo", "lo is no Ethernet interface")],
)
def test_an_interface_that_does_not_do_is_told_at_the_start(site: Site, interface: str, said: str) -> None:
    with pytest.raises(NetworkError, match=said):
        site.network("d1", (VirtualAddress.parse("10.0.0.100", interface),))


def become_nobody(capabilities: int) -> None:
    """Another user who keeps only these; for a child process."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    header = struct.pack("=II", 0x20080522, 0)
    data = struct.pack("=IIIIII", capabilities, capabilities, 0, 0, 0, 0)
    assert libc.capset(header, data) == 0, ctypes.get_errno()


def as_nobody(site: Site, capabilities: int, work: Callable[[], str]) -> str:
    """What the work says in a child process inside d1."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            with Path("/run/netns", site.netns("d1")).open() as target:
                assert ctypes.CDLL(None).setns(target.fileno(), 0x40000000) == 0
            become_nobody(capabilities)
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, said.encode())
            os._exit(0)
    os.close(writer)
    said = b""
    while part := os.read(reader, 4096):
        said += part
    os.close(reader)
    os.waitpid(child, 0)
    return said.decode()


ADMIN, RAW = 1 << 12, 1 << 13


def test_two_capabilities_do(site: Site) -> None:
    site.network("d2").add([VIP])

    def work() -> str:
        made = Network(WANTED, targets=[CLIENT, ip_address("192.0.2.1")])
        made.look([VIP])
        answers = len(heard(made, 1))
        refused = made.add([VIP6, GATEWAY]) + made.announce([VIP6, GATEWAY]) + made.remove([VIP6])
        return f"{os.geteuid()} {answers} {refused} {sorted(made.macs())}"

    assert as_nobody(site, ADMIN | RAW, work) == "65534 1 () ['eth0']"
    assert "10.0.0.254" in site.ask("d1", "address")


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [
        (RAW, "NotPermitted: changing addresses is refused: it needs CAP_NET_ADMIN"),
        (ADMIN, "NotPermitted: sending and hearing ARP is refused: it needs CAP_NET_RAW"),
    ],
)
def test_a_missing_capability_is_told_at_the_start(site: Site, capabilities: int, said: str) -> None:
    def work() -> str:
        Network(WANTED)
        return "permitted"

    assert as_nobody(site, capabilities, work).startswith(said)
