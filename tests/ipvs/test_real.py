"""What only a real kernel can show: torn dumps, capabilities, namespaces, ipvsadm, sysctls, the connection table."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from socket import socket

import pytest

from feedback.ipvs import Client, NotPermitted, TornDump, connections, encoding, sysctl
from feedback.ipvs import channel as channel_module
from feedback.ipvs.channel import Dump
from feedback.ipvs.listed import Listed
from feedback.ipvs.namespace import within
from feedback.ipvs.netlink import Message
from feedback.ipvs.numbers import Command
from feedback.ipvs.text import format_table, parse
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Forward,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    TunnelType,
)
from tests.ipvs.conftest import WEB, RealDirector

pytestmark = pytest.mark.lab


def rip(number: int) -> DestinationKey:
    return DestinationKey.parse(f"10.1.{number // 250}.{number % 250 + 1}:80")


def fill(client: Client, count: int, service: ServiceKey = WEB) -> None:
    edits: list[Edit] = [AddService(Service(service, "wlc"))]
    edits += [AddDestination(service, Destination(rip(n))) for n in range(count)]
    assert client.apply(edits) == ()


# --- torn dumps ------------------------------------------------------------------------------------------------------

Meddle = Callable[[], None]


@pytest.fixture
def meddled(real: RealDirector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Sequence[Meddle]], Client]]:
    """A client into whose dumps another writer comes: behind each datagram that is full of destinations the next of the
    given changes is made."""
    reader = Client(real.netns)
    receive = channel_module._receive

    def arm(changes: Sequence[Meddle]) -> Client:
        left = list(changes)

        def between(sock: socket) -> Iterator[Message]:
            messages = list(receive(sock))
            if left and len(messages) > 50:  # not one of the writer's own acknowledgements
                left.pop(0)()
            return iter(messages)

        monkeypatch.setattr(channel_module, "_receive", between)
        return reader

    yield arm
    reader.close()


def removals(writer: Client, first: int, count: int) -> Meddle:
    return lambda: _done(writer, [RemoveDestination(WEB, rip(n)) for n in range(first, first + count)])


def additions(writer: Client, first: int, count: int) -> Meddle:
    return lambda: _done(writer, [AddDestination(WEB, Destination(rip(n))) for n in range(first, first + count)])


def _done(writer: Client, edits: Sequence[Edit]) -> None:
    assert writer.apply(edits) == ()


def numbers(client: Client) -> list[int]:
    addresses = [int(e.destination.key.address) - int(rip(0).address) for e in client.destinations(WEB)]
    return [a // 256 * 250 + a % 256 for a in addresses]


def raw(client: Client) -> list[object]:
    """One dump as it comes: what a reader that notices nothing would believe."""
    dump = client._channel.dump(Command.GET_DEST, encoding.encode_service_key(WEB))
    assert dump.datagrams > 1
    return [client._reader.mark(body) for body in dump.bodies]


def test_a_removal_in_mid_dump_hides_live_destinations_and_is_noticed(
    real: RealDirector, meddled: Callable[[Sequence[Meddle]], Client]
) -> None:
    count = 300
    fill(real.kernel, count)
    # The newest are at the head: these have been dumped when they go, and five others slip past the cursor.
    torn = raw(meddled([removals(real.kernel, count - 5, 5)]))
    assert len(torn) == count - 5  # with the five that are gone
    missing = set(range(count - 5)) - set(_named(torn))
    assert len(missing) == 5, "this kernel does not tear a dump: the test shows nothing"
    additions(real.kernel, count - 5, 5)()
    client = meddled([removals(real.kernel, count - 5, 5)])
    assert sorted(numbers(client)) == list(range(count - 5))


def _named(marks: Sequence[object]) -> list[int]:
    found = []
    for mark in marks:
        assert isinstance(mark, tuple)
        offset = int.from_bytes(mark[0][:4], "big") - int(rip(0).address)
        found.append(offset // 256 * 250 + offset % 256)
    return found


def test_an_addition_in_mid_dump_doubles_destinations_and_is_noticed(
    real: RealDirector, meddled: Callable[[Sequence[Meddle]], Client]
) -> None:
    fill(real.kernel, 300)
    torn = raw(meddled([additions(real.kernel, 300, 5)]))
    assert len(torn) == 305
    assert len(set(torn)) == 300, "this kernel does not tear a dump: the test shows nothing"
    client = meddled([additions(real.kernel, 305, 5)])
    assert sorted(numbers(client)) == list(range(310))


def test_a_table_that_changes_in_every_dump_is_torn(
    real: RealDirector, meddled: Callable[[Sequence[Meddle]], Client]
) -> None:
    fill(real.kernel, 300)
    client = meddled([additions(real.kernel, 300 + n, 1) for n in range(200)])
    with pytest.raises(TornDump):
        client.snapshot()


@pytest.mark.parametrize("service", [WEB, ServiceKey.marked(7), ServiceKey.parse("udp:10.0.0.100:53")], ids=str)
def test_what_the_kernel_lists_is_what_it_dumps(real: RealDirector, service: ServiceKey) -> None:
    listed = Listed(real.netns)
    assert listed.destinations(service) is None
    fill(real.kernel, 0, service)
    assert listed.destinations(service) == []
    _done(real.kernel, [AddDestination(service, Destination(rip(n))) for n in range(300)])
    found = [(key.address.packed, key.port.to_bytes(2, "big")) for key in _keys(real.kernel, service)]
    assert listed.destinations(service) == found
    listed.close()


def test_the_kernel_lists_nothing_of_ipv6(real: RealDirector) -> None:
    """So there two dumps must agree."""
    service = ServiceKey.parse("tcp:[2001:db8::100]:80")
    keys = [DestinationKey.parse(f"[2001:db8::1:{n}]:80") for n in range(1, 200)]
    _done(real.kernel, [AddService(Service(service, "wlc")), *(AddDestination(service, Destination(k)) for k in keys)])
    listed = Listed(real.netns)
    assert listed.destinations(service) is None
    assert sorted(_keys(real.kernel, service)) == sorted(keys)
    listed.close()


def _keys(client: Client, service: ServiceKey) -> list[DestinationKey]:
    return [entry.destination.key for entry in client.destinations(service)]


def test_a_writer_in_step_with_every_reading_is_noticed(
    monkeypatch: pytest.MonkeyPatch, real: RealDirector, meddled: Callable[[Sequence[Meddle]], Client]
) -> None:
    """Each dump loses the same three of 300, and holds the three that go: they agree, and are as many as there were."""
    fill(real.kernel, 303)

    def remove() -> None:  # at each datagram; there is something to remove at the first
        real.kernel.apply([RemoveDestination(WEB, rip(n)) for n in range(300, 303)])

    client = meddled([remove] * 1000)
    dump = client._dump_destinations

    def in_step(service: ServiceKey) -> Dump:
        real.kernel.apply([AddDestination(WEB, Destination(rip(n))) for n in range(300, 303)])
        return dump(service)

    monkeypatch.setattr(client, "_dump_destinations", in_step)
    with pytest.raises(TornDump):
        client.destinations(WEB)


def test_a_snapshot_under_a_busy_writer_never_loses_a_destination_that_stays(real: RealDirector) -> None:
    """The writer is a thread of its own and hits where it will."""
    fill(real.kernel, 300)
    stop = threading.Event()
    churned = [0]

    def churn() -> None:
        with Client(real.netns) as writer:
            while not stop.wait(0.005):
                additions(writer, 300, 3)()
                stop.wait(0.005)
                removals(writer, 300, 3)()
                churned[0] += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for taken in itertools.count():
            if taken >= 30 and (churned[0] > 3 or not thread.is_alive()):
                break
            try:
                found = numbers(real.kernel)
            except TornDump:
                continue
            assert set(range(300)) <= set(found)
            assert len(found) == len(set(found))
    finally:
        stop.set()
        thread.join()
    assert churned[0] > 3


# --- capabilities and namespaces -------------------------------------------------------------------------------------

CAP_NET_ADMIN = 12
PR_SET_KEEPCAPS = 8


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def become_nobody(capabilities: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    both = (_Data * 2)(_Data(capabilities, capabilities, 0), _Data(0, 0, 0))
    assert libc.capset(ctypes.byref(_Header(0x20080522, 0)), both) == 0, ctypes.get_errno()


def in_child(netns: str, work: Callable[[], str]) -> str:
    """What `work` says in a child process that has gone into the namespace and will not come back."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            path = os.open(f"/run/netns/{netns}", os.O_RDONLY)
            assert ctypes.CDLL(None).setns(path, 0) == 0
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_user_that_kept_the_capability_may_do_everything(real: RealDirector) -> None:
    fill(real.kernel, 3)

    def work() -> str:
        become_nobody(1 << CAP_NET_ADMIN)
        assert os.geteuid() == 65534
        with Client() as client:
            assert client.apply([SetDestination(WEB, Destination(rip(n), 7)) for n in range(3)]) == ()
            sysctl.write("sync_threshold", (2, 40))
            return f"{len(client.destinations(WEB))} {sysctl.read('sync_threshold')}"

    assert in_child(real.netns, work) == "3 (2, 40)"
    assert {e.destination.weight for e in real.kernel.destinations(WEB)} == {7}


