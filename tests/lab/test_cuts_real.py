"""The cutter on a real kernel: by every way to the real servers, clients are told, and nobody else is."""

from __future__ import annotations

import itertools
import os
import queue
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import pytest

from feedback.ipvs import sysctl
from feedback.lab import network
from feedback.lab.pair.stand import PairStand, targets, udp_target
from feedback.lab.pair.topology import DIRECTORS, ROUTE_PORT, VIP, pair
from feedback.lab.workload import waiting
from feedback.lab.workload.streams import Plan
from feedback.master.cuts.course import Cut, Do, Told
from feedback.master.shell.cutter import Cutter
from feedback.model import Destination, Forward, Protocol, RemoveDestination, ServiceKey, SetDestination

pytestmark = pytest.mark.lab(seconds=2.5)

runs = itertools.count(1)
FIRST = DIRECTORS[0]
CONNECTIONS = 120
MANY, UDP_FLOWS = 10_000, 60


@pytest.fixture
def served(tmp_path: Path) -> Iterator[PairStand]:
    """The first director has the addresses and every service."""
    name = f"cut{os.getpid()}x{next(runs)}"
    with PairStand(pair(name), tmp_path) as made:
        made.machines[FIRST.name].make_services()
        made.take_addresses(FIRST)
        made.wait_for_owner(FIRST)
        sysctl.write("expire_nodest_conn", 1, made.pair.namespace(FIRST.name))
        yield made
    network.remove_run(name)


@pytest.fixture
def stand(served: PairStand) -> PairStand:
    """And its clients are connected."""
    served.start_waiting(Plan(targets(), CONNECTIONS, 1))
    served.wait_until_established()
    return served


class Cutting:
    """A cutter in the director's namespace, and what it said."""

    def __init__(self, stand: PairStand) -> None:
        self.said: queue.Queue[Told] = queue.Queue()
        self.cutter = Cutter(stand.pair.namespace(FIRST.name), self.said.put)
        self.ipvs = stand.machines[FIRST.name].ipvs  # type: ignore[attr-defined]

    def destinations(self, number: int) -> list[tuple[ServiceKey, Destination]]:
        """Of the server with this number, in every TCP service."""
        return [
            (entry.service.key, each.destination)
            for entry in self.ipvs.snapshot().services
            for each in entry.destinations
            if entry.service.key.protocol is Protocol.TCP and int(each.destination.key.address) & 0xFF == number
        ]

    def do(self, what: Do, places: list[tuple[ServiceKey, Destination]], *, both: bool = False) -> list[Told]:
        self.cutter.do([Cut(what, service, destination, both) for service, destination in places])
        return [self.said.get(timeout=60) for _ in places]


def established(stand: PairStand, server: str) -> int:
    """TCP connections of a real server's port, by its own kernel."""
    count = 0
    with network.entered(stand.pair.namespace(server)):
        for table in ("tcp", "tcp6"):
            rows = Path("/proc/thread-self/net", table).read_text(encoding="ascii").splitlines()[1:]
            count += sum(row.split()[3] == "01" for row in rows)
    return count


def unanswered(stand: PairStand) -> int:
    """Datagrams that the client sent less those that it got: each is answered once, by a server that lives."""
    with network.entered(stand.pair.namespace("client")):
        rows = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (row.split()[1:] for row in rows if row.startswith("Udp:"))
    counts = dict(zip(names, map(int, values), strict=True))
    return counts["OutDatagrams"] - counts["InDatagrams"]


@pytest.mark.parametrize("both", [True, pytest.param(False, marks=pytest.mark.long)])
def test_every_idle_client_of_a_removed_server_is_told_and_nobody_else(stand: PairStand, both: bool) -> None:
    cutting = Cutting(stand)
    places = cutting.destinations(stand.pair.servers[0].number)
    before = established(stand, "r1")
    listed = cutting.do(Do.LIST, places)
    assert sum(told.flows for told in listed) == before > CONNECTIONS / 4
    assert not cutting.ipvs.apply([RemoveDestination(service, each.key) for service, each in places])
    told = cutting.do(Do.CUT, places, both=both)
    summaries = [t.summary for t in told if t.summary is not None]
    assert sum(s.told for s in summaries) == before and max(s.seconds for s in summaries) < 0.5
    stand.sleep_until(stand.now() + 0.3)
    assert established(stand, "r1") == (0 if both else before)
    stand.wake()
    stand.processes.wait("client", 60.0)
    found = waiting.read(stand.output / waiting.FILE)
    mine = [w for w in found if w.servers == ["r1"]]
    assert len(mine) == before and all(w.told == "ECONNRESET" for w in mine)
    assert {w.target for w in mine} == {"route4", "route6", "masquerade4", "masquerade6"}
    assert all(not w.told and w.woken for w in found if w.servers != ["r1"])
    cutting.cutter.close()


@pytest.mark.long
def test_ten_thousand_flows_are_cut_and_nobody_else_loses_a_packet(served: PairStand) -> None:
    served.start_waiting(Plan(targets(), 3 * MANY, 1, udp=udp_target(), udp_flows=UDP_FLOWS))
    served.wait_until_established(300.0)
    cutting = Cutting(served)
    places = cutting.destinations(served.pair.servers[0].number)
    before = established(served, "r1")
    assert before > 0.9 * MANY
    cutting.do(Do.LIST, places)
    assert not cutting.ipvs.apply([RemoveDestination(service, each.key) for service, each in places])
    told = cutting.do(Do.CUT, places)
    assert sum(t.summary.told for t in told if t.summary is not None) == before
    served.wait_for("an answer to every datagram", lambda: unanswered(served) == 0)
    served.wake()
    served.processes.wait("client", 60.0)
    found = waiting.read(served.output / waiting.FILE)
    tcp, udp = [w for w in found if w.kind == "tcp"], [w for w in found if w.kind == "udp"]
    assert {w.told for w in tcp if w.servers == ["r1"]} == {"ECONNRESET"}
    others = Counter((w.told, w.woken) for w in tcp if w.servers != ["r1"])
    assert others == {("", True): 3 * MANY - before}
    assert len(udp) == UDP_FLOWS and all(len(w.servers) == 1 for w in udp)
    cutting.cutter.close()


