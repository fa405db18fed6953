"""The contract: the same cases against `FakeKernel` and, marked lab, against the real kernel."""

from __future__ import annotations

import errno
import random
import time
from ipaddress import IPv4Address, ip_address

import msgspec
import pytest

from feedback.ipvs import FakeKernel, Kernel, Overload, Refused, SyncDaemon, SyncRole, Timeouts
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Family,
    Forward,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    TunnelType,
)
from tests.ipvs.conftest import WEB, Director, FakeDirector

DNS6 = ServiceKey.parse("udp:[2001:db8::100]:53")
HASHED, PERSISTENT = ServiceFlags.HASHED, ServiceFlags.PERSISTENT


def rip(number: int, port: int = 80) -> DestinationKey:
    return DestinationKey.parse(f"10.1.{number // 250}.{number % 250 + 1}:{port}")


def replace(destination: Destination, **fields: object) -> Destination:
    return msgspec.structs.replace(destination, **fields)


def done(kernel: Kernel, *edits: Edit) -> None:
    assert kernel.apply(edits) == ()


def refused(kernel: Kernel, edit: Edit) -> int:
    (failure,) = kernel.apply([edit])
    assert failure.edit == edit
    assert errno.errorcode[failure.errno] in failure.text
    return failure.errno


def web(kernel: Kernel, *destinations: Destination, scheduler: str = "wlc") -> None:
    done(kernel, AddService(Service(WEB, scheduler)), *(AddDestination(WEB, d) for d in destinations))


def only(kernel: Kernel) -> DestinationEntry:
    (entry,) = kernel.destinations(WEB)
    return entry


# --- nothing is lost in reading --------------------------------------------------------------------------------------

SERVICES = {
    "tcp": Service(WEB, "sed"),
    "udp on IPv6": Service(DNS6, "wrr"),
    "sctp": Service(ServiceKey.parse("sctp:10.0.0.100:9"), "rr"),
    "tcp on IPv6": Service(ServiceKey.parse("tcp:[2001:db8::100]:443"), "lc"),
    "fwmark": Service(ServiceKey.marked(7), "wlc"),
    "fwmark on IPv6": Service(ServiceKey.marked(2**32 - 1, Family.IPV6), "nq"),
    "persistent": Service(WEB, "rr", PERSISTENT, 300),
    "persistent by network": Service(WEB, "rr", PERSISTENT, 300, 24),
    "persistent by no address at all": Service(WEB, "rr", PERSISTENT, 300, 0),
    "persistent by a mask that is no prefix": Service(WEB, "rr", PERSISTENT, 300, IPv4Address("255.0.255.0")),
    "persistent by IPv6 network": Service(DNS6, "rr", PERSISTENT, 86400 * 31, 64),
    "one packet": Service(DNS6, "rr", ServiceFlags.ONE_PACKET),
    "scheduler flags": Service(WEB, "sh", ServiceFlags.SCHED1 | ServiceFlags.SCHED2 | ServiceFlags.SCHED3),
    "a netmask without persistence": Service(WEB, "rr", netmask=8),
    "every port": Service(ServiceKey.parse("tcp:10.0.0.100:0"), "rr", PERSISTENT, 60),
}


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_a_service_comes_back_as_it_was_added(kernel: Kernel, service: Service) -> None:
    done(kernel, AddService(service))
    (entry,) = kernel.snapshot().services
    assert entry.service == msgspec.structs.replace(service, flags=service.flags | HASHED)
    assert entry.destinations == ()
    assert kernel.services() == (entry,)


DESTINATIONS = {
    "direct routing": Destination(rip(1), 5, Forward.ROUTE),
    "masquerading to another port": Destination(rip(1, 8080), 5, Forward.MASQUERADE),
    "bypass": Destination(rip(1), 5, Forward.BYPASS),
    "local": Destination(rip(1), 5, Forward.LOCAL),
    "thresholds": Destination(rip(1), 5, Forward.ROUTE, 1000, 750),
    "weight 0": Destination(rip(1), 0),
    "the largest values": Destination(rip(1), 2**31 - 1, Forward.ROUTE, 2**31 - 1, 2**31 - 1),
    "ipip": Destination(rip(1), 1, Forward.TUNNEL),
    "gue": Destination(rip(1), 1, Forward.TUNNEL, 0, 0, TunnelType.GUE, 6080, 1),
    "gre": Destination(rip(1), 1, Forward.TUNNEL, 9, 5, TunnelType.GRE, 0, 2),
    "a tunnel to the other family": Destination(DestinationKey.parse("[2001:db8::9]:80"), 1, Forward.TUNNEL),
}


