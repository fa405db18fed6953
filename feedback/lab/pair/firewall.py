"""A stateful firewall on a director of the pair, as its operator would write it: docs/firewall.md has it explained.

Owns the rules, as texts for iptables-restore, and their loading. Whatever is not accepted is dropped, in INPUT and in
FORWARD; a TCP connection begins with a SYN; masqueraded services are tracked, directly routed ones are not. Must not
know a scenario. iptables-legacy: Debian's user-mode kernel takes no nftables filter chains for IP.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.pair import topology
from feedback.model import Family, Forward, Protocol, Service

STRICT = "strict"
FIREWALLS = (STRICT,)
CONNTRACK = Path("/proc/sys/net/ipv4/vs/conntrack")
PROGRAMS = {Family.IPV4: "iptables-legacy-restore", Family.IPV6: "ip6tables-legacy-restore"}


def rules(family: Family) -> str:
    """For iptables-restore."""
    found = [service for service in topology.services() if service.key.family is family]
    routed = [s for s in found if topology.forward_of(s.key) is Forward.ROUTE]
    tracked = [s for s in found if topology.forward_of(s.key) is Forward.MASQUERADE]
    icmp = "icmp" if family is Family.IPV4 else "ipv6-icmp"
    raw = [f"-A PREROUTING {_to(service)} -j CT --notrack" for service in routed]
    new = [f"-A INPUT {_to(service)} {_new(service)} -j ACCEPT" for service in tracked]
    state = "-m conntrack --ctstate"
    filtered = [
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -i hb+ -j ACCEPT",  # heartbeats and the relay
        f"-A INPUT -p {icmp} -j ACCEPT",  # and the neighbours' questions
        *(f"-A INPUT {_to(service)} {state} UNTRACKED -j ACCEPT" for service in routed),
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


def _to(service: Service) -> str:
    key = service.key
    assert key.protocol is not None
    return f"-d {key.address} -p {key.protocol.name.lower()} --dport {key.port}"


def _new(service: Service) -> str:
    syn = "--syn " if service.key.protocol is Protocol.TCP else ""
    return f"{syn}-m conntrack --ctstate NEW"


def _peers() -> list[str]:
    """What else runs on directors of the lab: agents and commands to a master, VRRP, the kernel's own replication."""
    return [
        "-A INPUT -p tcp --dport 7433 --syn -j ACCEPT",
        "-A INPUT -p 112 -d 224.0.0.18 -j ACCEPT",
        "-A INPUT -p udp -d 224.0.0.81 --dport 8848 -j ACCEPT",
    ]


def _table(name: str, policies: list[str], lines: list[str]) -> str:
    return "\n".join([f"*{name}", *(f":{policy} [0:0]" for policy in policies), *lines, "COMMIT", ""])


def load(name: str) -> None:
    """In the network namespace of the calling thread; the setting first, since IPVS takes it for each connection as it
    comes. Raises LabError."""
    if name not in FIREWALLS:
        raise LabError(f"no firewall {name!r}: choose from {', '.join(FIREWALLS)}")
    CONNTRACK.write_text("1\n", encoding="ascii")
    for family, program in PROGRAMS.items():
        restore(program, rules(family))


def restore(program: str, text: str) -> None:
    """In the network namespace of the calling thread. Raises LabError."""
    found = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if found is None:
        raise LabError(f"there is no {program} on this machine: apt install iptables")
    done = subprocess.run([found], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{program}: {done.stderr.strip()}")
