"""The pair made real, on a kernel with IPVS: every way forwards, and each injury does what it says and no more."""

import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.ipvs import SyncRole
from feedback.lab import network
from feedback.lab.job import Options
from feedback.lab.pair import frames, injury, looks
from feedback.lab.pair.injury import Death
from feedback.lab.pair.stand import PairStand, targets, udp_target
from feedback.lab.pair.topology import DIRECTORS, FLOATING, VIP, Node, heartbeat_address, pair
from feedback.lab.workload import streams
from feedback.lab.workload.streams import Plan, Stream

pytestmark = pytest.mark.lab(seconds=2)

runs = itertools.count(1)
FIRST, SECOND = DIRECTORS


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[PairStand]:
    name = f"pair{os.getpid()}x{next(runs)}"
    with PairStand(pair(name), tmp_path) as made:
        yield made
    network.remove_run(name)
    assert not list(network.NAMESPACES.glob(f"{name}-*"))


def plan() -> Plan:
    return Plan(
        targets(),
        80,
        1,
        idle=0.25,
        rate=400,
        downloads=4,
        download_seconds=1.5,
        udp=udp_target(),
        udp_flows=2,
        patience_seconds=6,
    )


def serve(stand: PairStand, *directors: Node) -> None:
    for director in directors:
        stand.machines[director.name].make_services()
    stand.take_addresses(FIRST)
    stand.wait_for_owner(FIRST)


def finished(stand: PairStand) -> list[Stream]:
    stand.wake()
    stand.wait_until_woken()
    stand.finish()
    return streams.read(stand.output / streams.FILE)


def test_every_way_forwards_and_every_byte_comes_back(stand: PairStand) -> None:
    serve(stand, FIRST)
    stand.start_client(plan())
    stand.wait_until_established()
    time.sleep(1.0)
    found = finished(stand)
    assert {stream.target for stream in found} == {"route4", "route6", "masquerade4", "masquerade6", "udp"}
    assert [stream for stream in found if not stream.survived] == []
    assert stand.machines[SECOND.name].table() == {}


@pytest.mark.long
def test_a_strict_firewall_lets_every_way_through_and_drops_what_is_not_accepted(tmp_path: Path) -> None:
    name = f"pair{os.getpid()}x{next(runs)}"
    with PairStand(pair(name), tmp_path, Options(firewall="strict")) as stand:
        serve(stand, FIRST)
        stand.start_client(plan())
        stand.wait_until_established()
        assert [stream for stream in finished(stand) if not stream.survived] == []
        with network.entered(stand.pair.namespace("client")), socket.socket() as sock:
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):  # and not refused
                sock.connect((str(VIP), 9))
    network.remove_run(name)


def test_a_dead_director_takes_every_way_with_it(stand: PairStand) -> None:
    serve(stand, FIRST)
    stand.start_client(plan())
    stand.wait_until_established()
    died = stand.strike(Death(stand.pair, FIRST), FIRST)
    stand.sleep_until(died + 0.5)
    found = finished(stand)
    assert [stream for stream in found if stream.survived and stream.kind in ("talk", "idle")] == []
    assert looks.answered_at(looks.read(stand.output / looks.FILE), looks.D1, died + 0.02) == float("inf")


@pytest.mark.long
def test_the_kernels_own_synchronisation_saves_those_that_speak_when_the_standby_was_there(stand: PairStand) -> None:
    serve(stand, FIRST, SECOND)
    stand.start_kernel_sync(SECOND, SyncRole.BACKUP)
    stand.start_kernel_sync(FIRST, SyncRole.MASTER)
    stand.start_client(plan())
    start = stand.wait_until_established()
    before = stand.visit()
    stand.sleep_until(start + 4.0)  # the last buffer waits for two seconds
    died = stand.strike(Death(stand.pair, FIRST), FIRST)
    stand.take_addresses(SECOND)
    stand.wait_for_owner(SECOND)
    stand.sleep_until(died + 1.0)
    after = stand.visit()
    found = finished(stand)
    assert [stream for stream in found if not stream.survived and stream.kind in ("talk", "idle")] == []
    assert before == after
    assert len(set(before.values())) > 1


