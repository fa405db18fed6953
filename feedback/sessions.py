"""The latest session values of one real server's applications. Pure.

The latest value of a session wins. A session is forgotten a minute after its last value. If all take more than
BYTES_MAX, the one silent for longest is forgotten first.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from feedback.wire import Session

KEPT_SECONDS = 60.0
BYTES_MAX = 32 * 1024
VALUE_BYTES_MAX = 256
MESSAGE_BYTES_MAX = 12 * 1024  # of words in one message: with what is around them less than a report may have
REPEAT_SECONDS = 10.0  # a message may be lost, and a receiver may have started since
_FRAME_BYTES = 24  # of port, age and the frame of each word

Key = tuple[int, str]  # port and session


class _Word(msgspec.Struct):
    value: str
    said_at: float
    told_at: float = float("-inf")


class Sessions:
    """Times are seconds of the caller's clock, and never go back."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._words: dict[Key, _Word] = {}  # who said something last is the last
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._words)

    def hear(self, port: int, session: str, value: str, said_at: float) -> None:
        """Take one word. Raises ValueError where the value is too long."""
        if len(value.encode()) > VALUE_BYTES_MAX:
            raise ValueError(f"session {session}: a value of {len(value.encode())} bytes, at most {VALUE_BYTES_MAX}")
        key = port, session
        before = self._words.get(key)
        if before is not None:
            if said_at < before.said_at:
                return
            self._forget(key)
        told_at = before.told_at if before is not None and before.value == value else float("-inf")
        self._words[key] = _Word(value, said_at, told_at)
        self._bytes += _size(key, value)
        while self._bytes > self._bytes_max:
            self._forget(next(iter(self._words)))

    def take(self, words: tuple[Session, ...], now: float) -> None:
        """Take another server's reports of its sessions. Raises ValueError."""
        for word in words:
            self.hear(word.port, word.session, word.value, now - word.age_seconds)

    def expire(self, now: float) -> None:
        for key in [key for key, word in self._words.items() if now - word.said_at > KEPT_SECONDS]:
            self._forget(key)

    def news(self, now: float) -> tuple[Session, ...]:
        """The reports due now, as many as fit into a message: new ones, and those last sent too long ago."""
        self.expire(now)
        found, size = [], 0
        for key, word in self._words.items():
            if now - word.told_at < REPEAT_SECONDS:
                continue
            size += _size(key, word.value)
            if size > MESSAGE_BYTES_MAX:
                break
            word.told_at = now
            found.append(_session(key, word, now))
        return tuple(found)

    def retell(self) -> None:
        """Somebody has not heard what was told: all of it is news."""
        for word in self._words.values():
            word.told_at = float("-inf")

    def all(self, now: float) -> Iterator[tuple[Session, ...]]:
        """Everything, in messages' sizes."""
        self.expire(now)
        found: list[Session] = []
        size = 0
        for key, word in self._words.items():
            size += _size(key, word.value)
            if size > MESSAGE_BYTES_MAX and found:
                yield tuple(found)
                found, size = [], _size(key, word.value)
            found.append(_session(key, word, now))
        if found:
            yield tuple(found)

    def latest(self) -> Iterator[tuple[Key, float, str]]:
        """Port and session, when its last word was said, and the word; from the oldest to the newest."""
        return ((key, word.said_at, word.value) for key, word in self._words.items())

    def _forget(self, key: Key) -> None:
        self._bytes -= _size(key, self._words.pop(key).value)


def _session(key: Key, word: _Word, now: float) -> Session:
    return Session(*key, word.value, max(0.0, now - word.said_at))  # what came while `now` was read is no older


def _size(key: Key, value: str) -> int:
    return len(key[1]) + len(value.encode()) + _FRAME_BYTES
