"""A pair of directors as data: who has which address on which cable, and the commands that make it.

    client, watcher, d1, d2, r1..r3  on the front switch   10.77.0.0/16   fd77::/64
    d1, d2, r1..r3                   on the back switch    10.78.0.0/24   fd78::/64   (masquerading)
    d1 -- d2                         two heartbeat cables  10.79.1.0/30, 10.79.2.0/30

Pure: no process is started here. One pair carries all four services at once: direct routing and masquerading, each with
IPv4 and IPv6. With direct routing a real server has the VIP on its `lo`, and answers straight through the front switch.
Clients of the masqueraded services are in a network of their own (FAR). The real servers reach it through a floating
gateway address, as servers behind a NAT director reach the rest of the world. So one real server can serve both ways
without policy routing.

Duplicate address detection is off, because a VIP does not answer while it is tentative.
Source: the LVS HOWTO's "ARP problem"; Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from feedback.model import (
    AddDestination,
    Address,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Forward,
    Protocol,
    Service,
    ServiceFlags,
    ServiceKey,
)

FRONT, FRONT6 = IPv4Network("10.77.0.0/16"), IPv6Network("fd77::/64")
BACK, BACK6 = IPv4Network("10.78.0.0/24"), IPv6Network("fd78::/64")
FAR, FAR6 = IPv4Network("10.76.0.0/24"), IPv6Network("fd76::/64")
HEARTBEATS = (IPv4Network("10.79.1.0/30"), IPv4Network("10.79.2.0/30"))
VIP, VIP6 = FRONT[100], FRONT6[0x100]
GATEWAY, GATEWAY6 = BACK[254], BACK6[0xFE]
FLOATING: tuple[tuple[Address, str], ...] = ((VIP, "eth0"), (VIP6, "eth0"), (GATEWAY, "eth1"), (GATEWAY6, "eth1"))

ROUTE_PORT = 80
MASQUERADE_PORT = 81
PERSISTENT_PORT = 82
PERSISTENCE_SECONDS = 300
SCHEDULER = "wlc"
SERVERS = 3
SOURCES = 8  # client addresses on each way, for ports and for persistence
FIRST_SOURCE = 257  # 10.77.1.1


@dataclass(frozen=True, slots=True)
class Node:
    """One namespace. `number` is the last part of its addresses. Nodes with `back` have eth1 on the back switch."""

    name: str
    number: int
    back: bool = False

    @property
    def front(self) -> IPv4Address:
        return FRONT[self.number]

    @property
    def front6(self) -> IPv6Address:
        return FRONT6[self.number]

    @property
    def mac(self) -> bytes:
        """The MAC of its eth0, which is fixed so that the watcher can tell who answers."""
        return bytes((0x02, 0x4C, 0, 0, 0, self.number))

    @property
    def back_mac(self) -> bytes:
        return bytes((0x02, 0x4C, 0, 0, 1, self.number))


CLIENT = Node("client", 1)
WATCHER = Node("watcher", 4, back=True)
DIRECTORS = (Node("d1", 2, back=True), Node("d2", 3, back=True))


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair under the run's name, which everything that it makes carries."""

    run: str
    servers: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (CLIENT, WATCHER, *DIRECTORS, *self.servers)

    @property
    def switch(self) -> str:
        return self.namespace("switch")

    def namespace(self, name: str) -> str:
        return f"{self.run}-{name}"


def pair(run: str) -> Pair:
    return Pair(run, tuple(Node(f"r{i}", 10 + i, back=True) for i in range(1, SERVERS + 1)))


def heartbeat_address(director: int, link: int) -> IPv4Address:
    """The address of director 0 or 1 on heartbeat cable 0 or 1."""
    return HEARTBEATS[link][director + 1]


def heartbeat_interface(link: int) -> str:
    return f"hb{link + 1}"


def sources(forward: Forward) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    """The client's addresses of this way, IPv4 and IPv6."""
    if forward is Forward.ROUTE:
        return _run(FRONT, FIRST_SOURCE), _run(FRONT6, FIRST_SOURCE)
    return _run(FAR, 1), _run(FAR6, 1)


def _run(net: IPv4Network | IPv6Network, first: int) -> tuple[Address, ...]:
    return tuple(net[first + i] for i in range(SOURCES))


# Services.


def services() -> tuple[Service, ...]:
    tcp: list[tuple[Address, int]] = [
        (VIP, ROUTE_PORT),
        (VIP6, ROUTE_PORT),
        (VIP, MASQUERADE_PORT),
        (VIP6, MASQUERADE_PORT),
    ]
    return (
        *(Service(ServiceKey.at(Protocol.TCP, address, port), SCHEDULER) for address, port in tcp),
        Service(
            ServiceKey.at(Protocol.TCP, VIP, PERSISTENT_PORT),
            SCHEDULER,
            ServiceFlags.PERSISTENT,
            PERSISTENCE_SECONDS,
        ),
        Service(ServiceKey.at(Protocol.UDP, VIP, ROUTE_PORT), SCHEDULER),
    )


def forward_of(service: ServiceKey) -> Forward:
    return Forward.MASQUERADE if service.port == MASQUERADE_PORT else Forward.ROUTE


