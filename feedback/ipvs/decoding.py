"""IPVS attributes -> services, destinations and counters. Pure.

Reading loses no field. Invariant: no input makes a function here raise anything but MalformedMessage.
Byte order is as in encoding.py. Source: net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_genl_fill_*).
"""

from __future__ import annotations

import sys
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from feedback.ipvs.errors import MalformedMessage
from feedback.ipvs.netlink import attributes, text
from feedback.ipvs.numbers import (
    CMD_DEST,
    CMD_SERVICE,
    DEST_ACTIVE,
    DEST_ADDR,
    DEST_AF,
    DEST_FWD,
    DEST_INACTIVE,
    DEST_LOWER,
    DEST_PERSISTENT,
    DEST_PORT,
    DEST_STATS,
    DEST_STATS64,
    DEST_TUN_FLAGS,
    DEST_TUN_PORT,
    DEST_TUN_TYPE,
    DEST_UPPER,
    DEST_WEIGHT,
    FAMILY_OF,
    PROTOCOL_OF,
    SVC_ADDR,
    SVC_AF,
    SVC_FLAGS,
    SVC_FWMARK,
    SVC_NETMASK,
    SVC_PE_NAME,
    SVC_PORT,
    SVC_PROTOCOL,
    SVC_SCHED,
    SVC_STATS,
    SVC_STATS64,
    SVC_TIMEOUT,
)
from feedback.model import (
    Address,
    Counters,
    Destination,
    DestinationEntry,
    DestinationKey,
    Family,
    Forward,
    Service,
    ServiceEntry,
    ServiceFlags,
    ServiceKey,
    TunnelType,
)

E = TypeVar("E", bound=IntEnum)


def decode_service(body: bytes) -> ServiceEntry:
    """A service without its destinations. `body` is the message after its headers. Raises MalformedMessage."""
    found = attributes(need(attributes(body), CMD_SERVICE, "service"))
    key = _service_key(found)
    raw_flags = need(found, SVC_FLAGS, "service flags")
    return ServiceEntry(
        service=Service(
            key=key,
            scheduler=text(need(found, SVC_SCHED, "scheduler")),
            flags=ServiceFlags(number(raw_flags[:4], 4, "service flags")),
            timeout_seconds=number(need(found, SVC_TIMEOUT, "timeout"), 4, "timeout"),
            netmask=_read_netmask(need(found, SVC_NETMASK, "netmask"), key.family),
            pe_name=text(found[SVC_PE_NAME]) if SVC_PE_NAME in found else None,
        ),
        counters=decode_counters(found.get(SVC_STATS64), found.get(SVC_STATS)),
    )


def decode_destination(body: bytes, service: Family) -> DestinationEntry:
    """A destination; `service` is its service's family, which holds where a kernel names none.

    Raises MalformedMessage.
    """
    found = attributes(need(attributes(body), CMD_DEST, "destination"))
    return DestinationEntry(
        destination=Destination(
            key=_destination_key(found, service),
            weight=number(need(found, DEST_WEIGHT, "weight"), 4, "weight"),
            forward=member(Forward, number(need(found, DEST_FWD, "forwarding"), 4, "forwarding") & 7),
            upper=number(need(found, DEST_UPPER, "upper threshold"), 4, "upper threshold"),
            lower=number(need(found, DEST_LOWER, "lower threshold"), 4, "lower threshold"),
            tunnel_type=member(TunnelType, number(found.get(DEST_TUN_TYPE, b"\0"), 1, "tunnel type")),
            tunnel_port=_port(found.get(DEST_TUN_PORT, b"\0\0")),
            tunnel_flags=number(found.get(DEST_TUN_FLAGS, b"\0\0"), 2, "tunnel flags"),
        ),
        active=number(need(found, DEST_ACTIVE, "active"), 4, "active"),
        inactive=number(need(found, DEST_INACTIVE, "inactive"), 4, "inactive"),
        persistent=number(need(found, DEST_PERSISTENT, "persistent"), 4, "persistent"),
        counters=decode_counters(found.get(DEST_STATS64), found.get(DEST_STATS)),
    )


