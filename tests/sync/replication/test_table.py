"""Lines of the connection table, and the records that a backup needs for them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.model import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Forward,
    Service,
    ServiceEntry,
    ServiceKey,
    Snapshot,
)
from feedback.sync.replication.records import Record
from feedback.sync.replication.table import (
    EXPIRY_SECONDS_MIN,
    Book,
    Table,
    joined,
    lacking,
    missing,
    read_line,
    read_table,
)


def service(key: str, *destinations: tuple[str, Forward]) -> ServiceEntry:
    return ServiceEntry(
        Service(ServiceKey.parse(key)),
        tuple(DestinationEntry(Destination(DestinationKey.parse(d), forward=f)) for d, f in destinations),
    )


BOOK = Book(
    Snapshot(
        (
            service("tcp:10.0.0.100:80", ("10.1.0.1:80", Forward.ROUTE), ("10.1.0.2:8080", Forward.MASQUERADE)),
            service("udp:10.0.0.100:53", ("10.1.0.1:53", Forward.TUNNEL)),
            service("sctp:10.0.0.100:9", ("10.1.0.1:9", Forward.MASQUERADE)),
            service("tcp:[2001:db8::100]:80", ("[2001:db8::1]:80", Forward.ROUTE)),
            service("tcp:10.0.0.101:0", ("10.1.0.1:0", Forward.ROUTE)),  # all ports
            service("fwmark:7", ("10.1.0.3:0", Forward.MASQUERADE)),
            service("fwmark:8:ipv6", ("[2001:db8::3]:0", Forward.ROUTE)),
        )
    )
)
SIX = "2001:0db8:0000:0000:0000:0000:0000:0{:03x}"
CLIENT, VIP, RIP1, RIP2, RIP3 = "0A000002", "0A000064", "0A010001", "0A010002", "0A010003"
ROUTED, INACTIVE, TEMPLATE = 0x83, 0x100, 0x1100


def line(protocol: str, client: str, virtual: str, destination: str, state: str, expires: int = 300) -> str:
    return f"{protocol:3} {client} {virtual} {destination} {state:11} {expires:7}"


# What the line says, and protocol, flags, state, firewall mark of its record.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP1} 0050", "ESTABLISHED"), (6, ROUTED, 1, 0)),
        (line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP1} 0050", "SYN_RECV"), (6, ROUTED, 3, 0)),
        (line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP1} 0050", "FIN_WAIT"), (6, ROUTED | INACTIVE, 4, 0)),
        (line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP1} 0050", "CLOSE_WAIT"), (6, ROUTED | INACTIVE, 7, 0)),
        (line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP2} 1F90", "ESTABLISHED"), (6, 0, 1, 0)),
        (line("UDP", f"{CLIENT} C350", f"{VIP} 0035", f"{RIP1} 0035", "UDP"), (17, 0x82 | INACTIVE, 0, 0)),
        (line("SCTP", f"{CLIENT} C350", f"{VIP} 0009", f"{RIP1} 0009", "ESTABLISHED"), (132, 0, 8, 0)),
        (line("TCP", f"{CLIENT} 0000", f"{VIP} 0050", f"{RIP1} 0050", "NONE"), (6, ROUTED | TEMPLATE, 0, 0)),
        (line("TCP", f"{CLIENT} 0000", f"{VIP} 0050", f"{RIP1} 0050", "ASSURED"), (6, ROUTED | TEMPLATE, 1, 0)),
        # A service of all ports: its template has none, its connections have.
        (line("TCP", f"{CLIENT} 0000", "0A000065 0000", f"{RIP1} 0000", "NONE"), (6, ROUTED | TEMPLATE, 0, 0)),
        (line("TCP", f"{CLIENT} C350", "0A000065 01BB", f"{RIP1} 01BB", "ESTABLISHED"), (6, ROUTED, 1, 0)),
        # A firewall mark: in the template's address; of a connection it is known by the destination.
        (line("IP", f"{CLIENT} 0000", "00000007 0000", f"{RIP3} 0000", "NONE"), (0, TEMPLATE, 0, 7)),
        (line("TCP", f"{CLIENT} C350", "0A0000C8 0050", f"{RIP3} 0050", "ESTABLISHED"), (6, 0, 1, 7)),
        (
            line("IP", SIX.format(2) + " 0000", "0000:0008" + ":0000" * 6 + " 0000", SIX.format(3) + " 0000", "NONE"),
            (0, ROUTED | TEMPLATE, 0, 8),
        ),
        (
            line("TCP", SIX.format(2) + " C350", SIX.format(0x100) + " 0050", SIX.format(1) + " 0050", "ESTABLISHED"),
            (6, ROUTED, 1, 0),
        ),
    ],
)
def test_a_line_becomes_the_record_that_its_service_makes_of_it(text: str, expected: tuple[int, ...]) -> None:
    record = read_line(text, BOOK)
    assert isinstance(record, Record), record
    assert (record.protocol, record.flags, record.state, record.fwmark) == expected


def test_addresses_and_ports_come_over() -> None:
    record = read_line(line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP2} 1F90", "ESTABLISHED", 899), BOOK)
    assert record == Record(
        protocol=6,
        flags=0,
        state=1,
        client=ip_address("10.0.0.2").packed,
        client_port=50000,
        virtual=ip_address("10.0.0.100").packed,
        virtual_port=80,
        destination=ip_address("10.1.0.2").packed,
        destination_port=8080,
        timeout_seconds=899,
    )


def test_a_persistence_engines_data_comes_over_as_it_is() -> None:
    text = line("UDP", f"{CLIENT} 0000", f"{VIP} 0035", f"{RIP1} 0035", "NONE") + " sip \xe9-7@phone"
    record = read_line(text, BOOK)
    assert isinstance(record, Record)
    assert (record.pe_name, record.pe_data) == (b"sip", b"\xe9-7@phone")
    assert record.key != read_line(text.replace("7", "8"), BOOK).key  # type: ignore[union-attr]
    assert read_line(text + 256 * "x", BOOK) == "malformed"


def test_a_connection_about_to_expire_is_given_the_time_of_its_journey() -> None:
    record = read_line(line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP1} 0050", "CLOSE", 0), BOOK)
    assert isinstance(record, Record)
    assert record.timeout_seconds == EXPIRY_SECONDS_MIN


def test_what_cannot_be_carried_is_counted_and_not_guessed() -> None:
    good = line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP1} 0050", "ESTABLISHED")
    table = read_table(
        [
            good,
            line("TCP", f"{CLIENT} C351", f"{VIP} 0050", "0A0100FF 0050", "ESTABLISHED"),  # its destination was removed
            line("IP", f"{CLIENT} 0000", "00000009 0000", f"{RIP3} 0000", "NONE"),  # no such mark
            line("ESP", f"{CLIENT} 0000", f"{VIP} 0000", f"{RIP1} 0000", "NONE"),
            line("TCP", f"{CLIENT} C350", f"{VIP} 0050", f"{RIP1} 0050", "ERR!"),
            line("TCP", "2001:0db8:0000:0000:0000:0000:0000:0009 C350", f"{VIP} 0050", f"{RIP1} 0050", "ESTABLISHED"),
            "TCP 0A000002",
            "",
        ],
        BOOK,
    )
    assert table.records == (read_line(good, BOOK),)
    assert table.left_out == {"unknown destination": 2, "unknown protocol": 1, "unknown state": 1, "mixed families": 1,
                              "malformed": 2}  # fmt: skip


def counted(active: int, inactive: int) -> Snapshot:
    destination = Destination(DestinationKey.parse("10.1.0.1:80"))
    entry = DestinationEntry(destination, active, inactive)
    return Snapshot((ServiceEntry(Service(ServiceKey.parse("tcp:10.0.0.100:80")), (entry,)),))


@pytest.mark.parametrize(
    ("shown", "before", "after", "absent", "told"),
    [
        (1000, (700, 300), (700, 300), 0, 0),
        (1400, (700, 300), (700, 300), 0, 0),  # templates too
        (980, (700, 300), (700, 300), 20, 0),  # as many as end while it is read
        (400, (700, 300), (700, 300), 600, 600),  # a part
        (0, (5000, 0), (5000, 0), 5000, 5000),
        (19_995, (20_000, 0), (20_000, 0), 5, 0),  # the rest of one chain
        (400, (700, 300), (390, 10), 0, 0),  # they ended
        (5, (12, 0), (12, 0), 7, 0),
    ],
)
def test_a_table_that_was_shown_in_part_is_recognised(
    shown: int, before: tuple[int, int], after: tuple[int, int], absent: int, told: int
) -> None:
    record = connection(50000, "ESTABLISHED")
    table = Table((record,) * (shown - shown // 4), {"unknown destination": shown // 4})
    assert lacking(table, counted(*before), counted(*after)) == absent
    assert missing(table, counted(*before), counted(*after)) == told


def test_readings_are_joined_to_what_any_of_them_showed_as_it_was_last() -> None:
    first = Table((connection(1, "SYN_RECV"), connection(2, "ESTABLISHED"), connection(2, "ESTABLISHED")), {"x": 3})
    second = Table((connection(3, "ESTABLISHED"), connection(1, "ESTABLISHED")), {"x": 1, "y": 1})
    both = joined(first, second)
    assert sorted((record.client_port, record.state) for record in both.records) == [(1, 1), (2, 1), (3, 1)]
    assert both.left_out == {"x": 3, "y": 1}


@given(st.text(max_size=120))
def test_any_line_is_a_record_or_a_reason(text: str) -> None:
    assert isinstance(read_line(text, BOOK), Record | str)


def connection(port: int, state: str, destination: str = RIP1, expires: int = 300) -> Record:
    record = read_line(line("TCP", f"{CLIENT} {port:04X}", f"{VIP} 0050", f"{destination} 0050", state, expires), BOOK)
    assert isinstance(record, Record)
    return record
