"""Entries as the kernel is sent them, read back by a decoder that is not ours (pyroute2's)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from feedback.sync.conntrack import entries
from feedback.sync.conntrack.adjustments import Adjustment, Shift
from feedback.sync.replication import records
from feedback.sync.replication.records import Record

TCP, UDP, SCTP = 6, 17, 132
CLIENT, VIP, SERVER = "192.0.2.7", "10.0.0.100", "10.1.0.1"
CLIENT6, VIP6, SERVER6 = "2001:db8::7", "fd00::100", "fd01::1"


def record(
    addresses: tuple[str, str, str] = (CLIENT, VIP, SERVER), *, protocol: int = TCP, flags: int = 0, state: int = 1
) -> bytes:
    client, virtual, server = (ip_address(address).packed for address in addresses)
    return records.body(Record(protocol, flags, state, client, 40001, virtual, 80, server, 8080, 0, 777))


def decoded(message: bytes) -> Any:
    found = nfct_msg(message)
    found.decode()
    assert found["header"]["length"] == len(message)
    return found


def tuple_of(found: Any, name: str) -> tuple[str, str, int, int, int]:
    addresses, ports = (found.get_attr(name).get_attr(f"CTA_TUPLE_{part}") for part in ("IP", "PROTO"))
    family = "V6" if addresses.get_attr("CTA_IP_V6_SRC") else "V4"
    ends = (addresses.get_attr(f"CTA_IP_{family}_{end}") for end in ("SRC", "DST"))
    numbers = (ports.get_attr(f"CTA_PROTO_{end}") for end in ("NUM", "SRC_PORT", "DST_PORT"))
    return (*ends, *numbers)  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("addresses", [(CLIENT, VIP, SERVER), (CLIENT6, VIP6, SERVER6)])
def test_an_entry_leads_from_the_client_to_the_vip_and_back_from_the_server(
    addresses: tuple[str, str, str], protocol: int
) -> None:
    client, virtual, server = addresses
    found = decoded(entries.creation(record(addresses, protocol=protocol), 5))
    assert tuple_of(found, "CTA_TUPLE_ORIG") == (client, virtual, protocol, 40001, 80)
    assert tuple_of(found, "CTA_TUPLE_REPLY") == (server, client, protocol, 8080, 40001)
    assert found["header"]["sequence_number"] == 5
    assert found.get_attr("CTA_TIMEOUT") == 777
    assert found.get_attr("CTA_STATUS") == 0x0E  # seen both ways, assured, confirmed
    assert (found.get_attr("CTA_PROTOINFO") is None) is (protocol == UDP)


@pytest.mark.parametrize(("state", "expected"), [(1, 3), (4, 4), (7, 5)])
def test_tcp_has_its_state_and_is_liberal_about_windows_both_ways(state: int, expected: int) -> None:
    found = decoded(entries.creation(record(state=state), 1))
    tcp = found.get_attr("CTA_PROTOINFO").get_attr("CTA_PROTOINFO_TCP")
    assert tcp.get_attr("CTA_PROTOINFO_TCP_STATE") == expected
    for way in ("ORIGINAL", "REPLY"):
        assert tcp.get_attr(f"CTA_PROTOINFO_TCP_FLAGS_{way}") == (entries.BE_LIBERAL, entries.BE_LIBERAL)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (record(), True),
        (record((CLIENT6, VIP6, SERVER6)), True),
        (record(state=4), True),
        (record(protocol=UDP, state=0), True),
        (record(flags=0x100), True),  # inactive
        (record(flags=3), False),  # directly routed
        (record(flags=2), False),  # by a tunnel
        (record(flags=1), False),  # to this host
        (record(flags=0x1000), False),  # a template
        (record(state=5), False),  # TIME_WAIT
        (record(state=3), False),  # SYN_RECV
        (record(protocol=SCTP), False),
        (record(protocol=0), False),
    ],
)
def test_tracked_is_what_is_masqueraded_and_lives(body: bytes, expected: bool) -> None:
    assert entries.tracked(body) is expected


def test_a_shift_goes_with_the_entry_in_its_own_direction() -> None:
    sent, received = Shift(100, 0, 3), Shift(4_000_000_000, 2, 2**32 - 5)
    body = record()
    ends = (TCP, body[24:28], 40001, body[28:32], 80)
    for one, other in ((sent, None), (None, received), (sent, received)):
        found = decoded(entries.creation(body, 1, Adjustment(*ends, one, other)))
        for name, shift in (("ORIG", one), ("REPLY", other)):
            attribute = found.get_attr(f"CTA_SEQ_ADJ_{name}")
            words = ("CORRECTION_POS", "OFFSET_BEFORE", "OFFSET_AFTER")
            told = attribute and tuple(attribute.get_attr(f"CTA_NAT_SEQ_{word}") for word in words)
            assert told == (shift and (shift.position, shift.before, shift.after))
        assert tuple_of(found, "CTA_TUPLE_ORIG")[:2] == (CLIENT, VIP)
        assert found.get_attr("CTA_STATUS") == 0x4E


def test_an_adjustment_is_found_by_the_key_of_its_record() -> None:
    body = record()
    assert Adjustment(TCP, body[24:28], 40001, body[28:32], 80, None, None).key == entries.key(body)
    six = record((CLIENT6, VIP6, SERVER6))
    assert Adjustment(TCP, six[24:40], 40001, six[40:56], 80, None, None).key == entries.key(six)


def test_a_removal_names_both_tuples_and_never_none() -> None:
    """Without a tuple it would empty the whole table."""
    messages = entries.removal(record(), 9)
    length = int.from_bytes(messages[:4], "little")
    first, second = decoded(messages[:length]), decoded(messages[length:])
    assert tuple_of(first, "CTA_TUPLE_ORIG") == (CLIENT, VIP, TCP, 40001, 80)
    assert tuple_of(second, "CTA_TUPLE_ORIG") == (SERVER, CLIENT, TCP, 8080, 40001)
    assert {first["header"]["type"], second["header"]["type"]} == {entries.DELETE}


@given(st.data())
def test_each_field_is_in_its_place_whatever_its_bytes(data: st.DataObject) -> None:
    """None is taken for another's mark."""
    size = data.draw(st.sampled_from([4, 16]))
    address, port = st.binary(min_size=size, max_size=size), st.integers(1, 0xFFFF)
    client, virtual, server = data.draw(address), data.draw(address), data.draw(address)
    ports = data.draw(port), data.draw(port), data.draw(port)
    made = Record(TCP, 0, 1, client, ports[0], virtual, ports[1], server, ports[2], 0, data.draw(st.integers(0, 2**31)))
    found = decoded(entries.creation(records.body(made), 1))
    assert tuple_of(found, "CTA_TUPLE_ORIG")[2:] == (TCP, ports[0], ports[1])
    assert tuple_of(found, "CTA_TUPLE_REPLY")[2:] == (TCP, ports[2], ports[0])
    assert [ip_address(each).packed for each in tuple_of(found, "CTA_TUPLE_ORIG")[:2]] == [client, virtual]
    assert [ip_address(each).packed for each in tuple_of(found, "CTA_TUPLE_REPLY")[:2]] == [server, client]
    assert found.get_attr("CTA_TIMEOUT") == made.timeout_seconds
