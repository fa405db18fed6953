"""Lines of /proc/net/ip_vs_conn, as kernels print them."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs.connections import Connection, parse, parse_line
from feedback.ipvs.errors import MalformedMessage

TABLE = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A000002 C350 0A000064 0050 0A00000B 1F90 ESTABLISHED     899
UDP 2001:0db8:0000:0000:0000:0000:0000:0002 C350 2001:0db8:0000:0000:0000:0000:0000:0064 0035 \
2001:0db8:0000:0000:0000:0000:0000:000b 0035 UDP             299
UDP 0A000002 13C4 0A000064 13C4 0A00000B 13C4 UDP             300 sip call-1@host
"""
SYNC = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires
TCP 0A000002 C350 0A000064 0050 0A00000B 0050 FIN_WAIT    SYNC       119
"""


def test_the_table_is_read() -> None:
    first, second, third = parse(TABLE)
    assert first == Connection(
        "TCP", ip_address("10.0.0.2"), 50000, ip_address("10.0.0.100"), 80, ip_address("10.0.0.11"), 8080,
        "ESTABLISHED", 899,
    )  # fmt: skip
    assert (second.client, second.virtual_port) == (ip_address("2001:db8::2"), 53)
    assert (third.state, third.expires_seconds) == ("UDP", 300)


def test_the_table_with_origins_is_read() -> None:
    (only,) = parse(SYNC, with_origin=True)
    assert (only.origin, only.state, only.expires_seconds) == ("SYNC", "FIN_WAIT", 119)


@given(st.text(max_size=80))
def test_any_line_is_a_connection_or_malformed(line: str) -> None:
    with contextlib.suppress(MalformedMessage):
        parse_line(line)


@pytest.mark.parametrize("line", ["", "TCP 0A000002", "TCP zz C350 0A000064 0050 0A00000B 1F90 NONE 1"])
def test_a_garbled_line_is_malformed(line: str) -> None:
    with pytest.raises(MalformedMessage):
        parse_line(line)
