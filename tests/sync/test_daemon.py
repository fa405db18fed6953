"""Two whole daemons on real kernels: two directors in namespaces, a service network and two links between them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback.ipvs import Client, text
from feedback.ipvs.difference import of_snapshot
from feedback.ipvs.namespace import within
from feedback.ops import keys, pair
from feedback.ops.control import ControlError, ask
from feedback.ops.role import RoleFile

pytestmark = pytest.mark.lab(seconds=4)

VIP, VIP6 = "10.0.0.100", "2001:db8::100"
RULES = f"-A -t {VIP}:80 -s sed\n-a -t {VIP}:80 -r 10.0.0.11:80 -g -w 5\n-a -t {VIP}:80 -r 10.0.0.12:80 -g -w 7\n"
DEADLINE_SECONDS = 60.0
COMMAND = [sys.executable, "-c", "from feedback.cli.entry import main; main()"]

_numbers = itertools.count(1)


class Director:
    def __init__(self, site: Site, number: int) -> None:
        self.site, self.number, self.name = site, number, f"d{number}"
        self.netns = f"{site.run}-{self.name}"
        self.directory = site.directory
        self.control = site.directory / f"{self.name}.sock"
        self.role = RoleFile(site.directory / f"{self.name}.role")
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, extra: str = "", addresses: tuple[str, ...] = (f"{VIP}/32", f"{VIP6}/128")) -> None:
        peer = 3 - self.number
        lines = [f'name = "{self.name}"', f'peer = "d{peer}"', f'secret = "{self.directory}/pair.key"']
        lines += [f'control = "{self.control}"', f'role = "{self.directory}/{self.name}.role"', extra]
        lines += [
            f'state = "{self.directory}/{self.name}.state"',
            f'master_state = "{self.directory}/{self.name}.master"',
        ]
        for link in (1, 2):
            lines.append(f'[[link]]\nlocal = "10.9.{link}.{self.number}:7434"\npeer = "10.9.{link}.{peer}:7434"')
        for address in addresses:
            lines.append(f'[[address]]\naddress = "{address}"\ninterface = "eth0"')
        lines.append("[timing]\nstart_seconds = 1.0")
        (self.directory / f"{self.name}.toml").write_text("\n".join(lines))

    def start(self) -> None:
        command = ["ip", "netns", "exec", self.netns, *COMMAND, "sync", "-c", f"{self.directory}/{self.name}.toml"]
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(DEADLINE_SECONDS)

    def status(self) -> dict[str, Any]:
        try:
            return ask(self.control, {"command": "status"})
        except ControlError:
            return {"role": "none", "replica": {"state": "none"}, "peer": {"replica": "none"}}

    def has_vip(self) -> bool:
        shown = subprocess.run(["ip", "-n", self.netns, "addr"], capture_output=True, text=True, check=True).stdout
        return f"{VIP}/32" in shown and f"{VIP6}/128" in shown

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "sync", *arguments, "--control", str(self.control)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)


class Site:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run = f"pair-{os.getpid()}-{next(_numbers)}"
        pair.create(directory / "pair.key")
        self.d1, self.d2 = Director(self, 1), Director(self, 2)
        self.directors = (self.d1, self.d2)

    def build(self) -> None:
        self.ip(None, *(f"netns add {self.run}-{name}" for name in ("switch", "d1", "d2")))
        self.ip(f"{self.run}-switch", "link add bridge type bridge mcast_snooping 0", "link set bridge up")
        for d in self.directors:
            self.cable(d)
            d.configure()
        self.connect()

    def cable(self, d: Director) -> None:
        switch = f"{self.run}-switch"
        self.ip(None, f"link add {d.name} netns {switch} type veth peer name eth0 netns {d.netns}")
        self.ip(switch, f"link set {d.name} master bridge up")
        self.ip(d.netns, "link set lo up", "link set eth0 up", f"address add 10.0.0.{d.number}/24 dev eth0")

    def connect(self) -> None:
        """The links between the two."""
        one, two = (d.netns for d in self.directors)
        self.ip(None, *(f"link add link{n} netns {one} type veth peer name link{n} netns {two}" for n in (1, 2)))
        for d in self.directors:
            for n in (1, 2):
                self.ip(d.netns, f"link set link{n} up", f"address add 10.9.{n}.{d.number}/24 dev link{n}")

    def renew(self, d: Director) -> None:
        """Its machine dies, and a new one starts in its place: nothing is left but its files."""
        d.kill()
        self.ip(None, f"netns delete {d.netns}")
        other = next(each for each in self.directors if each is not d)
        gone = {f"{self.run}-switch": d.name, other.netns: "link1"}
        self.until(
            lambda: not any(name in self.links(netns) for netns, name in gone.items()), "its links are still there"
        )
        self.ip(None, f"netns add {d.netns}")
        self.cable(d)
        self.connect()
        d.start()
        self.until(lambda: d.status()["replica"]["state"] == "complete", f"{d.name} is not complete")

    def links(self, netns: str) -> set[str]:
        shown = subprocess.run(["ip", "-n", netns, "-j", "link"], capture_output=True, text=True, check=True).stdout
        return {link["ifname"] for link in json.loads(shown)}

    def remove(self) -> None:
        for d in self.directors:
            if d.process is not None and d.process.poll() is None:
                d.process.kill()
                d.process.wait()
        for name in ("switch", "d1", "d2"):
            subprocess.run(["ip", "netns", "delete", f"{self.run}-{name}"], check=False)

    def ip(self, netns: str | None, *lines: str) -> None:
        command = ["ip", *(["-n", netns] if netns else []), "-batch", "-"]
        subprocess.run(command, input="\n".join(lines).encode(), check=True)

    def logs(self) -> str:
        return "\n".join((self.directory / f"{d.name}.log").read_text() for d in self.directors)

    def both(self, rules: str = RULES) -> None:
        """d1 active with a service, d2 its complete standby."""
        with Client(self.d1.netns) as kernel:
            assert kernel.apply(text.parse(rules)) == ()
        self.d1.start()
        self.until(lambda: self.d1.status()["role"] == "active", "d1 is not active")
        self.d2.start()
        self.until(lambda: self.d2.status()["replica"]["state"] == "complete", "d2 is not complete")

    def until(self, condition: Callable[[], object], otherwise: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{otherwise}\n{self.logs()}"
            time.sleep(0.02)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.remove()


def test_the_standby_is_complete_and_takes_over_when_the_active_one_vanishes(site: Site) -> None:
    site.both()
    assert site.d1.has_vip() and not site.d2.has_vip()
    with Client(site.d1.netns) as first, Client(site.d2.netns) as second:
        assert of_snapshot(second.snapshot()) == of_snapshot(first.snapshot())
        change = f"-e -t {VIP}:80 -r 10.0.0.11:80 -g -w 9\n"
        assert first.apply(text.parse(change)) == ()
        site.until(lambda: of_snapshot(second.snapshot()) == of_snapshot(first.snapshot()), "the weight did not follow")
    assert site.d2.run("doctor").returncode == 0
    site.ip(site.d1.netns, *(f"link set {name} down" for name in ("eth0", "link1", "link2")))
    site.d1.kill()
    died = time.monotonic()
    site.until(site.d2.has_vip, "d2 did not take over")
    assert time.monotonic() - died < 2.0  # on a crowded host; the lab's scenario measures it
    status = site.d2.status()
    assert status["role"] == "active" and site.d2.role.read().role == "active"
    assert status["act_ms"] < 200


def test_a_daemon_that_is_killed_and_restarted_moves_nothing(site: Site) -> None:
    site.both()
    for director in (site.d1, site.d2):
        director.kill()
        time.sleep(1.0)
        assert site.d1.has_vip() and not site.d2.has_vip()
        director.start()
        site.until(lambda director=director: director.status()["role"] != "none", "it does not answer")
        site.until(lambda: site.d2.status()["replica"]["state"] == "complete", "d2 is not complete again")
        assert site.d1.has_vip() and not site.d2.has_vip()
        assert site.d1.status()["role"] == "active" and site.d2.status()["role"] == "standby"


def test_a_planned_handover_exchanges_the_roles(site: Site) -> None:
    site.both()
    refused = site.d2.run("handover")
    assert refused.returncode == 1 and "ask the active one, d1" in refused.stderr
    done = site.d1.run("handover", "--json")
    assert done.returncode == 0, done.stderr + site.logs()
    assert site.d2.has_vip() and not site.d1.has_vip()
    site.until(lambda: site.d1.status()["replica"]["state"] == "complete", "d1 did not become a complete standby")
    assert site.d1.role.read().role == "standby" and site.d2.role.read().role == "active"
    events = [json.loads(line) for line in site.d2.run("events").stdout.splitlines()]
    assert any(e["kind"] == "transition" and e["new"] == "active" and e["reason"] for e in events)
    assert site.d1.run("status").returncode == 0


@pytest.mark.long
def test_a_range_goes_with_the_active_role(site: Site) -> None:
    for d in site.directors:
        path = site.directory / f"{d.name}.toml"
        path.write_text(f'{path.read_text()}\n[[route]]\nto = "203.0.113.0/24"\n')

    def announced() -> list[bool]:
        command = ["route", "show", "table", "all", "type", "blackhole"]
        shown = [
            subprocess.run(["ip", "-n", d.netns, *command], capture_output=True, text=True) for d in site.directors
        ]
        return ["203.0.113.0/24 table 74 proto 252" in told.stdout for told in shown]

    site.both()
    site.until(lambda: announced() == [True, False], "the active one alone does not announce it")
    site.d1.kill(signal.SIGTERM)
    site.d1.start()  # a restart withdraws nothing
    for _ in range(20):
        assert announced() == [True, False]
        time.sleep(0.1)
    site.until(lambda: site.d2.status()["replica"]["state"] == "complete", "d2 is not complete again")
    assert site.d1.run("handover").returncode == 0, site.logs()
    site.until(lambda: announced() == [False, True], "it did not go with the role")
    site.until(lambda: site.d2.status()["routes"][0]["installed"], "the active one does not say so")
    assert "announced here" in site.d2.run("status").stdout and "announced here" not in site.d1.run("status").stdout


def test_a_cut_link_is_survived_and_said(site: Site) -> None:
    site.both()
    site.ip(site.d1.netns, "link set link1 down")
    site.until(lambda: not site.d2.status()["links"][0]["up"], "the cut link is not seen")
    site.until(lambda: site.d2.status()["replica"]["state"] == "complete", "the other link did not carry on")
    site.ip(site.d1.netns, "link set link2 down")
    time.sleep(1.0)
    assert site.d1.has_vip() and not site.d2.has_vip()
    found = site.d2.run("doctor")
    assert found.returncode == 1 and "has not been heard" in found.stdout
    site.ip(site.d1.netns, "link set link1 up", "link set link2 up")
    site.until(lambda: site.d2.status()["replica"]["state"] == "complete", "the healed links did not carry on")
    assert site.d1.has_vip() and not site.d2.has_vip()


def test_stopping_leaves_everything_as_it_is(site: Site) -> None:
    site.both()
    site.d1.kill(signal.SIGTERM)
    site.d2.kill(signal.SIGTERM)
    assert site.d1.has_vip() and not site.d2.has_vip()
    with Client(site.d2.netns) as kernel:
        assert len(kernel.snapshot().services) == 1
        assert len(kernel.daemons()) == 2


SIP = (
    f"-A -u {VIP}:5060 -s rr -p 300 --pe sip\n"
    f"-a -u {VIP}:5060 -r 10.0.0.11:5060 -g\n-a -u {VIP}:5060 -r 10.0.0.12:5060 -g\n"
)
CALLS = 30


def call(d: Director) -> None:
    """Thirty Call-IDs of one phone, each from a port of its own: the kernel looks at no Call-ID where it knows the
    ports. The phone is the very VIP, so that it is the same one wherever that is."""

    def invite() -> None:
        for number in range(CALLS):
            words = f"INVITE sip:you@{VIP} SIP/2.0\r\nCall-ID: call-{number}@phone\r\nContent-Length: 0\r\n\r\n"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
                phone.bind((VIP, 0))
                phone.sendto(words.encode(), (VIP, 5060))

    within(d.netns, invite)


def calls(d: Director) -> dict[str, str]:
    """Which real server each Call-ID's template has in this kernel."""
    shown = within(d.netns, lambda: Path("/proc/thread-self/net/ip_vs_conn").read_text())
    lines = [line.split() for line in shown.splitlines() if " sip " in line]
    return {words[10]: words[5] for words in lines}


