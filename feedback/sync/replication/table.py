"""The active director's connection table as sync records: from /proc, completed from the services. Pure.

/proc/net/ip_vs_conn has addresses, ports, state, the seconds left, and the data of a persistence engine (the Call-IDs
of SIP), which ip_vs_conn_sync does not have. A record also needs the forwarding method, whether the connection counts
as inactive, whether it is a template of persistence, and its firewall mark. This module derives these from the
protocol, the state and the services (`Book`). Invariant: a connection whose destination is unknown is left out and
counted. Nothing is guessed, since a wrong forwarding method would send its packets astray.

/proc does not show two things: sequence offsets of masquerading applications (FTP), which come with the live stream,
and one-packet connections, which the kernel does not sync either.
Source: net/netfilter/ipvs/ip_vs_conn.c (ip_vs_conn_seq_show), ip_vs_pe_sip.c (ip_vs_sip_show_pe_data), ip_vs_proto.c
(ip_vs_state_name), ip_vs_core.c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from feedback.model import Family, Forward, Protocol, ServiceKey, Snapshot
from feedback.sync.replication.records import PE_DATA_MAX, PE_NAME_MAX, ConnectionFlag, IpProtocol, Record

TOLERANCE, TOLERANCE_LEAST = 0.02, 10  # of a table's lines: how many may begin and end while it is read
EXPIRY_SECONDS_MIN = 10  # shorter ones are not worth the transfer; a timer on the standby must not run out before ours

INACTIVE, TEMPLATE, NO_OUTPUT = (
    int(flag) for flag in (ConnectionFlag.INACTIVE, ConnectionFlag.TEMPLATE, ConnectionFlag.NO_OUTPUT)
)

# ip_vs_proto_tcp.c: the number of each word, and which of them count as active.
TCP_STATES = {
    word: number
    for number, word in enumerate(
        ("NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
         "LISTEN", "SYNACK")
    )
}  # fmt: skip
TCP_ACTIVE = {"ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"}
# ip_vs_proto_sctp.c
SCTP_STATES = {
    word: number
    for number, word in enumerate(
        ("NONE", "INIT1", "INIT", "COOKIE_SENT", "COOKIE_REPLIED", "COOKIE_WAIT", "COOKIE", "COOKIE_ECHOED",
         "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECEIVED", "SHUTDOWN_ACK_SENT", "REJECTED", "CLOSED")
    )
}  # fmt: skip
SCTP_ACTIVE = {"ESTABLISHED"}
_PROTOCOLS = {"TCP": IpProtocol.TCP, "UDP": IpProtocol.UDP, "SCTP": IpProtocol.SCTP, "IP": IpProtocol.IP}
_OF_SERVICE = {Protocol.TCP: IpProtocol.TCP, Protocol.UDP: IpProtocol.UDP, Protocol.SCTP: IpProtocol.SCTP}
_TEMPLATE_STATES = {"NONE": 0, "ASSURED": 1}

Endpoint = tuple[int, bytes, int]  # protocol, address, port


class Placement(NamedTuple):
    """What a record needs and the table does not show."""

    flags: int  # forwarding method, and whether the director sees replies
    fwmark: int
    persistence_seconds: int  # of the service, or 0: a template's whole timeout, of which the table shows the rest


class Book:
    """The services of one snapshot, arranged to look up which service a connection belongs to."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._addressed: dict[Endpoint, dict[tuple[bytes, int], Placement]] = {}
        self._marked: dict[tuple[int, int], dict[tuple[bytes, int], Placement]] = {}
        self._by_destination: dict[tuple[bytes, int], Placement] = {}
        for entry in snapshot.services:
            key = entry.service.key
            found = {
                (e.destination.key.address.packed, e.destination.key.port): Placement(
                    _forward_flags(e.destination.forward), key.fwmark, entry.service.timeout_seconds
                )
                for e in entry.destinations
            }
            if key.address is not None and key.protocol is not None:
                self._addressed[_OF_SERVICE[key.protocol], key.address.packed, key.port] = found
            else:
                self._marked[key.fwmark, _address_bytes(key)] = found
                for destination, placement in found.items():
                    self._by_destination.setdefault(destination, placement)

    def place(
        self, protocol: int, virtual: bytes, virtual_port: int, destination: bytes, port: int
    ) -> Placement | None:
        """The placement of a connection. Services are tried in the kernel's order: by address and port, for all ports,
        and then any firewall mark that has this destination, since the table does not show the mark."""
        for service_port in (virtual_port, 0):
            service = self._addressed.get((protocol, virtual, service_port))
            if service is not None and (found := _destination(service, destination, port)):
                return found
        return _destination(self._by_destination, destination, port)

    def place_marked(self, fwmark: int, destination: bytes, port: int) -> Placement | None:
        """The placement of a firewall mark's template."""
        service = self._marked.get((fwmark, len(destination)))
        return _destination(service, destination, port) if service is not None else None


class Table(msgspec.Struct, frozen=True):
    """The records. `left_out` counts the lines of the table without a record, by reason."""

    records: tuple[Record, ...]
    left_out: dict[str, int]


def rows(table: Table) -> int:
    """How many lines the kernel's table had."""
    return len(table.records) + sum(table.left_out.values())


