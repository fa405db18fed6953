"""Master and sync as their units run them, on a real kernel: nobody's user, the unit's capabilities and no other, keys
as credentials, a manager that listens for readiness and watchdog. What the units' sandbox adds: test_booted.py."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feedback.ipvs import Client
from feedback.ops import keys, pair
from feedback.ops.control import ask

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.lab(seconds=1.5)

NOBODY = 65534
VIP = "10.0.0.100"
DEADLINE_SECONDS = 60.0
WATCHDOG_SECONDS = 0.4

# This checkout, its libraries and this Python may be below root's home. So the daemon sees them where anybody may go:
# in the mount namespace that `ip netns exec` makes.
SEEN = {"source": ROOT, "site": Path(sysconfig.get_path("purelib")), "python": Path(sys.base_prefix)}
PLACE = (
    'place=$1; shift; while [ "$1" != -- ]; do mount --bind "$2" "$place/$1" || exit 1; shift 2; done; shift; exec "$@"'
)

_numbers = itertools.count(1)


def unit_capabilities(daemon: str) -> list[str]:
    """What the unit grants, as setpriv spells it: the unit and this test cannot drift apart."""
    text = (ROOT / "systemd" / f"feedback-{daemon}.service").read_text()
    granted = re.search(r"^AmbientCapabilities=(.*)$", text, re.MULTILINE)
    assert granted
    return [name.removeprefix("CAP_").lower() for name in granted[1].split()]


class Unit:
    """One daemon under a manager that is this test."""

    def __init__(self, daemon: str, directory: Path, netns: str) -> None:
        self.daemon, self.directory, self.netns = daemon, directory, netns
        self.config, self.log = directory / f"{daemon}.toml", directory / "log"
        self.credentials = directory / "credentials"
        self.credentials.mkdir()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.heard: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, capabilities: list[str]) -> None:
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        sets = "".join(f",+{name}" for name in capabilities)
        seen = self.directory / "seen"
        command = ["ip", "netns", "exec", self.netns, "sh", "-c", PLACE, "sh", str(seen)]
        for name, source in SEEN.items():
            (seen / name).mkdir(parents=True, exist_ok=True)
            command += [name, str(source)]
        command += ["--", "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}"]
        command += ["--clear-groups", "--no-new-privs", f"--bounding-set=-all{sets}", f"--inh-caps=-all{sets}"]
        command += [f"--ambient-caps=-all{sets}", str(seen / "python/bin/python3"), "-c"]
        command += ["from feedback.cli.entry import main; main()", self.daemon, "--config", str(self.config)]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONHOME": str(seen / "python"),
            "PYTHONPATH": f"{seen / 'source'}:{seen / 'site'}",
            "LD_LIBRARY_PATH": str(seen / "python/lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NOTIFY_SOCKET": str(self.directory / "notify"),
            "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1e6)),
            "CREDENTIALS_DIRECTORY": str(self.credentials),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd="/")

    def listen(self, seconds: float) -> list[str]:
        """What the manager is told in this time."""
        came: list[str] = []
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self.manager.settimeout(left)
            try:
                came += self.manager.recv(4096).decode().split("\n")
            except TimeoutError:
                break
        self.heard += came
        return came

    def until(self, condition: Callable[[], object], otherwise: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert self.process is not None
            assert time.monotonic() < deadline and self.process.poll() is None, f"{otherwise}\n{self.log.read_text()}"
            self.listen(0.05)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def privileges(self) -> dict[str, int]:
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        return {name: int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} | {
            "uid": int(found["Uid"].split()[1])
        }

    def stop(self) -> int:
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def close(self) -> None:
        self.manager.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"unprivileged-{os.getpid()}-{next(_numbers)}"
    lines = [f"netns add {name}", f"-n {name} link set lo up"]
    lines += [f"-n {name} link add eth0 type dummy", f"-n {name} link set eth0 up"]
    lines += [f"-n {name} address add 10.0.0.1/24 dev eth0"]
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where anybody may go; pytest's own is root's."""
    made = Path(tempfile.mkdtemp(prefix="feedback-unit-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def master(directory: Path, netns: str) -> Iterator[Unit]:
    unit = Unit("master", directory, netns)
    _, secret, _ = keys.create(directory / "made")
    secret.rename(unit.credentials / "master.key_secret")
    (directory / "agents").mkdir()
    unit.config.write_text(
        f'listen = ["tcp://127.0.0.1:7433"]\nkey = "credential:master.key_secret"\nenrolled = "{directory}/agents"\n'
        f'control = "{directory}/master.sock"\nstate = "{directory}/state.json"\nhttp = {{ listen = "" }}\n'
        f'[[service]]\nvirtual = "tcp:{VIP}:80"\nscheduler = "sed"\n'
        '[[service.destination]]\naddress = "10.0.0.11"\nweight = 7\n'
    )
    yield unit
    unit.close()


@pytest.fixture
def sync(directory: Path, netns: str) -> Iterator[Unit]:
    unit = Unit("sync", directory, netns)
    pair.create(unit.credentials / "pair.key")
    unit.config.write_text(
        f'name = "d1"\npeer = "d2"\nsecret = "credential:pair.key"\ncontrol = "{directory}/sync.sock"\n'
        f'role = "{directory}/role.json"\nstate = "{directory}/sync.json"\nmaster_state = "{directory}/master.json"\n'
        '[[link]]\nlocal = "10.0.0.1:7434"\npeer = "10.0.0.2:7434"\n'
        f'[[address]]\naddress = "{VIP}/32"\ninterface = "eth0"\n[timing]\nstart_seconds = 0.5\n'
    )
    yield unit
    unit.close()


def addresses(netns: str) -> str:
    return subprocess.run(["ip", "-n", netns, "address"], capture_output=True, text=True, check=True).stdout


def table(netns: str) -> list[tuple[str, list[int]]]:
    with Client(netns) as kernel:
        return [
            (str(entry.service.key), [d.destination.weight for d in entry.destinations])
            for entry in kernel.snapshot().services
        ]


def has_only(unit: Unit, capabilities: list[str]) -> None:
    bits = {"net_admin": 1 << 12, "net_raw": 1 << 13}
    expected = sum(bits[name] for name in capabilities)
    assert unit.privileges() == dict.fromkeys(("CapPrm", "CapEff", "CapBnd", "CapAmb"), expected) | {"uid": NOBODY}


def keeps_the_old_configuration(unit: Unit, control: str) -> None:
    """A reload of nonsense is said to the manager from begin to end, and changes nothing."""
    good = unit.config.read_text()
    unit.config.write_text("nonsense")
    unit.signal(signal.SIGHUP)
    unit.heard.clear()
    unit.until(lambda: "READY=1" in unit.heard, "the reload did not end")
    told = [line.partition("=")[0] for line in unit.heard]
    assert told.index("RELOADING") < told.index("MONOTONIC_USEC") < told.index("READY")
    assert "reload-failed" in unit.log.read_text()
    assert "error" not in ask(unit.directory / control, {"command": "status"})
    unit.config.write_text(good)


def is_fed_while_it_works_and_not_while_it_does_not(unit: Unit) -> None:
    assert unit.listen(4 * WATCHDOG_SECONDS).count("WATCHDOG=1") >= 3
    unit.signal(signal.SIGSTOP)
    unit.listen(0.3)
    assert unit.listen(2 * WATCHDOG_SECONDS) == []
    unit.signal(signal.SIGCONT)
    unit.until(lambda: "WATCHDOG=1" in unit.listen(0.2), "the watchdog is not fed again")


def test_the_master_schedules_with_one_capability(master: Unit, netns: str) -> None:
    granted = unit_capabilities("master")
    master.start(granted)
    master.until(lambda: "READY=1" in master.heard, "it is not ready")
    master.until(lambda: table(netns) == [(f"tcp:{VIP}:80", [7])], "the service is not there")
    has_only(master, granted)
    is_fed_while_it_works_and_not_while_it_does_not(master)
    keeps_the_old_configuration(master, "master.sock")
    assert table(netns) == [(f"tcp:{VIP}:80", [7])]
    with master.config.open("a") as config:
        config.write(f'[[service]]\nvirtual = "udp:{VIP}:53"\n')
    master.signal(signal.SIGHUP)
    both = sorted([(f"tcp:{VIP}:80", [7]), (f"udp:{VIP}:53", [])])
    master.until(lambda: sorted(table(netns)) == both, "the good configuration is not taken")
    assert master.stop() == 0
    assert "STOPPING=1" in master.listen(0.1)
    assert sorted(table(netns)) == both


def test_a_master_without_it_says_what_is_missing_and_ends(master: Unit) -> None:
    master.start([])
    assert master.process is not None
    assert master.process.wait(DEADLINE_SECONDS) == 1
    assert "CAP_NET_ADMIN" in master.log.read_text().splitlines()[-1]


def test_sync_takes_and_announces_its_address_with_two_capabilities(sync: Unit, netns: str) -> None:
    granted = unit_capabilities("sync")
    sync.start(granted)
    sync.until(lambda: f"{VIP}/32" in addresses(netns), "it does not take its address")
    sync.until(lambda: "READY=1" in sync.heard, "it is not ready")
    has_only(sync, granted)
    with Client(netns) as kernel:
        assert len(kernel.daemons()) == 2, sync.log.read_text()
    is_fed_while_it_works_and_not_while_it_does_not(sync)
    keeps_the_old_configuration(sync, "sync.sock")
    assert ask(sync.directory / "sync.sock", {"command": "status"})["role"] == "active"
    assert json.loads((sync.directory / "role.json").read_text())["role"] == "active"
    assert sync.stop() == 0
    assert f"{VIP}/32" in addresses(netns)
