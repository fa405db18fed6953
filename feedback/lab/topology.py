"""A cluster as data: client, directors and real servers in namespaces on one switch, and the commands that make it.

Pure: no process is started here. Everything a run makes has the run's name in front, because a namespace's interfaces
may outlive `ip netns del` by a moment and the next run would be given the old ones. The switch is a namespace too, so
that nothing is ever put into the host's own.

Direct routing: the virtual address is on `lo` of each real server, which must not answer ARP for it (arp_ignore 1,
arp_announce 2); answers go straight to the client. Masquerading: the way back leads over the director.
Source: the LVS HOWTO's "ARP problem"; Documentation/networking/ip-sysctl.rst and ipvs-sysctl.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from feedback.model import Forward

NETWORK = IPv4Network("10.77.0.0/16")
CLIENT = IPv4Address("10.77.0.1")
VIP = IPv4Address("10.77.0.100")
PORT = 80


@dataclass(frozen=True, slots=True)
class Node:
    """One namespace with one interface, eth0."""

    name: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class RealServer(Node):
    """`quota` is its share of one core, its cgroup's cpu.max."""

    quota: float


@dataclass(frozen=True, slots=True)
class Topology:
    run: str
    servers: tuple[RealServer, ...]
    directors: tuple[Node, ...]
    client: Node = Node("client", CLIENT)
    vip: IPv4Address = VIP
    port: int = PORT
    forward: Forward = Forward.ROUTE

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.client, *self.directors, *self.servers)

    @property
    def switch(self) -> str:
        return self.namespace("switch")

    def namespace(self, name: str) -> str:
        return f"{self.run}-{name}"


def pool(run: str, quotas: tuple[float, ...], forward: Forward = Forward.ROUTE) -> Topology:
    """One director and a real server for each quota: rs1, rs2, ..."""
    servers = tuple(RealServer(f"rs{i}", CLIENT + 10 + i, quota) for i, quota in enumerate(quotas, 1))
    return Topology(run, servers, (Node("d1", CLIENT + 1),), forward=forward)


def wiring(topology: Topology) -> list[str]:
    """Lines for `ip -batch`: namespaces, and a cable from each node to the switch."""
    switch = topology.switch
    lines = [f"netns add {switch}"]
    for node in topology.nodes:
        namespace = topology.namespace(node.name)
        lines += [
            f"netns add {namespace}",
            f"link add {node.name} netns {switch} type veth peer name eth0 netns {namespace}",
        ]
    return lines


def switching(topology: Topology) -> list[str]:
    """Lines for `ip -batch` inside the switch."""
    lines = ["link add bridge type bridge", "link set bridge up"]
    for node in topology.nodes:
        lines += [f"link set {node.name} master bridge", f"link set {node.name} up"]
    return lines


def addressing(topology: Topology, node: Node) -> list[str]:
    """Lines for `ip -batch` inside a node."""
    lines = [
        "link set lo up",
        "link set eth0 up",
        f"addr add {node.address}/{NETWORK.prefixlen} dev eth0",
    ]
    if isinstance(node, RealServer):
        if topology.forward is Forward.ROUTE:
            lines.append(f"addr add {topology.vip}/32 dev lo")
        if topology.forward is Forward.MASQUERADE:
            lines.append(f"route add {topology.client.address} via {topology.directors[0].address}")
    if topology.directors and node == topology.directors[0]:
        lines.append(f"addr add {topology.vip}/32 dev eth0")
    return lines


def settings(topology: Topology, node: Node) -> dict[str, str]:
    """sysctls of a node, by their path under /proc/sys."""
    values = {"net/ipv6/conf/all/disable_ipv6": "0"}
    if isinstance(node, RealServer):
        if topology.forward is Forward.ROUTE:
            values |= {"net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
        return values
    if node == topology.client:
        # One client address makes some 6,000 connections a minute: all ports, or they come back too soon.
        return values | {"net/ipv4/ip_local_port_range": "10000 65535"}
    return values | {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/all/send_redirects": "0",
        "net/ipv4/conf/eth0/send_redirects": "0",
        # A client that comes back to a port whose entry still stands in FIN_WAIT goes to its old server whatever the
        # weights say, unless both bits are set. Hides a third of a join flood (measured); so in every policy's runs.
        "net/ipv4/vs/conn_reuse_mode": "3",
        # A refused connection is told by ICMP, to each address once a second: the others wait for their SYN to be sent
        # again. The lab's one client stands for many addresses, each of which would be told.
        "net/ipv4/icmp_ratelimit": "0",
    }