def test_without_the_capability_a_new_client_is_not_permitted(real: RealDirector) -> None:
    def work() -> str:
        become_nobody(0)
        Client().snapshot()
        return "permitted"

    said = in_child(real.netns, work)
    assert said.startswith("NotPermitted")
    assert "CAP_NET_ADMIN in the initial user namespace" in said


def test_a_client_that_was_opened_by_root_is_not_permitted_after_the_capability_is_gone(real: RealDirector) -> None:
    fill(real.kernel, 1)

    def work() -> str:
        client = Client()
        before = len(client.destinations(WEB))
        become_nobody(0)
        said = str(before)
        asks: list[Callable[[], object]] = [
            client.snapshot,
            lambda: client.apply([SetDestination(WEB, Destination(rip(0), 2))]),
            client.zero,
        ]
        for ask in asks:
            try:
                ask()
            except NotPermitted:
                said += " refused"
        return said

    assert in_child(real.netns, work) == "1 refused refused refused"


def test_the_callers_thread_never_leaves_its_namespace(real: RealDirector) -> None:
    own = Path("/proc/thread-self/ns/net").readlink()
    seen: list[bool] = []

    def work() -> None:
        for _ in range(5):
            with Client(real.netns) as client:
                seen.append(client.info().version >= (1, 2, 1))
            seen.append(Path("/proc/thread-self/ns/net").readlink() == own)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 40
    assert within(real.netns, Path("/proc/thread-self/ns/net").readlink) != own


