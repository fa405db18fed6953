"""Address and route messages against bytes written by hand from if_addr.h and rtnetlink.h (little-endian hosts)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs.errors import MalformedMessage
from feedback.sync.addresses import rtnetlink
from feedback.sync.addresses.plan import VirtualAddress

little = pytest.mark.skipif(sys.byteorder != "little", reason="the vectors are those of a little-endian host")


@little
def test_an_ipv4_address_is_encoded_with_whose_it_is() -> None:
    body = rtnetlink.address_body(VirtualAddress.parse("10.0.0.254/24", "eth0"), 7)
    assert body == bytes.fromhex(
        "02 18 00 00 07000000"  # AF_INET, /24, no flags, global, interface 7
        "0800 0200 0a0000fe"  # IFA_LOCAL
        "0800 0100 0a0000fe"  # IFA_ADDRESS
        "0500 0b00 fb000000"  # IFA_PROTO, padded
    )


@little
def test_an_ipv6_address_is_encoded_as_usable_at_once_and_never_a_source() -> None:
    body = rtnetlink.address_body(VirtualAddress.parse("2001:db8::100", "eth0"), 7)
    address = "20010db8000000000000000000000100"
    assert body == bytes.fromhex(
        "0a 80 02 00 07000000"  # AF_INET6, /128, IFA_F_NODAD
        f"1400 0200 {address}"
        f"1400 0100 {address}"
        "1400 0600 00000000 ffffffff 00000000 00000000"  # IFA_CACHEINFO: deprecated, valid for ever
        "0500 0b00 fb000000"
    )


@little
def test_a_message_has_its_header() -> None:
    assert rtnetlink.message(rtnetlink.RTM_NEWADDR, 0x600, 5, b"abcd") == bytes.fromhex(
        "14000000 1400 0106 05000000 00000000 61626364"
    )


@pytest.mark.parametrize("text", ["10.0.0.100/32", "10.0.0.254/24", "2001:db8::100/128"])
def test_an_address_comes_back(text: str) -> None:
    wanted = VirtualAddress.parse(text, "eth0")
    body = rtnetlink.address_body(wanted, 7)
    entry = rtnetlink.entry(body)
    assert (entry.index, entry.address, entry.prefix, entry.protocol) == (7, wanted.address, wanted.prefix, 251)
    assert entry.body == body
    assert not entry.secondary


@little
def test_an_address_of_the_kernels_own_telling() -> None:
    entry = rtnetlink.entry(
        bytes.fromhex(
            "02 18 81 00 02000000"  # IFA_F_PERMANENT, IFA_F_SECONDARY
            "0800 0100 0a000001"  # the peer's, on a point to point link
            "0800 0200 0a000002"
            "0800 0800 81000000"  # IFA_FLAGS
        )
    )
    assert entry.address == ip_address("10.0.0.2")
    assert entry.secondary
    assert entry.protocol == 0


@little
def test_a_route_tells_gateway_interface_and_source() -> None:
    head = "02 20 00 00 fe 00 00 01 00000000"
    on_link = rtnetlink.route(bytes.fromhex(head + "0800 0400 02000000 0800 0700 0a000002"))
    assert on_link == rtnetlink.Route(2, gateway=False, source=ip_address("10.0.0.2"), local=False)
    beyond = rtnetlink.route(bytes.fromhex(head + "0800 0400 02000000 0800 0500 0a000001"))
    assert beyond == rtnetlink.Route(2, gateway=True, source=None, local=False)
    own = rtnetlink.route(bytes.fromhex("02 20 00 00 fe 00 00 02 00000000" + "0800 0400 01000000"))
    assert own.local


@pytest.mark.parametrize("reader", [rtnetlink.entry, rtnetlink.route])
@pytest.mark.parametrize("body", [b"", b"\x02" * 11, bytes(8), bytes(12), bytes(12) + b"\x06\0\x02\0ab\0\0"])
def test_a_message_without_what_it_must_have_is_malformed(reader: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        reader(body)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_malformed(body: bytes) -> None:
    for reader in (rtnetlink.entry, rtnetlink.route):
        with contextlib.suppress(MalformedMessage):
            reader(body)
