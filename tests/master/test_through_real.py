"""Checks through the service on a real kernel: a director and two real servers in namespaces, probes by the shell."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from feedback.config.probe import Check
from feedback.ipvs import Client
from feedback.lab import network
from feedback.lab.topology import VIP, RealServer, Topology, pool
from feedback.master.claims.asking import Passage, Probe, Target, Through
from feedback.master.claims.health import Outcome, Unasked
from feedback.master.passages import Passages
from feedback.master.shell import way
from feedback.master.shell.probes import Probes
from feedback.model import Address, Destination, DestinationKey, Family, Forward, TunnelType

pytestmark = pytest.mark.lab(seconds=1)

VIP6 = ip_address("2001:db8::100")
SERVER = """
import socket, threading
def serve(family, any):
    s = socket.socket(family, socket.SOCK_STREAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((any, 80)); s.listen()
    while True:
        try:
            c, _ = s.accept(); c.recv(1000); c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n"); c.close()
        except OSError: pass
def echo():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("10.77.0.100", 53))
    while True:
        data, peer = u.recvfrom(500); u.sendto(data, peer)
for target, words in ((serve, (socket.AF_INET, "0.0.0.0")), (serve, (socket.AF_INET6, "::")), (echo, ())):
    threading.Thread(target=target, args=words).start()
