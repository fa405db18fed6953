"""Tracking entries as ctnetlink messages, made of records of the sync protocol. Bytes in, bytes out. Pure.

A masqueraded connection is tracked by two tuples: client to VIP, and real server to client. IPVS makes the same ones
(ip_vs_update_conntrack). Thousands of entries are written while clients wait, so each kind of message is made once
(`_Form`) and then only filled in. That takes Python some 3 us each, where encoding every attribute takes 22 us.

The entry is liberal about TCP windows, since the numbers of the last segments were lost with the other director.
Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c
(ctnetlink_new_conntrack, ctnetlink_del_conntrack), net/netfilter/ipvs/ip_vs_nfct.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from feedback.ipvs.netlink import NLM_F_REQUEST, attribute
from feedback.sync.conntrack.adjustments import Adjustment, Key, Shift
from feedback.sync.replication.records import RECORD6_BYTES, RECORD_BYTES, ConnectionFlag, IpProtocol

NEW, DELETE = 0x100, 0x102  # NFNL_SUBSYS_CTNETLINK and the command
NLM_F_CREATE, NLM_F_EXCL = 0x400, 0x200
_HEADER, _SEQUENCE = struct.Struct("=IHHII"), struct.Struct("=I")
_SEQUENCE_AT = 8
_NESTED = 0x8000
_AF_INET, _AF_INET6 = 2, 10

# enum ctattr_type and those below it
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT = 1, 2, 3, 4, 7
_HELP, _SEQ_ADJ_ORIG, _SEQ_ADJ_REPLY = 5, 15, 16
_HELP_NAME = 1
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_PROTOINFO_TCP, _TCP_STATE, _TCP_FLAGS_ORIGINAL, _TCP_FLAGS_REPLY = 1, 1, 4, 5
_POSITION, _BEFORE, _AFTER = 1, 2, 3

IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED, IPS_SEQ_ADJUST, IPS_HELPER = 0x02, 0x04, 0x08, 0x40, 0x2000
BE_LIBERAL = 0x08

_STATUS_ATTRIBUTE = attribute(_STATUS, (IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED).to_bytes(4, "big"))

# From IPVS's TCP state to that of the tracking. A half-closed connection may carry data for long. Connections in other
# states have ended or not begun: their packets make an entry themselves, or need none.
TCP_STATES = {1: 3, 4: 4, 7: 5}  # ESTABLISHED, FIN_WAIT, CLOSE_WAIT


_TCP, _UDP = int(IpProtocol.TCP), int(IpProtocol.UDP)
# Bits of the flags' last byte, and of the byte before it.
_METHOD, _TEMPLATE = int(ConnectionFlag.FORWARD), ConnectionFlag.TEMPLATE >> 8


def tracked(body: bytes) -> bool:
    """Whether the kernel tracks the connection of this record: it is masqueraded, alive, and no template.

    SCTP is left out: its entry holds a tag of each end, which no record has."""
    if body[7] & _METHOD or body[6] & _TEMPLATE or body[10:12] == b"\0\0":
        return False
    return body[9] in TCP_STATES if body[1] == _TCP else body[1] == _UDP


def key(body: bytes) -> Key:
    """Protocol, ports of client and service, their addresses."""
    return body[1:2] + body[10:14] + body[24 : 56 if body[0] else 32]


def creation(body: bytes, sequence: int, adjustment: Adjustment | None = None) -> bytes:
    """The message that creates the entry of a `tracked` record. The kernel refuses it with EEXIST if either tuple
    exists."""
    made = _form(body).filled(body, sequence)
    return bytes(made) if adjustment is None else _adjusted(made, adjustment)


def removal(body: bytes, sequence: int) -> bytes:
    """Two messages that remove any entry with the client's or the server's tuple. ENOENT if there is none."""
    return b"".join(bytes(form.filled(body, sequence)) for form in _removals(body))


def existence(sequence: int) -> bytes:
    """Asks for the number of entries. Every kernel whose tracking can be queried answers this."""
    return _HEADER.pack(20, 0x105, NLM_F_REQUEST, sequence, 0) + bytes(4)  # IPCTNL_MSG_CT_GET_STATS


# --- forms -----------------------------------------------------------------------------------------------------------


class _Form:
    """A message with marks in place of a record's fields, and the positions of these marks."""

    def __init__(self, message: bytes, size: int) -> None:
        self._message = message
        self._moves = [(place, field) for mark, field in _fields(size) for place in _places(message, mark)]
        self._state = message.find(_STATE_MARK) + 4 if _STATE_MARK in message else None

    def filled(self, body: bytes, sequence: int) -> bytearray:
        made = bytearray(self._message)
        for place, field in self._moves:
            made[place] = body[field]
        if self._state is not None:
            made[self._state] = TCP_STATES[body[9]]
        _SEQUENCE.pack_into(made, _SEQUENCE_AT, sequence)
        return made


# Marks: all different, and none occurs in a message otherwise.
_CLIENT_PORT, _VIRTUAL_PORT, _SERVER_PORT, _TIMEOUT_MARK = b"\xd1\xd2", b"\xd3\xd4", b"\xd5\xd6", b"\xd7\xd8\xd9\xda"
_STATE_MARK = attribute(_TCP_STATE, b"\xdb")


