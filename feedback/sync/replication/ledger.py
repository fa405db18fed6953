"""The ledger: every connection of this director, kept from what its kernel's sync stream says. Pure.

Why: reading the kernel's connection table costs the square of its length (0.9 s for 48,000 connections, 11 s for
100,000: each read gives a page and walks the table from its beginning), and it shows neither flags nor marks nor the
data of persistence engines. But everything that the master thread says of a connection passes our hands, and so does
everything that we inject as a standby. So the table is read once, when the daemon starts, for what was there before;
from then on the ledger is the table, and a standby that joins late gets it at once.

Invariant: as long as nothing of the stream was lost since `absorb`, every connection that the kernel has synced and
not let expire is here, by its last record. Its timer may run `slack_seconds` longer than the kernel's, never shorter:
the kernel repeats a record only when its timer is off by the refresh period. Connections that are gone early (their
destination was removed) stay until their timer; on a standby they do no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from feedback.sync.replication import records
from feedback.sync.replication.records import (
    HEADER_BYTES,
    RECORD6_BYTES,
    RECORD_BYTES,
    ConnectionFlag,
    DatagramError,
    Record,
)

ENTRIES_MAX = 2_000_000
LATER_MAX = 50_000  # datagrams
SWEEP_SECONDS = 60.0
PART = 150  # records decoded at once: less than 64 kB even if all are full of persistence data


_Entry: TypeAlias = tuple[float, float, bytes]  # noted at, expires at, the record as the kernel wrote it


class Ledger:
    """`slack_seconds` is the kernel's refresh period."""

    def __init__(self, slack_seconds: float) -> None:
        self.slack_seconds = slack_seconds
        self.whole = False  # nothing is missing, as far as we know
        self._entries: dict[bytes, _Entry] = {}
        self._later: deque[tuple[float, bytes]] = deque()
        self._swept = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, datagrams: Iterable[bytes], now: float) -> int:
        """What the kernel said, or was told. Each must have passed `records.readdressed`; those that are malformed
        further down are left out, as the kernel does, and counted."""
        malformed = sum(not self._note(datagram, now) for datagram in datagrams)
        if now - self._swept > SWEEP_SECONDS:
            self._sweep(now)
        if len(self._entries) > ENTRIES_MAX:
            self.whole = False
            self._entries.clear()
        return malformed

    def note_later(self, datagrams: Iterable[bytes], now: float) -> None:
        """As `note`, but the work is left to `fold`: for a bulk in which every millisecond counts."""
        self._later.extend((now, datagram) for datagram in datagrams)
        if len(self._later) > LATER_MAX:
            self.fold(len(self._later) - LATER_MAX)

    def fold(self, limit: int | None = None) -> int:
        """Note some of what was left for later, all of it without a limit. Returns how many were malformed."""
        malformed = 0
        for _ in range(len(self._later) if limit is None else limit):
            try:
                noted_at, datagram = self._later.popleft()
            except IndexError:
                break
            malformed += not self._note(datagram, noted_at)
        return malformed

    def _note(self, datagram: bytes, now: float) -> bool:
        """False if it is malformed. What is known from a later moment stays."""
        try:
            bodies = _bodies(datagram)
        except DatagramError:
            return False
        entries, base = self._entries, now + self.slack_seconds
        expires: dict[bytes, float] = {}  # nearly always the same: one number for all
        for body in bodies:
            key, seconds = _key(body), body[20:24]
            old = entries.get(key)
            if old is not None and old[0] > now:
                continue
            expires_at = expires.get(seconds)
            if expires_at is None:
                expires_at = expires[seconds] = base + int.from_bytes(seconds, "big")
            entries[key] = (now, expires_at, body)
        return True

    def absorb(self, table: Iterable[Record], began: float, now: float) -> None:
        """The kernel's table, whose reading began then: what is not in it is gone, unless it was noted since. A record
        of the stream is kept where the table says the same: it says more."""
        self.fold()
        # `note` goes on meanwhile in another thread: it writes to the new dictionary from here on, and wins.
        before = self._entries
        fresh: dict[bytes, _Entry] = {}
        self.whole, self._entries = False, fresh
        for record in table:
            (datagram,) = records.encode([record], 0)
            body = datagram[HEADER_BYTES:]
            key = _key(body)
            entry = before.get(key)
            if entry is None or (entry[0] < began and _says(entry[2]) != _says(body)):
                entry = (began, now + record.timeout_seconds + self.slack_seconds, body)
            fresh.setdefault(key, entry)
        for key, entry in tuple(before.items()):
            if entry[0] >= began:
                fresh.setdefault(key, entry)
        self.whole = True

    def table(self, now: float) -> tuple[Record, ...]:
        """Every connection, its timeout what is left of it, a template's its own. May run in another thread than
        `note`."""
        self.fold()
        found: list[Record] = []
        entries = tuple(self._entries.values())
        for start in range(0, len(entries), PART):
            bodies = [_aged(body, expires_at - now) for _, expires_at, body in entries[start : start + PART]
                      if expires_at > now]  # fmt: skip
            padded = b"".join(body + bytes(-len(body) & 3) for body in bodies)
            size = HEADER_BYTES + len(padded)
            header = b"\0\0" + size.to_bytes(2, "big") + bytes((len(bodies), records.VERSION, 0, 0))
            found += records.decode(header + padded).records
        return tuple(found)

    def _sweep(self, now: float) -> None:
        self._swept = now
        for key in [key for key, entry in self._entries.items() if entry[1] <= now]:
            del self._entries[key]


