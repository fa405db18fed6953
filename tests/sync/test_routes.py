"""Ranges that go with the active role, in a kernel's table; and Debian's BIRD, which announces them to a router."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from feedback.config import ConfigError, SyncConfig, parse
from feedback.ipvs.namespace import within
from feedback.sync.addresses.routes import PROTOCOL, Routes
from tests.namespaces import inside, ip
from tests.patience import process_seconds

RANGES = ((ip_network("203.0.113.0/24"), 74), (ip_network("2001:db8:9::/64"), 74))
OTHER = (ip_network("198.51.100.0/24"), 99)
EXAMPLE = Path(__file__).parents[2] / "contrib" / "bird" / "bird.conf"
ROUTER = """
router id 10.0.0.254;
protocol device {}
protocol bgp director {
    local 10.0.0.254 as 65000; neighbor 10.0.0.1 as 65001; passive;
    ipv4 { import all; export none; }; ipv6 { import all; export none; };
}
"""
SECONDS = 60.0
numbers = itertools.count(1)
host = [pytest.mark.lab(on="host"), pytest.mark.skipif(os.getuid() != 0, reason="needs root, for namespaces")]


def until(condition: Callable[[], object], seconds: float = SECONDS) -> bool:
    deadline = process_seconds() + seconds
    while not condition():
        if process_seconds() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"routes-{os.getpid()}-{next(numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    ip("link set lo up", name)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


class Following:
    """A daemon's part in it: its thread is in the namespace."""

    def __init__(self, netns: str, memory: Path, wanted: tuple[tuple[object, int], ...] = RANGES) -> None:
        self.netns, self.routes = netns, Routes(wanted, memory)  # type: ignore[arg-type]
        within(netns, self.routes.open)

    def there(self) -> list[str]:
        lines = []
        for family in ("-4", "-6"):
            lines += ip(f"{family} route show table all type blackhole", self.netns).splitlines()
        return sorted(line.split()[1] for line in lines if f"proto {PROTOCOL}" in line)


@pytest.fixture
def started(netns: str, tmp_path: Path) -> Iterator[Callable[..., Following]]:
    made: list[Following] = []

    def start(wanted: tuple[tuple[object, int], ...] = RANGES) -> Following:
        made.append(Following(netns, tmp_path / "role.routes", wanted))
        return made[-1]

    yield start
    for following in made:
        following.routes.close()


ALL = ["2001:db8:9::/64", "203.0.113.0/24"]


class TestInAKernel:
    pytestmark = host

    def test_they_come_with_the_role_and_go_with_it(self, started: Callable[..., Following]) -> None:
        daemon = started()
        daemon.routes.follow(True)
        assert until(lambda: daemon.there() == ALL) and until(lambda: all(daemon.routes.installed(*r) for r in RANGES))
        daemon.routes.follow(False)
        assert until(lambda: daemon.there() == []) and until(lambda: not daemon.routes.installed(*RANGES[0]))

    def test_a_restart_withdraws_nothing_while_the_role_is_not_known(self, started: Callable[..., Following]) -> None:
        daemon = started()
        daemon.routes.follow(True)
        assert until(lambda: daemon.there() == ALL)
        daemon.routes.close()
        assert daemon.there() == ALL
        again = started()
        time.sleep(0.5)
        assert again.there() == ALL

    def test_what_somebody_takes_away_is_back_within_five_seconds(
        self, started: Callable[..., Following], netns: str
    ) -> None:
        daemon = started()
        daemon.routes.follow(True)
        assert until(lambda: daemon.there() == ALL)
        ip("route flush table 74", netns)
        assert daemon.there() == ALL[:1] and until(lambda: daemon.there() == ALL, 5.0)

    def test_a_range_that_left_the_file_goes_and_what_is_not_ours_stays(
        self, started: Callable[..., Following], netns: str
    ) -> None:
        for line in ("192.0.2.0/24 table 74", "203.0.113.0/24 table 99 proto static"):
            ip(f"route add blackhole {line}", netns)
        daemon = started()
        daemon.routes.follow(True)
        assert until(lambda: daemon.there() == ALL)
        daemon.routes.close()
        fewer = started((OTHER,))
        fewer.routes.follow(True)
        assert until(lambda: fewer.there() == ["198.51.100.0/24"])
        fewer.routes.close()
        none = started(())
        none.routes.follow(True)
        assert until(lambda: none.there() == [])
        left = ip("route show table all type blackhole", netns).split()
        assert left.count("192.0.2.0/24") == left.count("203.0.113.0/24") == 1

    def test_a_place_that_somebody_has_is_said_and_left(self, started: Callable[..., Following], netns: str) -> None:
        ip("route add blackhole 203.0.113.0/24 table 74 proto static", netns)
        daemon = started()
        daemon.routes.follow(True)
        assert until(lambda: "203.0.113.0/24@74" in daemon.routes.problem)
        assert daemon.there() == ALL[:1]

    def test_where_none_was_ever_wanted_nothing_runs(self, started: Callable[..., Following]) -> None:
        assert started(()).routes._thread is None