@pytest.mark.parametrize("destination", DESTINATIONS.values(), ids=DESTINATIONS)
def test_a_destination_comes_back_as_it_was_added_and_as_it_was_set(kernel: Kernel, destination: Destination) -> None:
    web(kernel, destination)
    assert only(kernel) == DestinationEntry(destination)
    done(kernel, SetDestination(WEB, replace(destination, weight=77)))
    assert only(kernel).destination == replace(destination, weight=77)


def test_ipv6_and_fwmark_destinations_come_back(kernel: Kernel) -> None:
    mark = ServiceKey.marked(7)
    six = Destination(DestinationKey.parse("[2001:db8::9]:53"), 3, Forward.MASQUERADE, 10, 5)
    four = Destination(rip(3, 0), 4, Forward.ROUTE)
    done(kernel, AddService(Service(DNS6, "rr")), AddService(Service(mark, "rr")))
    done(kernel, AddDestination(DNS6, six), AddDestination(mark, four))
    snapshot = kernel.snapshot()
    for key, destination in ((DNS6, six), (mark, four)):
        entry = snapshot.entry(key)
        assert entry is not None
        assert entry.destinations == (DestinationEntry(destination),)


def test_a_new_destination_is_at_the_head_of_the_list(kernel: Kernel) -> None:
    web(kernel, *(Destination(rip(n)) for n in range(3)))
    assert [e.destination.key for e in kernel.destinations(WEB)] == [rip(2), rip(1), rip(0)]
    done(kernel, SetDestination(WEB, Destination(rip(0), 9)))
    assert [e.destination.key for e in kernel.destinations(WEB)] == [rip(2), rip(1), rip(0)]


# --- a set replaces the whole record ---------------------------------------------------------------------------------


def test_a_weight_only_edit_keeps_thresholds_forwarding_and_tunnel(kernel: Kernel) -> None:
    before = Destination(rip(1), 5, Forward.TUNNEL, 100, 75, TunnelType.GUE, 6080, 1)
    web(kernel, before)
    done(kernel, SetDestination(WEB, replace(only(kernel).destination, weight=6)))
    assert only(kernel).destination == replace(before, weight=6)


def test_a_set_replaces_everything(kernel: Kernel) -> None:
    web(kernel, Destination(rip(1), 5, Forward.TUNNEL, 100, 75, TunnelType.GUE, 6080, 1))
    bare = Destination(rip(1), 6, Forward.ROUTE)
    done(kernel, SetDestination(WEB, bare))
    assert only(kernel).destination == bare


def test_a_service_is_replaced_and_keeps_its_destinations(kernel: Kernel) -> None:
    done(kernel, AddService(Service(WEB, "rr", PERSISTENT, 300, 24)), AddDestination(WEB, Destination(rip(1))))
    done(kernel, SetService(Service(WEB, "wlc")))
    (entry,) = kernel.snapshot().services
    assert entry.service == Service(WEB, "wlc", HASHED)
    assert len(entry.destinations) == 1


# --- errno for errno -------------------------------------------------------------------------------------------------

HELD = Destination(rip(1), 5, Forward.ROUTE, 10, 5)
UNKNOWN = ServiceKey.parse("tcp:10.0.0.100:81")
BROADCAST = DestinationKey.parse("255.255.255.255:80")
SIX = DestinationKey.parse("[2001:db8::9]:80")

