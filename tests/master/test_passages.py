"""Passages: marks for checks that go through the service; what is ours is kept, what is not is never touched."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from feedback.config import ConfigError, MasterConfig, parse
from feedback.ipvs import FakeKernel
from feedback.master.claims.asking import Passage, Probe
from feedback.master.claims.health import Unasked
from feedback.master.controller import Controller
from feedback.master.passages import Passages
from feedback.model import (
    CHECK_MARKS,
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Family,
    Forward,
    RemoveService,
    Service,
    ServiceFlags,
    ServiceKey,
    TunnelType,
)

RIPS = [ip_address(f"10.0.0.{10 + i}") for i in range(1, 5)]


def passage(i: int, forward: Forward = Forward.ROUTE, tunnel: TunnelType = TunnelType.IPIP) -> Passage:
    return Passage(Family.IPV4, RIPS[i], forward, tunnel, 0, 0)


class Bench:
    def __init__(self) -> None:
        self.passages, self.kernel = Passages(), FakeKernel()

    def turn(self, *wanted: Passage) -> list[Edit]:
        self.passages.look(self.kernel.snapshot())
        edits = self.passages.edits(wanted)
        assert self.kernel.apply(edits) == ()
        return edits

    def marks(self) -> list[int]:
        return sorted(s.service.key.fwmark for s in self.kernel.snapshot().services)


def test_a_mark_is_handed_out_when_the_kernel_has_its_destination_and_not_before() -> None:
    bench = Bench()
    bench.turn(passage(0), passage(1))
    assert bench.passages.mark(passage(0)) is None
    assert bench.turn(passage(0), passage(1)) == []
    marks = {bench.passages.mark(passage(i)) for i in (0, 1)}
    assert marks == set(bench.marks()) == {CHECK_MARKS[0], CHECK_MARKS[1]}
    for entry in bench.kernel.snapshot().services:
        (destination,) = entry.destinations
        assert bench.passages.mark(Passage.of(Family.IPV4, destination.destination)) == entry.service.key.fwmark


def test_what_nobody_wants_goes_and_the_others_keep_their_marks() -> None:
    bench = Bench()
    for _ in range(2):
        bench.turn(passage(0), passage(1), passage(2))
    kept = bench.passages.mark(passage(1))
    bench.turn(passage(1))
    assert bench.marks() == [kept]
    assert (bench.passages.mark(passage(0)), bench.passages.mark(passage(1))) == (None, kept)
    bench.turn(passage(1), passage(3))
    bench.turn()
    assert bench.marks() == []


def test_a_server_that_is_reached_another_way_gets_another_mark() -> None:
    bench = Bench()
    bench.turn(passage(0))
    for _ in range(2):
        bench.turn(passage(0, Forward.TUNNEL, TunnelType.GRE))
    (entry,) = bench.kernel.snapshot().services
    assert entry.destinations[0].destination.tunnel_type is TunnelType.GRE


def test_a_restarted_master_finds_its_own_and_removes_what_a_crash_left() -> None:
    bench = Bench()
    for _ in range(2):
        bench.turn(passage(0), passage(1))
    mark = bench.passages.mark(passage(1))
    bench.passages = Passages()
    bench.turn(passage(1))
    assert (bench.marks(), bench.passages.mark(passage(1))) == ([mark], mark)


@pytest.mark.parametrize(
    "service, destinations",
    [
        (Service(ServiceKey.marked(CHECK_MARKS[0]), "wlc", ServiceFlags.ONE_PACKET), 1),
        (Service(ServiceKey.marked(CHECK_MARKS[0]), "rr"), 1),
        (Service(ServiceKey.marked(CHECK_MARKS[0]), "rr", ServiceFlags.ONE_PACKET), 2),
    ],
)
def test_what_somebody_else_made_in_our_range_is_left_and_its_mark_not_used(
    service: Service, destinations: int
) -> None:
    bench = Bench()
    theirs = [AddDestination(service.key, Destination(DestinationKey(RIPS[i], 0))) for i in range(destinations)]
    bench.kernel.apply([AddService(service), *theirs])
    for _ in range(2):
        bench.turn(passage(0))
    assert bench.passages.mark(passage(0)) == CHECK_MARKS[1]
    bench.turn()
    assert bench.marks() == [CHECK_MARKS[0]]
    assert len(bench.kernel.snapshot().services[0].destinations) == destinations


def test_one_of_ours_that_somebody_changed_is_made_anew() -> None:
    bench = Bench()
    bench.turn(passage(0))
    (entry,) = bench.kernel.snapshot().services
    bench.kernel.apply([AddDestination(entry.service.key, Destination(DestinationKey(RIPS[1], 0)))])
    bench.turn(passage(0))
    bench.turn(passage(0))
    made = bench.passages.mark(passage(0))
    assert made is not None and made != entry.service.key.fwmark  # with two destinations it is not ours any more


CONFIG = """
[[service]]
virtual = "tcp:10.0.0.100:80"
check = {{ through = "service" }}
forward = "{forward}"
[[service.destination]]
address = "10.0.0.11"
[[service.destination]]
address = "10.0.0.12"
"""
SECOND = CONFIG.replace("10.0.0.100:80", "10.0.0.101:80")


class Master:
    def __init__(self, text: str) -> None:
        self.controller, self.kernel, self.now = Controller(parse(text, MasterConfig)), FakeKernel(), 0.0

    def turn(self) -> list[Probe]:
        self.now += 0.2
        self.controller.receive_kernel(self.kernel.snapshot(), self.now)
        assert self.kernel.apply(self.controller.decide(self.now).edits) == ()
        return self.controller.probes(self.now)

    def probes(self, turns: int = 8) -> list[Probe]:
        return [probe for _ in range(turns) for probe in self.turn()]


def test_a_check_through_the_service_goes_to_the_vip_with_the_mark_of_its_server() -> None:
    master = Master(CONFIG.format(forward="route"))
    probes = {str(p.target.address): p for p in master.probes()}
    marks = {
        str(s.destinations[0].destination.key.address): s.service.key.fwmark
        for s in master.kernel.snapshot().services
        if s.service.key.fwmark in CHECK_MARKS
    }
    assert {address: p.mark for address, p in probes.items()} == marks and len(marks) == 2
    assert all(p.target.connect_to == (ip_address("10.0.0.100"), 80) for p in probes.values())


def test_two_vips_of_a_server_are_two_probes_by_one_mark() -> None:
    master = Master(CONFIG.format(forward="route") + SECOND.format(forward="route"))
    probes = master.probes()
    assert len({(p.target.address, p.target.connect_to) for p in probes}) == len(probes) == 4
    assert len({p.mark for p in probes}) == 2


def test_masquerading_is_asked_at_the_rip_which_is_where_its_packets_go() -> None:
    master = Master(CONFIG.format(forward="masquerade"))
    assert {(p.mark, p.target.connect_to) for p in master.probes()} == {(0, (RIPS[0], 80)), (0, (RIPS[1], 80))}
    assert [s.service.key.fwmark for s in master.kernel.snapshot().services] == [0]


def test_a_probe_waits_for_its_mark_and_is_not_lost() -> None:
    master = Master(CONFIG.format(forward="route"))
    assert master.probes()
    for entry in master.kernel.snapshot().services:
        if entry.service.key.fwmark in CHECK_MARKS:
            master.kernel.apply([RemoveService(entry.service.key)])
    asked = master.probes(turns=20)
    assert {p.mark for p in asked} <= set(CHECK_MARKS)


def test_what_could_not_be_asked_says_why_and_nothing_of_the_server() -> None:
    master = Master(CONFIG.format(forward="route"))
    for probe in master.probes():
        master.controller.receive_probe(probe, Unasked("accept_local is 0", "sysctl -w accept_local=1"), master.now)
    (service,) = master.controller.decide(master.now).services
    assert [d.checked.text for d in service.destinations if d.checked] == ["not asked: accept_local is 0"] * 2
    assert [d.weight for d in service.destinations] == [100, 100]


def test_adopted_services_do_not_include_our_own_and_a_stop_takes_them_away() -> None:
    text = 'ownership = "weights"\n[[service]]\nvirtual = "tcp:10.0.0.100:80"\ncheck = { through = "service" }\n'
    master = Master(text)
    key = ServiceKey.parse("tcp:10.0.0.100:80")
    master.kernel.apply([AddService(Service(key)), AddDestination(key, Destination(DestinationKey(RIPS[0], 80)))])
    probes = master.probes()
    assert probes and all(p.mark for p in probes)
    everything = Controller(parse('ownership = "weights"\n', MasterConfig))
    everything.receive_kernel(master.kernel.snapshot(), 0.0)
    assert [s.service.key for s in everything.decide(0.0).services] == [key]
    master.kernel.apply(master.controller.withdrawal(master.kernel.snapshot()))
    assert [s.service.key for s in master.kernel.snapshot().services] == [key]


@pytest.mark.parametrize(
    "text, error",
    [
        (
            'virtual = "fwmark:7"\ncheck = { through = "service", port = 80 }',
            r"check: through = \"service\" needs a VIP",
        ),
        (f'virtual = "fwmark:{CHECK_MARKS[5]}"', "the marks 0x4c560000 to 0x4c56ffff are for our own checks"),
        ('virtual = "tcp:10.0.0.1:80"\ncheck = { through = "vip" }', "through: 'vip': expected one of rip, service"),
        (
            'virtual = "tcp:10.0.0.1:80"\ncheck = { through = "service", type = "exec", command = ["/bin/true"] }',
            "cannot go through the service",
        ),
    ],
)
def test_what_cannot_go_through_a_service_is_refused_in_one_line(text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        parse(f"[[service]]\n{text}\n", MasterConfig)
    assert "\n" not in str(caught.value)


def test_with_a_namespace_of_its_own_the_table_is_out_of_reach() -> None:
    with pytest.raises(ConfigError, match="with netns, checks go out in another namespace"):
        parse('netns = "d1"\n' + CONFIG.format(forward="route"), MasterConfig)