def destination_mark(body: bytes) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Only what names a destination, as raw bytes: enough to compare two dumps. Raises MalformedMessage."""
    found = attributes(need(attributes(body), CMD_DEST, "destination"))
    return found.get(DEST_ADDR), found.get(DEST_PORT), found.get(DEST_AF)


def decode_counters(wide: bytes | None, narrow: bytes | None) -> Counters:
    """The 64-bit counters, else the older ones (whose counts are 32 bits and wrap), else zeros.

    Raises MalformedMessage.
    """
    raw = wide if wide is not None else narrow
    if raw is None:
        return Counters()
    found = attributes(raw)
    values = []
    for kind in range(1, 11):  # in the order of the fields of Counters
        payload = found.get(kind, b"")
        if len(payload) not in {0, 4, 8}:
            raise MalformedMessage(f"counter {kind} has {len(payload)} bytes")
        values.append(int.from_bytes(payload, sys.byteorder))
    return Counters(*values)


def _service_key(found: dict[int, bytes]) -> ServiceKey:
    family = _family(need(found, SVC_AF, "service family"))
    if SVC_FWMARK in found and SVC_ADDR not in found:
        mark = number(found[SVC_FWMARK], 4, "firewall mark")
        if mark == 0:
            raise MalformedMessage("a service with firewall mark 0 and no address")
        return ServiceKey.marked(mark, family)
    protocol = PROTOCOL_OF.get(number(need(found, SVC_PROTOCOL, "protocol"), 2, "protocol"))
    if protocol is None:
        raise MalformedMessage("a service that is neither TCP nor UDP nor SCTP")
    address = read_address(need(found, SVC_ADDR, "service address"), family)
    return ServiceKey.at(protocol, address, _port(need(found, SVC_PORT, "service port")))


def _destination_key(found: dict[int, bytes], service: Family) -> DestinationKey:
    # Kernels before 3.18 name no family; and a family of 0 means the service's, as in what we may send.
    named = found.get(DEST_AF, b"\0\0")
    family = service if named == b"\0\0" else _family(named)
    return _endpoint(need(found, DEST_ADDR, "destination address"), family, need(found, DEST_PORT, "destination port"))


@lru_cache(maxsize=65536)  # the same object at each look: what looks it up compares no addresses
def _endpoint(payload: bytes, family: Family, port: bytes) -> DestinationKey:
    return DestinationKey(read_address(payload, family), _port(port))


@lru_cache(maxsize=65536)
def read_address(payload: bytes, family: Family) -> Address:
    """An nf_inet_addr. Raises MalformedMessage."""
    if len(payload) < (4 if family is Family.IPV4 else 16):
        raise MalformedMessage(f"an {family} address of {len(payload)} bytes")
    return IPv4Address(payload[:4]) if family is Family.IPV4 else IPv6Address(payload[:16])


def _read_netmask(payload: bytes, family: Family) -> int | IPv4Address | None:
    """None for the whole address; an IPv4Address for a mask that is no prefix, which the kernel takes too."""
    if family is Family.IPV6:
        prefix = number(payload, 4, "prefix length")
        return None if prefix == 128 else prefix
    if len(payload) != 4:
        raise MalformedMessage(f"a netmask of {len(payload)} bytes")
    bits = format(int.from_bytes(payload, "big"), "032b")
    ones = bits.count("1")
    if bits != "1" * ones + "0" * (32 - ones):
        return IPv4Address(payload)
    return None if ones == 32 else ones


def _family(payload: bytes) -> Family:
    family = FAMILY_OF.get(number(payload, 2, "address family"))
    if family is None:
        raise MalformedMessage(f"address family {payload.hex()} is neither IPv4 nor IPv6")
    return family


def _port(payload: bytes) -> int:
    if len(payload) != 2:
        raise MalformedMessage(f"a port of {len(payload)} bytes")
    return int.from_bytes(payload, "big")


def need(found: dict[int, bytes], kind: int, what: str) -> bytes:
    """Raises MalformedMessage if the attribute is absent."""
    payload = found.get(kind)
    if payload is None:
        raise MalformedMessage(f"no {what} in the message")
    return payload


def number(payload: bytes, size: int, what: str) -> int:
    """An unsigned number in host order. Raises MalformedMessage."""
    if len(payload) != size:
        raise MalformedMessage(f"{what} has {len(payload)} bytes, {size} were expected")
    return int.from_bytes(payload, sys.byteorder)


def member(kind: type[E], value: int) -> E:
    """Raises MalformedMessage if the enumeration has no such value."""
    try:
        return kind(value)
    except ValueError:
        raise MalformedMessage(f"{kind.__name__} {value} is not known") from None
