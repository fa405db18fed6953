"""How many datagrams the kernel's backup thread can take now. Pure.

The thread reads an ordinary UDP socket. Datagrams that find its receive buffer full are dropped, and the sender is not
told. So before each burst we look at /proc/net/udp, which lists the kernel's own sockets too, and fill only a part of
the buffer. Invariant: the bytes allowed never exceed the limit less what is queued. So nothing is dropped as long as
nobody else sends to the socket. If something was dropped, `observe` says how many datagrams.

This module knows no socket. Source: net/ipv4/udp.c (rx_queue and drops), net/core/sock.c (a datagram is charged with
its truesize, not its length).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

import msgspec

RECEIVE_BUFFER_BYTES = 212_992  # net.core.rmem_default as kernels come
FILL = 0.7  # of the receive buffer; the rest is for datagrams that arrive between two looks
CAPACITY_BYTES_MIN = 65_536
READ_BYTES_PER_SECOND = 80e6  # as charged; a quarter holds 290,000 connections, more than a kernel takes in a second
PATIENCE_SECONDS_MAX = 0.02
OVERHEAD_BYTES = 832  # sk_buff and shared info, beside the data rounded up


class Queue(msgspec.Struct, frozen=True):
    """The kernel's receive queue: bytes charged to it, and datagrams dropped since the socket was opened."""

    bytes: int
    drops: int


def parse_udp(text: str, group: IPv4Address, port: int, ours: int = 0) -> Queue | None:
    """The line of /proc/net/udp for the socket bound to this address that is not ours (by its inode), or None."""
    # An address is printed as the kernel's own integer: 224.0.0.81 is 510000E0 where bytes are little-endian.
    wanted = tuple(f"{int.from_bytes(packed, 'big'):08X}:{port:04X}" for packed in (group.packed, group.packed[::-1]))
    for line in text.splitlines():
        if wanted[0] in line or wanted[1] in line:  # a socket connected to it has it in the next column
            words = line.split()
            if len(words) >= 13 and words[1] in wanted and words[9] != str(ours):
                return Queue(int(words[4].partition(":")[2], 16), int(words[12]))
    return None


def patience_seconds(queue: Queue) -> float:
    """How long the thread is busy with its queue at least; 20 ms at most. Looking sooner is useless, and takes the
    processor from the thread."""
    return min(PATIENCE_SECONDS_MAX, queue.bytes / READ_BYTES_PER_SECOND)


def charge(length: int) -> int:
    """The most that a datagram of this length takes of the receive buffer: data is allocated in powers of two."""
    return (1 << (length + OVERHEAD_BYTES - 1).bit_length()) + 256


@dataclass(slots=True)
class Pacer:
    """`capacity_bytes` is the receive buffer of the kernel's socket, as far as we know: a drop halves it."""

    capacity_bytes: int = RECEIVE_BUFFER_BYTES
    lost: int = 0  # datagrams, since the pacer was made
    _drops: int | None = None

    @property
    def limit_bytes(self) -> int:
        return int(self.capacity_bytes * FILL)

    def observe(self, queue: Queue) -> int:
        """How many datagrams were dropped since the last look. A count that fell belongs to a new socket."""
        before, self._drops = self._drops, queue.drops
        if before is None or queue.drops == before:
            return 0
        new = queue.drops - before if queue.drops > before else queue.drops
        self.lost += new
        self.capacity_bytes = max(self.capacity_bytes // 2, CAPACITY_BYTES_MIN)  # the buffer is smaller than assumed
        return new

    def allowance(self, queue: Queue, datagram_bytes: int) -> int:
        """How many datagrams of this length may be sent now."""
        return max(0, (self.limit_bytes - queue.bytes) // charge(datagram_bytes))
