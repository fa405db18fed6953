"""What the tests of feedback.ipvs are made from: Hypothesis strategies, and messages as a kernel writes them."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from feedback.ipvs.netlink import attribute
from feedback.model import (
    AddDestination,
    AddService,
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
    SetService,
    TunnelType,
)

ports = st.integers(0, 65535)
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
marks = st.builds(ServiceKey.marked, st.integers(1, 2**32 - 1), st.sampled_from(Family))
service_keys = st.one_of(st.builds(ServiceKey.at, st.sampled_from(Protocol), addresses, ports), marks)
destination_keys = st.builds(DestinationKey, addresses, ports)
names = st.from_regex(r"[a-z][a-z0-9]{0,14}", fullmatch=True)
u32 = st.integers(0, 2**32 - 1)


@st.composite
def netmasks(draw: st.DrawFn, family: Family) -> object:
    """As a decoder gives them: None for the whole address, an address for an IPv4 mask that is no prefix."""
    if family is Family.IPV6:
        return draw(st.one_of(st.none(), st.integers(1, 127)))
    odd = st.ip_addresses(v=4).filter(lambda mask: "01" in format(int(mask), "032b"))
    return draw(st.one_of(st.none(), st.integers(0, 31), odd))


@st.composite
def services(draw: st.DrawFn, flags: st.SearchStrategy[int] = u32) -> Service:
    key = draw(service_keys)
    return Service(
        key=key,
        scheduler=draw(names),
        flags=ServiceFlags(draw(flags)),
        timeout_seconds=draw(u32),
        netmask=draw(netmasks(key.family)),  # type: ignore[arg-type]
        pe_name=draw(st.one_of(st.none(), names)),
    )


destinations = st.builds(
    Destination,
    key=destination_keys,
    weight=st.integers(0, 2**31 - 1),
    forward=st.sampled_from(Forward),
    upper=u32,
    lower=u32,
    tunnel_type=st.sampled_from(TunnelType),
    tunnel_port=ports,
    tunnel_flags=ports,
)
counters = st.builds(Counters, *[st.integers(0, 2**64 - 1)] * 10)
entries = st.builds(DestinationEntry, destinations, u32, u32, u32, counters)
edits: st.SearchStrategy[Edit] = st.one_of(
    st.builds(AddService, services()),
    st.builds(SetService, services()),
    st.builds(RemoveService, service_keys),
    st.builds(AddDestination, service_keys, destinations),
    st.builds(SetDestination, service_keys, destinations),
    st.builds(RemoveDestination, service_keys, destination_keys),
)


def wide(values: Counters) -> bytes:
    """IPVS_*_ATTR_STATS64 with the padding attributes that a kernel puts in."""
    fields = [getattr(values, name) for name in Counters.__struct_fields__]
    return b"".join(attribute(11, b"") + attribute(kind, struct.pack("=Q", v)) for kind, v in enumerate(fields, 1))


def narrow(values: Counters) -> bytes:
    """IPVS_*_ATTR_STATS: 32 bits each, but for the two byte counts."""
    fields = [getattr(values, name) for name in Counters.__struct_fields__]
    packed = [struct.pack("=Q" if kind in {4, 5} else "=I", value) for kind, value in enumerate(fields, 1)]
    return b"".join(attribute(kind, value) for kind, value in enumerate(packed, 1))


def dumped_destination(entry: DestinationEntry, *, family: bool = True, stats64: bool = True) -> bytes:
    """The body of a NEW_DEST message of a dump, in the kernel's order of attributes."""
    d = entry.destination
    parts = [
        attribute(1, d.key.address.packed.ljust(16, b"\0")),
        attribute(2, struct.pack("!H", d.key.port)),
        attribute(3, struct.pack("=I", d.forward)),
        attribute(4, struct.pack("=I", d.weight)),
        attribute(13, bytes([d.tunnel_type])),
        attribute(14, struct.pack("!H", d.tunnel_port)),
        attribute(15, struct.pack("=H", d.tunnel_flags)),
        attribute(5, struct.pack("=I", d.upper)),
        attribute(6, struct.pack("=I", d.lower)),
        attribute(7, struct.pack("=I", entry.active)),
        attribute(8, struct.pack("=I", entry.inactive)),
        attribute(9, struct.pack("=I", entry.persistent)),
    ]
    if family:
        parts.append(attribute(11, struct.pack("=H", 2 if d.key.address.version == 4 else 10)))
    parts.append(attribute(12, wide(entry.counters)) if stats64 else attribute(10, narrow(entry.counters)))
    return attribute(2, b"".join(parts))