@pytest.mark.long
def test_calls_of_sip_keep_their_servers_on_a_standby_that_is_live_late_or_new(site: Site) -> None:
    """And so they do where the active one's daemon has been restarted since: it learns from its kernel's table."""
    with Client(site.d1.netns) as kernel:
        if refused := kernel.apply(text.parse(SIP)):
            pytest.skip(f"this kernel has no ip_vs_pe_sip: {refused[0].text}")
    site.both(rules="")
    call(site.d1)
    made = calls(site.d1)
    assert len(made) == CALLS and len(set(made.values())) == 2
    site.until(lambda: calls(site.d2) == made, "the live stream did not bring them")
    site.renew(site.d2)
    assert calls(site.d2) == made
    site.d1.kill()
    site.d1.start()
    site.until(lambda: site.d1.status()["role"] == "active", "d1 is not active again")
    site.until(lambda: site.d2.status()["replica"]["state"] == "complete", "d2 is not complete again")
    assert calls(site.d2) == made
    site.renew(site.d2)
    assert calls(site.d2) == made
    site.ip(site.d1.netns, *(f"link set {name} down" for name in ("eth0", "link1", "link2")))
    site.d1.kill()
    site.until(site.d2.has_vip, "d2 did not take over")
    call(site.d2)
    assert calls(site.d2) == made


