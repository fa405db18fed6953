"""The ledger: every connection of this director, as its kernel's sync stream reported it. Pure.

Why it exists: the time to read the kernel's connection table grows with the square of its length (0.9 s for 48,000
connections, 11 s for 100,000), since each read gives one page and walks the table from its beginning. The table also
shows no flags, no marks and no data of persistence engines. But we see everything that the master thread sends about a
connection, and everything that we inject as a standby. So the table is read once, when the daemon starts, to learn the
earlier connections. From then on the ledger replaces it, and a standby that joins late gets the ledger at once.

Invariant: as long as nothing of the stream was lost since `absorb`, the ledger has the last record of every connection
that the kernel has synced and that has not expired. The exceptions are those above the limit, which `lacking` counts. A
timer here may run `slack_seconds` longer than the kernel's, never shorter: the kernel repeats a record only when its
timer is off by the refresh period. Connections that end early, because their destination was removed, stay until their
timer expires; on a standby they do no harm.

The ledger is split into many parts, each a dictionary that holds only bytes. Growing, sweeping or sending one part
takes less than a millisecond. One dictionary of a million entries would hold the loop for 90 ms when it grows and for
400 ms when it is swept. And the garbage collector finds nothing to walk through.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from feedback.sync.replication import records
from feedback.sync.replication.records import (
    HEADER_BYTES,
    RECORD6_BYTES,
    RECORD_BYTES,
    ConnectionFlag,
    DatagramError,
    Record,
)

CONNECTIONS_MAX = 2_000_000  # at some 200 bytes each, 400 MB
PARTS = 1024  # each of at most 2,000 connections; a call of `sweep` handles one
NEWEST = 4000  # how many records keep their order; to look at all of them takes 4 ms
ABSORB_AT_ONCE = 100  # records of a table between which `note` may run

# An entry: when it was noted and when it expires, then the record as the kernel wrote it. Times are microseconds,
# big-endian, so that bytes compare as they do.
_TIME_BYTES = 8
_EXPIRES = slice(_TIME_BYTES, 2 * _TIME_BYTES)
_BODY = 2 * _TIME_BYTES
_NEVER = b"\xff" * _TIME_BYTES
_TIMEOUT, _AFTER_TIMEOUT = slice(_BODY, _BODY + 20), _BODY + 24
_TEMPLATE_BYTE = int(ConnectionFlag.TEMPLATE) >> 8  # of the flags' high byte


class Ledger:
    """`slack_seconds` is the kernel's refresh period. `absorb` may run in a thread of its own."""

    def __init__(self, slack_seconds: float, limit: int = CONNECTIONS_MAX) -> None:
        self.slack_seconds, self.limit = slack_seconds, limit
        self.whole = False  # whether the kernel's table was read and nothing of the stream was lost since
        self._parts: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(PARTS))
        self._held = 0
        self._noted: deque[bytes] = deque(maxlen=NEWEST)  # keys of the last records, the newest last
        self._lock = threading.Lock()  # guards the parts and their number
        self._lacking, self._lacking_until = 0, 0.0
        self._next = 0  # the part to sweep next

    def __len__(self) -> int:
        return self._held

    def note(self, datagrams: Iterable[bytes], now: float) -> int:
        """Note what the kernel sent or was given. Each datagram must have passed `records.readdressed`. Those with
        malformed records are left out, as by the kernel. Returns how many these were."""
        with self._lock:
            return sum(not self._note(datagram, now) for datagram in datagrams)

    def _note(self, datagram: bytes, now: float) -> bool:
        """Returns False if the datagram is malformed."""
        try:
            bodies = _bodies(datagram)
        except DatagramError:
            return False
        noted, seconds, stamp = _stamp(now), b"", b""
        for body in bodies:
            if body[20:24] != seconds:  # nearly always the same
                seconds, stamp = body[20:24], noted + self._expiry(body, now)
            self._put(_key(body), stamp + body, now)
        return True

    def _expiry(self, body: bytes, now: float) -> bytes:
        return _stamp(now + self.slack_seconds + int.from_bytes(body[20:24], "big"))

    def _put(self, key: bytes, entry: bytes, now: float) -> None:
        part = self._parts[hash(key) % PARTS]
        if key not in part:
            if self._held >= self.limit:
                self._leave_out(entry, now)
                return
            self._held += 1
        part[key] = entry
        self._noted.append(key)

    def _leave_out(self, entry: bytes, now: float) -> None:
        self._lacking = self.lacking(now) + 1
        self._lacking_until = max(self._lacking_until, int.from_bytes(entry[_EXPIRES], "big") / 1e6)

    def lacking(self, now: float) -> int:
        """How many records found no place: the most connections that are missing. 0 when the last of them has
        expired."""
        return self._lacking if now < self._lacking_until else 0

    def lacking_seconds(self, now: float) -> float:
        """Seconds until the last of those has expired."""
        return max(0.0, self._lacking_until - now)

    def absorb(self, table: Iterable[Record], began: float, now: float) -> None:
        """Take the kernel's table, whose reading began at `began`. A connection that is not in it is gone, unless it
        was noted since. Where the table agrees with a record of the stream, the record stays, since it says more."""
        self.whole = False
        found = iter(table)
        while some := tuple(islice(found, ABSORB_AT_ONCE)):
            with self._lock:
                for record in some:
                    self._absorb(record, _stamp(began), now)
        for index in range(PARTS):
            self._drop(index, slice(_TIME_BYTES), _stamp(began))
        self.whole = True

    def _absorb(self, record: Record, began: bytes, now: float) -> None:
        body = records.body(record)
        key = _key(body)
        old = self._parts[hash(key) % PARTS].get(key)
        if old is not None and old >= began:
            return
        if old is not None and _says(old[_BODY:]) == _says(body):
            self._put(key, began + old[_TIME_BYTES:], now)
        else:
            self._put(key, began + self._expiry(body, now) + body, now)

    def part(self, index: int, now: float) -> list[bytes]:
        """The records of one part as bytes. Their timeout is the time left; a template keeps its own."""
        with self._lock:
            entries = list(self._parts[index].values())
        return _left_of(entries, now)

    def keys(self, first: int, least: int) -> tuple[list[bytes], int]:
        """The keys, for `taken`, of the parts from `first` on until there are at least `least`; and the number of the
        next part."""
        keys: list[bytes] = []
        with self._lock:  # only once: a thousand times cost 9 ms where system calls are slow, as in the lab's guest
            while first < PARTS and len(keys) < least:
                keys += self._parts[first]
                first += 1
        return keys, first

    def taken(self, keys: Iterable[bytes], now: float) -> list[bytes]:
        """The records of these keys, in the form of `part`, without those that are gone."""
        with self._lock:
            found = [self._parts[hash(key) % PARTS].get(key) for key in keys]
        return _left_of([entry for entry in found if entry is not None], now)

    def take_before(self, first: int, least: int, now: float, before: float) -> tuple[list[bytes], int | None]:
        """The same for records noted before a moment. The number is None after the last part."""
        entries, following = self._entries(first, least)
        stamp = _stamp(before)
        return _left_of([e for e in entries if e < stamp], now), following if following < PARTS else None

    def newest(self, now: float, before: float, since: float = 0.0) -> list[bytes]:
        """The records noted between `since` and `before`, newest first, at most NEWEST of them."""
        first, stamp, seen, entries = _stamp(since), _stamp(before), set[bytes](), []
        with self._lock:
            for key in reversed(self._noted):
                entry = self._parts[hash(key) % PARTS].get(key)
                if key not in seen and entry is not None and first <= entry < stamp:
                    entries.append(entry)
                seen.add(key)
        return _left_of(entries, now)

    def _entries(self, first: int, least: int) -> tuple[list[bytes], int]:
        entries: list[bytes] = []
        with self._lock:
            while first < PARTS and len(entries) < least:
                entries += self._parts[first].values()
                first += 1
        return entries, first

    def sweep(self, now: float) -> int:
        """Remove expired records from the next part, and return its number. To be called often: one round takes PARTS
        calls."""
        swept = self._next
        self._drop(swept, _EXPIRES, _stamp(now))
        self._next = (swept + 1) % PARTS
        return swept

    def lives(self, index: int, now: float, until: float | None = None) -> list[bytes]:
        """The records of one part, as noted, that expire after `now` and before `until`."""
        first, last = _stamp(now), _NEVER if until is None else _stamp(until)
        with self._lock:
            return [entry[_BODY:] for entry in self._parts[index].values() if first < entry[_EXPIRES] < last]

    def _drop(self, index: int, time: slice, before: bytes) -> None:
        """Remove the entries of a part whose time (noted, or of expiry) is before `before`."""
        with self._lock:
            part = self._parts[index]
            gone = [key for key, entry in part.items() if entry[time] < before]
            for key in gone:
                del part[key]
            self._held -= len(gone)


