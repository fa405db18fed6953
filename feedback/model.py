"""The field's terms as types: services, destinations, the kernel's figures for them, and what we want from it.

Everything is frozen and does no I/O. Configuration types (`Service`, `Destination`) are separate from the kernel's
counts (`Counters`, `DestinationEntry`), so writing back what was read can never write a counter. Keys are types: a
destination is known only together with its service.

Source of the semantics: Linux net/netfilter/ipvs/ip_vs_ctl.c and include/uapi/linux/ip_vs.h.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from ipaddress import IPv4Address
from typing import TypeAlias

import msgspec

from feedback.endpoints import Address as Address
from feedback.endpoints import format_endpoint as format_endpoint
from feedback.endpoints import parse_address as parse_address
from feedback.endpoints import parse_endpoint as parse_endpoint

WEIGHT_MAX = 2**31 - 1  # the kernel keeps a weight in an int
# Firewall marks of services that carry the master's own checks (feedback/master/passages.py): a mark is what belongs to
# us, so all who look at the kernel's table know these services by it. "LV" in its upper half.
CHECK_MARKS = range(0x4C560000, 0x4C570000)
THRESHOLD_MAX = 2**31 - 1  # kernels since 6.1.192 refuse more


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"


class Family(StrEnum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @staticmethod
    def of(address: Address) -> Family:
        return Family.IPV4 if address.version == 4 else Family.IPV6


class Forward(IntEnum):
    """Forwarding method; the kernel's numbers (IP_VS_CONN_F_*)."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3  # direct routing
    BYPASS = 4


class TunnelType(IntEnum):
    IPIP = 0
    GUE = 1
    GRE = 2


class ServiceFlags(IntFlag):
    """IP_VS_SVC_F_*. SCHED1..3 mean something else to each scheduler: fallback (8) and port (16) for sh and mh."""

    PERSISTENT = 0x01
    HASHED = 0x02  # set by the kernel itself
    ONE_PACKET = 0x04
    SCHED1 = 0x08
    SCHED2 = 0x10
    SCHED3 = 0x20