def test_healthy_clients_take_no_notice_of_a_poke(stand: PairStand) -> None:
    cutting = Cutting(stand)
    places = cutting.destinations(stand.pair.servers[0].number)
    cutting.do(Do.LIST, places)
    told = cutting.do(Do.CUT, places)  # but they are in the table yet: their answers go to their server
    assert [t.summary.told for t in told if t.summary is not None] == [0] * len(places)
    stand.wake()
    stand.processes.wait("client", 60.0)
    found = waiting.read(stand.output / waiting.FILE)
    assert len(found) == CONNECTIONS and all(not w.told and w.woken for w in found)
    cutting.cutter.close()


def test_clients_that_write_between_the_removal_and_the_poke_end_at_both_ends(stand: PairStand) -> None:
    cutting = Cutting(stand)
    places = cutting.destinations(stand.pair.servers[0].number)
    before = established(stand, "r1")
    cutting.do(Do.LIST, places)
    assert not cutting.ipvs.apply([RemoveDestination(service, each.key) for service, each in places])
    stand.wake()
    stand.sleep_until(stand.now() + 0.5)  # sent again after 0.2 s: the first segment may only have ended the entry
    told = cutting.do(Do.CUT, places, both=True)
    assert sum(t.summary.told for t in told if t.summary is not None) == before > CONNECTIONS / 4
    stand.sleep_until(stand.now() + 0.3)
    assert established(stand, "r1") == 0
    stand.processes.wait("client", 60.0)
    found = waiting.read(stand.output / waiting.FILE)
    assert {w.told for w in found if w.servers == ["r1"]} == {"ECONNRESET"}
    cutting.cutter.close()


@pytest.mark.long
def test_a_client_that_has_gone_is_not_waited_for(stand: PairStand) -> None:
    cutting = Cutting(stand)
    places = cutting.destinations(stand.pair.servers[0].number)
    cutting.do(Do.LIST, places)
    stand.processes.kill("client")  # its kernel says RST to whoever asks
    assert not cutting.ipvs.apply([RemoveDestination(service, each.key) for service, each in places])
    told = cutting.do(Do.CUT, places)
    assert sum(t.summary.gone + t.summary.told for t in told if t.summary is not None) > 0
    assert sum(t.summary.silent for t in told if t.summary is not None) == 0
    assert ip_address("10.77.0.100") in {service.address for service, _ in places}
    cutting.cutter.close()


def test_the_flows_of_some_clients_end_at_both_ends_and_nothing_leaves_the_table(stand: PairStand) -> None:
    cutting = Cutting(stand)
    chosen = {4: ip_network("10.77.1.0/30"), 6: ip_network("fd77::100/126")}  # three of the eight addresses of each
    places = cutting.destinations(stand.pair.servers[0].number)
    before, table = established(stand, "r1"), cutting.ipvs.snapshot()
    told = []
    for service, destination in places:
        assert service.address is not None
        cut = Cut(Do.SOME, service, destination, clients=chosen[service.address.version])
        cutting.cutter.do([cut])
        told.append(cutting.said.get(timeout=60))
    summaries = [t.summary for t in told if t.summary is not None]
    ended = sum(s.told for s in summaries)
    assert 0 < ended < before and sum(s.silent + s.gone for s in summaries) == 0
    stand.sleep_until(stand.now() + 0.3)
    assert established(stand, "r1") == before - ended
    after = cutting.ipvs.snapshot()
    assert [[d.destination for d in s.destinations] for s in after.services] == [
        [d.destination for d in s.destinations] for s in table.services
    ]
    stand.wake()
    stand.processes.wait("client", 60.0)
    found = waiting.read(stand.output / waiting.FILE)
    assert sum(w.told == "ECONNRESET" for w in found) == ended
    assert all(w.woken for w in found if not w.told)
    assert {w.servers[0] for w in found if w.told} == {"r1"}
    assert {w.target for w in found if w.told} == {"route4", "route6"}  # masqueraded clients are of another network
    cutting.cutter.close()


@pytest.mark.long
def test_a_server_behind_a_tunnel_hears_of_the_end_too(served: PairStand) -> None:
    cutting = Cutting(served)
    for server in served.pair.servers:
        network.run_ip(served.pair.namespace(server.name), "link", "set", "tunl0", "up")
    tunnelled = [
        SetDestination(entry.service.key, msgspec.structs.replace(each.destination, forward=Forward.TUNNEL))
        for entry in cutting.ipvs.snapshot().services
        for each in entry.destinations
        if str(entry.service.key) == f"tcp:{VIP}:{ROUTE_PORT}"
    ]
    assert len(tunnelled) == 3 and not cutting.ipvs.apply(tunnelled)
    served.start_waiting(Plan(targets()[:1], 30, 1))
    served.wait_until_established()
    places = [
        (e.service, e.destination) for e in tunnelled if e.destination.key.address == served.pair.servers[0].front
    ]
    before = established(served, "r1")
    cutting.do(Do.LIST, places)
    assert not cutting.ipvs.apply([RemoveDestination(service, each.key) for service, each in places])
    (told,) = cutting.do(Do.CUT, places, both=True)
    assert told.summary is not None and told.summary.told == before > 5
    served.sleep_until(served.now() + 0.3)
    assert established(served, "r1") == 0
    cutting.cutter.close()
