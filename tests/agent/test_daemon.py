"""The agent as a process: starts, streams, reloads, stops. Real sockets, a real notify socket, no root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from feedback import wire
from feedback.agent.daemon import Daemon
from feedback.agent.signals.sampler import Sampler
from feedback.cli.agent import agent as command
from feedback.master.shell.link import Link
from feedback.ops import keys

DEADLINE_SECONDS = 60.0


class Place:
    """One real server: its files, its notify socket, and what a master heard."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "agent.toml"
        self.socket = directory / "application.sock"
        for role in ("agent", "master"):
            keys.create(directory / role)
        keys.enroll(directory / "agents", "rs1", keys.read_public(directory / "agent.key"), ("10.0.0.11",))
        self.heard: list[wire.Report] = []
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.bind(str(directory / "notify"))
        self.told: list[dict[str, str]] = []

    def write(self, endpoint: str, interval_seconds: float = 0.05, more: str = "") -> None:
        self.config.write_text(
            f'name = "rs1"\naddresses = ["10.0.0.11"]\nkey = "{self.directory / "agent.key_secret"}"\n'
            f'interval_seconds = {interval_seconds}\nsocket = "{self.socket}"\n{more}\n'
            f'[[master]]\nendpoint = "{endpoint}"\npublic_key = "{keys.read_public(self.directory / "master.key")}"\n'
        )

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        pair = keys.load_secret(self.directory / "master.key_secret")
        link = Link(
            ["tcp://127.0.0.1:0"],
            pair,
            self.directory / "agents",
            lambda reports: [self.heard.append(r) for r, _ in reports],
        )
        link.open()
        try:
            yield link
        finally:
            link.close()

    def start(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from feedback.cli.entry import main; main()", "agent", "--config", self.config],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": str(self.directory / "notify"), **environment},
        )

    def told_of(self, key: str) -> bool:
        while True:
            try:
                data = self.notify.recv(4096).decode()
            except BlockingIOError:
                return any(key in message for message in self.told)
            self.told.append(dict(line.split("=", 1) for line in data.split("\n")))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.notify.close()


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.01)