def _marks(size: int) -> tuple[bytes, bytes, bytes]:
    return b"\xc1" * size, b"\xc2" * size, b"\xc3" * size  # client, VIP, server


def _fields(size: int) -> Iterator[tuple[bytes, slice]]:
    """Each field of a record, after the mark that stands for it."""
    yield _CLIENT_PORT, slice(10, 12)
    yield _VIRTUAL_PORT, slice(12, 14)
    yield _SERVER_PORT, slice(14, 16)
    yield _TIMEOUT_MARK, slice(20, 24)
    for number, mark in enumerate(_marks(size)):
        yield mark, slice(24 + number * size, 24 + (number + 1) * size)


def _places(message: bytes, mark: bytes) -> Iterator[slice]:
    at = message.find(mark)
    while at >= 0:
        yield slice(at, at + len(mark))
        at = message.find(mark, at + len(mark))


def _nested(kind: int, payload: bytes) -> bytes:
    return attribute(kind | _NESTED, payload)


def _tuple(kind: int, protocol: int, source: bytes, target: bytes, source_port: bytes, target_port: bytes) -> bytes:
    src, dst = (_V4_SRC, _V4_DST) if len(source) == 4 else (_V6_SRC, _V6_DST)
    addresses = attribute(src, source) + attribute(dst, target)
    ports = attribute(_PROTO_SRC_PORT, source_port) + attribute(_PROTO_DST_PORT, target_port)
    number = attribute(_PROTO_NUM, bytes((protocol,)))
    return _nested(kind, _nested(_TUPLE_IP, addresses) + _nested(_TUPLE_PROTO, number + ports))


def _message(kind: int, flags: int, size: int, attributes: bytes) -> bytes:
    """A message with the header of this subsystem: the family, version 0, and a number that is 0 here."""
    body = bytes((_AF_INET if size == 4 else _AF_INET6, 0, 0, 0)) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def _tuples(size: int, protocol: int, kind: int, reply_kind: int) -> tuple[bytes, bytes]:
    client, virtual, server = _marks(size)
    return (
        _tuple(kind, protocol, client, virtual, _CLIENT_PORT, _VIRTUAL_PORT),
        _tuple(reply_kind, protocol, server, client, _SERVER_PORT, _CLIENT_PORT),
    )


def _new(size: int, protocol: int) -> _Form:
    attributes = b"".join(_tuples(size, protocol, _TUPLE_ORIG, _TUPLE_REPLY))
    # CONFIRMED too: the kernel has set it by then, and would take its absence for a change (EBUSY).
    attributes += _STATUS_ATTRIBUTE
    attributes += attribute(_TIMEOUT, _TIMEOUT_MARK)
    if protocol == _TCP:
        liberal = bytes((BE_LIBERAL, BE_LIBERAL))
        flags = attribute(_TCP_FLAGS_ORIGINAL, liberal) + attribute(_TCP_FLAGS_REPLY, liberal)
        attributes += _nested(_PROTOINFO, _nested(_PROTOINFO_TCP, _STATE_MARK + flags))
    return _Form(_message(NEW, NLM_F_CREATE | NLM_F_EXCL, size, attributes), size)


def _delete(size: int, protocol: int) -> tuple[_Form, _Form]:
    """The kernel finds an entry by either of its tuples, whichever of the two a message names."""
    tuples = _tuples(size, protocol, _TUPLE_ORIG, _TUPLE_ORIG)
    first, second = (_Form(_message(DELETE, 0, size, each), size) for each in tuples)
    return first, second


_KINDS = [(size, protocol) for size in (4, 16) for protocol in (_TCP, _UDP)]
_NEW = {kind: _new(*kind) for kind in _KINDS}
_DELETE = {kind: _delete(*kind) for kind in _KINDS}


def _form(body: bytes) -> _Form:
    return _NEW[16 if body[0] else 4, body[1]]


def _removals(body: bytes) -> tuple[_Form, _Form]:
    return _DELETE[16 if body[0] else 4, body[1]]


def _adjusted(made: bytearray, adjustment: Adjustment) -> bytes:
    if adjustment.sent or adjustment.received:
        # Without this status bit the kernel stores the numbers and does not use them.
        made[made.find(_STATUS_ATTRIBUTE) + len(_STATUS_ATTRIBUTE) - 1] |= IPS_SEQ_ADJUST
    if adjustment.helper:
        made += _nested(_HELP, attribute(_HELP_NAME, adjustment.helper.encode("ascii") + b"\0"))
    for kind, shift in ((_SEQ_ADJ_ORIG, adjustment.sent), (_SEQ_ADJ_REPLY, adjustment.received)):
        if shift is not None:
            made += _nested(kind, _shift(shift))
    _SEQUENCE.pack_into(made, 0, len(made))  # the length is such a word too
    return bytes(made)


def _shift(shift: Shift) -> bytes:
    words = ((_POSITION, shift.position), (_BEFORE, shift.before), (_AFTER, shift.after))
    return b"".join(attribute(kind, value.to_bytes(4, "big")) for kind, value in words)


assert RECORD_BYTES == 24 + 3 * 4 and RECORD6_BYTES == 24 + 3 * 16