def test_tables_of_two_namespaces_are_apart_and_a_path_names_one_too(real: RealDirector) -> None:
    fill(real.kernel, 2)
    with Client() as outside, Client(f"/run/netns/{real.netns}") as inside:
        assert outside.snapshot().entry(WEB) is None
        assert len(inside.destinations(WEB)) == 2


def test_one_client_is_shared_by_threads(real: RealDirector) -> None:
    fill(real.kernel, 40)
    failures: list[object] = []

    def work(number: int) -> None:
        for weight in range(1, 30):
            failures.extend(real.kernel.apply([SetDestination(WEB, Destination(rip(number), weight))]))
            if len(real.kernel.destinations(WEB)) != 40:
                failures.append("lost")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- ipvsadm, sysctls, the connection table --------------------------------------------------------------------------


def ipvsadm(netns: str, *words: str, feed: str = "") -> str:
    command = ["ip", "netns", "exec", netns, "ipvsadm", *words]
    return subprocess.run(command, input=feed, text=True, capture_output=True, check=True).stdout


def test_what_we_write_ipvsadm_reads_and_the_other_way_round(real: RealDirector) -> None:
    mark, six = ServiceKey.marked(9), ServiceKey.parse("tcp:[2001:db8::100]:80")
    edits: list[Edit] = [
        AddService(Service(WEB, "sh", ServiceFlags.PERSISTENT | ServiceFlags.SCHED1 | ServiceFlags.SCHED2, 300, 24)),
        AddDestination(WEB, Destination(rip(1), 5, Forward.ROUTE, 9, 4)),
        AddDestination(WEB, Destination(rip(2), 0, Forward.MASQUERADE, 9)),
        AddDestination(WEB, Destination(rip(3), 1, Forward.TUNNEL, 0, 0, TunnelType.GUE, 6080, 2)),
        AddDestination(WEB, Destination(rip(4), 1, Forward.TUNNEL, 0, 0, TunnelType.GRE, 0, 1)),
        AddService(Service(mark, "rr", ServiceFlags.ONE_PACKET)),
        AddDestination(mark, Destination(DestinationKey.parse("10.1.0.7:0"), 3)),
        AddService(Service(six, "wlc", ServiceFlags.PERSISTENT, 60, 64)),
        AddDestination(six, Destination(DestinationKey.parse("[2001:db8::7]:80"), 2)),
    ]
    assert real.kernel.apply(edits) == ()
    before = real.kernel.snapshot()
    text = format_table(before)
    assert real.kernel.apply([RemoveService(key) for key in (WEB, mark, six)]) == ()
    ipvsadm(real.netns, "-R", feed=text)
    after = real.kernel.snapshot()
    for key in (WEB, mark, six):
        assert after.entry(key) == before.entry(key)
    # ipvsadm -S leaves the thresholds out, but of services it says all.
    saved = {e for e in parse(ipvsadm(real.netns, "-Sn")) if isinstance(e, AddService)}
    assert saved == {e for e in parse(text) if isinstance(e, AddService)}


def test_a_sysctl_is_of_its_namespace(real: RealDirector) -> None:
    assert sysctl.read("sync_threshold", real.netns) == (3, 50)
    sysctl.write("sync_threshold", (2, 40), real.netns)
    sysctl.write("conn_reuse_mode", 3, real.netns)
    assert sysctl.read("sync_threshold", real.netns) == (2, 40)
    settings = sysctl.read_all(real.netns)
    assert (settings["sync_threshold"], settings["conn_reuse_mode"]) == ((2, 40), 3)
    with pytest.raises(sysctl.SysctlError, match="does not take '60 50'"):
        sysctl.write("sync_threshold", (60, 50), real.netns)
    with pytest.raises(sysctl.SysctlError, match="no such setting"):
        sysctl.read("nonsense", real.netns)
    with pytest.raises(sysctl.SysctlError, match="not the name"):
        sysctl.read("../../ip_forward", real.netns)


@pytest.mark.parametrize("with_origin", [False, True])
def test_a_connection_is_in_the_table_of_its_namespace(real: RealDirector, with_origin: bool) -> None:
    fill(real.kernel, 1)
    assert real.open()
    (only,) = connections.read(real.netns, with_origin=with_origin)
    assert (only.protocol, str(only.virtual), only.virtual_port) == ("TCP", "10.0.0.100", 80)
    assert (only.destination, only.destination_port, only.state) == (rip(0).address, 80, "ESTABLISHED")
    assert only.origin == ("LOCAL" if with_origin else "")
    assert 890 <= only.expires_seconds <= 900
    assert connections.read() == ()
