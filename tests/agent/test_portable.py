"""The signals that psutil tells, on a system that has nothing of Linux's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from feedback.agent.signals.cpu import HostCpu
from feedback.agent.signals.files import SignalError
from feedback.agent.signals.memory import HostMemory
from feedback.agent.signals.portable import PortableCpu, PortableMemory, PortableTraffic
from feedback.config import AgentConfig, ConfigError, parse
from tests.agent.test_daemon import DEADLINE_SECONDS, Place, until

# The agent on a system of POSIX alone: what only Linux has is taken out of the modules, and whoever opens a file of
# /proc or /sys is turned away, but for psutil.
ELSEWHERE = """
import os, select, socket, sys, psutil, zmq
for module, names in ((os, "pipe2 eventfd memfd_create pidfd_open sched_getaffinity"), (select, "epoll"),
                      (socket, "AF_NETLINK AF_PACKET SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED")):
    for name in names.split():
        vars(module).pop(name, None)
sys.platform = os.environ["PLATFORM"]

def hook(event, arguments):
    if event == "open" and str(arguments[0]).startswith(("/proc", "/sys")):
        frame = sys._getframe(1)
        while frame is not None:
            if "psutil" in frame.f_code.co_filename:
                return
            frame = frame.f_back
        raise PermissionError(f"opened {arguments[0]}")

sys.addaudithook(hook)
from feedback.cli.entry import main
main()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.notify.close()


def start(place: Place, platform: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ELSEWHERE, "agent", "--config", place.config]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PLATFORM": platform})


@pytest.mark.parametrize(("signals", "platform"), [("portable", "linux"), ("auto", "freebsd14")])
def test_an_agent_that_has_nothing_of_linux_reports_what_psutil_tells(
    place: Place, signals: str, platform: str
) -> None:
    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0], more=f'signals = "{signals}"\nports = [80]')
            process = start(place, platform)
            try:
                await until(lambda: len(place.heard) > 3 or process.poll() is not None, "reports")
            finally:
                process.terminate()
                err = process.communicate(timeout=DEADLINE_SECONDS)[1]
            assert process.returncode == 0, err
            first, last = place.heard[0], place.heard[-1]
            assert last.cpu.cores == psutil.cpu_count()
            assert last.cpu.busy_seconds >= first.cpu.busy_seconds > 0
            assert last.memory.total == psutil.virtual_memory().total
            assert last.memory.total > last.memory.available > 0
            assert (last.pressure, last.connections, last.listeners) == (None, None, ())
            assert "absent=\"['pressure', 'connections', 'listeners', 'pressure-trigger']\"" in err

    asyncio.run(scenario())


def test_psutil_and_linux_own_files_agree() -> None:
    ours, theirs = HostCpu().sample(0.0), PortableCpu().sample(0.0)
    assert theirs.cores == ours.cores
    assert theirs.busy_seconds == pytest.approx(ours.busy_seconds, rel=0.01)
    assert theirs.steal_seconds == pytest.approx(ours.steal_seconds, rel=0.1, abs=1)
    assert theirs.resolution_seconds == ours.resolution_seconds
    memory, portable = HostMemory().sample(0.0), PortableMemory().sample(0.0)
    assert portable.total == memory.total
    assert portable.available == pytest.approx(memory.available, rel=0.1)
    assert portable.swap_in_pages == memory.swap_in_pages


def test_swap_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []

    class Swap:
        sin = 8 * 4096

    monkeypatch.setattr(psutil, "swap_memory", lambda: looks.append(None) or Swap)  # type: ignore[func-returns-value]
    source = PortableMemory()
    assert [source.sample(at).swap_in_pages for at in (0.0, 0.2, 0.9, 1.1)] == [8] * 4
    assert len(looks) == 2


def test_packets_that_come_are_counted() -> None:
    assert (PortableTraffic().sample() or 0) > 0


def refuse(*_: object) -> None:
    raise OSError("not permitted")


def test_what_psutil_cannot_read_is_a_failed_signal_but_for_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "swap_memory", refuse)
    assert PortableMemory().sample(0.0).swap_in_pages is None
    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    with pytest.raises(SignalError, match=r"psutil\.virtual_memory: not permitted"):
        PortableMemory().sample(0.0)
    monkeypatch.setattr(psutil, "cpu_times", refuse)
    with pytest.raises(SignalError, match=r"psutil\.cpu_times: not permitted"):
        PortableCpu().sample(0.0)


@pytest.mark.parametrize("more", ['cgroup = "/sys/fs/cgroup/a"', 'service_cgroup = "/sys/fs/cgroup/a"'])
def test_portable_signals_have_no_cgroup(more: str) -> None:
    text = (
        f'name = "rs1"\naddresses = ["10.0.0.11"]\nsignals = "portable"\n{more}\n'
        f'[[master]]\nendpoint = "tcp://127.0.0.1:9"\npublic_key = "{"x" * 40}"\n'
    )
    with pytest.raises(ConfigError, match="signals: portable ones have no cgroup"):
        parse(text, AgentConfig)
