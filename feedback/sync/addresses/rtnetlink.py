"""Addresses and routes as rtnetlink messages. Bytes in, bytes out; framing is feedback.ipvs.netlink's.

This module owns the layouts of RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR and RTM_GETROUTE. It opens no socket and decides
nothing. Invariant: whatever the bytes, a reader here raises nothing but MalformedMessage.
Sources: include/uapi/linux/if_addr.h and rtnetlink.h, net/ipv4/devinet.c, net/ipv6/addrconf.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from feedback.ipvs import netlink
from feedback.ipvs.errors import MalformedMessage
from feedback.sync.addresses.packets import Address
from feedback.sync.addresses.plan import PROTOCOL, VirtualAddress

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400

_AF_INET, _AF_INET6 = 2, 10
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")
_CACHEINFO = struct.Struct("=IIII")  # preferred, valid, created, changed
_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 6, 8, 11
_IFA_F_SECONDARY, _IFA_F_NODAD = 0x01, 0x02
_FOREVER = 0xFFFF_FFFF
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 4, 5, 7, 18
_RTN_LOCAL = 2
_HEADER = struct.Struct("=IHHII")


@dataclass(frozen=True, slots=True)
class Entry:
    """An address as the kernel reports it. Sending `body` back adds the same address again. `protocol` is 0 if nobody
    set it or the kernel does not keep it."""

    index: int
    address: Address
    prefix: int
    protocol: int
    secondary: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class Route:
    """The route to one address. Without a gateway its host is on the link. `local`: it is this host's own address."""

    index: int
    gateway: bool
    source: Address | None
    local: bool


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """The length of `body` must be a multiple of four."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | netlink.NLM_F_REQUEST, sequence, 0) + body


def address_body(wanted: VirtualAddress, index: int) -> bytes:
    """The body of RTM_NEWADDR and of RTM_DELADDR.

    An IPv6 address is usable at once, without duplicate address detection, since a look came before. It is deprecated
    from the start: the host answers for it, but does not use it as source address of its own connections, which would
    break when the address moves.
    """
    packed = wanted.address.packed
    family = _AF_INET if len(packed) == 4 else _AF_INET6
    flags = 0 if family == _AF_INET else _IFA_F_NODAD
    body = _IFADDRMSG.pack(family, wanted.prefix, flags, 0, index)
    body += netlink.attribute(_IFA_LOCAL, packed) + netlink.attribute(_IFA_ADDRESS, packed)
    if family == _AF_INET6:
        body += netlink.attribute(_IFA_CACHEINFO, _CACHEINFO.pack(0, _FOREVER, 0, 0))
    return body + netlink.attribute(_IFA_PROTO, bytes((PROTOCOL,)))


def nobody() -> bytes:
    """For RTM_DELADDR: it removes nothing, since no interface has the index 0. Without the permission to remove
    addresses the kernel refuses even this (EPERM)."""
    return _IFADDRMSG.pack(_AF_INET, 32, 0, 0, 0)


def everything() -> bytes:
    """For a dump by RTM_GETADDR of both families."""
    return _IFADDRMSG.pack(0, 0, 0, 0, 0)


def entry(body: bytes) -> Entry:
    """The body of an RTM_NEWADDR. Raises MalformedMessage."""
    if len(body) < _IFADDRMSG.size:
        raise MalformedMessage(f"an address message of {len(body)} bytes")
    _, prefix, flags, _, index = _IFADDRMSG.unpack_from(body)
    found = netlink.attributes(body[_IFADDRMSG.size :])
    # With a peer (point to point) IFA_ADDRESS is the address of the other end.
    address = _address(found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b""))
    if len(found.get(_IFA_FLAGS, b"")) == 4:
        flags = struct.unpack("=I", found[_IFA_FLAGS])[0]
    protocol = found.get(_IFA_PROTO, b"\0")[:1]
    # In IPv6 the same bit means a temporary address; none is deleted with another.
    secondary = bool(flags & _IFA_F_SECONDARY) and isinstance(address, IPv4Address)
    return Entry(index, address, prefix, int.from_bytes(protocol, "big"), secondary, body)


def route_body(target: Address) -> bytes:
    """For RTM_GETROUTE, not a dump: asks for the route of a packet to `target`."""
    family = _AF_INET if isinstance(target, IPv4Address) else _AF_INET6
    header = _RTMSG.pack(family, target.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return header + netlink.attribute(_RTA_DST, target.packed)


def route(body: bytes) -> Route:
    """The body of an RTM_NEWROUTE. Raises MalformedMessage."""
    if len(body) < _RTMSG.size:
        raise MalformedMessage(f"a route message of {len(body)} bytes")
    found = netlink.attributes(body[_RTMSG.size :])
    index = found.get(_RTA_OIF, b"")
    if len(index) != 4:
        raise MalformedMessage("a route that names no interface")
    source = _address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None
    gateway = _RTA_GATEWAY in found or _RTA_VIA in found
    return Route(struct.unpack("=I", index)[0], gateway, source, local=body[7] == _RTN_LOCAL)


def _address(packed: bytes) -> IPv4Address | IPv6Address:
    if len(packed) not in (4, 16):
        raise MalformedMessage(f"an address of {len(packed)} bytes")
    return ip_address(packed)
