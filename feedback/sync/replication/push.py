"""The push: makes the kernel's master send what it holds back. Pure.

The master holds a buffer that is not full for two to three seconds, and a connection younger than that would die with
its director. The kernel has no command to send at once, but it sends a full buffer, and we choose the buffer's size. So
we make it small (MASTER_BYTES) and often fill it with PUSH_RECORDS records of connections of our own.

A connection of ours belongs to no service. It comes from a record injected into our own backup, and describes the very
packets that carry such records there. So each of these packets does two things. As a packet of a connection it makes
the master write a record. As a sync message it makes the backup replace the connection by a new one with another
destination, so that the next packet makes a record again. Our records are recognised and removed from what is captured.
The table of services has nothing of this, and the few entries in the table of connections do not grow in number.

Measured on 6.1 (lab): a lone connection is reported 25-130 ms after it was established instead of 1.4-2.9 s, at 0.1 %
of a core. Source: net/netfilter/ipvs/ip_vs_sync.c (ip_vs_sync_conn, ip_vs_sync_conn_needed, ip_vs_proc_conn).
"""

from __future__ import annotations

from ipaddress import IPv4Address

from feedback.sync.replication import records
from feedback.sync.replication.records import IpProtocol, Record

GROUP = IPv4Address("224.0.0.81")
MASTER_PORT, BACKUP_PORT = 8848, 8849

PUSH_SECONDS = 0.1
PUSH_RECORDS = 8
# Somebody else's record and ours do not fit into it together, so ours always push the buffer out.
MASTER_BYTES = records.HEADER_BYTES + (1 + PUSH_RECORDS) * records.RECORD_BYTES - 1
EXPIRY_SECONDS = 60
LOCAL = 1  # the forwarding method: the packet goes on unchanged

DESTINATION = IPv4Address("127.88.48.81").packed  # nobody's
MARK = GROUP.packed + DESTINATION  # adjacent in our records only: a multicast group is no service's address
TABLE_WORD = f" {DESTINATION.hex().upper()} "  # as /proc shows it


def push_datagrams(address: bytes, port: int, sync_id: int) -> tuple[bytes, bytes]:
    """Two datagrams, each with a record of the connection that these very packets form, with different destinations. To
    be sent in turn from this address and port to the backup's."""
    one, two = (
        records.encode(
            [
                Record(
                    protocol=IpProtocol.UDP,
                    flags=LOCAL,
                    state=0,
                    client=address,
                    client_port=port,
                    virtual=GROUP.packed,
                    virtual_port=BACKUP_PORT,
                    destination=DESTINATION,
                    destination_port=destination_port,
                    timeout_seconds=EXPIRY_SECONDS,
                )
            ],
            sync_id,
        )[0]
        for destination_port in (1, 2)
    )
    return one, two


def without_push(datagram: bytes, sync_id: int) -> list[bytes]:
    """The datagram without our records; an empty list if no other is left. Raises DatagramError."""
    return records.encode([r for r in records.decode(datagram).records if r.destination != DESTINATION], sync_id)
