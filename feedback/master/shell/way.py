"""From which of this host's addresses a server is asked, and what prevents its answer. A shell.

A check that goes through a service is answered by the server with the VIP for its sender, which is an address of this
host too. Linux drops such a packet as forged unless the interface has `accept_local`, and where the VIP is on another
interface also if that has a strict `rp_filter` (__fib_validate_source in net/ipv4/fib_frontend.c; IPv6 has no such
test). They are the operator's settings, and not touched here.
"""

from __future__ import annotations

import errno
import itertools
import random
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address
from pathlib import Path
from typing import NamedTuple

import psutil

from feedback.master.claims.health import Unasked
from feedback.model import Address

KEPT_SECONDS = 5.0  # routes and settings change, seldom
CONF = Path("/proc/sys/net/ipv4/conf")
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES = 100  # so many in a row are hardly in use
STRICT = 1
LASTING = "(and in /etc/sysctl.d)"


Local = list[tuple[str, IPv4Interface | IPv6Interface]]  # this host's interfaces with their addresses


class Way(NamedTuple):
    source: str
    obstacle: Unasked | None


class Ports:
    """For sockets that go through a service: one after another, so that each comes again as late as can be. IPVS knows
    a connection by addresses and ports alone. It remembers a check that was not answered for a minute, and would send
    another one from the same port to the same server, whatever its mark."""

    def __init__(self, first: int, last: int) -> None:
        ports = range(first, last + 1)
        start = random.randrange(len(ports))  # not where the master before began
        self._ports = itertools.cycle([*ports[start:], *ports[:start]])

    @staticmethod
    def of_host() -> Ports:
        try:
            first, last = map(int, PORT_RANGE.read_text(encoding="ascii").split())
        except (OSError, ValueError):
            first, last = 32768, 60999  # the kernel's own
        return Ports(first, last)

    def bind(self, client: socket.socket, source: str) -> None:
        """To the next that is free. Raises OSError."""
        for port in itertools.islice(self._ports, TRIES):
            try:
                client.bind((source, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        client.bind((source, 0))


class Ways:
    def __init__(self) -> None:
        self._looked_at, self._there = -KEPT_SECONDS, Local()
        self._known: dict[tuple[Address, Address], Way] = {}

    def to(self, address: Address, vip: Address) -> Way:
        """For a server that answers as the VIP. Raises OSError where there is no route."""
        now = time.monotonic()
        if now - self._looked_at >= KEPT_SECONDS:
            self._looked_at, self._there = now, list(_addresses())
            self._known.clear()
        way = self._known.get((address, vip))
        if way is None:
            self._known[address, vip] = way = _way(address, vip, self._there)
        return way


def _way(address: Address, vip: Address, there: Local) -> Way:
    source = _near(address, there) or routed(address)
    if source == vip:
        reason = f"towards {address} this host has only the VIP as its address: the server would answer itself"
        return Way(str(source), Unasked(reason, "ip addr add ADDRESS/PREFIX dev INTERFACE"))
    return Way(str(source), _obstacle(source, vip, there) if address.version == 4 else None)


def _addresses() -> Iterator[tuple[str, IPv4Interface | IPv6Interface]]:
    for name, addresses in psutil.net_if_addrs().items():
        for a in addresses:
            if a.family == socket.AF_INET:
                yield name.partition(":")[0], IPv4Interface(f"{a.address}/{a.netmask}")  # `eth0:1` is an alias
            elif a.family == socket.AF_INET6 and a.netmask and "%" not in a.address:
                yield name, IPv6Interface(f"{a.address}/{bin(int(IPv6Address(a.netmask))).count('1')}")


def _near(address: Address, there: Local) -> Address | None:
    """Ours in its network. The kernel itself would take a VIP for IPv6, whose /128 counts as the longer match."""
    return next((own.ip for _, own in there if address in own.network and own.network.num_addresses > 1), None)


def routed(address: Address) -> Address:
    """What the routing table says; nothing is sent."""
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.connect((str(address), 9))
        return ip_address(client.getsockname()[0])


def _obstacle(source: Address, vip: Address, there: Local) -> Unasked | None:
    names = {own.ip: name for name, own in there}
    interface, other = names.get(source), names.get(vip)
    if interface is None or other is None:
        return None  # a VIP that is not this host's own is nobody's forgery
    if not _setting(interface, "accept_local", missing=1):
        name = f"net.ipv4.conf.{interface}.accept_local"
        return Unasked(f"{name} is 0: answers from the VIP would be dropped", f"sysctl -w {name}=1   {LASTING}")
    if other != interface and _setting(interface, "rp_filter", missing=0) == STRICT:
        name = f"net.ipv4.conf.{interface}.rp_filter"
        reason = f"{name} is 1 and the VIP is on {other}: its answers would be dropped"
        return Unasked(reason, f"sysctl -w {name}=2   {LASTING}")
    return None


def _setting(interface: str, name: str, missing: int) -> int:
    """As it counts for an interface: the larger of `all` and its own."""
    try:
        return max(int((CONF / which / name).read_text(encoding="ascii")) for which in ("all", interface))
    except (OSError, ValueError):
        return missing
