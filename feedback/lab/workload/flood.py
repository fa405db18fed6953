"""Datagrams of imaginary clients: each makes a connection, and a template if the service is persistent.

    python -m feedback.lab.workload.flood MAC VIP PORT FIRST_ADDRESS ADDRESSES PORTS RATE

One from each of so many addresses and each of so many ports of theirs, at a rate, as whole frames to the director's
MAC. Ends when all are sent. In the namespace whose eth0 they leave by.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address

FIRST_PORT = 1024
AT_ONCE = 100
BODY = b"here"


def frames(
    mac: bytes, source_mac: bytes, vip: IPv4Address, port: int, first: int, addresses: int, ports: int
) -> Iterator[bytes]:
    ethernet = mac + source_mac + b"\x08\x00"
    length = 8 + len(BODY)
    for address in range(first, first + addresses):
        head = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 17, 0, address.to_bytes(4, "big"), vip.packed
        )
        head = ethernet + head[:10] + struct.pack(">H", checksum(head)) + head[12:]
        for client_port in range(FIRST_PORT, FIRST_PORT + ports):
            yield head + struct.pack(">HHHH", client_port, port, length, 0) + BODY  # UDP may go without a checksum


def checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(head) // 2}H", head))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def main(mac: str, vip: str, port: str, first: str, addresses: str, ports: str, rate: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind(("eth0", 0))
        own = sock.getsockname()[4]
        began = time.monotonic()
        made = frames(
            bytes.fromhex(mac), own, IPv4Address(vip), int(port), int(IPv4Address(first)), int(addresses), int(ports)
        )
        for sent, frame in enumerate(made, 1):
            sock.send(frame)
            if sent % AT_ONCE == 0:
                time.sleep(max(0.0, began + sent / float(rate) - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
