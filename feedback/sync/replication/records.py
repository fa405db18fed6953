"""The kernel's sync protocol, version 1: datagrams <-> records of connections. Pure.

This module owns the byte layout: a header of 8 bytes, then records of 36 bytes (IPv4) or 72 (IPv6), each with optional
parameters after it. Every record begins at a multiple of four. The module knows no socket, and not what a record means
to a session. Invariant: `decode` either returns what the kernel's own reader would take, or raises `DatagramError`. Any
kernel takes what `encode` writes: at most 255 records and so at most 9188 bytes. (The count is one byte. The kernel's
own writer lets it wrap, which loses connections silently.)

Addresses stay packed bytes, four or sixteen. All records of a takeover pass here, and address objects would cost more
than all the rest. Source: net/netfilter/ipvs/ip_vs_sync.c (version 1), include/net/ip_vs.h for the flags.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum, IntFlag
from typing import TypeAlias

import msgspec

from feedback.refusals import RefusalError

VERSION = 1
HEADER_BYTES = 8
RECORD_BYTES, RECORD6_BYTES = 36, 72
DATAGRAM_BYTES = 1472  # as much as the kernel's own master fills on Ethernet
DATAGRAM_BYTES_MAX = 9188  # 255 IPv4 records, so that the count never wraps

IPV6 = 1  # bit 0 of a record's type
OPTION_SEQUENCE, OPTION_PE_DATA, OPTION_PE_NAME = 1, 2, 3
OPTION_OPTIONAL = 0x40  # an unknown parameter with this bit may be skipped
SEQUENCE_BYTES, PE_DATA_MAX, PE_NAME_MAX = 24, 255, 16


class ConnectionFlag(IntFlag):
    """IP_VS_CONN_F_*: the flags that a backup takes from a record (IP_VS_CONN_F_BACKUP_MASK)."""

    FORWARD = 0x0007  # not a flag but a field: the number of the forwarding method
    NO_OUTPUT = 0x0080  # the director does not see replies: direct routing and tunnels
    INACTIVE = 0x0100
    OUTPUT_SEQUENCE = 0x0200
    INPUT_SEQUENCE = 0x0400
    NO_CLIENT_PORT = 0x0800
    TEMPLATE = 0x1000


class IpProtocol(IntEnum):
    """A record's protocol. IP itself stands for a template of a firewall mark."""

    IP = 0
    TCP = 6
    UDP = 17
    SCTP = 132


class DatagramError(RefusalError):
    """Bytes that are no sync datagram of version 1."""


class RecordError(ValueError):
    """A record that does not fit into a datagram."""


Key: TypeAlias = tuple[int, bytes, int, bytes, int, bytes]


_TEMPLATE = int(ConnectionFlag.TEMPLATE)  # `&` of an int and an IntFlag takes longer than the rest of a key


class Record(msgspec.Struct, frozen=True, gc=False):
    """One connection, or a template of persistence. The three addresses are packed and of one family. `sequence` is 24
    bytes where a masquerading application, such as FTP's, changed lengths; else empty. `timeout_seconds` restarts the
    timer."""

    protocol: int
    flags: int
    state: int
    client: bytes
    client_port: int
    virtual: bytes
    virtual_port: int
    destination: bytes
    destination_port: int
    fwmark: int = 0
    timeout_seconds: int = 0
    sequence: bytes = b""
    pe_data: bytes = b""
    pe_name: bytes = b""

    @property
    def key(self) -> Key:
        """The kernel looks a connection up by this; a template also by its persistence engine's data."""
        engine = self.pe_data if self.flags & _TEMPLATE else b""
        return self.protocol, self.client, self.client_port, self.virtual, self.virtual_port, engine


class Datagram(msgspec.Struct, frozen=True):
    sync_id: int
    records: tuple[Record, ...]


_HEADER = struct.Struct("!BBHBbH")  # reserved (0), sync id, size, count, version, spare (0)
# type, protocol, version and size, flags, state, ports (client, virtual, destination), fwmark, timeout, addresses
_FOUR = struct.Struct("!BBHIHHHHII4s4s4s")
_SIX = struct.Struct("!BBHIHHHHII16s16s16s")


# --- reading ---------------------------------------------------------------------------------------------------------


