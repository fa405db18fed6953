"""Two real kernels' worth of replication: what one director's kernel says and holds, the other's has.

Both directors are namespaces of one kernel, each with its own IPVS, its own threads and its own table. The standby
needs no network: what the relay carries is handed over here by function calls.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feedback.ipvs import Client, IpvsError, SyncDaemon, SyncRole, connections, sysctl
from feedback.ipvs.connections import Connection
from feedback.ipvs.namespace import within
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Forward,
    Service,
    ServiceFlags,
    ServiceKey,
)
from feedback.sync.replication import kernel as replication
from feedback.sync.replication import push, records, threads
from feedback.sync.replication.kernel import Replication, ReplicationError
from feedback.sync.replication.ledger import PARTS
from feedback.sync.replication.push import PUSH_RECORDS, PUSH_SECONDS
from feedback.sync.replication.records import Record
from feedback.sync.replication.replica import BULK_BYTES

pytestmark = pytest.mark.lab

_numbers = itertools.count(1)

VIP, VIP6 = "10.0.0.100", "fd00::100"
ROUTED = ServiceKey.parse(f"tcp:{VIP}:80")
MASQUERADED = ServiceKey.parse(f"tcp:{VIP}:81")
ROUTED6 = ServiceKey.parse(f"tcp:[{VIP6}]:80")
DATAGRAMS = ServiceKey.parse(f"udp:{VIP}:53")
PERSISTENT = ServiceKey.parse(f"tcp:{VIP}:443")
MARKED = ServiceKey.parse("fwmark:7")
SERVICES: dict[ServiceKey, tuple[str, Forward]] = {
    ROUTED: ("10.0.0.11:80", Forward.ROUTE),
    MASQUERADED: ("10.0.0.12:81", Forward.MASQUERADE),
    ROUTED6: ("[fd00::11]:80", Forward.ROUTE),
    DATAGRAMS: ("10.0.0.11:53", Forward.ROUTE),
    PERSISTENT: ("10.0.0.11:443", Forward.ROUTE),
    MARKED: ("10.0.0.11:0", Forward.ROUTE),
}


def edits() -> list[Edit]:
    made: list[Edit] = []
    for key, (address, forward) in SERVICES.items():
        flags = ServiceFlags.PERSISTENT if key in (PERSISTENT, MARKED) else ServiceFlags(0)
        made.append(AddService(Service(key, "rr", flags, timeout_seconds=300 if flags else 0)))
        made.append(AddDestination(key, Destination(DestinationKey.parse(address), forward=forward)))
    return made


def ip(*lines: str, netns: str | None = None) -> None:
    command = ["ip", *(["-n", netns] if netns else []), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines).encode(), check=True)


class Director:
    """A namespace with services and both threads."""

    def __init__(self, netns: str) -> None:
        self.netns = netns
        self.kernel = Client(netns)
        assert self.kernel.apply(edits()) == ()
        self.replication = Replication(netns)
        self.replication.open()

    def take(self, datagrams: list[bytes]) -> float:
        """As the standby does; until the thread has read everything. Returns the seconds."""
        began = time.monotonic()
        while datagrams:
            done = self.replication.inject(datagrams)
            datagrams = datagrams[done:]
            if not done:
                time.sleep(0.001)
        while (queue := self.replication.backlog()) is None or queue.bytes:
            assert queue is not None
            assert time.monotonic() - began < 60
            time.sleep(0.001)
        return time.monotonic() - began

    def table(self, source: str) -> list[bytes]:
        """All connections: of the ledger, or of the kernel's own table."""
        if source == "kernel":
            found = self.replication.kernel_table()
            assert found.left_out == {}
            return records.encode(found.records, 2)
        assert self.replication.know() == {}
        return [d for part in self.replication.bulk().parts for d in records.packed(part, 2, BULK_BYTES)]

    def hear(self, seconds: float = 2.5 * PUSH_SECONDS, *, push: bool = True) -> list[tuple[float, bytes]]:
        """What the master says, with the time of its coming."""
        began = pushed = time.monotonic()
        heard = []
        while (now := time.monotonic()) - began < seconds:
            heard += [(now - began, datagram) for datagram in self.replication.read_captured()]
            if push and now - pushed >= PUSH_SECONDS:
                self.replication.push()
                pushed = now
            time.sleep(0.002)
        return heard

    def connections(self) -> set[Connection]:
        """Without the timers, the origins and what is not for the other: handshakes and our own push. A template is
        ASSURED a moment after the kernel has told of it, and told again with the next refresh."""
        return {
            Connection(c.protocol, c.client, c.client_port, c.virtual, c.virtual_port, c.destination,
                       c.destination_port, c.state if c.client_port else "template", 0)
            for c in connections.read(self.netns)
            if c.state != "SYN_RECV" and c.destination.packed != push.DESTINATION
        }  # fmt: skip

    def counts(self) -> dict[str, tuple[int, int, int]]:
        return {
            str(entry.service.key): (d.active, d.inactive, d.persistent)
            for entry in self.kernel.snapshot().services
            for d in entry.destinations
        }

    def close(self) -> None:
        self.replication.close()
        self.kernel.close()


