"""The sockets of one interface: packet sockets that receive only what concerns us, and a raw one for echoes.

All are opened beforehand in the director's namespace and used from outside it. Each packet socket belongs to one
protocol, so it gets no frame of the service's IPv4 traffic. A filter in the kernel drops everything but statements
about our addresses and targets. Source: man 7 packet; net/packet/af_packet.c."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from feedback.sync.addresses import packets
from feedback.sync.addresses.errors import NotPermitted
from feedback.sync.addresses.packets import Address, Instruction
from feedback.sync.addresses.plan import VirtualAddress

FRAME_BYTES = 2048
FRAMES_AT_ONCE = 256  # then other work of the loop has its turn

SEND_BUFFER_BYTES = 4 * 1024 * 1024
_SO_ATTACH_FILTER, _SO_SNDBUFFORCE = 26, 32


@dataclass(slots=True)
class Port:
    """The sockets of one interface, by protocol."""

    index: int
    sockets: dict[int, socket.socket]
    link_local: IPv6Address
    router: bool

    def send(self, address: Address, frames: Sequence[bytes]) -> None:
        sock = self.sockets[packets.ETH_P_IPV6 if isinstance(address, IPv6Address) else packets.ETH_P_ARP]
        for frame in frames:
            sock.send(frame)

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()


def announcements(port: Port, mac: str, wanted: VirtualAddress) -> Sequence[bytes]:
    if isinstance(wanted.address, IPv6Address):
        return [packets.neighbour_advertisement(mac, wanted.address, port.router)]
    return [packets.gratuitous_request(mac, wanted.address), packets.gratuitous_reply(mac, wanted.address)]


def questions(port: Port, mac: str, wanted: VirtualAddress) -> Sequence[bytes]:
    if isinstance(wanted.address, IPv6Address):
        return [packets.neighbour_solicitation(mac, port.link_local, wanted.address)]
    return [packets.arp_probe(mac, wanted.address)]


def packet_sockets(interface: str, programs: dict[int, list[Instruction]]) -> dict[int, socket.socket]:
    return {protocol: _packet_socket(interface, protocol, program) for protocol, program in programs.items()}


def _packet_socket(interface: str, protocol: int, program: list[Instruction]) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    except PermissionError:
        raise NotPermitted("sending and hearing ARP", "CAP_NET_RAW") from None
    _attach(sock, program)  # before bind(), so that nothing comes in unfiltered
    with contextlib.suppress(PermissionError):  # the buffer is for hundreds of announcements at once
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
    sock.bind((interface, protocol))
    return sock


def raw_icmp(ipv6: bool) -> socket.socket:
    family, protocol = (socket.AF_INET6, 58) if ipv6 else (socket.AF_INET, 1)
    try:
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    except PermissionError:
        raise NotPermitted("sending ICMP echoes", "CAP_NET_RAW") from None
    _attach(sock, packets.echo_filter(identifier(), ipv6))
    return sock


def _attach(sock: socket.socket, program: list[Instruction]) -> None:
    code = ctypes.create_string_buffer(packets.pack_filter(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def identifier() -> int:
    return os.getpid() & 0xFFFF


def is_router(interface: str) -> bool:
    """Whether this host's own neighbour advertisements on this interface call it a router."""
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{interface}/forwarding").read_text(encoding="ascii").strip() != "0"
    except OSError:
        return False  # it has no IPv6


def datagrams(sock: socket.socket) -> Iterator[tuple[bytes, tuple[str, int]]]:
    for _ in range(FRAMES_AT_ONCE):
        try:
            yield sock.recvfrom(FRAME_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO):  # told when the interface went
                raise
            return
