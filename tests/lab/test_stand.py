"""The cluster made real, on a kernel with IPVS: forwarding, quotas, and what is left afterwards."""

import errno
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.lab import cgroup, network
from feedback.lab.stand import Stand
from feedback.lab.topology import Topology, pool
from feedback.lab.workload import records
from feedback.lab.workload.load import Load
from feedback.model import Forward

pytestmark = pytest.mark.lab(seconds=1.5)

runs = itertools.count(1)


@pytest.fixture
def run() -> Iterator[str]:
    name = f"test{os.getpid()}x{next(runs)}"
    yield name
    network.remove_run(name)
    cgroup.remove_run(name)
    assert not list(network.NAMESPACES.glob(f"{name}-*"))
    assert not cgroup.run_directory(name).exists()


def load(topology: Topology, **changes: float) -> Load:
    values = {"rate": 50.0, "seconds": 2.0, "seed": 1, "cost_ms": 0.0, **changes}
    return Load(str(topology.vip), topology.port, **values)  # type: ignore[arg-type]


def play(stand: Stand, work: Load) -> list[records.Record]:
    stand.start_client(work, time.monotonic() + 0.3)
    stand.processes.wait("client", work.seconds + 30)
    return records.read(stand.output / "client.records")


@pytest.mark.parametrize("forward", [Forward.ROUTE, Forward.MASQUERADE])
def test_every_real_server_answers_through_the_director(run: str, tmp_path: Path, forward: Forward) -> None:
    topology = pool(run, (0.3, 0.3), forward)
    with Stand(topology, tmp_path) as stand:
        stand.make_service("wrr", (1, 1))
        stand.wait_for_servers()
        answers = play(stand, load(topology))
    assert len(answers) > 50
    assert all(answer.ok for answer in answers)
    assert {answer.server for answer in answers} == {1, 2}


def test_a_quota_is_the_capacity(run: str, tmp_path: Path) -> None:
    """40 requests of 10 ms ask for twice what 0.2 of a core can do."""
    topology = pool(run, (0.2,))
    with Stand(topology, tmp_path) as stand:
        stand.make_service("wrr", (1,))
        stand.wait_for_servers()
        before, began = cgroup.usage_seconds(stand.groups["rs1"]), time.monotonic()
        play(stand, load(topology, rate=40, seconds=5, cost_ms=10))
        used = (cgroup.usage_seconds(stand.groups["rs1"]) - before) / (time.monotonic() - began)
    assert used == pytest.approx(0.2, rel=0.15)


def test_a_hog_waits_for_its_moment(run: str, tmp_path: Path) -> None:
    topology = pool(run, (0.2,))
    with Stand(topology, tmp_path) as stand:
        hog = stand.start_hog(topology.servers[0])
        group = stand.groups["rs1"] / "neighbour"
        before = cgroup.usage_seconds(group)
        time.sleep(0.3)
        assert cgroup.usage_seconds(group) - before < 0.005
        stand.release(hog)
        time.sleep(1.0)
        assert cgroup.usage_seconds(group) - before > 0.1


def test_a_broken_server_answers_at_once_with_an_error_and_a_mended_one_works(run: str, tmp_path: Path) -> None:
    topology = pool(run, (0.3,))
    work = load(topology, cost_ms=5, seconds=0.5)
    with Stand(topology, tmp_path) as stand:
        stand.make_service("wrr", (1,))
        stand.wait_for_servers()
        stand.break_server(topology.servers[0])
        broken = play(stand, work)
        stand.mend_server(topology.servers[0])
        mended = play(stand, work)[len(broken) :]
    assert {answer.status for answer in broken} == {500}
    assert {answer.status for answer in mended} == {200}


def test_a_closed_server_refuses_at_once_until_it_is_started_again(run: str, tmp_path: Path) -> None:
    topology = pool(run, (0.3,))
    work = load(topology, seconds=0.5)
    with Stand(topology, tmp_path) as stand:
        stand.make_service("wrr", (1,))
        stand.wait_for_servers()
        stand.close_server(topology.servers[0])
        closed = play(stand, work)
        stand.start_server(topology.servers[0], prompt=True)
        stand.wait_for_servers()
        again = play(stand, work)[len(closed) :]
        inside = (stand.groups[topology.servers[0].name] / "service" / "cgroup.procs").read_text().split()
        assert inside == [str(stand.processes.running[topology.servers[0].name].pid)]
    assert {answer.status for answer in closed} == {-errno.ECONNREFUSED}
    assert {answer.status for answer in again} == {200}


def test_a_service_without_room_refuses_at_once(run: str, tmp_path: Path) -> None:
    topology = pool(run, (0.3,))
    with Stand(topology, tmp_path) as stand:
        stand.make_service("sed", (0,))
        stand.wait_for_servers()
        answers = play(stand, load(topology, seconds=0.5))
    assert {answer.status for answer in answers} == {-errno.ECONNREFUSED}
    assert max(answer.latency_seconds for answer in answers) < 0.5


def test_open_connections_fill_the_memory_until_the_kernel_kills_and_the_supervisor_starts_again(
    run: str, tmp_path: Path
) -> None:
    """30 connections of 1 MB, where a third of that is left."""
    topology = pool(run, (0.5,))
    small = topology.servers[0]
    ends: list[int] = []

    def again(status: int) -> None:
        ends.append(status)
        stand.start_server(small)

    with Stand(topology, tmp_path, connection_bytes=1 << 20) as stand:
        stand.make_service("wrr", (1,))
        cgroup.limit_memory(stand.groups["rs1"], 32 << 20)
        stand.processes.may_die("rs1", again)
        stand.wait_for_servers()
        assert play(stand, load(topology, rate=10, seconds=0.5))
        stand.processes.check()
        assert ends == []
        play(stand, load(topology, rate=60, seconds=1, hold_seconds=5, timeout_seconds=1.5))
        stand.processes.check()
        stand.wait_for_servers()
        assert cgroup.oom_kills(stand.groups["rs1"]) == len(ends) == 1
    assert ends == [-9]