class TestBird:
    pytestmark = host

    @pytest.fixture
    def router(self, netns: str, tmp_path: Path) -> Iterator[Callable[[], str]]:
        """Two of Debian's BIRD, one with the example; returns what the router's knows."""
        bird = shutil.which("bird", path="/usr/sbin:/usr/bin")
        assert bird, "there is no bird: apt install bird2 (`make test` does)"
        other = f"{netns}-r"
        ip(f"netns add {other}")
        ip(f"link add eth0 netns {netns} type veth peer name eth0 netns {other}")
        for name, number in ((netns, 1), (other, 254)):
            ip("link set eth0 up", name)
            ip(f"address add 10.0.0.{number}/24 dev eth0", name)
            ip(f"address add fd00::{number}/64 dev eth0 nodad", name)
        (tmp_path / "router.conf").write_text(ROUTER)
        running = []
        for name, config in ((netns, EXAMPLE), (other, tmp_path / "router.conf")):
            files = ["-s", str(tmp_path / f"{name}.ctl"), "-P", str(tmp_path / f"{name}.pid")]
            command = inside(name, bird, "-f", "-c", str(config), *files)
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        socket = str(tmp_path / f"{other}.ctl")

        def known() -> str:
            command = ["birdc", "-s", socket, "show", "route"]
            return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/sbin"}).stdout

        yield known
        for process in running:
            process.terminate()
            process.wait(10)
        subprocess.run(["ip", "netns", "del", other], check=True)

    def test_the_example_announces_the_ranges_with_the_role_and_withdraws_them(
        self, started: Callable[..., Following], router: Callable[[], str], netns: str
    ) -> None:
        ip("route add blackhole 192.0.2.0/24 table 74 proto static", netns)
        daemon = started()
        daemon.routes.follow(True)
        assert until(lambda: all(network in router() for network in ALL)), router()
        assert "192.0.2.0/24" not in router()
        daemon.routes.follow(False)
        assert until(lambda: not any(network in router() for network in ALL), 5.0), router()


class TestExaBgp:
    pytestmark = host

    def test_the_examples_program_tells_what_came_and_went(
        self, started: Callable[..., Following], netns: str, tmp_path: Path
    ) -> None:
        program = EXAMPLE.parents[1] / "exabgp" / "ranges.py"
        with (tmp_path / "said").open("wb") as out:
            command = inside(netns, sys.executable, str(program), "10.0.0.1", "fd00::1")
            process = subprocess.Popen(command, stdout=out)
        try:
            daemon = started()
            said = (tmp_path / "said").read_text
            daemon.routes.follow(True)
            come = [f"announce route {ALL[0]} next-hop fd00::1", f"announce route {ALL[1]} next-hop 10.0.0.1"]
            assert until(lambda: sorted(said().splitlines()) == come), said()
            daemon.routes.follow(False)
            gone = [line.replace("announce", "withdraw") for line in come]
            assert until(lambda: sorted(said().splitlines()) == come + gone), said()
        finally:
            process.terminate()
            process.wait(10)


TEXT = """
name = "d1"
peer = "d2"
[[link]]
local = "10.0.0.1:7434"
peer = "10.0.0.2:7434"
[[address]]
address = "10.0.0.100/32"
interface = "eth0"
"""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('to = "203.0.113.7/24"', "route[0].to"),
        ('to = "0.0.0.0/0"', "name the range"),
        ('to = "::/0"', "name the range"),
        ('to = "x"', "expected an address or a network"),
        ('to = "203.0.113.0/24"\ntable = 255', "local addresses"),
        ('to = "203.0.113.0/24"\ntable = 7433', "packets with a mark would be dropped"),
        ('to = "203.0.113.0/24"\ntable = 0', "route[0].table"),
        ('to = "203.0.113.0/24"\n[[route]]\nto = "203.0.113.0/24"', "there twice"),
        ('to = "203.0.113.0/24"\nmetric = 3', "metric"),
        ("table = 5", "to"),
    ],
)
def test_a_route_that_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f"{TEXT}[[route]]\n{text}\n", SyncConfig, "sync.toml")
    assert why in str(refused.value) and str(refused.value).isprintable()


def test_routes_of_both_families_are_taken() -> None:
    config = parse(f'{TEXT}[[route]]\nto = "203.0.113.0/24"\n[[route]]\nto = "2001:db8::/48"\ntable = 9\n', SyncConfig)
    assert [(route.to, route.table) for route in config.route] == [("203.0.113.0/24", 74), ("2001:db8::/48", 9)]
