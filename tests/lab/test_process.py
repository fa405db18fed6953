"""Processes of a run: a signal reaches a handler, however late the process comes to it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.lab import process
from feedback.lab.error import LabError
from feedback.lab.process import Processes
from feedback.lab.workload.server import Settings
from tests.ports import free_port

LATE = """
import signal, sys, time
time.sleep(0.3)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    yield made
    made.stop_all()


def test_a_signal_waits_for_its_handler(processes: Processes) -> None:
    processes.start("late", [sys.executable, "-c", LATE])
    processes.signal("late", signal.SIGUSR1)
    processes.wait("late", 60)  # raises where the signal ended it


def test_one_that_is_blocked_for_later_is_handled(processes: Processes) -> None:
    started = processes.start("late", [sys.executable, "-c", LATE])
    processes.signal("late", signal.SIGUSR2)
    time.sleep(0.1)
    assert started.poll() is None


def test_who_handles_it_never_is_told(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CATCH_SECONDS", 0.2)
    processes.start("deaf", ["sleep", "20"])
    with pytest.raises(LabError, match="deaf does not handle SIGHUP"):
        processes.signal("deaf", signal.SIGHUP)
    processes.signal("deaf", signal.SIGSTOP)  # nobody can handle these
    processes.signal("deaf", signal.SIGCONT)


def test_who_ends_while_it_is_waited_for_is_told(processes: Processes) -> None:
    processes.start("gone", [sys.executable, "-c", "import sys; sys.exit('no room')"])
    with pytest.raises(LabError, match="gone ended with 1: no room"):
        processes.signal("gone", signal.SIGHUP)


def test_a_server_that_listens_can_be_told_to_fail(tmp_path: Path) -> None:
    """The moment at which it listens is the earliest at which anybody does."""
    port = free_port()
    settings = Settings(name="rs1", port=port, turns_per_ms=1.0)
    # As on a crowded processor: whatever comes after the call is late.
    slow = (
        "import socket, sys, time, runpy\nfrom unittest import mock\nlisten = socket.socket.listen\n"
        "def late(self, *a):\n    listen(self, *a)\n    time.sleep(1)\n"
        "sys.argv = sys.argv[1:]\nwith mock.patch('socket.socket.listen', late):\n"
        "    runpy.run_module('feedback.lab.workload.server', run_name='__main__')\n"
    )
    server = subprocess.Popen([sys.executable, "-c", slow, "server", settings.encode()])
    try:
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline
            with socket.socket() as client:
                client.settimeout(60)
                if client.connect_ex(("127.0.0.1", port)):
                    time.sleep(0.01)
                    continue
                server.send_signal(signal.SIGUSR1)
                client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 500")
                break
    finally:
        server.kill()
        server.wait()
