"""From the kernel: netlink messages of IPVS, of addresses and of routes, and the connection table in /proc."""

from __future__ import annotations

from feedback.ipvs import connections, control, decoding, netlink
from feedback.ipvs.errors import MalformedMessage
from feedback.model import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Family,
    Service,
    ServiceEntry,
    ServiceKey,
    Snapshot,
)
from feedback.sync.addresses import rtnetlink
from feedback.sync.replication import records, table
from feedback.sync.replication.table import Book
from tests.fuzz.target import Target

LENGTHS = (
    b"\x04\0\x01\0",
    b"\0\0\x01\0",
    b"\xff\xff\x01\0",
    b"\x05\0\x02\0\xff\0\0\0",
    b"\x08\0\x02\x80\xff\xff\xff\xff",
)


def dump(data: bytes) -> None:
    for found in netlink.messages(data):
        if found.kind in (netlink.NLMSG_ERROR, netlink.NLMSG_DONE):
            netlink.error_code(found)
        else:
            netlink.attributes(found.attributes)


def service(data: bytes) -> None:
    found = decoding.decode_service(data)
    assert ServiceKey.parse(str(found.service.key)) == found.service.key


def destination(data: bytes) -> None:
    decoding.destination_mark(data)
    decoding.decode_destination(data, Family.IPV4)


def nested(data: bytes) -> bytes:
    """The length of the outermost attribute right."""
    return netlink.attribute(2, data[4:60_000]) if data[2:3] == b"\2" else netlink.attribute(1, data[4:60_000])


def daemon(data: bytes) -> None:
    control.decode_daemon(data)


def settings(data: bytes) -> None:
    control.decode_info(data[4:]) if data[:4] == b"info" else control.decode_timeouts(data[4:])


def address(data: bytes) -> None:
    assert rtnetlink.entry(data).body == data


def route(data: bytes) -> None:
    rtnetlink.route(data)


REASONS = {"malformed", "unknown protocol", "unknown destination", "unknown state", "mixed families"}
BOOK = Book(
    Snapshot(
        tuple(
            ServiceEntry(Service(ServiceKey.parse(key)), (DestinationEntry(Destination(DestinationKey.parse(rip))),))
            for key, rip in (
                ("tcp:10.0.0.100:80", "10.0.0.11:80"),
                ("udp:10.0.0.100:5060", "10.0.0.11:5060"),
                ("tcp:[2001:db8::64]:80", "[2001:db8::b]:80"),
                ("fwmark:7", "10.0.0.11:80"),
            )
        )
    )
)


def connection(data: bytes) -> None:
    line = data.decode("latin-1")
    found = table.read_line(line, BOOK)
    if isinstance(found, str):
        assert found in REASONS
    else:
        assert [made for d in records.encode([found], 2) for made in records.decode(d).records] == [found]
    connections.parse_line(line)


TARGETS = (
    Target(name="netlink", take=dump, refuses=(MalformedMessage,), tokens=LENGTHS, bytes_max=66_000),
    Target(name="ipvs-service", take=service, refuses=(MalformedMessage,), tokens=LENGTHS, seal=nested),
    Target(name="ipvs-destination", take=destination, refuses=(MalformedMessage,), tokens=LENGTHS, seal=nested),
    Target(name="ipvs-daemon", take=daemon, refuses=(MalformedMessage,), tokens=LENGTHS),
    Target(name="ipvs-settings", take=settings, refuses=(MalformedMessage,), tokens=LENGTHS),
    Target(name="rtnetlink-address", take=address, refuses=(MalformedMessage,), tokens=LENGTHS),
    Target(name="rtnetlink-route", take=route, refuses=(MalformedMessage,), tokens=LENGTHS),
    Target(name="connection-line", take=connection, refuses=(MalformedMessage,), bytes_max=4096,
           tokens=(b"FFFFFFFFF", b"-1", b"0x1", b"1_0", b"\xb2", b"2001:db8::1", b" ", b"9" * 2000, b"[", b"%",
                   b"-00", b"10000", b" sip x", b" sip " + b"x" * 256)),
)  # fmt: skip