LIMIT, FLOOD = 100, 400
UDP = f"-A -u {VIP}:53 -s rr\n-a -u {VIP}:53 -r 10.0.0.11:53 -g\n"
MASTER = """listen = ["tcp://10.0.0.1:7433"]
key = "{0}/master.key_secret"
enrolled = "{0}/agents"
control = "{0}/master.sock"
role = "{0}/d1.role"
state = "{0}/master.state"
ownership = "weights"
http.listen = "127.0.0.1:7480"
[[service]]
virtual = "udp:10.0.0.100:53"
"""


def flood(d: Director, count: int, first: int = 10_000) -> None:
    """A connection each: datagrams of as many ports."""

    def send() -> None:
        for port in range(first, first + count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind((VIP, port))
                client.sendto(b"?", (VIP, 53))

    within(d.netns, send)


def connections(d: Director) -> int:
    with Client(d.netns) as kernel:
        return sum(e.active + e.inactive for service in kernel.snapshot().services for e in service.destinations)


@pytest.mark.long
def test_a_flood_above_the_ledgers_limit_empties_nothing_and_is_told(site: Site, tmp_path: Path) -> None:
    for d in site.directors:
        d.configure(f"replication.connections_max = {LIMIT}")
    site.both(UDP)
    keys.create(tmp_path / "master")
    (tmp_path / "agents").mkdir()
    (tmp_path / "master.toml").write_text(MASTER.format(tmp_path))
    with (tmp_path / "master.log").open("wb") as log:
        command = ["ip", "netns", "exec", site.d1.netns, *COMMAND, "master", "-c", str(tmp_path / "master.toml")]
        master = subprocess.Popen(command, stderr=log)
    try:
        flood(site.d1, FLOOD)
        site.until(lambda: connections(site.d2) == FLOOD, "a standby that is there has all of it, above the limit too")
        held = {"connections": LIMIT, "limit": LIMIT, "lacking": FLOOD - LIMIT}
        site.until(lambda: site.d1.status()["replica"]["ledger"] == held, f"{site.d1.status()}")
        site.until(lambda: gauge(site.d1) == FLOOD - LIMIT, "the metric does not say it")
        assert site.d1.run("doctor").returncode == 0
        site.renew(site.d2)
        assert connections(site.d2) == LIMIT
        for d in site.directors:
            assert "300" in d.run("status").stdout and "300" in d.run("doctor").stdout
        assert site.d2.run("doctor").returncode == 1
        assert site.d1.status()["replica"]["ledger"] == held
    finally:
        master.kill()
        master.wait()


def gauge(d: Director) -> float:
    with (
        contextlib.suppress(OSError),
        within(d.netns, lambda: urllib.request.urlopen("http://127.0.0.1:7480/metrics")) as page,
    ):
        for line in page.read().decode().splitlines():
            if line.startswith("feedback_director_connections_lacking "):
                return float(line.split()[1])
    return -1.0


KEEPALIVED = """
global_defs {{
    router_id {name}
    vrrp_version 3
    vrrp_notify_fifo {fifo}
}}
vrrp_instance VI_1 {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int 0.1
    virtual_ipaddress {{
        10.0.0.100/32 dev eth0
    }}
}}
"""


class Keepalived:
    """The real one, in a director's namespace."""

    def __init__(self, director: Director) -> None:
        self.fifo = director.directory / f"{director.name}.fifo"
        config = director.directory / f"{director.name}.keepalived"
        values = {"name": director.name, "fifo": self.fifo, "priority": 200 - 50 * director.number}
        config.write_text(KEEPALIVED.format(**values))
        files = [f"{director.directory}/{director.name}.{kind}" for kind in ("p", "c", "r")]
        command = [
            "keepalived",
            "-n",
            "-l",
            "-D",
            "-G",
            "-f",
            str(config),
            "-p",
            files[0],
            "-c",
            files[1],
            "-r",
            files[2],
        ]
        self.command = ["ip", "netns", "exec", director.netns, *command]
        self.log = director.directory / f"{director.name}.keepalived.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(DEADLINE_SECONDS)


@pytest.mark.skipif(shutil.which("keepalived") is None, reason="keepalived is not installed")
def test_where_keepalived_elects_the_roles_follow_it_and_the_standby_is_complete(site: Site) -> None:
    vrrp = {d.name: Keepalived(d) for d in site.directors}
    for d in site.directors:
        fifo = vrrp[d.name].fifo
        d.configure(f'engine = "keepalived"\nkeepalived.fifo = "{fifo}"\nreplication.mirror = true', addresses=())
    try:
        with Client(site.d1.netns) as kernel:
            assert kernel.apply(text.parse(RULES)) == ()
        vrrp["d1"].start()
        site.d1.start()
        site.until(lambda: site.d1.status()["role"] == "active", "keepalived's word did not arrive")
        vrrp["d2"].start()
        site.d2.start()
        site.until(lambda: site.d2.status()["replica"]["state"] == "complete", "d2 is not complete")
        with Client(site.d2.netns) as kernel:
            assert len(kernel.snapshot().services) == 1
        refused = site.d1.run("handover")
        assert refused.returncode == 1 and "keepalived decides" in refused.stderr
        site.d1.kill()
        site.d1.start()
        site.until(lambda: site.d1.status()["role"] == "active", "a restarted daemon forgot its role")
        vrrp["d1"].stop()
        site.until(lambda: site.d2.status()["role"] == "active", "d2 did not follow keepalived")
        site.until(lambda: site.d1.status()["role"] == "standby", "d1 did not follow keepalived")
        assert site.d2.role.read().role == "active"
        site.until(lambda: site.d1.status()["replica"]["state"] == "complete", "d1 is not complete")
    finally:
        for daemon in vrrp.values():
            daemon.stop()