def pieces(keys: list[bytes], about: int) -> Iterator[list[bytes]]:
    """All keys in pieces of equal size, about `about` each. A small last piece would cost as much as a whole one."""
    count = max(1, round(len(keys) / about))
    for n in range(count):
        yield keys[n * len(keys) // count : (n + 1) * len(keys) // count]


def _left_of(entries: list[bytes], now: float) -> list[bytes]:
    """Their unexpired records. Entries of many parts come together, since a part of a small table holds one or two."""
    bodies, left, after = [], dict[bytes, bytes](), _stamp(now)
    for entry in entries:
        expires = entry[_EXPIRES]
        if expires <= after:
            continue
        if _template(entry[_BODY:]):  # its timeout is the service's; each connection restarts it
            bodies.append(entry[_BODY:])
            continue
        seconds = left.get(expires)
        if seconds is None:
            seconds = left[expires] = _left(expires, now)
        bodies.append(entry[_TIMEOUT] + seconds + entry[_AFTER_TIMEOUT:])
    return bodies


def _stamp(seconds: float) -> bytes:
    return int(1e6 * seconds).to_bytes(_TIME_BYTES, "big")


def _left(expires: bytes, now: float) -> bytes:
    seconds = int(int.from_bytes(expires, "big") / 1e6 - now) + 1
    return min(seconds, 0xFFFFFFFF).to_bytes(4, "big")


def _bodies(datagram: bytes) -> list[bytes]:
    """The records of a datagram as bytes, without padding, and without unknown parameters, which may have any
    length."""
    count = datagram[4]
    if len(datagram) == HEADER_BYTES + count * RECORD_BYTES and _plain(datagram, count):
        return [datagram[at : at + RECORD_BYTES] for at in range(HEADER_BYTES, len(datagram), RECORD_BYTES)]
    return [records.body(record) for record in records.decode(datagram).records]


def _plain(datagram: bytes, count: int) -> bool:
    """Whether all records are IPv4 and have no parameters: type 0, the size of a record, version 0. Otherwise the
    records are checked one by one, since a local user's datagram may begin like the kernel's."""
    first = HEADER_BYTES
    return (
        datagram[first::RECORD_BYTES] == bytes(count)
        and datagram[first + 2 :: RECORD_BYTES] == bytes(count)
        and datagram[first + 3 :: RECORD_BYTES] == bytes((RECORD_BYTES,)) * count
    )


def _key(body: bytes) -> bytes:
    """Protocol, ports of client and service, and their addresses: the kernel looks connections up by these. Templates
    of one client may differ only in a persistence engine's data (the Call-IDs of SIP)."""
    if len(body) == RECORD_BYTES:  # nearly always
        return body[1:2] + body[10:14] + body[24:32]
    size, there = (RECORD6_BYTES, 56) if body[0] else (RECORD_BYTES, 32)
    key = body[1:2] + body[10:14] + body[24:there]
    return key + records.engine_data(body[size:]) if len(body) > size and _template(body) else key


def _template(body: bytes) -> bool:
    return bool(body[6] & _TEMPLATE_BYTE)


def _says(body: bytes) -> bytes:
    """State and destination."""
    return body[8:10] + body[14:16] + (body[56:RECORD6_BYTES] if body[0] else body[32:RECORD_BYTES])
