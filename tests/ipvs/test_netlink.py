"""Framing: what is written is read, and what is garbled is said to be."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs import netlink
from feedback.ipvs.errors import MalformedMessage, Unencodable


@given(st.lists(st.tuples(st.integers(16, 0xFFFF), st.integers(1, 2**32 - 1), st.binary(max_size=40))))
def test_the_messages_of_a_datagram_come_back(parts: list[tuple[int, int, bytes]]) -> None:
    data = b""
    for family, sequence, payload in parts:
        data += netlink.request(family, 6, 1, netlink.NLM_F_ACK, sequence, netlink.attribute(1, payload))
    read = list(netlink.messages(data))
    assert [(m.kind, m.sequence, netlink.attributes(m.attributes)) for m in read] == [
        (family, sequence, {1: payload}) for family, sequence, payload in parts
    ]


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=30)))
def test_attributes_come_back(wanted: dict[int, bytes]) -> None:
    assert netlink.attributes(b"".join(netlink.attribute(k, v) for k, v in wanted.items())) == wanted


def test_the_nested_and_byte_order_bits_are_no_part_of_a_type() -> None:
    assert netlink.attributes(netlink.attribute(0x8000 | 2, b"")) == {2: b""}
    assert netlink.attributes(netlink.attribute(0x4000 | 2, b"")) == {2: b""}


@given(st.binary(max_size=100))
def test_any_bytes_are_messages_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        for message in netlink.messages(data):
            netlink.error_code(message)
    with contextlib.suppress(MalformedMessage):
        netlink.attributes(data)
    with contextlib.suppress(MalformedMessage):
        netlink.text(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\0\0",  # half a header
        struct.pack("=IHHII", 15, 1, 0, 0, 0),  # shorter than its own header
        struct.pack("=IHHII", 17, 1, 0, 0, 0),  # longer than what is there
        struct.pack("=IHHII", 0, 1, 0, 0, 0),  # would never end
    ],
)
def test_a_garbled_datagram_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        list(netlink.messages(data))


@pytest.mark.parametrize("data", [b"\x03\0\1\0", b"\x09\0\1\0aaaa", b"\x04\0\1\0\0\0"])
def test_garbled_attributes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        netlink.attributes(data)


def test_an_errno_is_positive_and_an_acknowledgement_is_zero() -> None:
    assert netlink.error_code(netlink.Message(2, 0, 1, struct.pack("=i", -34) + bytes(16))) == 34
    assert netlink.error_code(netlink.Message(2, 0, 1, bytes(20))) == 0


def test_an_attribute_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Unencodable):
        netlink.attribute(1, bytes(65532))