def decode(datagram: bytes) -> Datagram:
    """Raises DatagramError."""
    sync_id, count = _header(datagram)
    if len(datagram) == HEADER_BYTES + count * RECORD_BYTES:
        plain = _plain(datagram)
        if plain is not None:
            return Datagram(sync_id, plain)
    return Datagram(sync_id, tuple(_records(datagram, count)))


def count(datagram: bytes) -> int:
    """How many records the header says there are. Raises DatagramError."""
    return _header(datagram)[1]


def readdressed(datagram: bytes, sync_id: int) -> bytes:
    """The same datagram under another sync id. For the hot path: it makes only the checks that cost nothing. Raises
    DatagramError."""
    if len(datagram) < HEADER_BYTES:
        raise DatagramError(f"{len(datagram)} bytes are no sync datagram")
    size = len(datagram)
    if (
        datagram[0] != 0
        or datagram[5] != VERSION
        or (datagram[2] << 8 | datagram[3]) != size
        or not 0 < datagram[4] * RECORD_BYTES <= size - HEADER_BYTES
    ):
        _header(datagram)  # raises with what is wrong
        raise DatagramError("no records")
    return b"%c%c%b" % (0, sync_id, datagram[2:])


def _header(datagram: bytes) -> tuple[int, int]:
    """The sync id and the count."""
    if len(datagram) < HEADER_BYTES:
        raise DatagramError(f"{len(datagram)} bytes are no sync datagram")
    reserved, sync_id, size, records, version, spare = _HEADER.unpack_from(datagram)
    if reserved or spare or version != VERSION:
        raise DatagramError(f"not version {VERSION} of the sync protocol: set net.ipv4.vs.sync_version to 1")
    if size != len(datagram):
        raise DatagramError(f"{len(datagram)} bytes, the header says {size}")
    if records * RECORD_BYTES > size - HEADER_BYTES:
        raise DatagramError(f"{records} records do not fit into {size} bytes")
    return sync_id, records


def _plain(datagram: bytes) -> tuple[Record, ...] | None:
    """The records if all are IPv4 and have no parameters, as in nearly every datagram."""
    found = []
    for kind, protocol, size, flags, state, cport, vport, dport, mark, timeout, c, v, d in _FOUR.iter_unpack(
        memoryview(datagram)[HEADER_BYTES:]
    ):
        if kind or size != RECORD_BYTES:
            return None
        found.append(Record(protocol, flags, state, c, cport, v, vport, d, dport, mark, timeout))
    return tuple(found)


def _records(datagram: bytes, count: int) -> Iterator[Record]:
    at = HEADER_BYTES
    for _ in range(count):
        if at + RECORD_BYTES > len(datagram):
            raise DatagramError("cut short between its records")
        kind, size = datagram[at], datagram[at + 2] << 8 | datagram[at + 3]
        if size >> 12:
            raise DatagramError(f"a record of version {size >> 12}")
        if kind & ~IPV6:
            raise DatagramError(f"a record of the unknown type {kind}")
        layout = _SIX if kind else _FOUR
        if size < layout.size or at + size > len(datagram):
            raise DatagramError(f"a record of {size} bytes at {at} of {len(datagram)}")
        _, protocol, _, flags, state, cport, vport, dport, mark, timeout, c, v, d = layout.unpack_from(datagram, at)
        sequence, pe_data, pe_name = _options(datagram[at + layout.size : at + size])
        yield Record(
            protocol, flags, state, c, cport, v, vport, d, dport, mark, timeout, sequence, pe_data, pe_name
        )  # fmt: skip
        at += size + 3 & ~3


def engine_data(options: bytes) -> bytes:
    """A persistence engine's data among the parameters of a record, b"" where there is none. Raises DatagramError."""
    return _options(options)[1]


