"""The frames of the watcher: ARP and neighbour solicitations that ask who has an address, and their answers.

Pure. The lab has its own code for this, because the product's code must not judge itself. Source: RFC 826, RFC 4861.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from feedback.model import Address

BROADCAST = b"\xff" * 6
ARP, IPV6 = 0x0806, 0x86DD
ARP_HEAD = bytes.fromhex("0001080006 04".replace(" ", ""))
REQUEST, REPLY = 1, 2
ICMPV6, SOLICITATION, ADVERTISEMENT = 58, 135, 136


class Answer(NamedTuple):
    """Somebody says that it has the address. An announcement was sent to everybody, unasked."""

    address: Address
    mac: bytes
    announced: bool


def question(asker_mac: bytes, asker: Address, wanted: Address) -> bytes:
    """Who has `wanted`? Both addresses must be of one family."""
    if isinstance(wanted, IPv4Address):
        assert isinstance(asker, IPv4Address)
        return _arp(REQUEST, BROADCAST, asker_mac, asker, bytes(6), wanted)
    assert isinstance(asker, IPv6Address)
    return _solicitation(asker_mac, asker, wanted)


def announcements(mac: bytes, address: Address) -> list[bytes]:
    """Gratuitous ARP as request and as reply, or an unsolicited advertisement that overrides."""
    if isinstance(address, IPv4Address):
        return [_arp(kind, BROADCAST, mac, address, BROADCAST, address) for kind in (REQUEST, REPLY)]
    all_nodes = IPv6Address("ff02::1")
    body = struct.pack(">BBHI16sBB6s", ADVERTISEMENT, 0, 0, 0x2000_0000, address.packed, 2, 1, mac)
    return [_icmp(mac, address, all_nodes, body)]


def _arp(kind: int, to: bytes, mac: bytes, sender: IPv4Address, target_mac: bytes, target: IPv4Address) -> bytes:
    body = ARP_HEAD + struct.pack(">H6s4s6s4s", kind, mac, sender.packed, target_mac, target.packed)
    return to + mac + struct.pack(">H", ARP) + body


def _solicitation(mac: bytes, asker: IPv6Address, wanted: IPv6Address) -> bytes:
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + wanted.packed[13:])
    return _icmp(mac, asker, group, struct.pack(">BBHI16sBB6s", SOLICITATION, 0, 0, 0, wanted.packed, 1, 1, mac))


def _icmp(mac: bytes, source: IPv6Address, group: IPv6Address, body: bytes) -> bytes:
    pseudo = source.packed + group.packed + struct.pack(">II", len(body), ICMPV6)
    body = body[:2] + struct.pack(">H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack(">IHBB16s16s", 0x6000_0000, len(body), ICMPV6, 255, source.packed, group.packed)
    return b"\x33\x33" + group.packed[12:] + mac + struct.pack(">H", IPV6) + head + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def answer(frame: bytes) -> Answer | None:
    """What a frame says of who has an address, or None."""
    kind = frame[12:14]
    if kind == b"\x08\x06" and len(frame) >= 42:
        operation = frame[21]
        sender, target = frame[28:32], frame[38:42]
        if operation == REPLY or sender == target:
            return Answer(IPv4Address(sender), frame[22:28], sender == target)
    elif kind == b"\x86\xdd" and len(frame) >= 78 and frame[20] == ICMPV6 and frame[54] == ADVERTISEMENT:
        # The option may be missing; the frame itself says who sent it.
        return Answer(IPv6Address(frame[62:78]), frame[6:12], frame[0:2] == b"\x33\x33")
    return None
