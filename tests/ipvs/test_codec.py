"""The codec: vectors pinned to the byte, round trips, and a decoder that nothing makes stumble."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs import MalformedMessage, SyncDaemon, SyncRole, Timeouts, Unencodable
from feedback.ipvs.control import (
    decode_daemon,
    decode_info,
    decode_timeouts,
    encode_daemon,
    encode_daemon_role,
    encode_timeouts,
)
from feedback.ipvs.decoding import decode_destination, decode_service, destination_mark
from feedback.ipvs.encoding import encode_destination, encode_edit, encode_service, encode_service_key
from feedback.ipvs.netlink import attribute
from feedback.ipvs.types import Info
from feedback.model import (
    AddDestination,
    Counters,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Family,
    Forward,
    Protocol,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    TunnelType,
)
from tests.ipvs.examples import destinations, dumped_destination, edits, entries, narrow, service_keys, services, wide

little = pytest.mark.skipif(sys.byteorder != "little", reason="the vectors were taken on a little-endian machine")

WEB = ServiceKey.at(Protocol.TCP, "10.0.0.100", 80)

# attribute header = length, type, both little-endian here; addresses, ports and the IPv4 netmask in network order
VECTORS: list[tuple[str, Edit, int, str]] = [
    (
        "a TCP service on IPv4",
        RemoveService(WEB),
        3,
        "30000100"  # SERVICE, 48 bytes
        "0600010002000000"  # family 2
        "0600020006000000"  # protocol 6
        "140003000a000064000000000000000000000000"  # 10.0.0.100
        "0600040000500000",  # port 80
    ),
    (
        "a firewall mark on IPv6",
        RemoveService(ServiceKey.marked(7, Family.IPV6)),
        3,
        "14000100060001000a0000000800050007000000",
    ),
    (
        "a weight and thresholds",
        SetDestination(WEB, Destination(DestinationKey.parse("10.0.0.11:8080"), 5, Forward.ROUTE, 100, 75)),
        6,
        "300001000600010002000000060002000600000014000300"
        "0a0000640000000000000000000000000600040000500000"
        "60000200"  # DEST, 96 bytes
        "140001000a00000b000000000000000000000000"
        "060002001f900000"
        "06000b0002000000"  # family of the destination
        "0800030003000000"  # direct routing
        "05000d0000000000"  # ipip
        "06000e0000000000"
        "06000f0000000000"
        "0800040005000000"  # weight 5
        "0800050064000000"  # upper 100
        "080006004b000000",  # lower 75
    ),
    (
        "a GUE tunnel to IPv6: the tunnel port is in network order, its flags are not",
        AddDestination(
            ServiceKey.marked(1),
            Destination(
                DestinationKey.parse("[2001:db8::1]:0"),
                1,
                Forward.TUNNEL,
                tunnel_type=TunnelType.GUE,
                tunnel_port=6080,
                tunnel_flags=1,
            ),
        ),
        5,
        "14000100060001000200000008000500010000006000020014000100"
        "20010db8000000000000000000000001"
        "060002000000000006000b000a00000008000300020000000500"
        "0d000100000006000e0017c0000006000f0001000000"
        "080004000100000008000500000000000800060000000000",
    ),
    (
        "removing a destination names it and no more",
        RemoveDestination(ServiceKey.marked(1), DestinationKey.parse("10.0.0.11:0")),
        7,
        "1400010006000100020000000800050001000000"
        "28000200140001000a00000b000000000000000000000000060002000000000006000b0002000000",
    ),
]


@little
@pytest.mark.parametrize(("edit", "command", "expected"), [v[1:] for v in VECTORS], ids=[v[0] for v in VECTORS])
def test_an_edit_is_these_bytes(edit: Edit, command: int, expected: str) -> None:
    assert encode_edit(edit) == (command, bytes.fromhex(expected))


@little
@pytest.mark.parametrize(
    ("key", "netmask", "expected"),
    [
        ("tcp:10.0.0.100:80", None, "ffffffff"),
        ("tcp:10.0.0.100:80", 24, "ffffff00"),
        ("tcp:10.0.0.100:80", 0, "00000000"),
        ("tcp:10.0.0.100:80", IPv4Address("255.0.255.0"), "ff00ff00"),
        ("tcp:[2001:db8::1]:80", None, "80000000"),
        ("tcp:[2001:db8::1]:80", 64, "40000000"),
    ],
)
def test_the_netmask_is_in_network_order_and_the_prefix_length_is_not(
    key: str, netmask: int | IPv4Address | None, expected: str
) -> None:
    service = Service(ServiceKey.parse(key), netmask=netmask)
    assert attribute(9, bytes.fromhex(expected)) in encode_service(service)
    assert decode_service(encode_service(service)).service.netmask == netmask


@little
def test_a_daemon_is_these_bytes() -> None:
    daemon = SyncDaemon(SyncRole.BACKUP, "eth1", 7, 1400, IPv4Address("224.0.0.81"), 8848, 3)
    assert encode_daemon(daemon).hex() == (
        "40000300"
        "0800010002000000"
        "090002006574683100000000"
        "0800030007000000"
        "0600040078050000"
        "08000500e0000051"
        "0600070090220000"  # 8848: the one port that is in host order
        "0500080003000000"
    )
    assert encode_daemon_role(SyncRole.MASTER).hex() == "0c0003000800010001000000"


@given(services())
def test_a_service_comes_back_whole(service: Service) -> None:
    assert decode_service(encode_service(service)).service == service


@given(entries, st.sampled_from(Family))
def test_a_destination_comes_back_whole_whatever_the_family_of_its_service(
    entry: DestinationEntry, family: Family
) -> None:
    assert decode_destination(dumped_destination(entry), family) == entry


@given(entries)
def test_without_a_family_a_destination_has_that_of_its_service(entry: DestinationEntry) -> None:
    family = Family.of(entry.destination.key.address)
    assert decode_destination(dumped_destination(entry, family=False), family) == entry


@given(service_keys, destinations)
def test_what_is_written_for_a_destination_is_what_is_read(key: ServiceKey, destination: Destination) -> None:
    written = encode_destination(key, destination)
    named = encode_service_key(key)
    assert written.startswith(named)
    live = b"".join(attribute(kind, bytes(4)) for kind in (7, 8, 9))
    nest = attribute(2, written[len(named) + 4 :] + live)
    assert decode_destination(nest, key.family).destination == destination


def test_the_wide_counters_are_preferred_and_the_narrow_ones_are_read_too() -> None:
    key = DestinationKey.parse("10.0.0.1:80")
    small, big = Counters(*range(1, 11)), Counters(*[2**40 + i for i in range(10)])
    entry = DestinationEntry(Destination(key), 0, 0, 0, small)
    assert decode_destination(dumped_destination(entry, stats64=False), Family.IPV4).counters == small
    both = dumped_destination(entry, stats64=False)[4:] + attribute(12, wide(big))
    assert decode_destination(attribute(2, both), Family.IPV4).counters == big
    assert narrow(small) != wide(small)


@given(destinations)
def test_the_mark_of_a_destination_is_its_key_and_nothing_that_moves(destination: Destination) -> None:
    one = DestinationEntry(destination)
    other = DestinationEntry(Destination(destination.key), 9, 9, 9, Counters(connections=5))
    assert destination_mark(dumped_destination(one)) == destination_mark(dumped_destination(other))


daemons = st.builds(
    SyncDaemon,
    st.sampled_from(SyncRole),
    st.from_regex(r"[a-z][a-z0-9.]{0,14}", fullmatch=True),
    st.integers(0, 2**32 - 1),
    st.integers(0, 65535),
    st.one_of(st.none(), st.ip_addresses()),
    st.integers(0, 65535),
    st.integers(0, 255),
)


@given(daemons)
def test_a_daemon_comes_back_whole(daemon: SyncDaemon) -> None:
    assert decode_daemon(encode_daemon(daemon)) == daemon


@given(st.builds(Timeouts, *[st.integers(0, 2**32 - 1)] * 3))
def test_timeouts_come_back_whole_and_zeros_are_not_sent(timeouts: Timeouts) -> None:
    assert decode_timeouts(encode_timeouts(timeouts)) == timeouts
    assert encode_timeouts(Timeouts()) == b""


@little
def test_the_version_is_in_three_parts() -> None:
    assert decode_info(bytes.fromhex("08000100010201000800020000100000")) == Info((1, 2, 1), 4096)


@pytest.mark.parametrize(
    "destination",
    [
        Destination(DestinationKey.parse("10.0.0.1:80"), weight=2**31),
        Destination(DestinationKey.parse("10.0.0.1:80"), upper=-1),
        Destination(DestinationKey.parse("10.0.0.1:80"), lower=2**32),
        Destination(DestinationKey.parse("10.0.0.1:80"), tunnel_port=70000),
        Destination(DestinationKey.parse("10.0.0.1:80"), tunnel_flags=-1),
        Destination(DestinationKey(IPv4Address("10.0.0.1"), 65536)),
    ],
)
def test_a_value_without_a_place_in_the_message_is_refused(destination: Destination) -> None:
    with pytest.raises(Unencodable):
        encode_destination(WEB, destination)


@pytest.mark.parametrize(
    "service",
    [
        Service(WEB, netmask=33),
        Service(WEB, netmask=-1),
        Service(ServiceKey.marked(1, Family.IPV6), netmask=IPv4Address("255.0.255.0")),
        Service(WEB, scheduler=""),
        Service(WEB, scheduler="w\0"),
        Service(WEB, scheduler="größe"),
        Service(WEB, timeout_seconds=-1),
        Service(ServiceKey(Protocol.TCP, IPv6Address("::1"), 80, 0, Family.IPV4)),
    ],
)
def test_a_service_without_a_place_in_the_message_is_refused(service: Service) -> None:
    with pytest.raises(Unencodable):
        encode_service(service)


# --- whatever comes, the decoder raises its own error and no other ---------------------------------------------------

SAMPLE = DestinationEntry(
    Destination(DestinationKey.parse("[2001:db8::1]:80"), 5, Forward.TUNNEL, 9, 4, TunnelType.GUE, 6080, 1), 1, 2, 3
)
DECODERS: list[Callable[[bytes], object]] = [
    decode_service,
    lambda data: decode_destination(data, Family.IPV4),
    destination_mark,
    decode_daemon,
    decode_timeouts,
    decode_info,
]
DECODED = ["service", "destination", "mark", "daemon", "timeouts", "info"]
WHOLE: list[bytes] = [
    encode_service(Service(WEB, pe_name="sip", flags=ServiceFlags.PERSISTENT)),
    dumped_destination(SAMPLE),
    encode_daemon(SyncDaemon(SyncRole.MASTER, "eth0", 1, 1400, IPv6Address("ff02::1"), 1, 1)),
    encode_timeouts(Timeouts(1, 2, 3)),
]


@pytest.mark.parametrize("decode", DECODERS, ids=DECODED)
@given(data=st.binary(max_size=400))
def test_random_bytes_are_malformed_and_nothing_worse(decode: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        decode(data)


@pytest.mark.parametrize("decode", DECODERS, ids=DECODED)
@pytest.mark.parametrize("whole", WHOLE[:3], ids=["service", "destination", "daemon"])  # timeouts are all optional
def test_a_message_cut_short_anywhere_is_malformed(decode: Callable[[bytes], object], whole: bytes) -> None:
    for length in range(1, len(whole)):
        cut = whole[:length]
        with pytest.raises(MalformedMessage):
            decode(cut)


@pytest.mark.parametrize("decode", DECODERS, ids=DECODED)
@given(data=st.data())
def test_flipped_bytes_are_malformed_and_nothing_worse(decode: Callable[[bytes], object], data: st.DataObject) -> None:
    mutable = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 4))):
        mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedMessage):
        decode(bytes(mutable))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (3, bytes([5, 0, 0, 0])),  # no such forwarding method
        (13, bytes([9])),  # no such tunnel type
        (11, bytes([99, 0])),  # no such family
        (4, bytes(8)),  # a weight of eight bytes
        (2, bytes(1)),  # half a port
        (1, bytes(4)),  # an IPv6 address of four bytes
        (12, attribute(1, bytes(3))),  # a counter of three bytes
    ],
)
def test_a_value_that_ipvs_does_not_know_is_malformed(kind: int, payload: bytes) -> None:
    garbled = attribute(2, dumped_destination(SAMPLE)[4:] + attribute(kind, payload))
    with pytest.raises(MalformedMessage):
        decode_destination(garbled, Family.IPV6)


@given(edits)
def test_every_edit_is_whole_attributes(edit: Edit) -> None:
    _, body = encode_edit(edit)
    assert len(body) % 4 == 0