REFUSALS: dict[str, tuple[Edit, int]] = {
    "a service that is there": (AddService(Service(WEB, "rr")), errno.EEXIST),
    "a scheduler that is not": (AddService(Service(UNKNOWN, "nonsense")), errno.ENOENT),
    "an engine that is not": (AddService(Service(UNKNOWN, "rr", pe_name="nonsense")), errno.ENOENT),
    "an IPv6 prefix of 0": (AddService(Service(DNS6, "rr", netmask=0)), errno.EINVAL),
    "setting no service": (SetService(Service(UNKNOWN, "rr")), errno.ESRCH),
    "setting a scheduler that is not": (SetService(Service(WEB, "nonsense")), errno.ENOENT),
    "removing no service": (RemoveService(UNKNOWN), errno.ESRCH),
    "adding to no service": (AddDestination(UNKNOWN, HELD), errno.ESRCH),
    "a destination that is there": (AddDestination(WEB, HELD), errno.EEXIST),
    "setting no destination": (SetDestination(WEB, Destination(rip(2))), errno.ENOENT),
    "removing no destination": (RemoveDestination(WEB, rip(2)), errno.ENOENT),
    "removing from no service": (RemoveDestination(UNKNOWN, rip(1)), errno.ESRCH),
    "another port is another destination": (RemoveDestination(WEB, rip(1, 81)), errno.ENOENT),
    "lower above upper": (SetDestination(WEB, replace(HELD, lower=11)), errno.ERANGE),
    "lower without upper": (SetDestination(WEB, replace(HELD, upper=0, lower=1)), errno.ERANGE),
    "adding lower above upper": (AddDestination(WEB, Destination(rip(2), upper=1, lower=2)), errno.ERANGE),
    "a negative weight": (SetDestination(WEB, replace(HELD, weight=-1)), errno.ERANGE),
    "a weight beyond an int": (SetDestination(WEB, replace(HELD, weight=2**31)), errno.EINVAL),
    "a negative threshold": (SetDestination(WEB, replace(HELD, upper=-1)), errno.EINVAL),
    "a GUE tunnel without a port": (
        SetDestination(WEB, replace(HELD, forward=Forward.TUNNEL, tunnel_type=TunnelType.GUE)),
        errno.EINVAL,
    ),
    "the other family without a tunnel": (AddDestination(WEB, Destination(SIX)), errno.EINVAL),
    "a multicast address": (AddDestination(WEB, Destination(DestinationKey.parse("224.0.0.1:80"))), errno.EINVAL),
    "the broadcast address": (
        AddDestination(WEB, Destination(DestinationKey.parse("255.255.255.255:80"))),
        errno.EINVAL,
    ),
    "no address": (AddDestination(WEB, Destination(DestinationKey.parse("0.0.0.0:80"))), errno.EINVAL),
}


@pytest.mark.parametrize(("edit", "code"), REFUSALS.values(), ids=REFUSALS)
def test_the_kernel_refuses(kernel: Kernel, edit: Edit, code: int) -> None:
    web(kernel, HELD)
    before = kernel.snapshot()
    assert errno.errorcode[refused(kernel, edit)] == errno.errorcode[code]
    assert kernel.snapshot() == before


def test_an_error_in_mid_batch_is_of_its_own_edit_and_the_others_are_done(kernel: Kernel) -> None:
    web(kernel, *(Destination(rip(n)) for n in range(6)))
    edits: list[Edit] = [
        SetDestination(WEB, Destination(rip(0), 10)),
        SetDestination(WEB, Destination(rip(77), 10)),
        SetDestination(WEB, Destination(rip(1), 11)),
        SetDestination(WEB, Destination(rip(2), 12, upper=1, lower=2)),
        SetDestination(WEB, Destination(rip(3), 2**31)),
        RemoveDestination(UNKNOWN, rip(0)),
        SetDestination(WEB, Destination(rip(4), 14)),
        RemoveDestination(WEB, rip(5)),
    ]
    failures = kernel.apply(edits)
    assert [(f.edit, f.errno) for f in failures] == [
        (edits[1], errno.ENOENT),
        (edits[3], errno.ERANGE),
        (edits[4], errno.EINVAL),
        (edits[5], errno.ESRCH),
    ]
    weights = {e.destination.key: e.destination.weight for e in kernel.destinations(WEB)}
    assert weights == {rip(0): 10, rip(1): 11, rip(2): 1, rip(3): 1, rip(4): 14}


def test_edits_are_done_in_their_order(kernel: Kernel) -> None:
    done(
        kernel,
        AddService(Service(WEB, "rr")),
        AddDestination(WEB, Destination(rip(1), 1)),
        SetDestination(WEB, Destination(rip(1), 2)),
        RemoveDestination(WEB, rip(1)),
        AddDestination(WEB, Destination(rip(1), 3)),
        SetService(Service(WEB, "wlc")),
    )
    assert only(kernel).destination.weight == 3


def test_three_thousand_edits_at_once(kernel: Kernel) -> None:
    count = 3000
    web(kernel, *(Destination(rip(n), 1) for n in range(count)))
    done(kernel, *(SetDestination(WEB, Destination(rip(n), n + 2, upper=9)) for n in range(count)))
    entry = kernel.snapshot().entry(WEB)
    assert entry is not None
    found = {e.destination.key: e.destination for e in entry.destinations}
    assert found == {rip(n): Destination(rip(n), n + 2, upper=9) for n in range(count)}
    assert len(entry.destinations) == count


