"""Drain and override on a real kernel: open connections go on, new ones go elsewhere, and it ends when they have."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
import zmq

from feedback.ipvs import Client
from tests.cli import test_table
from tests.cli.test_orders import Operator
from tests.ipvs.conftest import RealDirector
from tests.master.builders import VIRTUAL, rip
from tests.master.test_daemon import Site, run, until

netns, real = test_table.netns, test_table.real  # fixtures

pytestmark = pytest.mark.lab


@pytest.fixture
def site(real: RealDirector, tmp_path: Path) -> Site:
    """A master of this process over the kernel of the namespace; its two real servers are local there."""
    subprocess.run(["ip", "-n", real.netns, "route", "add", "local", "10.0.0.8/29", "dev", "lo"], check=True)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as probe:
        port = probe.bind_to_random_port("tcp://127.0.0.1")
    return Site(tmp_path, port, Client(real.netns))  # type: ignore[arg-type]


def active(real: RealDirector) -> list[int]:
    entry = real.kernel.snapshot().entry(VIRTUAL)
    return [entry.entry(rip(i)).active for i in (1, 2)] if entry else []  # type: ignore[union-attr]


def test_a_drained_servers_connections_go_on_and_new_ones_go_elsewhere(site: Site, real: RealDirector) -> None:
    say, answers = Operator(site), []

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        ends = [real.open() for _ in range(6)]
        assert active(real) == [3, 3]
        waiting = threading.Thread(target=lambda: answers.append(say("drain", "10.0.0.11", "--wait")))
        waiting.start()
        until(lambda: site.weights() == [0, 100])
        more = [real.open() for _ in range(4)]
        assert active(real) == [3, 7]
        for pair in (*ends, *more):
            assert pair is not None
            pair[0].sendall(b"still here")
            assert pair[1].recv(100) == b"still here"
        assert waiting.is_alive()
        for pair in ends:
            real.close(pair)
        waiting.join(20)
        assert active(real)[0] == 0
        say.json("override", "10.0.0.11", 300, "--for", "1m")
        until(lambda: site.weights() == [300, 100])

    run(site, work)
    assert answers[0].exit_code == 0, answers[0].output
    with Client(real.netns) as after:
        entry = after.snapshot().entry(VIRTUAL)
        assert entry is not None, "stopping leaves the table"
        assert entry.entry(rip(1)).destination.weight == 300  # type: ignore[union-attr]
