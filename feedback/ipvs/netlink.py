"""Netlink's framing: message headers, generic-netlink headers, attributes. Bytes in, bytes out.

Knows nothing of IPVS and owns no socket. Invariant: no input makes a reader here raise anything but MalformedMessage.
Everything is in host byte order and padded to four bytes. Source: include/uapi/linux/netlink.h and genetlink.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from feedback.ipvs.errors import MalformedMessage, Unencodable

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP = 0x300

GENL_ID_CTRL = 0x10
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

_TYPE_MASK = 0x3FFF  # the two high bits say "nested" and "network byte order"
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=IHHIIBBH")
pack_request_header = _REQUEST.pack  # length, family, flags, sequence, 0, command, version, 0
_ATTRIBUTE = struct.Struct("=HH")
_S32 = struct.Struct("=i")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
GENL_BYTES = 4


class Message(NamedTuple):
    """One netlink message; `body` is all after the netlink header."""

    kind: int
    flags: int
    sequence: int
    body: bytes

    @property
    def attributes(self) -> bytes:
        """What follows the generic-netlink header. Raises MalformedMessage."""
        if len(self.body) < GENL_BYTES:
            raise MalformedMessage(f"a generic-netlink message of {len(self.body)} bytes has no header")
        return self.body[GENL_BYTES:]


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram. Raises MalformedMessage."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _HEADER.size:
            raise MalformedMessage(f"{end - offset} bytes are left, a netlink header has {_HEADER.size}")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= end - offset:
            raise MalformedMessage(f"a netlink message says {length} bytes where {end - offset} are left")
        yield Message(kind, flags, sequence, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def error_code(message: Message) -> int:
    """The errno in an NLMSG_ERROR or NLMSG_DONE; 0 is an acknowledgement. Raises MalformedMessage."""
    if len(message.body) < _S32.size:
        raise MalformedMessage(f"a netlink status of {len(message.body)} bytes has no errno")
    code: int = _S32.unpack_from(message.body)[0]
    return -code


def attributes(data: bytes) -> dict[int, bytes]:
    """A level of attributes, by type; of a repeated one the last holds, as in the kernel. Raises MalformedMessage."""
    found: dict[int, bytes] = {}
    offset, end = 0, len(data)
    unpack = _ATTRIBUTE.unpack_from
    while end - offset >= 4:
        length, kind = unpack(data, offset)
        if length < 4 or length > end - offset:
            raise MalformedMessage(f"an attribute says {length} bytes where {end - offset} are left")
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    if offset < end:
        raise MalformedMessage(f"{end - offset} bytes after the last attribute")
    return found


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded. Nested ones are the same with attributes as payload: IPVS wants no nested flag.
    Raises Unencodable."""
    length = len(payload) + 4
    if length > 0xFFFF:
        raise Unencodable(f"an attribute of {length} bytes, at most 65535 fit")
    return _ATTRIBUTE.pack(length, kind) + payload + _PADDING[length & 3]


def request(family: int, command: int, version: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole generic-netlink request; `body` is attributes, so its length is a multiple of four."""
    return _REQUEST.pack(20 + len(body), family, flags | NLM_F_REQUEST, sequence, 0, command, version, 0) + body


def fence(sequence: int) -> bytes:
    """A message that does nothing and is acknowledged: its acknowledgement says that all before it is done."""
    return _HEADER.pack(_HEADER.size, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, sequence, 0)


def text(payload: bytes) -> str:
    """A string attribute, without its terminating zero. Raises MalformedMessage."""
    try:
        return payload.split(b"\0", 1)[0].decode("ascii")
    except UnicodeDecodeError:
        raise MalformedMessage(f"{payload[:32]!r} is not a name") from None