print("ready", flush=True)
"""
runs = itertools.count(1)


def rip6(server: RealServer) -> Address:
    return ip_address(f"2001:db8::{int(server.address) & 0xFF:x}")


class Site:
    """Direct routing, with IPv6 beside."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        network.build(topology)
        nodes = [(node, ip_address(f"2001:db8::{int(node.address) & 0xFF:x}")) for node in topology.nodes]
        for node, address in nodes:
            network.run_ip(topology.namespace(node.name), "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        network.run_ip(self.director, "addr", "add", f"{VIP6}/128", "dev", "eth0", "nodad")
        for server in topology.servers:
            network.run_ip(topology.namespace(server.name), "addr", "add", f"{VIP6}/128", "dev", "lo", "nodad")
        self.servers = [self._serve(server) for server in topology.servers]
        with network.entered(self.director):
            self.kernel = Client()
        self.passages = Passages()

    @property
    def director(self) -> str:
        return self.topology.namespace("d1")

    def _serve(self, server: RealServer) -> subprocess.Popen[bytes]:
        with network.entered(self.topology.namespace(server.name)):
            process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"ready\n"
        return process

    def close(self) -> None:
        self.kernel.close()
        for process in self.servers:
            process.kill()
            process.wait()

    def set(self, name: str, value: str) -> None:
        network.settle(self.director, {f"net/ipv4/conf/{name}": value}, [])

    def passage(self, address: Address, forward: Forward, tunnel: tuple[TunnelType, int]) -> Passage:
        """With its service in the kernel."""
        key = DestinationKey(address, 0)
        to = Destination(key, forward=forward, tunnel_type=tunnel[0], tunnel_port=tunnel[1])
        made = Passage.of(Family.of(address), to)
        for _ in range(2):
            self.passages.look(self.kernel.snapshot())
            assert not self.kernel.apply(self.passages.edits([made]))
        return made

    def ask(
        self,
        check: Check,
        i: int = 0,
        forward: Forward = Forward.ROUTE,
        six: bool = False,
        tunnel: tuple[TunnelType, int] = (TunnelType.IPIP, 0),
    ) -> Any:
        """What comes of a check of this server, from the director."""
        server = self.topology.servers[i]
        address, vip = (rip6(server), VIP6) if six else (server.address, VIP)
        passage = self.passage(address, forward, tunnel)
        port = check.port or (53 if check.type == "udp" else 80)
        mark = self.passages.mark(passage)
        assert mark is not None
        return self._ask(Probe(Target(address, port, Through(vip, passage)), check, mark))

    def _ask(self, probe: Probe) -> Any:
        async def scenario() -> Any:
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            with network.entered(self.director):  # its thread stays there
                probes = Probes(lambda probe, result, now: answer.set_result(result))
            probes.start([probe])
            result = await asyncio.wait_for(answer, 60)
            await probes.close()
            return result

        return asyncio.run(scenario())

    def entries(self) -> str:
        with network.entered(self.director):
            return Path("/proc/thread-self/net/ip_vs_conn").read_text()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(way, "KEPT_SECONDS", 0.0)
    name = f"test{os.getpid()}x{next(runs)}"
    try:
        made = Site(pool(name, (0.5, 0.5)))
        yield made
        made.close()
    finally:
        network.remove_run(name)


TCP, HTTP, UDP = (
    Check(timeout_seconds=0.5),
    Check(type="http", timeout_seconds=1),
    Check(type="udp", send="hi", expect="hi"),
)


def test_each_server_answers_as_the_vip_and_who_lost_it_does_not(site: Site) -> None:
    site.set("eth0/accept_local", "1")
    for check in (TCP, HTTP, UDP):
        for i in (0, 1):
            made = site.ask(check, i)
            assert made.good, (check.type, made)
    network.run_ip(site.topology.namespace("rs1"), "addr", "del", f"{VIP}/32", "dev", "lo")
    for check in (TCP, HTTP):
        assert not site.ask(check, 0).good
        assert site.ask(check, 1).good
    rip = Probe(Target(site.topology.servers[0].address, 80), TCP)
    assert site._ask(rip).good


def test_where_answers_would_be_dropped_nothing_is_said_of_the_server(site: Site) -> None:
    made = site.ask(TCP)
    assert isinstance(made, Unasked) and "net.ipv4.conf.eth0.accept_local is 0" in made.reason
    site.set("all/accept_local", "1")
    assert site.ask(TCP).good
    network.run_ip(site.director, "addr", "del", f"{VIP}/32", "dev", "eth0")
    network.run_ip(site.director, "addr", "add", f"{VIP}/32", "dev", "lo")
    site.set("eth0/rp_filter", "1")
    made = site.ask(TCP)
    assert isinstance(made, Unasked) and "rp_filter is 1 and the VIP is on lo" in made.reason
    site.set("eth0/rp_filter", "2")
    assert site.ask(TCP).good


def test_ipv6_needs_no_setting(site: Site) -> None:
    time.sleep(3)  # link-local addresses, from which neighbours are asked, are tentative for two seconds
    assert site.ask(TCP, six=True).good and site.ask(HTTP, 1, six=True).good
    network.run_ip(site.topology.namespace("rs1"), "addr", "del", f"{VIP6}/128", "dev", "lo")
    assert not site.ask(TCP, six=True).good and site.ask(TCP, 1, six=True).good


def test_a_tunnel_that_is_down_is_found(site: Site) -> None:
    site.set("eth0/accept_local", "1")
    rs1 = site.topology.namespace("rs1")
    assert not site.ask(TCP, forward=Forward.TUNNEL).good
    network.settle(
        rs1, {"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/tunl0/rp_filter": "0"}, ["link set tunl0 up"]
    )
    assert site.ask(TCP, forward=Forward.TUNNEL).good
    network.run_ip(rs1, "link", "set", "tunl0", "down")
    assert not site.ask(TCP, forward=Forward.TUNNEL).good


OPEN = {"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/{}/rp_filter": "0"}
GRE = ["link add tun1 type gre remote {peer} local {own}"]


@pytest.mark.parametrize(
    ("tunnel", "made", "device"),
    [((TunnelType.GUE, 6080), ["fou add port 6080 gue"], "tunl0"), ((TunnelType.GRE, 0), GRE, "tun1")],
    ids=["gue", "gre"],
)
def test_the_other_kinds_of_tunnels_are_asked_through_too(
    site: Site, tunnel: tuple[TunnelType, int], made: list[str], device: str
) -> None:
    site.set("eth0/accept_local", "1")
    rs1, d1 = site.topology.namespace("rs1"), next(n.address for n in site.topology.nodes if n.name == "d1")
    assert not site.ask(TCP, forward=Forward.TUNNEL, tunnel=tunnel).good
    own = site.topology.servers[0].address
    for words in (*made, f"link set {device} up"):
        network.run_ip(rs1, *words.format(peer=d1, own=own).split())
    network.settle(rs1, {name.format(device): value for name, value in OPEN.items()}, [])
    assert site.ask(TCP, forward=Forward.TUNNEL, tunnel=tunnel).good
    network.run_ip(rs1, "link", "set", device, "down")
    assert not site.ask(TCP, forward=Forward.TUNNEL, tunnel=tunnel).good


def test_what_a_check_leaves_in_the_table_of_connections_is_gone_in_seconds(site: Site) -> None:
    site.set("eth0/accept_local", "1")
    for check in (TCP, HTTP, UDP):
        made = site.ask(check)
        assert isinstance(made, Outcome) and made.good, made
    rows = [row.split() for row in site.entries().splitlines()[1:]]
    assert {row[0] for row in rows} == {"TCP"}  # a datagram leaves none
    assert {(row[7], int(row[8]) <= 10) for row in rows} == {("CLOSE", True)}
    deadline = time.monotonic() + 60
    while len(site.entries().splitlines()) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.5)
