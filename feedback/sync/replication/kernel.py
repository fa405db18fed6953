"""Access to the kernel's two sync threads: our master's output is captured, and the peer's is injected.

This shell owns the sockets and the ledger of connections. It knows nothing of sessions (replica.py) or of the peer.
Threads and sysctls are in threads.py, the push is in push.py. No loss goes unnoticed. The master's output is tapped
where it is sent, and the tap counts its losses. We receive injected records too, beside the kernel's backup, and read
the backup's queue and drops before each burst.

Invariant: a plain `close` leaves threads, sysctls and connections as they are, so they survive our restart. `uninstall`
restores everything to what it was before the first `open`.

Source: net/netfilter/ipvs/ip_vs_sync.c, net/core/dev.c (taps, and the backlog of the receive path), net/ipv4/udp.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from math import ceil
from pathlib import Path
from typing import NamedTuple

from feedback.faults import said
from feedback.ipvs import Client, IpvsError, Kernel, sysctl
from feedback.ipvs.namespace import within
from feedback.ops.logs import Log
from feedback.sync.replication import records, threads
from feedback.sync.replication.ledger import CONNECTIONS_MAX, PARTS, Ledger, pieces
from feedback.sync.replication.pace import Pacer, Queue, charge, parse_udp
from feedback.sync.replication.push import (
    BACKUP_PORT,
    GROUP,
    MARK,
    MASTER_PORT,
    PUSH_RECORDS,
    PUSH_SECONDS,
    TABLE_WORD,
    push_datagrams,
    without_push,
)
from feedback.sync.replication.records import DatagramError
from feedback.sync.replication.replica import BACKUP_ID, BULK_AT_ONCE, MASTER_ID, Bulk
from feedback.sync.replication.table import Book, Table, joined, lacking, missing, read_table
from feedback.sync.replication.threads import REFRESH_SECONDS, ReplicationError, Threads
from feedback.sync.replication.ties import SOON_SECONDS, Ties

__all__ = ["PUSH_SECONDS", "Replication", "ReplicationError"]

LOG = Log("replication")

MUTE_PUSHES = 30
LEARN_AT_ONCE = 10_000  # connections, which take some 50 ms
PUSH_LEAST_SECONDS = 0.02  # the shortest time between two pushes; the master sends no sooner
CAPTURE_BYTES = 32 * 1024 * 1024
ECHO_BYTES = 4 * 1024 * 1024
IN_FLIGHT_MAX = 200  # datagrams sent and not yet received; far fewer than net.core.netdev_max_backlog (1000)
IN_FLIGHT_SECONDS = 0.5  # a datagram that has not arrived by then is lost
TABLE_TRIES, TABLE_PAUSE_SECONDS = 5, 0.2  # the kernel rebuilds a table within some ms, and at most every 2 s
GROWTH = "conn_lfactor"  # the setting of a kernel whose table grows
DATAGRAMS_AT_ONCE = 256

SO_ATTACH_FILTER, SO_RCVBUFFORCE, IP_MULTICAST_ALL = 26, 33, 49
SOL_PACKET, PACKET_STATISTICS, ETH_P_ALL = 263, 6, 3
IP_UDP_BYTES = 28  # the headers before the master's data; it sends no IP options
# Classic BPF (code, true, false, operand): an outgoing packet, UDP, to the group, to the master's port.
_CAPTURE_FILTER = (
    (0x28, 0, 0, 0xFFFFF004),  # the packet's type
    (0x15, 0, 7, 4),
    (0x30, 0, 0, 9),
    (0x15, 0, 5, socket.IPPROTO_UDP),
    (0x20, 0, 0, 16),
    (0x15, 0, 3, int(GROUP)),
    (0x28, 0, 0, 22),
    (0x15, 0, 1, MASTER_PORT),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
)


class Held(NamedTuple):
    """Connections in the ledger, its limit, and the most connections that found no place in it."""

    connections: int
    limit: int
    lacking: int


class Replication:
    """Both sync threads of this namespace's kernel. `open` raises ReplicationError or an IpvsError. After it,
    `capture_fd` becomes readable when the master has sent something. Only the three methods that read the table block:
    call those in a thread."""

    def __init__(
        self,
        netns: str | None = None,
        interface: str = "lo",
        *,
        memory: Path | None = None,
        kernel: Kernel | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """`memory` is the file that keeps the settings from before the first `open`; `connections_max` is the ledger's
        limit."""
        self.netns, self.interface, self.memory = netns, interface, memory
        self.pacer = Pacer()
        self.changes: tuple[str, ...] = ()  # what `open` had to do, for the log
        self.unreadable = 0  # datagrams, captured or injected, that no kernel would take
        self.refused = 0  # pushes that the kernel's stack did not take
        self.mute = 0  # pushes since the master was last heard
        self.lost_on_the_way = 0  # injected datagrams that did not reach a socket
        self.lost_captured = 0  # datagrams from the master that we were too slow to read
        self.queue: Queue | None = None  # the backup thread's, at the last injection
        self.ledger = Ledger(REFRESH_SECONDS, connections_max)
        self._ties, self._swept = Ties(), 0
        self._learning: threading.Thread | None = None
        self._closed = threading.Event()
        self._kernel: Kernel | None = kernel
        self._own_kernel = kernel is None
        self._threads: Threads | None = None
        self._capture: socket.socket | None = None
        self._inject: socket.socket | None = None
        self._pushers: list[tuple[socket.socket, tuple[bytes, bytes]]] = []
        self._pushed, self._pushed_at = 0, 0.0
        self._udp: int | None = None
        self._echo: socket.socket | None = None
        self._echo_inode = 0
        self._in_flight, self._longest, self._echoed_at = 0, records.DATAGRAM_BYTES, 0.0

    # --- threads and sysctls -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Set up threads and sysctls, and open the sockets."""
        if self._kernel is None:
            self._kernel = Client(self.netns)
        self._closed.clear()
        self._threads = Threads(self._kernel, self.netns, self.interface, self.memory)
        self.changes = self._threads.ensure()
        within(self.netns, self._open_sockets)
        self.pacer.capacity_bytes = within(self.netns, lambda: _capacity_bytes(threads.SOCK_BYTES))
        self._begin_learning(self._kernel)

    def _begin_learning(self, kernel: Kernel) -> None:
        """Learn the connections from before us. A table that fills meanwhile (on a standby that joins) would be read
        again and again."""
        entries = (entry for service in kernel.snapshot().services for entry in service.destinations)
        there = sum(entry.active + entry.inactive + entry.persistent for entry in entries)
        if not there:  # connections without a destination do not fit into a record either
            self.ledger.absorb((), time.monotonic(), time.monotonic())
        elif there <= LEARN_AT_ONCE:
            self.learn()
        else:
            self._learning = threading.Thread(target=self._learn_beside, name="learn connections", daemon=True)
            self._learning.start()

    def close(self) -> None:
        """Close the sockets. Threads, sysctls and connections stay in place."""
        self._closed.set()
        for sock in (self._capture, self._inject, self._echo, *(pusher for pusher, _ in self._pushers)):
            if sock is not None:
                sock.close()
        self._capture = self._inject = self._echo = None
        self._pushers = []
        if self._udp is not None:
            os.close(self._udp)
            self._udp = None
        if self._own_kernel and self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def uninstall(self) -> tuple[str, ...]:
        """Stop our threads and put the sysctls back; connections stay until they expire. Returns what was done."""
        if self._kernel is None:
            self._kernel = Client(self.netns)
        try:
            return Threads(self._kernel, self.netns, self.interface, self.memory).uninstall()
        finally:
            self.close()

    def problems(self) -> tuple[str, ...]:
        """For `doctor`: what is no longer as `open` left it, such as a stopped thread or a changed sysctl."""
        assert self._threads is not None
        return self._threads.problems()

    # --- capturing ---------------------------------------------------------------------------------------------------

    @property
    def capture_fd(self) -> int:
        assert self._capture is not None
        return self._capture.fileno()

    def read_captured(self, limit: int = DATAGRAMS_AT_ONCE) -> list[bytes]:
        """What the master has sent since the last call: at most `limit` of its datagrams, joined into larger ones that
        are addressed to a backup. Empty if it sent nothing, or only our own push."""
        assert self._capture is not None
        found = []
        for _ in range(limit):
            try:
                datagram = self._capture.recv(65536)[IP_UDP_BYTES:]
            except (BlockingIOError, InterruptedError):
                break
            if len(datagram) > 1 and datagram[1] != MASTER_ID:
                continue
            try:
                readdressed = records.readdressed(datagram, BACKUP_ID)
                if MARK in datagram:
                    self.mute = 0
                    found += without_push(readdressed, BACKUP_ID)
                    continue
            except DatagramError:
                self.unreadable += 1
                continue
            found.append(readdressed)
        self.unreadable += self.ledger.note(found, time.monotonic())
        return records.joined(found, BACKUP_ID)

    def captured_losses(self) -> int:
        """How many datagrams from the master we were too slow to read, since `open`. After such a loss the standby
        needs the whole table again. To be called now and then."""
        assert self._capture is not None
        counted = self._capture.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # reading sets it to zero
        lost = struct.unpack("=II", counted)[1]
        if lost:
            self.lost_captured += lost
            self.ledger.whole = False  # the next table is read from the kernel
        return self.lost_captured

    def push(self) -> bool:
        """Make the master send what it has. To be called every PUSH_SECONDS on the active director. Returns False if
        the last push was only a moment ago."""
        now = time.monotonic()
        if now - self._pushed_at < PUSH_LEAST_SECONDS:  # else the queue of the backup, which reads it, would overflow
            return False
        self._pushed_at = now
        self._pushed += 1
        self.mute += 1
        self._read_echo()
        self._sent(len(self._pushers))
        for sock, datagrams in self._pushers:
            try:
                sock.send(datagrams[self._pushed & 1])
            except OSError:
                self.refused += 1
        return True

    def mend(self) -> str | None:
        """Restart the master if it has been silent for long in spite of the pushes: its socket may be bound to an
        address that moved away. Returns what was done. To be called now and then on the active director."""
        if self.mute < MUTE_PUSHES:
            return None
        self.mute = 0
        assert self._threads is not None
        if not self._threads.restart_master():
            return None
        return f"the kernel's master sync thread was silent for {MUTE_PUSHES} pushes: restarted it"

    # --- injecting ---------------------------------------------------------------------------------------------------

    def backlog(self) -> Queue | None:
        """The backup thread's receive queue and drops, including datagrams on their way to it and those lost on the
        way. None if the thread does not run."""
        assert self._udp is not None
        self._read_echo()
        at = 0
        while part := os.pread(self._udp, 65536, at):
            found = parse_udp(part.decode("ascii", "replace"), GROUP, BACKUP_PORT, self._echo_inode)
            if found is not None:
                return Queue(found.bytes + self._in_flight * charge(self._longest), found.drops + self.lost_on_the_way)
            at += len(part)
        return None

    def inject(self, datagrams: Sequence[bytes]) -> int:
        """Give the kernel's backup as many of them as it can take now, from the first on. Returns how many that were. 0
        is no error: try again in a millisecond. `queue` and `pacer.lost` have the state of its queue before."""
        assert self._inject is not None
        self.queue = queue = self.backlog()
        if queue is None:
            return 0
        self.pacer.observe(queue)
        if not datagrams:
            return 0
        self._longest = max(map(len, datagrams))
        allowed = min(self.pacer.allowance(queue, self._longest), IN_FLIGHT_MAX - self._in_flight, len(datagrams))
        done = 0
        for datagram in datagrams[: max(0, allowed)]:
            try:
                self._inject.send(datagram)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    break
                raise ReplicationError(f"{self.interface} takes no datagrams: {error.strerror}") from None
            done += 1
        self._sent(done)
        self.unreadable += self.ledger.note(datagrams[:done], time.monotonic())
        return done

    def drops(self) -> int:
        """How many datagrams were lost before the backup thread read them, since `open`."""
        queue = self.backlog()
        if queue is not None:
            self.pacer.observe(queue)
        return self.pacer.lost

    def _sent(self, datagrams: int) -> None:
        if datagrams and not self._in_flight:
            self._echoed_at = time.monotonic()
        self._in_flight += datagrams

    def _read_echo(self) -> None:
        """Receive our own datagrams. A send returns before the datagram has reached a socket, and nobody counts what
        the receive path drops in between."""
        assert self._echo is not None
        echoed = 0
        while True:
            try:
                self._echo.recv(1)
            except (BlockingIOError, InterruptedError):
                break
            echoed += 1
        if not self._in_flight:
            return
        now = time.monotonic()
        if echoed:
            self._in_flight, self._echoed_at = max(0, self._in_flight - echoed), now
        elif now - self._echoed_at > IN_FLIGHT_SECONDS:
            self.lost_on_the_way += self._in_flight
            self._in_flight = 0

    def tend(self) -> None:
        """Remove some of the expired connections from the ledger. To be called at each turn."""
        self._swept = self.ledger.sweep(time.monotonic())

    def hold(self) -> list[bytes]:
        """On the active director, after each `tend`: keep alive in this kernel what other connections depend on
        (ties.py). Returns the same records as datagrams, for the standby."""
        now = time.monotonic()
        self._ties.note_ending(self.ledger.lives(self._swept, now, now + SOON_SECONDS))
        if self._ties.seeks:
            self._ties.note_living(self.ledger.lives(self._swept, now))
        if self._swept < PARTS - 1:
            return []
        datagrams = records.packed(self._ties.round(), BACKUP_ID)
        return datagrams[: self.inject(datagrams)]

    def held(self) -> Held:
        return Held(len(self.ledger), self.ledger.limit, self.ledger.lacking(time.monotonic()))

    # --- the table ---------------------------------------------------------------------------------------------------

    def know(self) -> dict[str, int]:
        """Bring every connection of the namespace into the ledger. The kernel's table is read unless it was read before
        and nothing was lost since. Blocks: call it in a thread. Returns how many entries could not be read, by reason.
        Raises an IpvsError."""
        if self._learning is not None:
            self._learning.join()
        return {} if self.ledger.whole else self.learn()

    def bulk(self) -> Bulk:
        """The ledger, to be sent. Each piece has the state of the moment at which it is taken."""
        now = time.monotonic()
        return Bulk(self._parts(), len(self.ledger), self.ledger.lacking(now), ceil(self.ledger.lacking_seconds(now)))

    def _parts(self) -> Iterator[list[bytes]]:
        at = 0
        while at < PARTS:
            keys, at = self.ledger.keys(at, BULK_AT_ONCE)
            for piece in pieces(keys, BULK_AT_ONCE):
                yield self.ledger.taken(piece, time.monotonic())

    def learn(self) -> dict[str, int]:
        """Read the kernel's table into the ledger. Blocks: call it in a thread. Returns as `know`."""
        began = time.monotonic()
        found = self.kernel_table()
        self.ledger.absorb(found.records, began, time.monotonic())
        return found.left_out

    def kernel_table(self) -> Table:
        """The kernel's own table. Up to 7.0 the time grows with the square of its length: 0.1 s for 20,000 connections,
        0.9 s for 48,000, 11 s for 100,000. Blocks: call it in a thread. Raises an IpvsError."""
        found, absent = Table((), {}), 0
        grows = GROWTH in sysctl.read_all(self.netns)
        with Client(self.netns) as kernel:  # its own client: this may still run after `close`
            before = kernel.snapshot()
            for _ in range(TABLE_TRIES):
                shown = read_table(_lines(within(self.netns, _open_table), self._closed), Book(before))
                after = kernel.snapshot()
                found = joined(found, shown)
                absent = missing(found, before, after)
                # In a table that grows, even a few absent ones may come from a rebuild. Otherwise they have simply
                # ended.
                again = lacking(found, before, after) if grows else absent
                if not again or self._closed.wait(TABLE_PAUSE_SECONDS):
                    break
                before = after
        return Table(found.records, {**found.left_out, "not shown": absent}) if absent else found

    def _learn_beside(self) -> None:
        try:
            self.learn()
        except Exception as error:  # a later caller reads the table again, and gets its error
            LOG.error("table-unread", reason=said(error))

    # --- sockets -----------------------------------------------------------------------------------------------------

    def _open_sockets(self) -> None:
        """Open them in the namespace; they stay there."""
        try:
            index = socket.if_nametoindex(self.interface)
        except OSError:
            raise ReplicationError(f"there is no interface {self.interface}: set `interface`") from None
        self._capture = _capture_socket(index)
        self._inject = _sending_socket(index)
        self._echo = _echo_socket(index)
        self._echo_inode = os.fstat(self._echo.fileno()).st_ino
        for _ in range(PUSH_RECORDS):
            sock = _sending_socket(index)
            address, port = sock.getsockname()
            self._pushers.append((sock, push_datagrams(IPv4Address(address).packed, port, BACKUP_ID)))
        self._udp = os.open("/proc/thread-self/net/udp", os.O_RDONLY | os.O_CLOEXEC)


