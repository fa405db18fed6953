"""Keys: what is read, what is written, what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.model import DestinationKey, Family, Protocol, ServiceKey, parse_endpoint

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
ports = st.integers(0, 65535)


@given(st.sampled_from(list(Protocol)), addresses, ports)
def test_a_service_key_is_read_as_it_is_written(
    protocol: Protocol, address: IPv4Address | IPv6Address, port: int
) -> None:
    key = ServiceKey.at(protocol, address, port)
    assert ServiceKey.parse(str(key)) == key
    assert key.family is Family.of(address)


@given(addresses, ports)
def test_a_destination_key_is_read_as_it_is_written(address: IPv4Address | IPv6Address, port: int) -> None:
    key = DestinationKey(address, port)
    assert DestinationKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "tcp:",
        "tcp:1.2.3.4",
        "tcp:1.2.3.4:x",
        "tcp:1.2.3.4:65536",
        "tcp:::1:80",
        "icmp:1.2.3.4:1",
        "fwmark:",
        "fwmark:0",
        "fwmark:-1",
        "fwmark:4294967296",
        "fwmark:7:ipv5",
        "tcp:[1.2.3.4:80",
        "tcp:1.2.3.4:-1",
        "tcp:[fe80::1%\033]:80",
    ],
)
def test_what_is_not_a_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ServiceKey.parse(text)


@pytest.mark.parametrize(
    "text", ["::1:80", "[::1]", "10.0.0.1", "10.0.0.1:", ":80", "10.0.0.1:\uff18\uff10", "[fe80::1%eth0]:80"]
)
def test_what_is_not_an_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_endpoint(text)