def _options(data: bytes) -> tuple[bytes, bytes, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 2 > len(data) or not data[at + 1] or at + 2 + data[at + 1] > len(data):
            raise DatagramError("a parameter that does not fit into its record")
        kind, value = data[at] & ~OPTION_OPTIONAL, data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + len(value)
        if kind not in _OPTION_BYTES:
            if data[at - 2 - len(value)] & OPTION_OPTIONAL:
                continue
            raise DatagramError(f"the unknown parameter {kind}")
        if kind in found:
            raise DatagramError(f"parameter {kind} twice")
        least, most = _OPTION_BYTES[kind]
        if not least <= len(value) <= most:
            raise DatagramError(f"parameter {kind} of {len(value)} bytes")
        found[kind] = value
    return found.get(OPTION_SEQUENCE, b""), found.get(OPTION_PE_DATA, b""), found.get(OPTION_PE_NAME, b"")


_OPTION_BYTES = {
    OPTION_SEQUENCE: (SEQUENCE_BYTES, SEQUENCE_BYTES),
    OPTION_PE_DATA: (1, PE_DATA_MAX),
    OPTION_PE_NAME: (1, PE_NAME_MAX),
}


# --- writing ---------------------------------------------------------------------------------------------------------


def encode(records: Iterable[Record], sync_id: int, maxlen: int = DATAGRAM_BYTES) -> list[bytes]:
    """As few datagrams as hold them, in order. Raises RecordError."""
    return packed(map(body, records), sync_id, maxlen)


def packed(bodies: Iterable[bytes], sync_id: int, maxlen: int = DATAGRAM_BYTES) -> list[bytes]:
    """The same for records that are already bytes, without padding. Raises RecordError."""
    room = min(maxlen, DATAGRAM_BYTES_MAX) - HEADER_BYTES
    datagrams: list[bytes] = []
    parts: list[bytes] = []
    filled = held = 0
    for record in bodies:
        length = len(record)
        if length > room:
            raise RecordError(f"a record of {length} bytes does not fit into datagrams of {maxlen}")
        pad = -filled & 3
        if filled + pad + length > room:
            datagrams.append(_sealed(parts, filled, held, sync_id))
            parts, filled, held, pad = [], 0, 0, 0
        if pad:
            parts.append(bytes(pad))
        parts.append(record)
        filled += pad + length
        held += 1
    if held:
        datagrams.append(_sealed(parts, filled, held, sync_id))
    return datagrams


def joined(datagrams: Iterable[bytes], sync_id: int, maxlen: int = DATAGRAM_BYTES) -> list[bytes]:
    """The records of many datagrams in as few as hold them, in order, under another sync id. A master that is made to
    send early sends small ones. Each datagram must have passed `readdressed` or `decode`; nothing is checked again."""
    room = min(maxlen, DATAGRAM_BYTES_MAX) - HEADER_BYTES
    made: list[bytes] = []
    parts: list[bytes] = []
    filled = held = 0
    for datagram in datagrams:
        length = len(datagram) - HEADER_BYTES
        pad = -filled & 3
        if parts and filled + pad + length > room:
            made.append(_sealed(parts, filled, held, sync_id))
            parts, filled, held, pad = [], 0, 0, 0
        if pad:
            parts.append(bytes(pad))
        parts.append(datagram[HEADER_BYTES:])
        filled += pad + length
        held += datagram[4]
    if parts:
        made.append(_sealed(parts, filled, held, sync_id))
    return made


def _sealed(parts: Sequence[bytes], filled: int, held: int, sync_id: int) -> bytes:
    return _HEADER.pack(0, sync_id, HEADER_BYTES + filled, held, VERSION, 0) + b"".join(parts)


def body(record: Record) -> bytes:
    """One record in the form that it has in a datagram, without padding. Raises RecordError."""
    four = len(record.client) == 4
    options = b""
    if record.sequence or record.pe_data or record.pe_name:
        options = _packed_options(record)
    size = (RECORD_BYTES if four else RECORD6_BYTES) + len(options)
    if not len(record.client) == len(record.virtual) == len(record.destination) or len(record.client) not in (4, 16):
        raise RecordError(f"addresses of {len(record.client)}, {len(record.virtual)} and "
                                f"{len(record.destination)} bytes")  # fmt: skip
    try:
        fixed = (_FOUR if four else _SIX).pack(
            0 if four else IPV6,
            record.protocol,
            size,
            record.flags,
            record.state,
            record.client_port,
            record.virtual_port,
            record.destination_port,
            record.fwmark,
            record.timeout_seconds,
            record.client,
            record.virtual,
            record.destination,
        )
    except struct.error as error:
        raise RecordError(f"{record}: {error}") from None
    return fixed + options if options else fixed


def _packed_options(record: Record) -> bytes:
    packed = b""
    values = ((OPTION_SEQUENCE, record.sequence), (OPTION_PE_DATA, record.pe_data), (OPTION_PE_NAME, record.pe_name))
    for kind, value in values:
        least, most = _OPTION_BYTES[kind]
        if value and not least <= len(value) <= most:
            raise RecordError(f"parameter {kind} of {len(value)} bytes")
        if value:
            packed += bytes((kind, len(value))) + value
    return packed