def _aged(body: bytes, left_seconds: float) -> bytes:
    """With what is left of its timer. A template's timeout is the service's, and each connection starts it anew."""
    if _template(body):
        return body
    return body[:20] + min(int(left_seconds) + 1, 0xFFFFFFFF).to_bytes(4, "big") + body[24:]


def _bodies(datagram: bytes) -> list[bytes]:
    """The records of a datagram, each as its bytes, without the padding."""
    count = datagram[4]
    if len(datagram) == HEADER_BYTES + count * RECORD_BYTES and _plain(datagram, count):
        return [datagram[at : at + RECORD_BYTES] for at in range(HEADER_BYTES, len(datagram), RECORD_BYTES)]
    bodies, at = [], HEADER_BYTES
    for _ in records.decode(datagram).records:  # which shows that the sizes are right
        size = datagram[at + 2] << 8 | datagram[at + 3]
        bodies.append(datagram[at : at + size])
        at += size + 3 & ~3
    return bodies


def _plain(datagram: bytes, count: int) -> bool:
    """Whether all are of IPv4 and without parameters: type 0 and the size of a record, in version 0. What is not is
    looked at one by one: a local user's datagram may begin as the kernel's do."""
    first = HEADER_BYTES
    return (
        datagram[first::RECORD_BYTES] == bytes(count)
        and datagram[first + 2 :: RECORD_BYTES] == bytes(count)
        and datagram[first + 3 :: RECORD_BYTES] == bytes((RECORD_BYTES,)) * count
    )


def _key(body: bytes) -> bytes:
    """Protocol, ports of client and service, and their addresses: what the kernel finds a connection by. Templates of
    one client may differ in a persistence engine's data alone (the Call-IDs of SIP)."""
    size, there = (RECORD6_BYTES, 56) if body[0] else (RECORD_BYTES, 32)
    key = body[1:2] + body[10:14] + body[24:there]
    return key + records.engine_data(body[size:]) if len(body) > size and _template(body) else key


def _template(body: bytes) -> bool:
    return bool(body[6] & ConnectionFlag.TEMPLATE >> 8)


def _says(body: bytes) -> bytes:
    """State and destination."""
    return body[8:10] + body[14:16] + (body[56:RECORD6_BYTES] if body[0] else body[32:RECORD_BYTES])
