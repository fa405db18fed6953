"""Raw sockets: what the cutter sends and hears with, opened, filtered and read. They need CAP_NET_RAW."""

from __future__ import annotations

import socket
import sys
from collections.abc import Collection
from ctypes import addressof, create_string_buffer

from feedback.master.cuts import segments
from feedback.master.cuts.segments import Heard

HEARING_BYTES = 16 * 1024 * 1024  # the answers of some 20,000 clients at once
SEGMENT_BYTES = 2048
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50


def senders() -> dict[socket.AddressFamily, socket.socket]:
    made = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        made[family] = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    return made


def hearers() -> list[socket.socket]:
    made = []
    for family in (socket.AF_INET, socket.AF_INET6):
        each = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
        if family is socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        try:
            each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, HEARING_BYTES)
        except OSError:  # without CAP_NET_ADMIN: what is lost is poked again
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HEARING_BYTES)
        made.append(each)
    return made


def tap(*, ipv6: bool) -> socket.socket:
    """All interfaces' packets of this family, on their way in."""
    protocol = socket.htons(ETH_P_IPV6 if ipv6 else ETH_P_IP)
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, protocol)


def attach(each: socket.socket, program: Collection[segments.Instruction]) -> None:
    packed = create_string_buffer(segments.pack_filter(program))
    # struct sock_fprog: a length and, aligned, a pointer
    head = len(program).to_bytes(8, sys.byteorder) + addressof(packed).to_bytes(8, sys.byteorder)
    each.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head)


def heard(each: socket.socket) -> Heard | None:
    if each.family is socket.AF_PACKET:
        return segments.parse_packet(each.recv(SEGMENT_BYTES))
    if each.family is socket.AF_INET:
        return segments.parse_ipv4(each.recv(SEGMENT_BYTES))
    data, ancillary, _, peer = each.recvmsg(SEGMENT_BYTES, 128)
    to = next(
        (value[:16] for level, kind, value in ancillary if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO)), b""
    )
    return segments.parse_ipv6(data, socket.inet_pton(socket.AF_INET6, peer[0].partition("%")[0]), to)