def test_every_edit_of_a_large_batch_may_fail(kernel: Kernel) -> None:
    """Each failure is an answer in the socket's buffer: 277 of them fill one of the usual size."""
    web(kernel)
    edits = [SetDestination(WEB, Destination(rip(n))) for n in range(2500)]
    failures = kernel.apply(edits)
    assert [f.edit for f in failures] == edits
    assert {f.errno for f in failures} == {errno.ENOENT}


def test_an_empty_table_and_an_unknown_service_have_nothing(kernel: Kernel) -> None:
    assert kernel.snapshot().services == ()
    assert kernel.services() == ()
    assert kernel.destinations(WEB) == ()
    assert kernel.apply([]) == ()


# --- timeouts, daemons, info, zero -----------------------------------------------------------------------------------


def test_the_version_is_known(kernel: Kernel) -> None:
    web(kernel)  # since 7.1 a namespace without a service has no table
    info = kernel.info()
    assert info.version >= (1, 2, 1)
    assert info.connection_table_size >= 256


def test_timeouts_are_set_each_alone(kernel: Kernel) -> None:
    assert kernel.timeouts() == Timeouts(900, 120, 300)
    kernel.set_timeouts(Timeouts(tcp_fin_seconds=30))
    assert kernel.timeouts() == Timeouts(900, 30, 300)
    kernel.set_timeouts(Timeouts(600, 60, 100))
    kernel.set_timeouts(Timeouts())
    assert kernel.timeouts() == Timeouts(600, 60, 100)
    with pytest.raises(Refused) as caught:
        kernel.set_timeouts(Timeouts(udp_seconds=2**31))
    assert caught.value.errno == errno.EINVAL
    assert kernel.timeouts() == Timeouts(600, 60, 100)


def test_both_sync_daemons_run_at_once_and_each_once(kernel: Kernel) -> None:
    group = ip_address("224.0.0.81")
    kernel.start_daemon(SyncDaemon(SyncRole.MASTER, "lo", 7))
    assert kernel.daemons() == (SyncDaemon(SyncRole.MASTER, "lo", 7, 1472, group, 8848, 1),)
    own = SyncDaemon(SyncRole.BACKUP, "lo", 9, 1400, ip_address("239.1.2.3"), 9999, 4)
    kernel.start_daemon(own)
    assert kernel.daemons()[1:] == (own,)
    for running in SyncRole:
        with pytest.raises(Refused, match="stop it first") as caught:
            kernel.start_daemon(SyncDaemon(running, "lo", 7))
        assert caught.value.errno == errno.EEXIST
    kernel.stop_daemon(SyncRole.MASTER)
    assert kernel.daemons() == (own,)
    kernel.stop_daemon(SyncRole.BACKUP)
    assert kernel.daemons() == ()
    for stopped in SyncRole:
        with pytest.raises(Refused) as caught:
            kernel.stop_daemon(stopped)
        assert caught.value.errno == errno.ESRCH


def test_a_daemon_on_no_interface_is_refused(kernel: Kernel) -> None:
    with pytest.raises(Refused, match="no such interface") as caught:
        kernel.start_daemon(SyncDaemon(SyncRole.MASTER, "nosuch0"))
    assert caught.value.errno == errno.ENODEV


def test_daemons_and_destinations_of_the_other_family_exclude_one_another(kernel: Kernel) -> None:
    other = AddDestination(WEB, Destination(SIX, 1, Forward.TUNNEL))
    web(kernel)
    kernel.start_daemon(SyncDaemon(SyncRole.BACKUP, "lo"))
    assert refused(kernel, other) == errno.EINVAL
    kernel.stop_daemon(SyncRole.BACKUP)
    done(kernel, other)
    with pytest.raises(Refused) as caught:
        kernel.start_daemon(SyncDaemon(SyncRole.BACKUP, "lo"))
    assert caught.value.errno == errno.EINVAL


# --- connections -----------------------------------------------------------------------------------------------------


def counted(director: Director, connections: int) -> int:
    """The connections that the counters show, after at most the two seconds that the kernel takes to refresh them."""
    deadline = time.monotonic() + 60
    while (shown := only(director.kernel).counters.connections) != connections and time.monotonic() < deadline:
        time.sleep(0.1)
    return shown


def test_connections_are_active_then_inactive_and_counted(director: Director) -> None:
    kernel = director.kernel
    web(kernel, Destination(rip(1)))
    connections = [director.open() for _ in range(3)]
    assert all(connections)
    assert (only(kernel).active, only(kernel).inactive) == (3, 0)
    director.close(connections[0])
    assert (only(kernel).active, only(kernel).inactive) == (2, 1)
    assert counted(director, 3) == 3
    kernel.zero(WEB)
    assert (only(kernel).counters.connections, only(kernel).active) == (0, 2)
    kernel.zero()
    with pytest.raises(Refused) as caught:
        kernel.zero(UNKNOWN)
    assert caught.value.errno == errno.ESRCH


