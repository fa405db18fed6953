"""Services, destinations and edits -> IPVS attributes. Pure.

Writing sends whole records, because the kernel replaces whole records: an absent tunnel type becomes 0, an absent
threshold is EINVAL. Raises Unencodable and nothing else for a value that has no place in the message.

Byte order is the trap: everything is in host order but addresses, ports, tunnel ports and the IPv4 netmask, which are
in network order; the IPv6 "netmask" is a prefix length in host order.
Source: include/uapi/linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c (ip_vs_genl_parse_*).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv4Address

from feedback.ipvs.errors import Unencodable
from feedback.ipvs.netlink import attribute
from feedback.ipvs.numbers import (
    AF_OF,
    CMD_DEST,
    CMD_SERVICE,
    DEST_ADDR,
    DEST_AF,
    DEST_FWD,
    DEST_LOWER,
    DEST_PORT,
    DEST_TUN_FLAGS,
    DEST_TUN_PORT,
    DEST_TUN_TYPE,
    DEST_UPPER,
    DEST_WEIGHT,
    NUMBER_OF,
    SVC_ADDR,
    SVC_AF,
    SVC_FLAGS,
    SVC_FWMARK,
    SVC_NETMASK,
    SVC_PE_NAME,
    SVC_PORT,
    SVC_PROTOCOL,
    SVC_SCHED,
    SVC_TIMEOUT,
    Command,
)
from feedback.model import (
    AddDestination,
    Address,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Family,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceKey,
    SetDestination,
    SetService,
)

_ALL_FLAGS = 0xFFFFFFFF  # the mask: which bits of the flags are meant
_SET_DEST = int(Command.SET_DEST)
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_BE16 = struct.Struct("!H")
_FLAGS = struct.Struct("=II")
_LIMITS = struct.Struct("=HHiHHIHHI")


@lru_cache(maxsize=4096)
def service_identity(key: ServiceKey) -> bytes:
    """The attributes that name a service. Raises Unencodable."""
    family = attribute(SVC_AF, _U16.pack(AF_OF[key.family]))
    if key.address is None or key.protocol is None:
        return family + attribute(SVC_FWMARK, pack_u32(key.fwmark, "firewall mark"))
    if Family.of(key.address) is not key.family:
        raise Unencodable(f"{key}: the key says {key.family}, the address is not")
    return (
        family
        + attribute(SVC_PROTOCOL, _U16.pack(NUMBER_OF[key.protocol]))
        + attribute(SVC_ADDR, _packed(key.address))
        + attribute(SVC_PORT, pack_port(key.port))
    )


def encode_service_key(key: ServiceKey) -> bytes:
    """The body that names a service: to get, remove or zero it, or to dump its destinations. Raises Unencodable."""
    return attribute(CMD_SERVICE, service_identity(key))


def encode_service(service: Service) -> bytes:
    """The body of NEW_SERVICE and SET_SERVICE. Raises Unencodable."""
    body = (
        service_identity(service.key)
        + attribute(SVC_SCHED, pack_name(service.scheduler))
        + attribute(SVC_FLAGS, _FLAGS.pack(service.flags & _ALL_FLAGS, _ALL_FLAGS))
        + attribute(SVC_TIMEOUT, pack_u32(service.timeout_seconds, "timeout_seconds"))
        + attribute(SVC_NETMASK, _netmask(service))
    )
    if service.pe_name:
        body += attribute(SVC_PE_NAME, pack_name(service.pe_name))
    return attribute(CMD_SERVICE, body)


def encode_destination(service: ServiceKey, destination: Destination) -> bytes:
    """The body of NEW_DEST and SET_DEST. Raises Unencodable.

    The hot path of the control loop: all but weight and thresholds is remembered.
    """
    try:
        limits = _LIMITS.pack(
            8, DEST_WEIGHT, destination.weight, 8, DEST_UPPER, destination.upper, 8, DEST_LOWER, destination.lower
        )
    except struct.error:
        raise Unencodable(
            f"weight {destination.weight}, upper {destination.upper}, lower {destination.lower}: "
            "a weight is in 0..2147483647, a threshold in 0..4294967295"
        ) from None
    fixed = _destination_fixed(
        service,
        destination.key,
        destination.forward + 0,  # a plain int hashes ten times faster than an enum's member
        destination.tunnel_type + 0,
        destination.tunnel_port,
        destination.tunnel_flags,
    )
    return fixed + limits


@lru_cache(maxsize=65536)
def _destination_fixed(
    service: ServiceKey, key: DestinationKey, forward: int, tunnel_type: int, tunnel_port: int, tunnel_flags: int
) -> bytes:
    fixed = (
        _destination_identity(key)
        + attribute(DEST_FWD, _U32.pack(forward))
        + attribute(DEST_TUN_TYPE, bytes([tunnel_type]))
        + attribute(DEST_TUN_PORT, pack_port(tunnel_port))
        + attribute(DEST_TUN_FLAGS, pack_u16(tunnel_flags, "tunnel_flags"))
    )
    # The nest is opened here with the length it will have when the limits are behind it.
    nest = struct.pack("=HH", 4 + len(fixed) + _LIMITS.size, CMD_DEST)
    return attribute(CMD_SERVICE, service_identity(service)) + nest + fixed


def _destination_identity(key: DestinationKey) -> bytes:
    return (
        attribute(DEST_ADDR, _packed(key.address))
        + attribute(DEST_PORT, pack_port(key.port))
        + attribute(DEST_AF, _U16.pack(AF_OF[Family.of(key.address)]))
    )


def encode_edit(edit: Edit) -> tuple[int, bytes]:
    """(command, body) of an edit. Raises Unencodable."""
    match edit:
        case SetDestination():
            return _SET_DEST, encode_destination(edit.service, edit.destination)
        case AddDestination():
            return Command.NEW_DEST, encode_destination(edit.service, edit.destination)
        case RemoveDestination():
            named = attribute(CMD_DEST, _destination_identity(edit.destination))
            return Command.DEL_DEST, encode_service_key(edit.service) + named
        case AddService():
            return Command.NEW_SERVICE, encode_service(edit.service)
        case SetService():
            return Command.SET_SERVICE, encode_service(edit.service)
        case RemoveService():
            return Command.DEL_SERVICE, encode_service_key(edit.service)


def _packed(address: Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def _netmask(service: Service) -> bytes:
    netmask, family = service.netmask, service.key.family
    if isinstance(netmask, IPv4Address):
        if family is not Family.IPV4:
            raise Unencodable(f"{service.key}: netmask {netmask} is for IPv4, IPv6 has a prefix length")
        return netmask.packed
    bits = 32 if family is Family.IPV4 else 128
    prefix = bits if netmask is None else netmask
    if not 0 <= prefix <= bits:
        raise Unencodable(f"{service.key}: netmask {prefix} is not in 0..{bits}")
    if family is Family.IPV6:
        return _U32.pack(prefix)
    return (0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF).to_bytes(4, "big")


def pack_u16(value: int, what: str) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise Unencodable(f"{what} {value} is not in 0..65535")
    return _U16.pack(value)


def pack_u32(value: int, what: str) -> bytes:
    if not 0 <= value <= 0xFFFFFFFF:
        raise Unencodable(f"{what} {value} is not in 0..4294967295")
    return _U32.pack(value)


def pack_port(port: int) -> bytes:
    if not 0 <= port <= 0xFFFF:
        raise Unencodable(f"port {port} is not in 0..65535")
    return _BE16.pack(port)


def pack_name(name: str) -> bytes:
    if not name or not name.isascii() or "\0" in name:
        raise Unencodable(f"{name!r} is not a name")
    return name.encode("ascii") + b"\0"