def test_the_watcher_sees_both_where_both_answer(stand: PairStand) -> None:
    stand.take_addresses(FIRST)
    stand.wait_for_owner(FIRST)
    stand.take_addresses(SECOND)
    stand.wait_for("both answer", lambda: stand.owners() == {looks.BOTH})
    seen = looks.read(stand.output / looks.FILE)
    assert {look.address for look in seen if look.announced & looks.D2} == set(range(len(FLOATING)))


def hears(stand: PairStand, listener: Node, speaker: Node) -> bool:
    """Whether an announcement of one director on the front switch arrives at the other."""
    with network.entered(stand.pair.namespace(listener.name)):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frames.ARP))
        ear.bind(("eth0", frames.ARP))
        ear.settimeout(0.3)
    with network.entered(stand.pair.namespace(speaker.name)):
        mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        mouth.bind(("eth0", 0))
    with ear, mouth:
        mouth.send(frames.announcements(speaker.mac, speaker.front)[0])
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            try:
                said = frames.answer(ear.recv(256))
            except TimeoutError:
                return False
            if said and said.mac == speaker.mac and said.announced:
                return True
    return False


def heartbeat_passes(stand: PairStand, link: int) -> bool:
    with network.entered(stand.pair.namespace(SECOND.name)):
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.bind((str(heartbeat_address(1, link)), 9999))
        ear.settimeout(0.3)
    with network.entered(stand.pair.namespace(FIRST.name)):
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mouth.bind((str(heartbeat_address(0, link)), 0))
    with ear, mouth:
        try:
            mouth.sendto(b"alive", (str(heartbeat_address(1, link)), 9999))
            return ear.recv(16) == b"alive"
        except OSError:
            return False


def test_a_deaf_director_is_still_heard(stand: PairStand) -> None:
    assert hears(stand, SECOND, FIRST)
    injury.deafen(stand.pair, SECOND, FIRST)
    assert not hears(stand, SECOND, FIRST)
    assert hears(stand, FIRST, SECOND)
    injury.undeafen(stand.pair, SECOND)
    assert hears(stand, SECOND, FIRST)


def test_isolated_directors_reach_everybody_but_each_other(stand: PairStand) -> None:
    stand.take_addresses(FIRST)
    injury.isolate(stand.pair, True)
    assert not hears(stand, SECOND, FIRST)
    assert not hears(stand, FIRST, SECOND)
    stand.wait_for_owner(FIRST)
    injury.isolate(stand.pair, False)
    assert hears(stand, SECOND, FIRST)


def test_each_heartbeat_cable_is_cut_and_healed_by_itself(stand: PairStand) -> None:
    links = injury.heartbeat_links(stand.pair)
    links[0].cut()
    assert not heartbeat_passes(stand, 0)
    assert heartbeat_passes(stand, 1)
    links[0].heal()
    stand.wait_for("the cable works again", lambda: heartbeat_passes(stand, 0))
    for link in links:
        link.close()


def test_death_finds_every_process_of_the_director_and_nobody_else(stand: PairStand) -> None:
    namespace = stand.pair.namespace(FIRST.name)
    first = stand.processes.start("d1-one", ["sleep", "60"], namespace=namespace)
    child = stand.processes.start("d1-two", ["sh", "-c", "sleep 60 & wait"], namespace=namespace)
    stand.wait_for("its child is there", lambda: len(injury.processes_in(namespace)) == 3)
    death = Death(stand.pair, FIRST)
    assert {first.pid, child.pid} < set(death.victims)
    assert death.victims[-1] == first.pid
    stand.strike(death, FIRST)
    stand.wait_for("all are gone", lambda: not injury.processes_in(namespace))
    stand.processes.check()
