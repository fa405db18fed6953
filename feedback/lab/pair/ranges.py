"""Two ranges of addresses behind the pair that belong to no host: one direct routed, one masqueraded; IPv4 and IPv6.

This module owns the routes to them, the services by firewall mark, and what can be undone by hand on a director. The
clients' next hop is the VIP, which moves. Every real server of direct routing treats the whole range as its own
addresses. This module must not know what a scenario shows. Source: ip-route(8), type local ("AnyIP").
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from ipaddress import IPv4Network, IPv6Network

from feedback.lab import network
from feedback.lab.error import LabError
from feedback.lab.pair import topology
from feedback.lab.pair.topology import CLIENT, DIRECTORS, FLOATING, HEARTBEATS, VIP, VIP6, Pair, heartbeat_interface
from feedback.lab.workload.streams import Target
from feedback.model import Address, Forward

NEAR, NEAR6 = IPv4Network("198.51.100.0/24"), IPv6Network("fd75:1::/64")  # direct routing
BEYOND, BEYOND6 = IPv4Network("203.0.113.0/24"), IPv6Network("fd75:2::/64")  # masqueraded
WAYS: tuple[tuple[int, Forward, IPv4Network, IPv6Network], ...] = (
    (7, Forward.ROUTE, NEAR, NEAR6),
    (8, Forward.MASQUERADE, BEYOND, BEYOND6),
)
HOSTS = (1, 77, 250)  # the hosts of each range that clients ask for
PORTS = f"{topology.ROUTE_PORT}-{topology.PERSISTENT_PORT}"
TABLE = 7433  # the product's own
# Another program's: marks, a rule, and a route in the table that the product uses too.
FOREIGN = (
    "ip rule add fwmark 0x100 lookup 100 priority 100",
    "ip route add blackhole 192.0.2.0/24 table 100",
    f"ip route add blackhole 192.0.2.0/24 table {TABLE}",
)
FOREIGN_NFT = (
    "nft add table ip foreign",
    "nft add chain ip foreign marks { type filter hook prerouting priority mangle; }",
    "nft add rule ip foreign marks udp dport 9999 meta mark set 0x100",
)
FOREIGN_IPTABLES = (
    "iptables-legacy -t mangle -N foreign",
    "iptables-legacy -t mangle -A PREROUTING -p udp -m multiport --dports 9999 -j foreign",
    "iptables-legacy -t mangle -A foreign -j MARK --set-xmark 0x100",
    "ip6tables-legacy -t mangle -N foreign",
)
UNDONE = (
    f"ip route flush table {TABLE} type local",
    f"ip -6 route flush table {TABLE} type local",
    *(f"ip {family} rule del fwmark {mark}" for mark, *_ in WAYS for family in ("-4", "-6")),
)
UNDONE_NFT = ("nft flush chain inet lvs_feedback prerouting",)
UNDONE_IPTABLES = (
    "iptables-legacy -t mangle -F feedback-steer",
    "ip6tables-legacy -t mangle -D PREROUTING -j feedback-steer",
)
READ_NFT = ("nft list ruleset",)
READ_IPTABLES = ("iptables-legacy-save", "ip6tables-legacy-save")
READ = ("ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all")

MOVING = re.compile(
    "|".join(
        [
            *(rf"(?<![\w.:]){re.escape(str(address))}(?![\w.:])" for address, _ in FLOATING),
            *(rf"\bdev {heartbeat_interface(link)}\b" for link in range(len(HEARTBEATS))),
        ]
    )
)


def lay(pair: Pair) -> None:
    """Set routes on clients and real servers, and another program's rules on the directors. Raises LabError."""
    routes = [f"route add {net} via {VIP}" for net in (NEAR, BEYOND)]
    routes += [f"route add {net} via {VIP6}" for net in (NEAR6, BEYOND6)]
    network.batch(routes, pair.namespace(CLIENT.name))
    for server in pair.servers:
        lines = [f"route add local {net} dev lo" for net in (NEAR, NEAR6)]
        network.batch(lines, pair.namespace(server.name))
    for director in DIRECTORS:
        for line in (*FOREIGN, *(FOREIGN_NFT if _by_nft(pair.namespace(director.name)) else FOREIGN_IPTABLES)):
            run(pair.namespace(director.name), line)


def services(pair: Pair) -> str:
    """Tables of master.toml, one for each mark and family."""
    text = ""
    for mark, forward, four, six in WAYS:
        way = "masquerade" if forward is Forward.MASQUERADE else "route"
        for family, match in (("", f'match = ["{four} tcp {PORTS}", "{six} tcp {PORTS}"]\n'), (":ipv6", "")):
            text += f'[[service]]\nvirtual = "fwmark:{mark}{family}"\nscheduler = "wlc"\nlaw = "static"\n'
            text += f'forward = "{way}"\n{match}'
            for server in pair.servers:
                near = server.front6 if family else server.front
                back = (topology.BACK6 if family else topology.BACK)[server.number]
                text += f'[[service.destination]]\naddress = "{back if way == "masquerade" else near}"\n'
    return text


def targets() -> tuple[Target, ...]:
    """Every way to three hosts of each range, and to two ports."""
    found = []
    for _mark, forward, four, six in WAYS:
        here = topology.sources(forward)
        for host in HOSTS:
            for port in (topology.ROUTE_PORT, topology.PERSISTENT_PORT):
                for address, sources in ((four[host], here[0]), (six[host], here[1])):
                    name = f"{forward.name.lower()}{address.version}"
                    found.append(Target(name, str(address), port, tuple(map(str, sources))))
    return tuple(found)


def asked() -> tuple[Address, ...]:
    """The addresses of the ranges that are asked for, by ARP and neighbour discovery."""
    return tuple(net[host] for net in (NEAR, BEYOND, NEAR6, BEYOND6) for host in HOSTS)


# On a director.


def state(pair: Pair, director: str) -> dict[str, list[str]]:
    """The output of each command about rules and routes."""
    reading = READ_NFT if _by_nft(pair.namespace(director)) else READ_IPTABLES
    return {command: told(pair, director, command) for command in (*reading, *READ)}


def told(pair: Pair, director: str, command: str) -> list[str]:
    """The output of one command, without comments and counters, and without what a takeover always changes: the moving
    addresses and the cables to the dead director. Raises LabError."""
    lines = run(pair.namespace(director), command).splitlines()
    kept = [line for line in lines if not line.startswith("#") and not MOVING.search(line)]
    return [re.sub(r"\[\d+:\d+\]|(?<=packets )\d+|(?<=bytes )\d+", "", line) for line in kept]


def undo(pair: Pair, director: str) -> None:
    """Remove by hand what the product made: all routes, all policy rules, and the marks. Raises LabError."""
    marks = UNDONE_NFT if _by_nft(pair.namespace(director)) else UNDONE_IPTABLES
    for command in (*UNDONE, *marks):
        run(pair.namespace(director), command)


@cache
def _by_nft(namespace: str) -> bool:
    """Whether this kernel accepts tables of nftables for IP."""
    with network.entered(namespace):
        done = subprocess.run(["nft", "-c", "add table inet probe"], capture_output=True, check=False)
    return done.returncode == 0


def run(namespace: str, command: str) -> str:
    """Raises LabError."""
    with network.entered(namespace):
        try:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise LabError(f"there is no {error.filename} on this machine: apt install iptables nftables") from None
    if done.returncode:
        raise LabError(f"{command}: {done.stderr.strip()}")
    return done.stdout
