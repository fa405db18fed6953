"""The destinations of a service at one moment, which netlink cannot list for more than ninety.

The socket options that `ipvsadm` used before netlink copy a service's destinations under one lock, for IPv4 only: an
IPv6 service, and an IPv6 destination of an IPv4 one, they do not know. Any IPv4 socket can ask, with CAP_NET_ADMIN.

Source: include/uapi/linux/ip_vs.h; do_ip_vs_get_ctl() in net/netfilter/ipvs/ip_vs_ctl.c.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

from feedback.ipvs.namespace import within
from feedback.model import Family, Protocol, ServiceKey

GET_SERVICE, GET_DESTINATIONS = 64 + 1024 + 64 + 3, 64 + 1024 + 64 + 4
_ASKED = struct.Struct("=H2x4s2s2xI")  # protocol, address, port, mark: as both structures begin
_SERVICE_BYTES, _COUNT_AT = 104, 44  # struct ip_vs_service_entry, its num_dests
_HEAD_BYTES, _CAPACITY = 24, struct.Struct("=I")  # struct ip_vs_get_dests, its num_dests, which follows what is asked
_ENTRY_BYTES = 96  # struct ip_vs_dest_entry; it begins with address and port
_NUMBERS = {
    Protocol.TCP: socket.IPPROTO_TCP,
    Protocol.UDP: socket.IPPROTO_UDP,
    Protocol.SCTP: socket.IPPROTO_SCTP,
    None: 0,
}
_LIBC = ctypes.CDLL(None)

Place = tuple[bytes, bytes]  # address and port, as in a packet


class Listed:
    """Asks in one network namespace. Its socket is opened with the first question."""

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._socket: socket.socket | None = None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def destinations(self, service: ServiceKey) -> list[Place] | None:
        """In the kernel's order. None where it does not say: of an IPv6 service, of one that is not there, of one that
        changed meanwhile or has an IPv6 destination."""
        if service.family is not Family.IPV4:
            return None
        address = service.address.packed if service.address else bytes(4)
        port = service.port.to_bytes(2, "big")
        asked = _ASKED.pack(_NUMBERS[service.protocol], address, port, service.fwmark)
        found = self._ask(GET_SERVICE, asked.ljust(_SERVICE_BYTES, b"\0"))
        if found is None:
            return None
        count = int.from_bytes(found[_COUNT_AT : _COUNT_AT + 4], sys.byteorder)
        room = count + 1  # so that one more would be seen
        asked = (asked + _CAPACITY.pack(room)).ljust(_HEAD_BYTES + room * _ENTRY_BYTES, b"\0")
        found = self._ask(GET_DESTINATIONS, asked)
        if found is None:
            return None
        starts = range(_HEAD_BYTES, len(found), _ENTRY_BYTES)
        places = [(found[at : at + 4], found[at + 4 : at + 6]) for at in starts if any(found[at : at + 6])]
        return places if len(places) == count else None

    def _ask(self, what: int, asked: bytes) -> bytes | None:
        if self._socket is None:
            self._socket = within(self._netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        buffer = ctypes.create_string_buffer(asked, len(asked))
        length = ctypes.c_uint32(len(asked))
        if _LIBC.getsockopt(self._socket.fileno(), socket.IPPROTO_IP, what, buffer, ctypes.byref(length)):
            return None
        return buffer.raw
