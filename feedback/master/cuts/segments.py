"""Segments: bytes in, bytes out. A poke to a client, a reset to a server by its forwarding method, and the answers.

Packets are whole, with their IP header, for raw sockets that take it (IP_HDRINCL, which IPPROTO_RAW implies). Such a
socket is routed by the address that the packet is sent *to*, whatever its header says. So a segment for a virtual
address reaches the intended real server behind it, as with direct routing. Addresses are packed, 4 or 16 bytes.
Invariant: no bytes make a parser raise; what is no TCP segment is None.

Sources: RFC 791, RFC 8200, RFC 9293 (TCP), RFC 2003 and 2473 (IP in IP), RFC 2784 (GRE), draft-ietf-intarea-gue;
net/netfilter/ipvs/ip_vs_xmit.c (ipvs_gue_encap, ipvs_gre_encap) for what a tunnel's other end expects.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

import msgspec

from feedback.model import Forward, TunnelType

TCP, UDP, GRE, IPIP, IP6IP = 6, 17, 47, 4, 41
ACK, RST = 0x10, 0x04
TTL = 64
ETHERTYPE = {4: 0x0800, 16: 0x86DD}

_TCP = struct.Struct("!HHIIBBHHH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_PSEUDO6 = struct.Struct("!II")
_UDP = struct.Struct("!HHHH")
_HEARD = struct.Struct("!HHIIBB")  # the beginning of a TCP header, to its flags


class Flow(msgspec.Struct, frozen=True, gc=False):
    """A client's TCP connection as it sees it itself. Not collected: walking 100,000 of them would hold up a turn."""

    client: bytes
    client_port: int
    virtual: bytes
    virtual_port: int


class Way(msgspec.Struct, frozen=True):
    """How packets get to a real server: `server` and `port` are the destination's; `source` is an address of ours for
    the outside of a tunnel, of the server's family."""

    forward: Forward
    server: bytes
    port: int
    tunnel_type: TunnelType = TunnelType.IPIP
    tunnel_port: int = 0
    source: bytes = b""


class Heard(NamedTuple):
    """A segment of a client's to a virtual address; `length` is that of its data."""

    flow: Flow
    sequence: int
    acknowledgement: int
    flags: int
    length: int = 0

    @property
    def reset(self) -> bool:
        """The client has no such connection any more."""
        return bool(self.flags & RST)


def poke(flow: Flow, sequence: int, acknowledgement: int) -> bytes:
    """A segment from the virtual address to the client, without data, so that not even a number that happens to be
    right does anything."""
    return _segment((flow.virtual, flow.virtual_port), (flow.client, flow.client_port), sequence, acknowledgement, ACK)


def reset_client(heard: Heard) -> bytes:
    """A reset from the virtual address to the client that sent this, with the number that it expects next."""
    flow = heard.flow
    return _segment((flow.virtual, flow.virtual_port), (flow.client, flow.client_port), heard.acknowledgement, 0, RST)


def reset_through(heard: Heard) -> bytes:
    """A reset as if from the client that sent this, after its data; to be sent to the virtual address, where the
    kernel's entry of the connection takes it to the real server, and ends with it."""
    flow, sequence = heard.flow, heard.sequence + heard.length & 0xFFFFFFFF
    return _segment((flow.client, flow.client_port), (flow.virtual, flow.virtual_port), sequence, 0, RST)


def reset(flow: Flow, sequence: int, way: Way) -> bytes:
    """A reset to the real server, as if from the client, in the wrapping that it expects; to be sent to
    `way.server`."""
    masqueraded = way.forward is Forward.MASQUERADE
    to = (way.server, way.port) if masqueraded else (flow.virtual, flow.virtual_port)
    inner = _segment((flow.client, flow.client_port), to, sequence, 0, RST)
    return _tunnelled(inner, len(flow.client), way) if way.forward is Forward.TUNNEL else inner


def _segment(
    source: tuple[bytes, int], to: tuple[bytes, int], sequence: int, acknowledgement: int, flags: int
) -> bytes:
    blank = _TCP.pack(source[1], to[1], sequence, acknowledgement, 5 << 4, flags, 0, 0, 0)
    length = len(blank)
    if len(source[0]) == 4:
        pseudo = source[0] + to[0] + struct.pack("!HH", TCP, length)
    else:
        pseudo = source[0] + to[0] + _PSEUDO6.pack(length, TCP)
    segment = blank[:16] + checksum(pseudo + blank).to_bytes(2, "big") + blank[18:]
    return _headed(source[0], to[0], TCP, segment)


def _headed(source: bytes, to: bytes, protocol: int, body: bytes) -> bytes:
    if len(source) == 16:
        return _IPV6.pack(6 << 28, len(body), protocol, TTL, source, to) + body
    blank = _IPV4.pack(0x45, 0, 20 + len(body), 0, 0, TTL, protocol, 0, source, to)
    return blank[:10] + checksum(blank).to_bytes(2, "big") + blank[12:] + body


def _tunnelled(inner: bytes, address_bytes: int, way: Way) -> bytes:
    carried = IPIP if address_bytes == 4 else IP6IP
    if way.tunnel_type is TunnelType.GRE:
        return _headed(way.source, way.server, GRE, struct.pack("!HH", 0, ETHERTYPE[address_bytes]) + inner)
    if way.tunnel_type is TunnelType.GUE:
        body = struct.pack("!BBH", 0, carried, 0) + inner
        return _headed(way.source, way.server, UDP, _datagram(body, way))
    return _headed(way.source, way.server, carried, inner)