def test_a_destination_that_comes_back_has_its_connections(director: Director) -> None:
    kernel = director.kernel
    web(kernel, Destination(rip(1)))
    held = [director.open() for _ in range(3)]
    assert counted(director, 3) == 3
    done(kernel, RemoveDestination(WEB, rip(1)), AddDestination(WEB, Destination(rip(1), 2)))
    assert (only(kernel).active, only(kernel).counters.connections) == (3, 3)
    done(kernel, RemoveService(WEB), AddService(Service(WEB, "rr")), AddDestination(WEB, Destination(rip(1))))
    assert only(kernel).active == 3
    assert counted(director, 0) == 0
    assert all(held)


def test_weight_zero_takes_no_new_connection_and_keeps_those_it_has(director: Director) -> None:
    web(director.kernel, Destination(rip(1)))
    held = director.open()
    assert held
    done(director.kernel, SetDestination(WEB, Destination(rip(1), 0)))
    assert director.open() is None
    assert only(director.kernel).active == 1


def choices(director: Director, scheduler: str, seed: int, steps: int) -> str:
    """Which destination each connection went to, among openings, closings and edits drawn from the seed."""
    draw = random.Random(seed)
    kernel = director.kernel
    web(kernel, *(Destination(rip(n), draw.randint(1, 9)) for n in range(4)), scheduler=scheduler)
    held: list[object] = []
    trace = ""
    for _ in range(steps):
        act = draw.random()
        if act < 0.15 and held:
            director.close(held.pop(draw.randrange(len(held))))
        elif act < 0.25:
            upper = draw.choice([0, 0, 6])
            done(kernel, SetDestination(WEB, Destination(rip(draw.randrange(4)), draw.randint(0, 9), upper=upper)))
        elif act < 0.3:
            gone = rip(draw.randrange(4))
            done(kernel, RemoveDestination(WEB, gone), AddDestination(WEB, Destination(gone, draw.randint(1, 9))))
        else:
            trace += opened(director, held)
    return trace


def opened(director: Director, held: list[object]) -> str:
    """The number of the destination that a new connection went to, by its count; - if it was refused."""
    before = {e.destination.key: e.active for e in director.kernel.destinations(WEB)}
    connection = director.open()
    if connection is None:
        return "-"
    held.append(connection)
    grown = [e.destination.key for e in director.kernel.destinations(WEB) if e.active > before[e.destination.key]]
    (chosen,) = grown
    return str(int(chosen.address) & 0xFF)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("scheduler", ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"])
def test_the_fake_chooses_as_the_kernel_does(director: Director, scheduler: str, seed: int) -> None:
    trace = choices(director, scheduler, seed, 60)
    fakes = set()
    for overload in Overload:  # which of the two a kernel is, only its effects show
        fake = FakeDirector()
        fake.kernel = FakeKernel(overload=overload)
        fakes.add(choices(fake, scheduler, seed, 60))
    assert trace in fakes
    assert len(set(trace)) > 1


def thresholds(director: Director) -> str:
    """What a series of edits of the thresholds lets in: + and - for each connection tried."""
    kernel = director.kernel
    target = Destination(rip(1), upper=4)
    web(kernel, target)
    held: list[object] = []
    trace = ""
    for fields, tries in [
        ({}, 5),
        ({"weight": 2}, 1),  # the same thresholds: nothing changes
        ({"upper": 5}, 2),  # one more: old kernels open at once
        ({"upper": 50}, 2),
        ({"upper": 2}, 2),  # lowered under the count: old kernels leak one
        ({"upper": 0}, 1),  # none
        ({"upper": 100, "lower": 3}, 1),
        ({"upper": 6, "lower": 3}, 2),
    ]:
        target = replace(target, **fields)
        done(kernel, SetDestination(WEB, target))
        for _ in range(tries):
            connection = director.open()
            held.append(connection)
            trace += "-" if connection is None else "+"
    return trace


def test_thresholds_are_those_of_an_old_or_of_a_new_kernel(director: Director) -> None:
    fakes = {}
    for overload in Overload:
        fake = FakeDirector()
        fake.kernel = FakeKernel(overload=overload)
        fakes[thresholds(fake)] = overload
    assert len(fakes) == 2
    assert thresholds(director) in fakes
