"""Timeouts, sync daemons and the version as IPVS attributes: the part of the codec that is not services. Pure.

Byte order: all in host order but the multicast group, which is in network order. The multicast port is in host order
(the one port in IPVS that is). Source: include/uapi/linux/ip_vs.h, net/netfilter/ipvs/ip_vs_ctl.c.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from feedback.ipvs.decoding import member, need, number
from feedback.ipvs.encoding import pack_name, pack_u16, pack_u32
from feedback.ipvs.errors import MalformedMessage, Unencodable
from feedback.ipvs.netlink import attribute, attributes, text
from feedback.ipvs.types import Info, SyncDaemon, SyncRole, Timeouts
from feedback.model import Address

CMD_DAEMON, CMD_TCP, CMD_TCP_FIN, CMD_UDP = 3, 4, 5, 6
DAEMON_STATE, DAEMON_IFN, DAEMON_ID, DAEMON_MAXLEN = 1, 2, 3, 4
DAEMON_GROUP, DAEMON_GROUP6, DAEMON_PORT, DAEMON_TTL = 5, 6, 7, 8
INFO_VERSION, INFO_TABLE = 1, 2


def encode_timeouts(timeouts: Timeouts) -> bytes:
    """The body of SET_CONFIG; a 0 is left out and keeps the kernel's value. Raises Unencodable."""
    fields = (CMD_TCP, timeouts.tcp_seconds), (CMD_TCP_FIN, timeouts.tcp_fin_seconds), (CMD_UDP, timeouts.udp_seconds)
    return b"".join(attribute(kind, pack_u32(value, "timeout")) for kind, value in fields if value)


def decode_timeouts(body: bytes) -> Timeouts:
    """Raises MalformedMessage. A kernel built without TCP or UDP balancing leaves theirs out: 0."""
    found = attributes(body)
    return Timeouts(*(number(found.get(k, bytes(4)), 4, "timeout") for k in (CMD_TCP, CMD_TCP_FIN, CMD_UDP)))


def encode_daemon(daemon: SyncDaemon) -> bytes:
    """The body of NEW_DAEMON. Raises Unencodable."""
    parts = [
        attribute(DAEMON_STATE, pack_u32(daemon.role, "role")),
        attribute(DAEMON_IFN, pack_name(daemon.interface)),
        attribute(DAEMON_ID, pack_u32(daemon.sync_id, "sync_id")),
    ]
    if daemon.maxlen:
        parts.append(attribute(DAEMON_MAXLEN, pack_u16(daemon.maxlen, "maxlen")))
    if daemon.group is not None:
        kind = DAEMON_GROUP if daemon.group.version == 4 else DAEMON_GROUP6
        parts.append(attribute(kind, daemon.group.packed))
    if daemon.port:
        parts.append(attribute(DAEMON_PORT, pack_u16(daemon.port, "port")))
    if daemon.ttl:
        parts.append(attribute(DAEMON_TTL, _byte(daemon.ttl, "ttl")))
    return attribute(CMD_DAEMON, b"".join(parts))


def encode_daemon_role(role: SyncRole) -> bytes:
    """The body of DEL_DAEMON."""
    return attribute(CMD_DAEMON, attribute(DAEMON_STATE, pack_u32(role, "role")))


def decode_daemon(body: bytes) -> SyncDaemon:
    """Raises MalformedMessage."""
    found = attributes(need(attributes(body), CMD_DAEMON, "daemon"))
    return SyncDaemon(
        role=member(SyncRole, number(need(found, DAEMON_STATE, "role"), 4, "role")),
        interface=text(need(found, DAEMON_IFN, "interface")),
        sync_id=number(need(found, DAEMON_ID, "sync_id"), 4, "sync_id"),
        maxlen=number(found.get(DAEMON_MAXLEN, bytes(2)), 2, "maxlen"),
        group=_group(found),
        port=number(found.get(DAEMON_PORT, bytes(2)), 2, "port"),
        ttl=number(found.get(DAEMON_TTL, bytes(1)), 1, "ttl"),
    )


def decode_info(body: bytes) -> Info:
    """Raises MalformedMessage."""
    found = attributes(body)
    version = number(need(found, INFO_VERSION, "version"), 4, "version")
    return Info(
        version=(version >> 16, version >> 8 & 0xFF, version & 0xFF),
        connection_table_size=number(need(found, INFO_TABLE, "table size"), 4, "table size"),
    )


def _group(found: dict[int, bytes]) -> Address | None:
    four, six = found.get(DAEMON_GROUP), found.get(DAEMON_GROUP6)
    if four is not None and len(four) == 4:
        return IPv4Address(four)
    if six is not None and len(six) == 16:
        return IPv6Address(six)
    if four is not None or six is not None:
        raise MalformedMessage("a multicast group of a wrong length")
    return None


def _byte(value: int, what: str) -> bytes:
    if not 0 <= value <= 0xFF:
        raise Unencodable(f"{what} {value} is not in 0..255")
    return bytes([value])
