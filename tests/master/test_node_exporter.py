"""Debian's own node_exporter, read as the master reads it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from feedback.agent.signals.cpu import HostCpu
from feedback.config import Exporter
from feedback.master.claims.asking import Probe, Target
from feedback.master.servers.window import Window, difference
from feedback.master.shell.scrapes import Scrapes
from feedback.master.sources.reading import Unread
from feedback.wire import Report
from tests.ports import free_port

LOOPBACK = ip_address("127.0.0.1")
PROGRAM = shutil.which("prometheus-node-exporter")
READY_SECONDS = 60.0

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Debian's package prometheus-node-exporter is absent")


@contextlib.contextmanager
def node_exporter(tmp_path: Path, *arguments: str) -> Iterator[int]:
    port = free_port()
    command = [str(PROGRAM), f"--web.listen-address=127.0.0.1:{port}", *arguments]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as running:
        try:
            ends = time.monotonic() + READY_SECONDS
            while time.monotonic() < ends:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            yield port
        finally:
            running.kill()


def scraped(port: int, times: int, seconds: float) -> list[Report | Unread]:
    async def scenario() -> list[Report | Unread]:
        asked, of = Scrapes(), Exporter(port=port, timeout_seconds=10.0)
        made = []
        for number in range(times):
            await asyncio.sleep(seconds if number else 0)
            made.append(await asked.read(of, Probe(Target(LOOPBACK, port), of)))
        asked.close()
        return made

    return asyncio.run(scenario())


def test_its_pages_say_what_an_agent_of_this_host_says(tmp_path: Path) -> None:
    with node_exporter(tmp_path) as port:
        before = HostCpu().sample(0.0)
        made = scraped(port, 2, 0.5)
        after = HostCpu().sample(0.0)
    first, second = made
    assert isinstance(first, Report) and isinstance(second, Report), made
    assert first.cpu.cores == before.cores
    assert before.busy_seconds - 0.1 <= first.cpu.busy_seconds <= second.cpu.busy_seconds <= after.busy_seconds + 0.1
    assert first.connections is not None and second.connections is not None
    assert second.memory.available > 0
    window = difference(first, second, 0.0, second.sampled_at - first.sampled_at)
    assert isinstance(window, Window) and window.seconds >= 0.5


def test_one_without_all_the_collectors_is_read_all_the_same(tmp_path: Path) -> None:
    with node_exporter(tmp_path, "--no-collector.pressure", "--no-collector.vmstat") as port:
        (made,) = scraped(port, 1, 0)
    assert isinstance(made, Report) and made.pressure is None, made