class ServiceKey(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """What identifies a virtual service: protocol, address and port, or a firewall mark and a family.

    Written `tcp:10.0.0.100:80`, `udp:[2001:db8::1]:53`, `fwmark:7`, `fwmark:7:ipv6`.
    """

    protocol: Protocol | None
    address: Address | None
    port: int
    fwmark: int
    family: Family

    @staticmethod
    def at(protocol: Protocol, address: Address | str, port: int) -> ServiceKey:
        """The key of an addressed service. Raises ValueError if the address or the port does not parse."""
        parsed = parse_address(address) if isinstance(address, str) else address
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not in 0..65535")
        return ServiceKey(protocol, parsed, port, 0, Family.of(parsed))

    @staticmethod
    def marked(fwmark: int, family: Family = Family.IPV4) -> ServiceKey:
        """The key of a firewall-mark service. Raises ValueError if the mark is not in 1..2**32-1."""
        if not 1 <= fwmark < 2**32:
            raise ValueError(f"firewall mark {fwmark} is not in 1..4294967295")
        return ServiceKey(None, None, 0, fwmark, family)

    @staticmethod
    def parse(text: str) -> ServiceKey:
        """Read the written form. Raises ValueError with what was expected."""
        kind, _, rest = text.partition(":")
        if kind == "fwmark":
            mark, _, family = rest.partition(":")
            if not (mark.isascii() and mark.isdecimal()):
                raise ValueError(f"{text!r}: expected fwmark:NUMBER or fwmark:NUMBER:ipv6")
            return ServiceKey.marked(int(mark), Family(family or "ipv4"))
        if kind not in {p.value for p in Protocol}:
            raise ValueError(f"{text!r}: expected PROTOCOL:ADDRESS:PORT (tcp, udp or sctp) or fwmark:NUMBER")
        address, port = parse_endpoint(rest)
        return ServiceKey.at(Protocol(kind), address, port)

    def __str__(self) -> str:
        if self.address is None:
            return f"fwmark:{self.fwmark}" + (":ipv6" if self.family is Family.IPV6 else "")
        return f"{self.protocol}:{format_endpoint(self.address, self.port)}"


class DestinationKey(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """A destination inside a service: real server address (RIP) and port. Written `10.0.0.11:80`."""

    address: Address
    port: int

    @staticmethod
    def parse(text: str) -> DestinationKey:
        """Read `ADDRESS:PORT` or `[ADDRESS]:PORT`. Raises ValueError with what was expected."""
        return DestinationKey(*parse_endpoint(text))

    def __str__(self) -> str:
        return format_endpoint(self.address, self.port)


class Service(msgspec.Struct, frozen=True):
    """Configuration of a virtual service. `timeout_seconds` is the persistence timeout; `netmask` the granularity of
    persistence: a prefix length, 0..32 for IPv4 and 1..128 for IPv6; an IPv4Address is a mask that is no prefix, which
    the kernel takes too and which reading must not lose."""

    key: ServiceKey
    scheduler: str = "sed"
    flags: ServiceFlags = ServiceFlags(0)
    timeout_seconds: int = 0
    netmask: int | IPv4Address | None = None  # None: the whole address
    pe_name: str | None = None

    @property
    def persistent(self) -> bool:
        return bool(self.flags & ServiceFlags.PERSISTENT)


class Destination(msgspec.Struct, frozen=True):
    """Configuration of a destination. `upper` and `lower` are thresholds in connections (active and inactive
    together); 0 means none. The kernel replaces the whole record at each edit, so this is always the whole record."""

    key: DestinationKey
    weight: int = 1
    forward: Forward = Forward.ROUTE
    upper: int = 0
    lower: int = 0
    tunnel_type: TunnelType = TunnelType.IPIP
    tunnel_port: int = 0
    tunnel_flags: int = 0


class Counters(msgspec.Struct, frozen=True):
    """Cumulative totals, and the kernel's own rates per second. Refreshed by the kernel only every 2 s."""

    connections: int = 0
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    connections_rate: int = 0
    packets_in_rate: int = 0
    packets_out_rate: int = 0
    bytes_in_rate: int = 0
    bytes_out_rate: int = 0


class DestinationEntry(msgspec.Struct, frozen=True):
    """A destination as the kernel has it. `active`, `inactive` and `persistent` are live; `counters` are not."""

    destination: Destination
    active: int = 0
    inactive: int = 0
    persistent: int = 0
    counters: Counters = Counters()


class ServiceEntry(msgspec.Struct, frozen=True):
    service: Service
    destinations: tuple[DestinationEntry, ...] = ()
    counters: Counters = Counters()

    def entry(self, key: DestinationKey) -> DestinationEntry | None:
        return next((e for e in self.destinations if e.destination.key == key), None)


class Snapshot(msgspec.Struct, frozen=True):
    """The whole table of one network namespace at one moment."""

    services: tuple[ServiceEntry, ...] = ()

    def entry(self, key: ServiceKey) -> ServiceEntry | None:
        return next((s for s in self.services if s.service.key == key), None)

    def without_checks(self) -> Snapshot:
        """Clients' services only."""
        return Snapshot(tuple(s for s in self.services if s.service.key.fwmark not in CHECK_MARKS))


# Edits: decisions as data, absolute targets, never deltas. The core returns them, the client performs them.


class AddService(msgspec.Struct, frozen=True, tag=True):
    service: Service


class SetService(msgspec.Struct, frozen=True, tag=True):
    service: Service


class RemoveService(msgspec.Struct, frozen=True, tag=True):
    service: ServiceKey


class AddDestination(msgspec.Struct, frozen=True, tag=True):
    service: ServiceKey
    destination: Destination


class SetDestination(msgspec.Struct, frozen=True, tag=True):
    service: ServiceKey
    destination: Destination


class RemoveDestination(msgspec.Struct, frozen=True, tag=True):
    service: ServiceKey
    destination: DestinationKey


Edit: TypeAlias = AddService | SetService | RemoveService | AddDestination | SetDestination | RemoveDestination


class Reason(msgspec.Struct, frozen=True):
    """Why a value is what it is: the stage that said it, the value after that stage, and the words for a person."""

    stage: str
    text: str
    value: float | None = None


class Setting(msgspec.Struct, frozen=True):
    """What one destination should have, and the chain of reasons from report to weight. `share` is the part (0..1) of
    the service's connections that the weight stands for."""

    service: ServiceKey
    destination: DestinationKey
    weight: int
    share: float = 0.0
    upper: int = 0
    lower: int = 0
    reasons: tuple[Reason, ...] = ()