def destination(service: ServiceKey, server: Node) -> Destination:
    """Masqueraded over the back switch, routed directly over the front one."""
    forward = forward_of(service)
    four = BACK[server.number] if forward is Forward.MASQUERADE else server.front
    six = BACK6[server.number] if forward is Forward.MASQUERADE else server.front6
    assert service.address is not None
    key = DestinationKey(four if service.address.version == 4 else six, service.port)
    return Destination(key, 1, forward)


def edits(pair: Pair) -> list[Edit]:
    """All services with all real servers, for an empty table."""
    made: list[Edit] = []
    for service in services():
        made.append(AddService(service))
        made += [AddDestination(service.key, destination(service.key, server)) for server in pair.servers]
    return made


# Commands.


def wiring(pair: Pair) -> list[str]:
    """Lines for `ip -batch`: namespaces, a cable from each node to its switches, and the heartbeat cables."""
    switch = pair.switch
    lines = [f"netns add {switch}"]
    for node in pair.nodes:
        namespace = pair.namespace(node.name)
        lines += [f"netns add {namespace}", _cable(node.name, switch, "eth0", namespace, node.mac)]
        if node.back:
            lines.append(_cable(f"{node.name}-back", switch, "eth1", namespace, node.back_mac))
    first, second = (pair.namespace(director.name) for director in DIRECTORS)
    for link in range(len(HEARTBEATS)):
        name = heartbeat_interface(link)
        lines.append(f"link add {name} netns {first} type veth peer name {name} netns {second}")
    return lines


def _cable(port: str, switch: str, name: str, namespace: str, mac: bytes) -> str:
    address = mac.hex(":")
    return f"link add {port} netns {switch} type veth peer name {name} address {address} netns {namespace}"


def short_segments(node: Node) -> list[str]:
    """Lines for `ip -batch` inside a node. They make the sender cut segments that are longer than a frame, since a raw
    socket at the other end of a cable cannot cut them."""
    names = ["eth0", *(["eth1"] if node.back else [])]
    if node in DIRECTORS:
        names += [heartbeat_interface(link) for link in range(len(HEARTBEATS))]
    return [f"link set dev {name} gso_max_segs 1" for name in names]


def switching(pair: Pair) -> list[str]:
    """Lines for `ip -batch` inside the switches' namespace."""
    lines = [f"link add {bridge} type bridge mcast_snooping 0" for bridge in ("front", "back")]
    for node in pair.nodes:
        lines += [f"link set {node.name} master front", f"link set {node.name} up"]
        if node.back:
            lines += [f"link set {node.name}-back master back", f"link set {node.name}-back up"]
    return [*lines, "link set front up", "link set back up"]


def addressing(pair: Pair, node: Node) -> list[str]:
    """Lines for `ip -batch` inside a node. Nobody has a floating address yet."""
    lines = ["link set lo up", "link set eth0 up", *_address(node.front, FRONT), *_address(node.front6, FRONT6)]
    if node.back:
        lines.append("link set eth1 up")
        lines += [*_address(BACK[node.number], BACK, "eth1"), *_address(BACK6[node.number], BACK6, "eth1")]
    if node == CLIENT:
        for forward in (Forward.ROUTE, Forward.MASQUERADE):
            four, six = sources(forward)
            lines += [line for address in (*four, *six) for line in _address(address, None)]
    if node in DIRECTORS:
        lines += [f"route add {FAR} dev eth0", f"route add {FAR6} dev eth0"]
        for link, net in enumerate(HEARTBEATS):
            name = heartbeat_interface(link)
            lines += [f"link set {name} up", *_address(heartbeat_address(DIRECTORS.index(node), link), net, name)]
    if node in pair.servers:
        lines += [f"route add {FAR} via {GATEWAY}", f"route add {FAR6} via {GATEWAY6}"]
        lines += [*_address(VIP, None, "lo"), *_address(VIP6, None, "lo")]
    return lines


def _address(address: Address, net: IPv4Network | IPv6Network | None, interface: str = "eth0") -> list[str]:
    """Without a net the address is added alone."""
    length = net.prefixlen if net else address.max_prefixlen
    return [f"addr add {address}/{length} dev {interface}{' nodad' if address.version == 6 else ''}"]


def floating(verb: str) -> list[str]:
    """Lines for `ip -batch` that add or delete all floating addresses, for a lab without daemons."""
    nodad = {"add": " nodad", "del": ""}[verb]
    return [
        f"addr {verb} {address}/{address.max_prefixlen} dev {interface}{nodad if address.version == 6 else ''}"
        for address, interface in FLOATING
    ]


def settings(pair: Pair, node: Node) -> dict[str, str]:
    """sysctls of a node, by their path under /proc/sys."""
    values = {
        "net/ipv6/conf/all/disable_ipv6": "0",
        "net/ipv6/conf/all/accept_dad": "0",
        "net/ipv6/conf/default/accept_dad": "0",
        **{f"net/ipv6/conf/{interface}/accept_dad": "0" for interface in ("eth0", "eth1")[: 1 + node.back]},
    }
    if node == CLIENT:
        return values | {"net/ipv4/ip_local_port_range": "10000 65535"}
    if node in pair.servers:
        return values | {"net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
    if node in DIRECTORS:
        return values | {
            "net/ipv4/ip_forward": "1",
            "net/ipv6/conf/all/forwarding": "1",
            "net/ipv4/conf/all/send_redirects": "0",
            "net/ipv4/conf/default/send_redirects": "0",
            "net/ipv4/conf/eth0/send_redirects": "0",
        }
    return values
