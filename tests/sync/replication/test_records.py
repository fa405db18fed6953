"""The kernel's sync datagrams: golden ones, round trips, and that nothing else comes out of arbitrary bytes."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.sync.replication.records import (
    DATAGRAM_BYTES,
    DATAGRAM_BYTES_MAX,
    HEADER_BYTES,
    Datagram,
    DatagramError,
    Record,
    RecordError,
    count,
    decode,
    encode,
    joined,
    readdressed,
)


def packed(text: str) -> bytes:
    return ip_address(text).packed


# What a kernel's master thread sent (6.1.176, captured on lo): hex, and what it is.
ESTABLISHED = "0001002c0101000000060024000000030001d13c0050005000000000000003840a0000640a0000640a010001"
MIXED = (
    "000100bc0401000001060048000000030001e66800500050000000000000038420010db800000000000000000000010020010db8"
    "00000000000000000000010020010db800000000000000000000000100060024000011830000000001bb01bb000000000000012c"
    "0a0000640a0000640a01000200060024000000030001d9da01bb01bb00000000000003840a0000640a0000640a01000200110024"
    "000001830000c7b400350035000000000000012c0a0000640a0000640a010001"
)
ENDING = (
    "000100500201000000060024000001030007d13c00500050000000000000003c0a0000640a0000640a0100010006002400000103"
    "0006d14000500050000000000000000a0a0000640a0000640a010001"
)
VIP, RIP = packed("10.0.0.100"), packed("10.1.0.1")
VIP6, RIP6 = packed("2001:db8::100"), packed("2001:db8::1")
GOLDEN = {
    ESTABLISHED: (Record(6, 0x003, 1, VIP, 53564, VIP, 80, RIP, 80, 0, 900),),
    MIXED: (
        Record(6, 0x003, 1, VIP6, 58984, VIP6, 80, RIP6, 80, 0, 900),
        Record(6, 0x1183, 0, VIP, 0, VIP, 443, packed("10.1.0.2"), 443, 0, 300),  # a template of persistence
        Record(6, 0x003, 1, VIP, 55770, VIP, 443, packed("10.1.0.2"), 443, 0, 900),
        Record(17, 0x183, 0, VIP, 51124, VIP, 53, RIP, 53, 0, 300),
    ),
    ENDING: (
        Record(6, 0x103, 7, VIP, 53564, VIP, 80, RIP, 80, 0, 60),  # CLOSE_WAIT, inactive
        Record(6, 0x103, 6, VIP, 53568, VIP, 80, RIP, 80, 0, 10),  # CLOSE
    ),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_a_kernels_datagram_is_read_and_written_byte_by_byte(text: str) -> None:
    datagram = bytes.fromhex(text)
    assert decode(datagram) == Datagram(1, GOLDEN[text])
    assert encode(GOLDEN[text], 1) == [datagram]


def test_options_are_laid_out_as_the_kernel_does() -> None:
    """By ip_vs_sync.c: sequence, data and name of the persistence engine, in this order."""
    first = Record(
        6, 0x600, 1, VIP, 53564, VIP, 80, RIP, 80, 0, 900, bytes(range(24)), pe_data=b"abc", pe_name=b"sip"
    )  # fmt: skip
    second = Record(6, 0x003, 1, VIP, 53564, VIP, 80, RIP, 80, 0, 900)
    (datagram,) = encode([first, second], 2)
    options = bytes([1, 24, *range(24)]) + b"\x02\x03abc" + b"\x03\x03sip"
    assert int.from_bytes(datagram[10:12], "big") == 36 + len(options) == 72
    assert datagram[44:80] == options
    assert datagram[80:] == bytes.fromhex(ESTABLISHED)[8:]
    assert decode(datagram).records == (first, second)


def test_a_record_of_odd_length_is_padded_before_the_next_and_not_at_the_end() -> None:
    odd = Record(6, 0, 1, VIP, 1, VIP, 80, RIP, 80, pe_data=b"abc", pe_name=b"sip")  # 36 + 5 + 5 bytes
    (datagram,) = encode([odd, odd], 2)
    assert len(datagram) == HEADER_BYTES + 48 + 46
    assert decode(datagram).records == (odd, odd)


def u(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


@st.composite
def any_record(draw: st.DrawFn) -> Record:
    address = st.binary(min_size=4, max_size=4) if draw(st.booleans()) else st.binary(min_size=16, max_size=16)
    return Record(
        protocol=draw(u(8)),
        flags=draw(u(32)),
        state=draw(u(16)),
        client=draw(address),
        client_port=draw(u(16)),
        virtual=draw(address),
        virtual_port=draw(u(16)),
        destination=draw(address),
        destination_port=draw(u(16)),
        fwmark=draw(u(32)),
        timeout_seconds=draw(u(32)),
        sequence=draw(st.sampled_from([b"", bytes(range(24))])),
        pe_data=draw(st.binary(max_size=255)),
        pe_name=draw(st.binary(max_size=16)),
    )


any_records = st.lists(any_record(), max_size=60)


@given(any_records, st.integers(400, 20_000), u(8))
def test_whatever_is_encoded_is_decoded_in_order_within_the_bounds(
    records: list[Record], maxlen: int, sync_id: int
) -> None:
    datagrams = encode(records, sync_id, maxlen)
    assert [r for d in datagrams for r in decode(d).records] == records
    for datagram in datagrams:
        assert len(datagram) <= min(maxlen, DATAGRAM_BYTES_MAX)
        assert 0 < count(datagram) <= 255
        assert decode(datagram).sync_id == sync_id


@given(any_records, u(8), u(8))
def test_readdressing_and_joining_change_the_id_and_nothing_else(records: list[Record], one: int, other: int) -> None:
    small = encode(records, one, 400)
    moved = [readdressed(datagram, other) for datagram in small]
    assert [decode(d) for d in moved] == [Datagram(other, decode(d).records) for d in small]
    assert [r for d in joined(moved, one) for r in decode(d).records] == records
    assert all(len(d) <= DATAGRAM_BYTES for d in joined(moved, one))


@settings(max_examples=5 * settings.default.max_examples)
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_records_or_refused(data: bytes, with_header: bool) -> None:
    if with_header:
        data = b"\0\1" + (len(data) + 8).to_bytes(2, "big") + bytes([len(data) // 36, 1, 0, 0]) + data
    for reader in (decode, lambda d: readdressed(d, 2), count):
        try:
            reader(data)
        except DatagramError:
            continue


@settings(max_examples=3 * settings.default.max_examples)
@given(st.lists(any_record(), min_size=1, max_size=5), st.data())
def test_a_datagram_with_a_changed_byte_is_records_or_refused(records: list[Record], data: st.DataObject) -> None:
    (datagram,) = encode(records, 1, DATAGRAM_BYTES_MAX)
    at = data.draw(st.integers(0, len(datagram) - 1))
    changed = datagram[:at] + bytes([data.draw(u(8))]) + datagram[at + 1 :]
    try:
        decode(changed)
    except DatagramError:
        return


def broken(at: int, value: int, text: str = ESTABLISHED) -> bytes:
    datagram = bytearray.fromhex(text)
    datagram[at] = value
    return bytes(datagram)


@pytest.mark.parametrize(
    ("datagram", "why"),
    [
        (b"", "0 bytes"),
        (broken(0, 1), "version 1"),
        (broken(5, 0), "version 1"),
        (broken(6, 1), "version 1"),
        (broken(3, 0x2B), "header says 43"),
        (bytes.fromhex(ESTABLISHED) + b"\0", "header says 44"),
        (broken(4, 2), "2 records do not fit"),
        (broken(8, 2), "unknown type 2"),
        (broken(8, 1), "a record of 36 bytes"),
        (broken(10, 0x10), "version 1"),
        (broken(11, 35), "a record of 35 bytes"),
        (broken(11, 37), "a record of 37 bytes"),
    ],
)
def test_what_is_wrong_is_said(datagram: bytes, why: str) -> None:
    with pytest.raises(DatagramError, match=why):
        decode(datagram)


@pytest.mark.parametrize("at", [0, 3, 4, 5])
def test_readdressing_refuses_a_broken_header(at: int) -> None:
    with pytest.raises(DatagramError):
        readdressed(broken(at, 9), 2)


def with_options(options: bytes) -> bytes:
    size = 36 + len(options)
    body = bytearray.fromhex(ESTABLISHED)[8:]
    body[2:4] = size.to_bytes(2, "big")
    return b"\0\1" + (8 + size).to_bytes(2, "big") + b"\1\1\0\0" + bytes(body) + options


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (b"\x02", "does not fit"),
        (b"\x02\x00", "does not fit"),
        (b"\x02\x05abc", "does not fit"),
        (b"\x01\x02ab", "parameter 1 of 2 bytes"),
        (b"\x02\x01a\x02\x01b", "parameter 2 twice"),
        (b"\x03\x11" + bytes(17), "parameter 3 of 17 bytes"),
        (b"\x09\x01a", "unknown parameter 9"),
    ],
)
def test_what_is_wrong_with_an_option_is_said(options: bytes, why: str) -> None:
    with pytest.raises(DatagramError, match=why):
        decode(with_options(options))


def test_an_unknown_option_that_is_optional_is_skipped() -> None:
    assert decode(with_options(b"\x49\x01a")).records == GOLDEN[ESTABLISHED]


@pytest.mark.parametrize(
    "record",
    [
        Record(6, 0, 1, VIP, 70000, VIP, 80, RIP, 80),
        Record(6, 0, 1, VIP, 1, VIP6, 80, RIP, 80),
        Record(6, 0, 1, b"abc", 1, b"abc", 80, b"abc", 80),
        Record(6, 0, 1, VIP, 1, VIP, 80, RIP, 80, timeout_seconds=-1),
        Record(6, 0, 1, VIP, 1, VIP, 80, RIP, 80, sequence=b"short"),
        Record(6, 0, 1, VIP, 1, VIP, 80, RIP, 80, pe_data=bytes(256)),
    ],
)
def test_a_record_that_has_no_place_is_refused(record: Record) -> None:
    with pytest.raises(RecordError):
        encode([record], 1)


def test_a_record_longer_than_the_datagram_is_refused() -> None:
    with pytest.raises(RecordError, match="does not fit"):
        encode([Record(6, 0, 1, VIP, 1, VIP, 80, RIP, 80)], 1, 43)


def test_no_datagram_holds_more_than_the_count_can_say() -> None:
    sizes = [count(d) for d in encode(GOLDEN[ESTABLISHED] * 600, 1, 65000)]
    assert sizes == [255, 255, 90]
