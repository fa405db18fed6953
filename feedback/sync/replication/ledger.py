"""The ledger: every connection of this director, kept from its kernel's sync stream. Pure.

Why: reading the kernel's connection table costs the square of its length (0.9 s for 48,000 connections, 11 s for
100,000: each read gives a page and walks the table from its beginning), and it shows neither flags nor marks nor the
data of persistence engines. But we see everything that the master thread sends about a connection, and everything that
we inject as a standby. So the table is read once, when the daemon starts, for what was there before; from then on the
ledger is the table, and a standby that joins late gets it at once.

Invariant: as long as nothing of the stream was lost since `absorb`, every connection that the kernel has synced and
not let expire is here, by its last record, but for those above the limit, which `lacking` counts. Its timer may run
`slack_seconds` longer than the kernel's, never shorter: the kernel repeats a record only when its timer is off by the
refresh period. Connections that are gone early (their destination was removed) stay until their timer; on a standby
they do no harm.

It is kept in many parts, each a dictionary of bytes alone. Growing, sweeping or sending one part takes less than a
millisecond, where one dictionary of a million entries holds the loop for 90 ms when it grows and for 400 ms when it is
swept; and the garbage collector has nothing to walk through.
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

CONNECTIONS_MAX = 2_000_000  # some 200 bytes each: 400 MB
PARTS = 1024  # of at most 2,000 connections; `sweep` takes one of them
NEWEST = 4000  # records whose order is known: looking at all of them takes 4 ms
ABSORB_AT_ONCE = 100  # records of a table: `note` waits for no more

# An entry: when it was noted and when it expires, then the record as the kernel wrote it. Times are microseconds,
# big-endian, so that bytes compare as they do.
_TIME_BYTES = 8
_EXPIRES = slice(_TIME_BYTES, 2 * _TIME_BYTES)
_BODY = 2 * _TIME_BYTES
_NEVER = b"\xff" * _TIME_BYTES
_TIMEOUT, _AFTER_TIMEOUT = slice(_BODY, _BODY + 20), _BODY + 24


class Ledger:
    """`slack_seconds` is the kernel's refresh period. `absorb` may run in another thread than the rest."""

    def __init__(self, slack_seconds: float, limit: int = CONNECTIONS_MAX) -> None:
        self.slack_seconds, self.limit = slack_seconds, limit
        self.whole = False  # the kernel's table has been read, and nothing of the stream was lost since
        self._parts: tuple[dict[bytes, bytes], ...] = tuple({} for _ in range(PARTS))
        self._held = 0
        self._noted: deque[bytes] = deque(maxlen=NEWEST)  # the keys of the last records, the newest at the end
        self._lock = threading.Lock()  # of the parts and their number
        self._lacking, self._lacking_until = 0, 0.0
        self._next = 0  # part to be swept

    def __len__(self) -> int:
        return self._held

    def note(self, datagrams: Iterable[bytes], now: float) -> int:
        """What the kernel said, or was told. Each must have passed `records.readdressed`; those that are malformed
        further down are left out, as the kernel does, and counted."""
        with self._lock:
            return sum(not self._note(datagram, now) for datagram in datagrams)

    def _note(self, datagram: bytes, now: float) -> bool:
        """False if it is malformed."""
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
        """How many records found no place, at most so many connections: 0 again when the last of them has expired."""
        return self._lacking if now < self._lacking_until else 0

    def lacking_seconds(self, now: float) -> float:
        """Until then."""
        return max(0.0, self._lacking_until - now)

    def absorb(self, table: Iterable[Record], began: float, now: float) -> None:
        """The kernel's table, whose reading began then: what is not in it is gone, unless it was noted since. A record
        of the stream is kept where the table says the same: it says more."""
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
        """The records of one of PARTS parts as bytes, their timeout what is left of it, a template's its own."""
        with self._lock:
            entries = list(self._parts[index].values())
        return _left_of(entries, now)

    def keys(self, first: int, least: int) -> tuple[list[bytes], int]:
        """What `taken` finds the records of the parts from `first` on by, until there are `least`; and which part comes
        next."""
        keys: list[bytes] = []
        with self._lock:  # once: where a system call is dear, as in the lab's guest, a thousand times cost 9 ms
            while first < PARTS and len(keys) < least:
                keys += self._parts[first]
                first += 1
        return keys, first

    def taken(self, keys: Iterable[bytes], now: float) -> list[bytes]:
        """The records by their keys, as `part` has them, without those that are gone."""
        with self._lock:
            found = [self._parts[hash(key) % PARTS].get(key) for key in keys]
        return _left_of([entry for entry in found if entry is not None], now)

    def take_before(self, first: int, least: int, now: float, before: float) -> tuple[list[bytes], int | None]:
        """The same of those that were noted before a moment; None after the last part."""
        entries, following = self._entries(first, least)
        stamp = _stamp(before)
        return _left_of([e for e in entries if e < stamp], now), following if following < PARTS else None

    def newest(self, now: float, before: float, since: float = 0.0) -> list[bytes]:
        """The records that were noted last before a moment and not before another, NEWEST at most, the last first."""
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
        """Let go of what has expired in the next part, and say which that was. To be called often: each round is PARTS
        calls."""
        swept = self._next
        self._drop(swept, _EXPIRES, _stamp(now))
        self._next = (swept + 1) % PARTS
        return swept

    def lives(self, index: int, now: float, until: float | None = None) -> list[bytes]:
        """The records of one part, as they were noted, that expire after `now`, and before `until`."""
        first, last = _stamp(now), _NEVER if until is None else _stamp(until)
        with self._lock:
            return [entry[_BODY:] for entry in self._parts[index].values() if first < entry[_EXPIRES] < last]

    def _drop(self, index: int, time: slice, before: bytes) -> None:
        """What of a part was noted, or expires, before that moment."""
        with self._lock:
            part = self._parts[index]
            gone = [key for key, entry in part.items() if entry[time] < before]
            for key in gone:
                del part[key]
            self._held -= len(gone)


