"""Sessions: what clients of one libzmq socket may occupy: connections, and bytes not yet read.

libzmq bounds the bytes of a part and the number of queued messages. It bounds neither connections nor the parts of a
message, and shows no unfinished message. But it names the descriptor of each connection and of each part, and the
kernel counts what a connection has received: the waiting bytes are that less what was read.

A connection that has said nothing yet is a stranger, with a key or without. Invariant: after each call that names
connections to close, at most `strangers` of these are left, and `KEY_SESSIONS` connections of each key. Pure: the shell
(door.py) asks the kernel and does the shutting.

Source: libzmq src/stream_engine_base.cpp (`__fd`) and curve_mechanism_base.cpp encode(); zmq_msg_get(3), ZMQ_SRCFD.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEY_SESSIONS = 4  # an agent has one, and a second while the one before it is cut off and not given up yet
STRANGERS = 512
STRANGER_BYTES_MAX = 128 * 1024  # a handshake has 1 kB, and what follows it may be one message
PEER_BYTES_MAX = 1024 * 1024  # a full queue, and what the kernel holds, is half of that at most
# libzmq needs 64 bytes for a part of one byte, which is 36 on the wire, and 176 for one of 34 bytes, which is 69.
ALL_BYTES_MAX = 16 * 1024 * 1024
EACH_BYTES = 8 * 1024  # of all that are expected: ten reports of each wait where the daemon stood still for two seconds
HEARTBEAT_BYTES_PER_SECOND = 64  # which libzmq takes itself: 42 and 40 bytes every few seconds
_CURVE_BYTES = 33  # around each part: `\x07MESSAGE`, nonce, authenticator and flags


def wire_bytes(part: int) -> int:
    """What a part of so many bytes is on the wire, with its ZMTP frame."""
    sealed = part + _CURVE_BYTES
    return sealed + (2 if sealed < 256 else 9)


@dataclass(slots=True)
class _Session:
    descriptor: int
    source: str
    key: str = ""  # once it has said something
    taken: int = 0  # bytes

    @property
    def most(self) -> int:
        """Bytes that may wait of it."""
        return PEER_BYTES_MAX if self.key else STRANGER_BYTES_MAX


class _Crowd:
    """Sessions by their source, and which source has the most, without a look at all of them."""

    def __init__(self) -> None:
        self._sources: dict[str, OrderedDict[int, _Session]] = {}  # the oldest first
        self._of_size: dict[int, OrderedDict[str, None]] = {}  # sources that have so many, by when they came to that
        self._most = self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, session: _Session) -> None:
        own = self._sources.setdefault(session.source, OrderedDict())
        own[session.descriptor] = session
        self._count += 1
        self._move(session.source, len(own) - 1, len(own))

    def remove(self, session: _Session) -> None:
        own = self._sources[session.source]
        del own[session.descriptor]
        self._count -= 1
        self._move(session.source, len(own) + 1, len(own))
        if not own:
            del self._sources[session.source]

    def oldest(self) -> _Session:
        """Of the source that has the most."""
        return next(iter(self._sources[next(iter(self._of_size[self._most]))].values()))

    def _move(self, source: str, before: int, now: int) -> None:
        if before:
            del self._of_size[before][source]
        if now:
            self._of_size.setdefault(now, OrderedDict())[source] = None
        self._most = max(self._most, now)
        while self._most and not self._of_size[self._most]:
            self._most -= 1


class Sessions:
    """`strangers`: how many connections may have said nothing yet. `all_bytes`: how much may wait of all together.
    `source` is whatever connections are told apart by before they have said who they are: the source that has the most
    of them loses its oldest."""

    def __init__(self, strangers: int = STRANGERS) -> None:
        self.strangers, self.all_bytes = strangers, ALL_BYTES_MAX
        self._all: dict[int, _Session] = {}
        self._unheard = _Crowd()
        self._by_key: dict[str, list[_Session]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def came(self, descriptor: int, source: str) -> int | None:
        """A connection was accepted. Whom to shut, if anybody."""
        self.gone(descriptor)
        session = self._all[descriptor] = _Session(descriptor, source)
        self._unheard.add(session)
        return self._shut(self._unheard.oldest()) if len(self._unheard) > self.strangers else None

    def spoke(self, descriptor: int, key: str, part: int) -> int | None:
        """A part of so many bytes was taken. Whom to shut, if anybody: the oldest of a key that has too many."""
        session = self._all.get(descriptor)
        if session is None:  # it has been shut, or its coming has not been told yet
            return None
        session.taken += wire_bytes(part)
        if session.key == key:
            return None
        self._forget(session)
        session.key = key
        own = self._by_key.setdefault(key, [])
        own.append(session)
        return self._shut(own[0]) if len(own) > KEY_SESSIONS else None

    def gone(self, descriptor: int) -> None:
        session = self._all.pop(descriptor, None)
        if session is not None:
            self._forget(session)

    def over(
        self, received: Callable[[int], int], seconds: float, unread: Callable[[int], int] = lambda descriptor: 0
    ) -> list[int]:
        """Whom to shut because too much of theirs waits. `received` tells the bytes that a connection has received
        altogether; `seconds` is how long ago this was asked last. `unread` tells how many of them the kernel still
        holds, where they are bounded, and is asked only where there is too much."""
        waiting: list[tuple[int, _Session]] = []
        heartbeats = int(HEARTBEAT_BYTES_PER_SECOND * seconds)
        for session in self._all.values():
            got = received(session.descriptor)
            session.taken = min(got, session.taken + heartbeats)
            if got > session.taken:
                waiting.append((got - session.taken, session))
        total = sum(waits for waits, _ in waiting)
        if total <= self.all_bytes and all(waits <= session.most for waits, session in waiting):
            return []
        waiting = [(waits - unread(session.descriptor), session) for waits, session in waiting]
        waiting.sort(key=lambda found: found[0], reverse=True)
        total = sum(waits for waits, _ in waiting)
        shut: list[int] = []
        for waits, session in waiting:
            if total > self.all_bytes or waits > session.most:
                total -= waits
                shut.append(self._shut(session))
        return shut

    def _shut(self, session: _Session) -> int:
        self.gone(session.descriptor)
        return session.descriptor

    def _forget(self, session: _Session) -> None:
        """Among strangers, or among those of its key."""
        if not session.key:
            self._unheard.remove(session)
            return
        own = self._by_key[session.key]
        own.remove(session)
        if not own:
            del self._by_key[session.key]