def _datagram(body: bytes, way: Way) -> bytes:
    """The checksum may be left out over IPv4 only."""
    length = _UDP.size + len(body)
    blank = _UDP.pack(way.tunnel_port, way.tunnel_port, length, 0) + body
    if len(way.server) == 4:
        return blank
    summed = checksum(way.source + way.server + _PSEUDO6.pack(length, UDP) + blank) or 0xFFFF
    return blank[:6] + summed.to_bytes(2, "big") + blank[8:]


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071). A sum with its carries added in again is the remainder by 65,535, and a long
    number's remainder is taken in one step."""
    number = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    total = number % 0xFFFF or (0xFFFF if number else 0)
    return total ^ 0xFFFF


# --- what is heard ---------------------------------------------------------------------------------------------------


def parse_ipv4(packet: bytes) -> Heard | None:
    """Parse what a raw IPv4 socket gives: a packet with its IP header."""
    if len(packet) < _IPV4.size or packet[0] >> 4 != 4 or packet[9] != TCP:
        return None
    header, fragment = 4 * (packet[0] & 0xF), int.from_bytes(packet[6:8], "big") & 0x1FFF
    if header < _IPV4.size or fragment or len(packet) < header + _TCP.size:
        return None
    source_port, port, sequence, acknowledgement, offset, flags = _HEARD.unpack_from(packet, header)
    data = int.from_bytes(packet[2:4], "big") - header - 4 * (offset >> 4)
    return Heard(Flow(packet[12:16], source_port, packet[16:20], port), sequence, acknowledgement, flags, max(0, data))


def parse_ipv6(segment: bytes, source: bytes, to: bytes) -> Heard | None:
    """Parse what a raw IPv6 socket gives: a segment without its IP header, the addresses beside it."""
    if len(source) != 16 or len(to) != 16 or len(segment) < _TCP.size:
        return None
    source_port, port, sequence, acknowledgement, offset, flags = _HEARD.unpack_from(segment)
    data = max(0, len(segment) - 4 * (offset >> 4))
    return Heard(Flow(source, source_port, to, port), sequence, acknowledgement, flags, data)


def parse_packet(packet: bytes) -> Heard | None:
    """Parse what a packet socket gives: IPv4, or IPv6 without extensions."""
    if len(packet) >= _IPV6.size and packet[0] >> 4 == 6:
        if packet[6] != TCP:
            return None
        length = int.from_bytes(packet[4:6], "big")
        heard = parse_ipv6(packet[40 : 40 + length], packet[8:24], packet[24:40])
        return heard if heard is None else heard._replace(length=max(0, length - 4 * (packet[52] >> 4)))
    return parse_ipv4(packet)


# --- what a socket lets through --------------------------------------------------------------------------------------

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand
_HEADER_LENGTH, _LOAD_HALF_AFTER, _LOAD_HALF, _IF_EQUAL, _RETURN = 0xB1, 0x48, 0x28, 0x15, 0x06
_LOAD_WORD, _LOAD_BYTE, _AND = 0x20, 0x30, 0x54
_TAKE: Instruction = (_RETURN, 0, 0, 0xFFFF)
_DROP: Instruction = (_RETURN, 0, 0, 0)
PORTS_MAX = 2000  # of an instruction and an answer each; the kernel takes 4,096


def port_filter(ports: Collection[int], *, ipv6: bool) -> list[Instruction]:
    """For a raw TCP socket: segments to one of the ports; all of them if they are too many for a filter. Such a socket
    has a copy of all TCP that this host gets, which would be every report of an agent."""
    if len(ports) > PORTS_MAX:
        return [_TAKE]
    load = [(_LOAD_HALF, 0, 0, 2)] if ipv6 else [(_HEADER_LENGTH, 0, 0, 0), (_LOAD_HALF_AFTER, 0, 0, 2)]
    takes = [step for port in sorted(ports) for step in ((_IF_EQUAL, 0, 1, port), _TAKE)]
    return [*load, *takes, _DROP]


def client_filter(ports: Collection[int], clients: IPv4Network | IPv6Network) -> list[Instruction]:
    """For a packet socket: TCP of these clients to one of the ports; with too many ports, to any."""
    ipv6 = clients.version == 6
    address, protocol, start = (8, 6, 40) if ipv6 else (12, 9, 0)
    checks: list[tuple[Instruction, ...]] = [((_LOAD_BYTE, 0, 0, protocol), (_IF_EQUAL, 1, 0, TCP), _DROP)]
    mask, network = clients.netmask.packed, clients.network_address.packed
    for at in range(0, len(mask), 4):
        wanted = int.from_bytes(mask[at : at + 4], "big")
        if wanted:
            given = int.from_bytes(network[at : at + 4], "big")
            checks.append(((_LOAD_WORD, 0, 0, address + at), (_AND, 0, 0, wanted), (_IF_EQUAL, 1, 0, given), _DROP))
    program = [step for check in checks for step in check]
    if len(ports) > PORTS_MAX // 2:
        return [*program, _TAKE]
    load = [(_LOAD_HALF, 0, 0, start + 2)] if ipv6 else [(_HEADER_LENGTH, 0, 0, 0), (_LOAD_HALF_AFTER, 0, 0, 2)]
    takes = [step for port in sorted(ports) for step in ((_IF_EQUAL, 0, 1, port), _TAKE)]
    return [*program, *load, *takes, _DROP]


def pack_filter(program: Collection[Instruction]) -> bytes:
    """The array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