def pieces(keys: list[bytes], about: int) -> Iterator[list[bytes]]:
    """All of them, in pieces of about so many and of the same size: a small rest would cost as much as a piece."""
    count = max(1, round(len(keys) / about))
    for n in range(count):
        yield keys[n * len(keys) // count : (n + 1) * len(keys) // count]


def _left_of(entries: list[bytes], now: float) -> list[bytes]:
    """Their records, without what has expired. One pass for many parts: of a small table each holds one or two."""
    bodies, left, after = [], dict[bytes, bytes](), _stamp(now)
    for entry in entries:
        expires = entry[_EXPIRES]
        if expires <= after:
            continue
        if _template(entry[_BODY:]):  # its timeout is the service's, and each connection starts it anew
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
    """The records of a datagram, each as its bytes, without padding and without parameters that no kernel knows: these
    may be of any length."""
    count = datagram[4]
    if len(datagram) == HEADER_BYTES + count * RECORD_BYTES and _plain(datagram, count):
        return [datagram[at : at + RECORD_BYTES] for at in range(HEADER_BYTES, len(datagram), RECORD_BYTES)]
    return [records.body(record) for record in records.decode(datagram).records]


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
    if len(body) == RECORD_BYTES:  # nearly always
        return body[1:2] + body[10:14] + body[24:32]
    size, there = (RECORD6_BYTES, 56) if body[0] else (RECORD_BYTES, 32)
    key = body[1:2] + body[10:14] + body[24:there]
    return key + records.engine_data(body[size:]) if len(body) > size and _template(body) else key


def _template(body: bytes) -> bool:
    return bool(body[6] & ConnectionFlag.TEMPLATE >> 8)


def _says(body: bytes) -> bytes:
    """State and destination."""
    return body[8:10] + body[14:16] + (body[56:RECORD6_BYTES] if body[0] else body[32:RECORD_BYTES])