def _capture_socket(index: int) -> socket.socket:
    """A tap on what the master's thread sends. It sits before the receive path, which may drop datagrams silently
    (net.core.netdev_max_backlog). The tap counts its own losses."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    except PermissionError:
        raise ReplicationError("a packet socket is refused: the unit needs CAP_NET_RAW too") from None
    program = b"".join(struct.pack("=HBBI", *step) for step in _CAPTURE_FILTER)
    buffer = ctypes.create_string_buffer(program)
    filters = struct.pack("@HP", len(_CAPTURE_FILTER), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)
    _enlarge(sock, CAPTURE_BYTES)
    sock.bind((socket.if_indextoname(index), ETH_P_ALL))  # only taps of all protocols get copies of outgoing packets
    return sock


def _echo_socket(index: int) -> socket.socket:
    """A socket in the backup's group and port. It gets each datagram at the same moment as the backup's own socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _enlarge(sock, ECHO_BYTES)
    sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
    sock.bind((str(GROUP), BACKUP_PORT))
    member = struct.pack("=4s4si", GROUP.packed, bytes(4), index)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return sock


def _enlarge(sock: socket.socket, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _sending_socket(index: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
    loop = socket.if_indextoname(index) != "lo"  # lo receives what it sends; with the loop option on, twice
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loop))
    if not loop:  # else the kernel picks an address of any interface, perhaps a VIP, and is cut off when that moves
        sock.bind(("127.0.0.1", 0))
    sock.connect((str(GROUP), BACKUP_PORT))
    return sock


def _open_table() -> int:
    try:
        return os.open("/proc/thread-self/net/ip_vs_conn", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise IpvsError("there is no /proc/net/ip_vs_conn") from None


def _lines(fd: int, stop: threading.Event) -> Iterable[str]:
    """The lines without the title. One read gives at most a page. Raises IpvsError when `stop` is set."""
    rest, title = "", True
    try:
        while part := os.read(fd, 65536):
            if stop.is_set():
                raise IpvsError("the reading of the connection table was interrupted")
            whole = rest + part.decode("latin-1")
            lines = whole.split("\n")
            rest = lines.pop()
            yield from (line for line in (lines[1:] if title else lines) if TABLE_WORD not in line)
            title = False
    finally:
        os.close(fd)


def _capacity_bytes(asked: int) -> int:
    """The size of the backup thread's receive buffer. Only the first namespace shows the limit."""
    try:
        most = int(Path("/proc/sys/net/core/rmem_max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        most = 212_992
    return 2 * min(asked, most)