def lacking(table: Table, before: Snapshot, after: Snapshot) -> int:
    """How many lines of the kernel's table were not shown, judged by what its destinations counted before and after.
    Connections that began or ended meanwhile are included.

    Since 7.1 the kernel rebuilds its table as it grows. A reader may then get a part and an end of file, as if that
    were the whole; or miss the rest of one chain; or get some lines twice (ip_vs_conn_array). No counter includes
    templates and connections of removed destinations, so the table may be longer than the counters say."""
    return max(0, min(_bound(before), _bound(after)) - rows(table))


def missing(table: Table, before: Snapshot, after: Snapshot) -> int:
    """The same, but 0 where so many connections may simply have begun or ended meanwhile."""
    found = lacking(table, before, after)
    return found if found > TOLERANCE * rows(table) + TOLERANCE_LEAST else 0


def joined(earlier: Table, later: Table) -> Table:
    """Two readings as one: each connection once, as the later one shows it. A connection that ended in between stays,
    with the time that it had left."""
    records = {record.key: record for table in (earlier, later) for record in table.records}
    reasons = {*earlier.left_out, *later.left_out}
    left_out = {reason: max(earlier.left_out.get(reason, 0), later.left_out.get(reason, 0)) for reason in reasons}
    return Table(tuple(records.values()), left_out)


def _bound(snapshot: Snapshot) -> int:
    return sum(d.active + d.inactive for entry in snapshot.services for d in entry.destinations)


def read_table(lines: Iterable[str], book: Book) -> Table:
    """Lines of ip_vs_conn without its title, decoded as Latin-1, since an engine's data is whatever clients sent. A
    line that cannot be parsed is counted as malformed."""
    found: list[Record] = []
    left_out: Counter[str] = Counter()
    for line in lines:
        record = read_line(line, book)
        if isinstance(record, str):
            left_out[record] += 1
        else:
            found.append(record)
    return Table(tuple(found), dict(left_out))


def read_line(line: str, book: Book) -> Record | str:
    """The record of one line, or the reason why there is none."""
    words = line.split(maxsplit=10)
    try:
        protocol_word, client_word, client_port_word, virtual_word, virtual_port_word = words[:5]
        destination_word, destination_port_word, state_word = words[5:8]
        expires = int(words[8])
        pe_name, pe_data = (word.encode("latin-1") for word in words[9:]) if len(words) > 10 else (b"", b"")
        protocol = _PROTOCOLS.get(protocol_word)
        if protocol is None:
            return "unknown protocol"
        client, virtual, destination = _packed(client_word), _packed(virtual_word), _packed(destination_word)
        client_port, virtual_port = int(client_port_word, 16), int(virtual_port_word, 16)
        destination_port = int(destination_port_word, 16)
    except (ValueError, IndexError):
        return "malformed"
    ports = client_port | virtual_port | destination_port  # none is negative or too large if this is not
    if not (0 <= ports <= 0xFFFF and 0 <= expires <= 0xFFFFFFFF and _fits(pe_name, pe_data)):
        return "malformed"
    if not len(client) == len(virtual) == len(destination):
        return "mixed families"  # a tunnel between families: the kernel's records have no room for it either
    if protocol == IpProtocol.IP:
        placement = book.place_marked(int.from_bytes(virtual[:4], "big"), destination, destination_port)
    else:
        placement = book.place(protocol, virtual, virtual_port, destination, destination_port)
    if placement is None:
        return "unknown destination"
    if client_port == 0:
        state = _TEMPLATE_STATES.get(state_word)
        flags = placement.flags | TEMPLATE | INACTIVE  # as the kernel sends them; neither counter has them
        expires = max(expires, placement.persistence_seconds)
    else:
        state, inactive = _state(protocol, state_word)
        flags = placement.flags | INACTIVE if inactive else placement.flags
    if state is None:
        return "unknown state"
    return Record(
        protocol,
        flags,
        state,
        client,
        client_port,
        virtual,
        virtual_port,
        destination,
        destination_port,
        placement.fwmark,
        max(expires, EXPIRY_SECONDS_MIN),
        pe_data=pe_data,
        pe_name=pe_name,
    )


def _fits(pe_name: bytes, pe_data: bytes) -> bool:
    """Whether an engine's words fit into the fields of a record."""
    return len(pe_name) <= PE_NAME_MAX and len(pe_data) <= PE_DATA_MAX


def _state(protocol: int, word: str) -> tuple[int | None, bool]:
    """The number of a state, and whether a connection in it counts as inactive."""
    if protocol == IpProtocol.TCP:
        return TCP_STATES.get(word), word not in TCP_ACTIVE
    if protocol == IpProtocol.SCTP:
        return SCTP_STATES.get(word), word not in SCTP_ACTIVE
    return 0, True


def _forward_flags(forward: Forward) -> int:
    no_output = 0 if forward is Forward.MASQUERADE else NO_OUTPUT
    return int(forward) | no_output


def _address_bytes(key: ServiceKey) -> int:
    return 4 if key.family is Family.IPV4 else 16


def _destination(destinations: dict[tuple[bytes, int], Placement], address: bytes, port: int) -> Placement | None:
    """Destinations of services for all ports have port 0."""
    return destinations.get((address, port)) or destinations.get((address, 0))


def _packed(word: str) -> bytes:
    """`0A000064`, or an IPv6 address in full. Raises ValueError."""
    packed = bytes.fromhex(word) if len(word) == 8 else bytes.fromhex(word.replace(":", ""))
    if len(packed) not in (4, 16):
        raise ValueError(word)
    return packed
