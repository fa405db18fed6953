"""A stateful firewall on a director of the pair, as an operator would write it. docs/firewall.md explains it.

This module owns the rules, as text for iptables-restore, and loads them. Everything that is not accepted is dropped, in
INPUT and in FORWARD. A TCP connection begins with a SYN. Masqueraded services are tracked; directly routed ones are
not. This module must not know a scenario. It uses iptables-legacy: Debian's user-mode kernel takes no nftables filter
chains for IP.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.pair import topology
from feedback.lab.pair.topology import VIP
from feedback.model import Family, Forward, Protocol, ServiceKey

STRICT = "strict"
FIREWALLS = (STRICT,)
# Services of the scenarios standin, crowd and protocols, beside the pair's own.
ROUTED = tuple(
    ServiceKey.at(protocol, VIP, port)
    for protocol, port in ((Protocol.TCP, 8000), (Protocol.UDP, 4000), (Protocol.UDP, 4001), (Protocol.UDP, 5060))
)
TRACKED = (ServiceKey.at(Protocol.TCP, VIP, 21),)  # its data connections are RELATED to it
CONNTRACK = Path("/proc/sys/net/ipv4/vs/conntrack")
PROGRAMS = {Family.IPV4: "iptables-legacy-restore", Family.IPV6: "ip6tables-legacy-restore"}


def rules(family: Family) -> str:
    """The rules as input of iptables-restore."""
    own = [service.key for service in topology.services()]
    keys = [key for key in own if topology.forward_of(key) is Forward.ROUTE]
    routed = [key for key in (*keys, *ROUTED) if key.family is family]
    tracked = [key for key in (*own, *TRACKED) if key.family is family and key not in routed]
    icmp = "icmp" if family is Family.IPV4 else "ipv6-icmp"
    raw = [f"-A PREROUTING {_to(key)} -j CT --notrack" for key in routed]
    raw += [f"-A PREROUTING {_to(key)} -j CT --helper ftp" for key in tracked if key in TRACKED]
    new = [f"-A INPUT {_to(key)} {_new(key)} -j ACCEPT" for key in tracked]
    state = "-m conntrack --ctstate"
    filtered = [
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -i hb+ -j ACCEPT",  # heartbeats and the relay
        f"-A INPUT -p {icmp} -j ACCEPT",  # also neighbour discovery
        *(f"-A INPUT {_to(key)} {state} UNTRACKED -j ACCEPT" for key in routed),
        f"-A INPUT {state} INVALID -j DROP",
        f"-A INPUT {state} ESTABLISHED,RELATED -j ACCEPT",
        *new,
        *(_peers() if family is Family.IPV4 else ()),
        f"-A FORWARD {state} INVALID -j DROP",
        f"-A FORWARD {state} ESTABLISHED,RELATED -j ACCEPT",
    ]
    return _table("raw", ["PREROUTING ACCEPT", "OUTPUT ACCEPT"], raw) + _table(
        "filter", ["INPUT DROP", "FORWARD DROP", "OUTPUT ACCEPT"], filtered
    )


def _to(key: ServiceKey) -> str:
    assert key.protocol is not None
    return f"-d {key.address} -p {key.protocol.name.lower()} --dport {key.port}"


def _new(key: ServiceKey) -> str:
    syn = "--syn " if key.protocol is Protocol.TCP else ""
    return f"{syn}-m conntrack --ctstate NEW"


def _peers() -> list[str]:
    """What else runs on directors of the lab: connections of agents and commands to a master, VRRP, the kernel's own
    replication."""
    return [
        "-A INPUT -p tcp --dport 7433 --syn -j ACCEPT",
        "-A INPUT -p 112 -d 224.0.0.18 -j ACCEPT",
        "-A INPUT -p udp -d 224.0.0.81 --dport 8848 -j ACCEPT",
    ]


def _table(name: str, policies: list[str], lines: list[str]) -> str:
    return "\n".join([f"*{name}", *(f":{policy} [0:0]" for policy in policies), *lines, "COMMIT", ""])


def load(name: str) -> None:
    """Load the rules in the network namespace of the calling thread. The setting comes first, since IPVS applies it to
    each new connection. Raises LabError."""
    if name not in FIREWALLS:
        raise LabError(f"no firewall {name!r}: choose from {', '.join(FIREWALLS)}")
    CONNTRACK.write_text("1\n", encoding="ascii")
    for family, program in PROGRAMS.items():
        restore(program, rules(family))


def restore(program: str, text: str) -> None:
    """Run it in the network namespace of the calling thread. Raises LabError."""
    found = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if found is None:
        raise LabError(f"there is no {program} on this machine: apt install iptables")
    done = subprocess.run([found], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{program}: {done.stderr.strip()}")