def fed(place: Place) -> int:
    return sum("WATCHDOG" in message for message in place.told)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Stop it kindly: exit status and what it logged."""
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, err


def test_it_reports_raw_counters_and_stops_clean(place: Place, processes: list[subprocess.Popen[str]]) -> None:
    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0])
            processes.append(place.start())
            await until(lambda: len(place.heard) > 5, "reports")
            await until(lambda: place.told_of("READY"), "ready")
            assert link.counters == {"accepted": len(place.heard)}
            first, last = place.heard[0], place.heard[-1]
            assert last.sequence > first.sequence
            assert last.boot == first.boot
            assert last.sampled_at > first.sampled_at
            assert last.cpu.busy_seconds >= first.cpu.busy_seconds > 0
            assert last.memory.total > last.memory.available > 0
            status, _ = end(processes[0])
            assert status == 0
            assert place.told_of("STOPPING")
            assert not place.socket.exists()

    run(scenario())


def test_an_application_is_heard_by_the_master(place: Place, processes: list[subprocess.Popen[str]]) -> None:
    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0])
            processes.append(place.start())
            await until(lambda: place.heard, "a report")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.sendto(b'{"port": 80, "drain": true}', str(place.socket))
            await until(lambda: place.heard[-1].applications == (wire.Application(port=80, drain=True),), "its word")

    run(scenario())


def test_a_reload_takes_the_new_configuration(place: Place, processes: list[subprocess.Popen[str]]) -> None:
    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0])
            processes.append(place.start())
            await until(lambda: place.heard, "a report")
            place.write(link.endpoints[0], interval_seconds=0.1)
            processes[0].send_signal(signal.SIGHUP)
            await until(lambda: place.heard[-1].interval_seconds == 0.1, "the new interval")
            assert place.told_of("RELOADING")
            assert place.socket.exists()
            assert end(processes[0])[0] == 0

    run(scenario())


@pytest.mark.parametrize(
    ("more", "words"),
    [("nonsense = 1", "nonsense"), ('cgroup = "/nowhere"', "/nowhere")],
    ids=["configuration", "signal"],
)
def test_a_reload_that_fails_keeps_the_old_configuration(
    place: Place, processes: list[subprocess.Popen[str]], more: str, words: str
) -> None:
    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0])
            processes.append(place.start())
            await until(lambda: place.heard, "a report")
            place.write(link.endpoints[0], interval_seconds=0.1, more=more)
            processes[0].send_signal(signal.SIGHUP)
            await until(lambda: place.told_of("RELOADING"), "the reload")
            place.heard.clear()
            await until(lambda: len(place.heard) > 3, "reports go on")
            assert place.heard[-1].interval_seconds == 0.05
            status, err = end(processes[0])
            assert status == 0
            assert "event=reload-failed" in err
            assert words in err

    run(scenario())


def test_the_watchdog_is_fed_while_it_samples(place: Place, processes: list[subprocess.Popen[str]]) -> None:
    async def scenario() -> None:
        place.write("tcp://127.0.0.1:9")  # also where no master listens
        processes.append(place.start(WATCHDOG_USEC="200000"))
        await until(lambda: place.told_of("WATCHDOG"), "the watchdog")
        await until(lambda: place.told_of("WATCHDOG") and fed(place) > 3, "more of it")
        assert place.told_of("STATUS")
        assert any(m.get("STATUS", "").startswith("0 of 1 masters") for m in place.told)

    run(scenario())


@pytest.fixture
def pressed(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What is sent on it, the agent sees as pressure: urgent data polls POLLPRI, as the kernel's trigger does."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            monkeypatch.setattr(Sampler, "trigger", property(lambda self: near.fileno()))
            yield far


def test_pressure_cuts_the_wait_for_a_rare_report_short(place: Place, pressed: socket.socket) -> None:
    place.write("tcp://127.0.0.1:9", interval_seconds=0.2, more="idle_interval_seconds = 60")
    with contextlib.closing(Daemon(place.config)) as daemon:
        pressed.send(b"!", socket.MSG_OOB)
        daemon._sample(time.monotonic())  # the first report of an agent is followed by frequent ones
        assert not daemon._wait(time.monotonic() + 0.05)
        daemon._interval_seconds = 60.0  # nothing has moved for long
        daemon._heed_trigger()
        assert daemon._wait(time.monotonic() + DEADLINE_SECONDS)


def test_a_cgroup_that_goes_away_is_silence_and_its_return_is_heard(
    place: Place, processes: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    from tests.agent import trees

    group = trees.cgroup(tmp_path / "g/rs1", quota="50000 100000")

    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0], more=f'idle_interval_seconds = 0.05\ncgroup = "{group}"')
            processes.append(place.start())
            await until(lambda: place.heard, "a report")
            before = place.heard[-1]
            assert before.cpu.cores == 0.5
            trees.write(group / "cpu.stat", "")
            await until(lambda: place.told_of("STATUS") and "no report" in str(place.told), "the complaint")
            trees.use(group, 10)
            await until(lambda: place.heard[-1].boot != before.boot, "a report of a new boot")

    run(scenario())


# What stops it from starting is one line


def feedback_agent(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_check_says_what_would_be_reported(place: Place) -> None:
    place.write("tcp://127.0.0.1:9")
    status, line = feedback_agent("check", "--config", place.config)
    assert status == 0
    assert line.startswith(f"{place.config}: good: rs1: ")
    assert line.count("\n") == 1


def test_check_leaves_the_running_agents_socket_alone(place: Place) -> None:
    place.write("tcp://127.0.0.1:9")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as running:
        running.bind(str(place.socket))
        assert feedback_agent("check", "--config", place.config)[0] == 0
        assert place.socket.exists()


def break_key(place: Place) -> None:
    (place.directory / "agent.key_secret").chmod(0o644)


BROKEN: dict[str, tuple[str, Callable[[Place], object], str]] = {
    "unknown key": ("intervall = 1", lambda p: None, "intervall"),
    "wrong type": ('ports = "80"', lambda p: None, "ports"),
    "exposed secret": ("", break_key, "chmod 600"),
    "missing secret": ("", lambda p: (p.directory / "agent.key_secret").unlink(), "feedback keys new"),
    "missing cgroup": ('cgroup = "/nowhere"', lambda p: None, "/nowhere"),
    "missing file": ("", lambda p: p.config.unlink(), "no such file"),
    "bad public key": (
        "",
        lambda p: p.config.write_text(p.config.read_text().replace('public_key = "', 'public_key = "~')[:-3] + '"\n'),
        "master[0].public_key",
    ),
}


@pytest.mark.parametrize(("more", "damage", "words"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("action", ["check", "run"])
def test_what_is_wrong_is_one_line_that_names_the_file(
    place: Place, more: str, damage: Callable[[Place], object], words: str, action: str
) -> None:
    place.write("tcp://127.0.0.1:9", more=more)
    damage(place)
    arguments = ["check"] if action == "check" else []
    status, line = feedback_agent("--config", place.config, *arguments)
    assert status == 1
    assert words in line
    assert str(place.directory) in line
    assert line.count("\n") == 1


def test_a_socket_that_cannot_be_made_is_one_line(place: Place) -> None:
    place.write("tcp://127.0.0.1:9")
    place.socket.mkdir()
    status, line = feedback_agent("--config", place.config)
    assert (status, line.count("\n")) == (1, 1)
    assert "not a socket" in line