@pytest.fixture
def names() -> Iterator[Callable[[str], str]]:
    """Makes namespaces with lo up, and removes them."""
    if os.geteuid() != 0:
        pytest.skip("a lab test: needs root")
    try:
        Client().close()
    except IpvsError as error:
        pytest.skip(f"a lab test: {error}")
    made: list[str] = []

    def make(name: str) -> str:
        netns = f"sync-{os.getpid()}-{next(_numbers)}-{name}"
        ip(f"netns add {netns}")
        made.append(netns)
        ip("link set lo up", netns=netns)
        return netns

    yield make
    for netns in made:
        subprocess.run(["ip", "netns", "delete", netns], check=True)


@pytest.fixture
def directors(names: Callable[[str], str]) -> Iterator[Callable[[], Director]]:
    made: list[Director] = []

    def make() -> Director:
        made.append(Director(names("d")))
        return made[-1]

    yield make
    for director in made:
        director.close()


class Cluster:
    """A client, an active director, a server of direct routing and one of masquerading, on one switch."""

    def __init__(self, names: Callable[[str], str]) -> None:
        self.switch, self.client, director, self.routed, self.masqueraded = map(names, ("sw", "cl", "dA", "rs1", "rs2"))
        nodes = {self.client: 1, director: 2, self.routed: 11, self.masqueraded: 12}
        lines = ["link add bridge type bridge", "link set bridge up"]
        for netns, number in nodes.items():
            lines.append(f"link add p{number} type veth peer name eth0 netns {netns}")
            lines += [f"link set p{number} master bridge", f"link set p{number} up"]
        ip(*lines, netns=self.switch)
        for netns, number in nodes.items():
            ip("link set eth0 up", f"address add 10.0.0.{number}/24 dev eth0",
               f"address add fd00::{number}/64 dev eth0 nodad", netns=netns)  # fmt: skip
        ip(f"address add {VIP}/32 dev eth0", f"address add {VIP6}/128 dev eth0 nodad", netns=director)
        ip(f"address add {VIP}/32 dev lo", f"address add {VIP6}/128 dev lo nodad", netns=self.routed)
        ip("route add 10.0.0.1 via 10.0.0.2", netns=self.masqueraded)
        self.set(self.routed, "net/ipv4/conf/all/arp_ignore", "1")
        self.set(self.routed, "net/ipv4/conf/all/arp_announce", "2")
        self.set(director, "net/ipv4/ip_forward", "1")
        self.set(director, "net/ipv4/conf/all/send_redirects", "0")
        self.set(director, "net/ipv4/conf/eth0/send_redirects", "0")
        self.director = Director(director)
        self._listeners = [
            self.listen(self.routed, VIP, 80),
            self.listen(self.routed, VIP, 443),
            self.listen(self.routed, VIP6, 80),
            self.listen(self.masqueraded, "10.0.0.12", 81),
        ]
        self._ends: list[socket.socket] = []

    def set(self, netns: str, name: str, value: str) -> None:
        within(netns, lambda: Path("/proc/sys", name).write_text(value, encoding="ascii"))

    def listen(self, netns: str, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return within(netns, lambda: socket.create_server((address, port), family=family, backlog=128))

    def connect(self, key: ServiceKey) -> socket.socket:
        end = within(self.client, lambda: socket.create_connection((str(key.address), key.port), timeout=60))
        self._ends.append(end)
        return end

    def ask(self) -> socket.socket:
        """A datagram; nobody answers."""
        end = within(self.client, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._ends.append(end)
        end.sendto(b"?", (VIP, 53))
        return end

    def fill(self) -> None:
        """A little of everything, some of it closed."""
        for key in (ROUTED, MASQUERADED, ROUTED6, PERSISTENT):
            ends = [self.connect(key) for _ in range(4)]
            ends[0].close()
        self.ask()

    def close(self) -> None:
        for end in (*self._listeners, *self._ends):
            end.close()
        self.director.close()


@pytest.fixture
def cluster(names: Callable[[str], str]) -> Iterator[Cluster]:
    made = Cluster(names)
    yield made
    made.close()


def crafted(count: int, first: int = 0) -> list[Record]:
    """Established connections of the routed service."""
    vip, rip = bytes((10, 0, 0, 100)), bytes((10, 0, 0, 11))
    return [
        Record(6, 0x83, 1, bytes((10, 2 + (n >> 16), n >> 8 & 255, n & 255)), 1024, vip, 80, rip, 80, 0, 900)
        for n in range(first, first + count)
    ]


# --- what comes over -------------------------------------------------------------------------------------------------


def test_the_live_stream_alone_makes_the_standby_equal(cluster: Cluster, directors: Callable[[], Director]) -> None:
    standby = directors()
    cluster.fill()
    standby.take([datagram for _, datagram in cluster.director.hear(0.5)])
    assert len(standby.connections()) == 4 * 4 + 1 + 1  # with the datagram and the template
    assert standby.connections() == cluster.director.connections()
    assert standby.counts() == cluster.director.counts()


@pytest.mark.parametrize("source", ["ledger", "kernel"])
def test_the_bulk_alone_makes_the_standby_equal(
    cluster: Cluster, directors: Callable[[], Director], source: str
) -> None:
    standby, active = directors(), cluster.director
    cluster.fill()
    active.hear(0.5)  # into the ledger, and to nobody else
    standby.take(active.table(source))
    assert len(standby.connections()) == 18
    assert standby.connections() == active.connections()
    assert standby.counts() == active.counts()
    assert standby.counts()[str(ROUTED)] == (3, 1, 0)
    assert standby.counts()[str(DATAGRAMS)] == (0, 1, 0)
    assert standby.counts()[str(PERSISTENT)][2] == 1


def test_what_the_table_makes_of_a_connection_is_what_the_kernel_itself_says(cluster: Cluster) -> None:
    cluster.fill()
    heard = [r for _, d in cluster.director.hear(0.5) for r in records.decode(d).records]
    said = {r.key: (r.flags & 0x1187, r.state, r.destination, r.destination_port) for r in heard}
    read = {
        r.key: (r.flags & 0x1187, r.state, r.destination, r.destination_port)
        for r in cluster.director.replication.kernel_table().records
    }
    assert len(said) == 18
    templates = {key for key in said if key[2] == 0}
    assert {k: v for k, v in said.items() if k not in templates} == {
        k: v for k, v in read.items() if k not in templates
    }
    assert {k: (v[0], v[2:]) for k, v in said.items() if k in templates} == {
        k: (v[0], v[2:]) for k, v in read.items() if k in templates
    }


def test_templates_of_a_firewall_mark_find_their_service(directors: Callable[[], Director]) -> None:
    active, standby = directors(), directors()
    mark, rip = (7).to_bytes(4, "big"), bytes((10, 0, 0, 11))
    template = Record(0, 0x1183, 0, bytes((10, 9, 9, 9)), 0, mark, 0, rip, 0, 7, 300)
    active.take(records.encode([template], 2))
    assert active.counts()[str(MARKED)] == (0, 0, 1)
    standby.take(records.encode(active.replication.kernel_table().records, 2))
    assert standby.counts()[str(MARKED)] == (0, 0, 1)
    assert standby.connections() == active.connections() != set()


def test_a_table_shows_one_namespace_only(directors: Callable[[], Director]) -> None:
    active, other = directors(), directors()
    active.take(records.encode(crafted(100), 2))
    assert other.replication.kernel_table().records == ()
    assert len(active.replication.kernel_table().records) == 100


@pytest.mark.parametrize("source", ["ledger", "kernel"])
def test_twenty_thousand_connections_come_over_in_about_a_second_without_a_drop(
    directors: Callable[[], Director], source: str
) -> None:
    active, standby = directors(), directors()
    active.take(records.encode(crafted(20_000), 2))
    began = time.monotonic()
    standby.take(active.table(source))
    seconds = time.monotonic() - began
    assert standby.counts()[str(ROUTED)] == (20_000, 0, 0)
    assert (active.replication.drops(), standby.replication.drops()) == (0, 0)
    assert seconds < 1.5


def test_the_whole_table_is_read_while_the_kernel_rebuilds_it(directors: Callable[[], Director]) -> None:
    active = directors()
    if "conn_lfactor" not in sysctl.read_all(active.netns):
        pytest.skip("this kernel's table has one size: it grows since 7.1")
    active.take(records.encode(crafted(5000), 2))
    for lfactor in (-8, 4, -8, 4):
        rebuild = threading.Timer(0.002, sysctl.write, ("conn_lfactor", lfactor, active.netns))
        rebuild.start()
        found = active.replication.kernel_table()
        rebuild.join()
        assert (len(found.records), found.left_out) == (5000, {})


def test_a_restarted_daemon_learns_the_connections_that_were_there_before(names: Callable[[str], str]) -> None:
    director = Director(names("d"))
    director.take(records.encode(crafted(5000), 2))
    director.replication.close()
    again = Replication(director.netns)
    again.open()
    assert again.know() == {}
    assert len(again.ledger) == 5000
    again.close()
    director.kernel.close()


# --- losses are seen -------------------------------------------------------------------------------------------------


def test_what_the_kernel_drops_is_counted(directors: Callable[[], Director]) -> None:
    standby = directors()
    inject = standby.replication._inject
    assert inject is not None
    standby.replication.drops()
    lost = sent = 0
    # Of one burst: in between the thread reads. A socket holds ten times as much where net.core.rmem_max is 4 MB, as
    # since 6.18.
    for burst in (60_000, 120_000, 240_000, 480_000):
        datagrams = records.encode(crafted(burst, sent), 2)
        with ahead_of_the_kernel():
            for datagram in datagrams:  # without asking whether it can
                inject.send(datagram)
        sent += burst
        if lost := standby.replication.drops():
            break
    standby.take([])
    assert lost > 0
    assert standby.counts()[str(ROUTED)][0] <= sent - 39 * lost


@contextlib.contextmanager
def ahead_of_the_kernel() -> Iterator[None]:
    """Its threads wait for us, if they are on our processor."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def test_what_reaches_no_socket_is_counted(directors: Callable[[], Director]) -> None:
    standby = directors()
    standby.take(records.encode(crafted(1000), 2))
    assert standby.replication.drops() == 0
    ip("link set lo down", netns=standby.netns)
    with contextlib.suppress(ReplicationError):
        standby.replication.inject(records.encode(crafted(1000), 2))
    ip("link set lo up", netns=standby.netns)
    standby.replication._sent(3)  # as if three had gone on their way
    time.sleep(replication.IN_FLIGHT_SECONDS + 0.1)
    assert standby.replication.drops() >= 3


# --- the push --------------------------------------------------------------------------------------------------------


def test_a_lone_connection_is_heard_within_200_ms(cluster: Cluster) -> None:
    cluster.director.hear(0.3)
    delays = []
    for _ in range(8):
        cluster.connect(ROUTED)
        (heard, *_rest) = cluster.director.hear(0.35)
        delays.append(heard[0])
    assert max(delays) < 0.2, delays


def test_without_the_push_the_kernel_keeps_a_lone_connection_for_seconds(cluster: Cluster) -> None:
    cluster.connect(ROUTED)
    assert cluster.director.hear(1.0, push=False) == []


def test_the_push_leaves_the_services_alone_and_its_entries_do_not_grow(directors: Callable[[], Director]) -> None:
    director = directors()
    before = director.kernel.snapshot()
    seen = []
    for _ in range(3):
        assert director.hear(0.5) == []  # it is not relayed
        seen.append(sum(c.virtual.packed == push.GROUP.packed for c in connections.read(director.netns)))
    assert seen == [PUSH_RECORDS] * 3
    assert director.kernel.snapshot() == before
    assert director.replication.kernel_table().records == ()
    assert director.table("ledger") == []
    assert director.replication.mute <= 2


def test_pushes_in_a_row_are_one(directors: Callable[[], Director]) -> None:
    """Else whoever waits in a short loop would flood the backup, which reads what pushes."""
    pushing = directors().replication
    assert [pushing.push() for _ in range(200)].count(True) <= 2
    time.sleep(0.05)
    assert pushing.push()
    assert pushing.drops() == 0


def test_a_master_that_was_stopped_is_noticed(directors: Callable[[], Director]) -> None:
    director = directors()
    director.hear(0.3)
    director.kernel.stop_daemon(SyncRole.MASTER)
    director.hear(0.5)
    assert director.replication.mute >= 3
    assert director.replication.problems() == ("the kernel's master sync thread does not run",)


def test_a_master_whose_address_moved_away_is_started_anew(names: Callable[[str], str]) -> None:
    """The thread binds its socket to an address when it starts; here the only one there is goes away."""
    netns = names("d")
    ip("link add vip0 type dummy", "link set vip0 up", f"address add {VIP}/32 dev vip0", netns=netns)
    director = Director(netns)
    director.hear(0.3)
    ip(f"address del {VIP}/32 dev vip0", netns=netns)
    director.hear(0.3 + replication.MUTE_PUSHES * PUSH_SECONDS)
    said = director.replication.mend()
    director.hear(0.4)
    assert director.replication.mute <= 2
    assert said is not None
    assert director.replication.mend() is None
    director.close()


def test_a_silent_master_is_not_restarted_where_there_is_nothing_to_say(names: Callable[[str], str]) -> None:
    netns = names("d")
    made = Replication(netns)
    made.open()
    made.mute = replication.MUTE_PUSHES
    assert made.mend() is None
    made.close()


def test_a_busy_connection_is_said_again_before_its_timer_is_off(
    names: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(threads.SETTINGS, "sync_refresh_period", 1)
    cluster = Cluster(names)
    end = cluster.connect(ROUTED)
    said = 0
    for _ in range(12):
        end.send(b"x")
        said += sum(records.count(d) for _, d in cluster.director.hear(0.3))
    cluster.close()
    assert 3 <= said <= 4  # at establishment, and each second: not at each packet


# --- threads and sysctls ---------------------------------------------------------------------------------------------


def test_a_stop_leaves_everything_and_a_start_finds_it(names: Callable[[str], str], tmp_path: Path) -> None:
    netns = names("d")
    kernel = Client(netns)
    first = Replication(netns, memory=tmp_path / "before.json")
    first.open()
    assert first.changes
    first.close()
    assert {(d.role, d.interface, d.sync_id, d.port) for d in kernel.daemons()} == {
        (SyncRole.MASTER, "lo", 1, 8848),
        (SyncRole.BACKUP, "lo", 2, 8849),
    }
    again = Replication(netns, memory=tmp_path / "before.json")
    again.open()
    assert again.changes == ()
    assert again.problems() == ()
    assert len(again.uninstall()) >= 2 + 3
    assert kernel.daemons() == ()
    assert sysctl.read("sync_threshold", netns) == (3, 50)
    assert sysctl.read("sync_refresh_period", netns) == 0
    assert not (tmp_path / "before.json").exists()
    kernel.close()


def test_somebody_elses_thread_is_named_and_left_alone(names: Callable[[str], str]) -> None:
    netns = names("d")
    theirs = SyncDaemon(SyncRole.BACKUP, "lo", 51)
    kernel = Client(netns)
    kernel.start_daemon(theirs)
    made = Replication(netns)
    with pytest.raises(ReplicationError, match=r"backup .* lo with sync id 51.* keepalived.*--stop-daemon backup"):
        made.open()
    made.close()
    assert [(d.role, d.sync_id) for d in kernel.daemons()] == [(SyncRole.BACKUP, 51)]
    kernel.close()


def test_a_missing_interface_is_named(names: Callable[[str], str]) -> None:
    made = Replication(names("d"), "sync9")
    with pytest.raises(ReplicationError, match="no interface sync9"):
        made.open()
    made.close()


def test_a_sysctl_that_somebody_changed_is_a_problem(directors: Callable[[], Director]) -> None:
    director = directors()
    sysctl.write("sync_threshold", (3, 50), director.netns)
    assert director.replication.problems() == ("net.ipv4.vs.sync_threshold is 3 50, should be 0 0",)


def test_what_others_depend_on_lives_on_in_the_kernel_while_they_do(directors: Callable[[], Director]) -> None:
    """As a template that came from another director, whose connection is not tied to it here."""
    director = directors()
    client, lonely = (socket.inet_aton(address) for address in ("10.9.0.1", "10.9.0.2"))
    vip, server = (socket.inet_aton(address) for address in (VIP, "10.0.0.11"))
    template = [Record(6, 0x1183, 0, each, 0, vip, 443, server, 443, 0, 60) for each in (client, lonely)]
    talking = Record(6, 0x83, 1, client, 40000, vip, 443, server, 443, 0, 900)
    director.take(records.encode([*template, talking], 2))
    time.sleep(5.0)
    given = []
    for _ in range(2 * PARTS):
        director.replication.tend()
        given += director.replication.hold()
    time.sleep(0.2)
    left = {c.client.packed: c.expires_seconds for c in connections.read(director.netns) if not c.client_port}
    assert left[client] >= 58 > 56 >= left[lonely]
    assert [r.client for d in given for r in records.decode(d).records] == [client]
