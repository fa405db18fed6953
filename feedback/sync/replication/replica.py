"""Both ends of a replication session: what the standby still lacks, and what the active one may send. Pure.

In a session the standby asks for everything. The answer is the services, the whole connection table (bulk) and, from
the first moment on, the live stream. `Sender` is the active director's end of one session, `Replica` the standby's end
of all its sessions. Neither knows a socket or the kernel: the shell tells them what was injected and what the kernel
lost.

Invariants.
- *Complete* means that the table's end has come, that everything before it is in the kernel, and that since then there
  was no gap in the sequence, no drop by the kernel and no silence. Any gap or drop leads to a new session, which asks
  for everything again. Nothing guesses what was lost.
- Live records go before bulk. Bulk records are made when they are sent, from the latest record of each connection. So
  an older record never overwrites a newer one.
- Memory is bounded at both ends: at most WINDOW messages are unacknowledged, and at most LIVE_QUEUE live datagrams
  wait. A peer that is too slow for this is told so, and starts over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

import msgspec

from feedback.sync.replication import records
from feedback.sync.replication.messages import (
    PROTOCOL,
    Ack,
    Alive,
    Hello,
    Message,
    Records,
    Refused,
    TableBegin,
    TableEnd,
    Welcome,
)
from feedback.sync.replication.records import DatagramError

MASTER_ID, BACKUP_ID = 1, 2  # sync ids of the threads on both directors: a backup ignores its own master

WINDOW = 512  # messages of records without acknowledgement
BULK_AT_ONCE = 500  # connections of the table in one turn: heartbeats must not wait
TAKE_AT_ONCE = 500  # connections given to the standby's kernel and ledger in one turn; a begun datagram is finished
BULK_BYTES = records.DATAGRAM_BYTES_MAX  # few large datagrams: each costs more than its content
BULK_WINDOW = 384  # how many of WINDOW may be bulk: the rest is kept for the live stream
LIVE_QUEUE = 8192  # live datagrams that wait for the window
ALIVE_SECONDS = 0.2  # between messages of a sender that has nothing new
SILENCE_SECONDS = 1.0  # without a message from the sender: behind
RESTART_SECONDS = 3.0  # without a message from the sender: ask again
STALL_SECONDS = 5.0  # without an acknowledgement of what was sent: the session is over
ACK_EVERY = 32


# --- the standby's end -----------------------------------------------------------------------------------------------


class Condition(StrEnum):
    ABSENT = "absent"  # no session yet
    CATCHING_UP = "catching up"
    COMPLETE = "complete"
    BEHIND = "behind"


class Status(msgspec.Struct, frozen=True):
    """`since` is when the condition began, on the clock of `now`; while catching up, when we ceased to be complete.
    `injected` of `total` connections of the table are in the kernel. `reason` says why we are not complete. `lacking`
    is the most connections that were above the limit of the active director's ledger and did not come."""

    condition: Condition
    since: float
    reason: str
    injected: int
    total: int
    sessions: int
    gaps: int
    dropped: int
    malformed: int
    stale: int
    lacking: int
    connections: int  # all records injected, live ones too
    datagrams: int
    heard_seconds: float | None  # since the sender's last message

    @property
    def complete(self) -> bool:
        return self.condition is Condition.COMPLETE

    def __str__(self) -> str:
        if self.condition is Condition.CATCHING_UP and self.total:
            return f"catching up {self.injected} of {self.total}"
        if self.condition is Condition.BEHIND:
            return f"behind: {self.reason}"
        if self.condition is Condition.COMPLETE and self.lacking:
            return f"complete but for at most {self.lacking} connections above the active director's limit"
        return str(self.condition)


@dataclass(slots=True)
class _Waiting:
    """A numbered message that waits for its turn: a datagram for the kernel, or the beginning or the end of a table."""

    sequence: int
    message: Records | TableBegin | TableEnd
    datagram: bytes = b""


class Replica:
    """The standby's end. The shell calls `begin` and sends the Hello. It gives each message to `receive`. It calls
    `take` for what may be injected now, and then `injected` with how many were. It calls `observed` with what the
    kernel's socket shows. It sends `acknowledgement()`. It begins again when `restart(now)` returns a reason."""

    def __init__(self, boot: str, now: float) -> None:
        self.boot = boot
        self.peer_boot = ""
        self.session = 0
        self._condition = Condition.ABSENT
        self._since = now
        self._reason = "no session yet"
        self._waiting: deque[_Waiting] = deque()
        self._heard: float | None = None
        self._began = now
        self._welcome = self._ended = False
        self._sequence = self._done = self._acked = 0
        self._total = self._table_injected = self._session_injected = self._session_dropped = 0
        self._gaps = self._dropped = self._malformed = self._stale = self._connections = self._datagrams = 0
        self._lacking, self._lacking_until = 0, now
        self._restart = "no session yet"
        self.tracks = False  # what each session tells of us

    def begin(self, now: float) -> Hello:
        """Begin a new session. What still waited of the last one is dropped: everything will come again."""
        self.session += 1
        self._waiting.clear()
        self._heard, self._began = None, now
        self._welcome = self._ended = False
        self._sequence = self._done = self._acked = 0
        self._total = self._table_injected = self._session_injected = self._session_dropped = 0
        self._restart = ""
        if self._condition is Condition.COMPLETE:
            self._leave(now, "a new session was requested")
        self._condition = Condition.CATCHING_UP
        return Hello(PROTOCOL, self.boot, self.session, self.tracks)

    def receive(self, message: Message, now: float) -> None:
        """A message from the active director. The caller handles Services and State; here they only end a silence."""
        if isinstance(message, Hello | Ack) or message.session != self.session:
            self._stale += 1
            return
        self._heard = now
        match message:
            case Welcome():
                self._welcome, self.peer_boot = True, message.boot
            case Refused():
                self._fail(now, message.reason)
            case TableBegin() | Records() | TableEnd():
                self._take_numbered(message, now)
            case Alive():
                self._follows(message.sequence, now)

    def take(self, limit: int) -> list[bytes]:
        """The next datagrams for the kernel: at most `limit`, with about TAKE_AT_ONCE connections. They wait until
        `injected` confirms them."""
        taken: list[bytes] = []
        held = 0
        for waiting in islice(self._waiting, limit):
            if not waiting.datagram or held >= TAKE_AT_ONCE:
                break
            taken.append(waiting.datagram)
            held += waiting.datagram[4]
        return taken

    def injected(self, datagrams: int) -> None:
        """The socket accepted the first `datagrams` of those taken."""
        for _ in range(datagrams):
            waiting = self._waiting.popleft()
            held = waiting.datagram[4]
            self._done = waiting.sequence
            self._datagrams += 1
            self._connections += held
            self._session_injected += held
            if isinstance(waiting.message, Records) and waiting.message.bulk:
                self._table_injected += held
        self._pass_marks()

    def _pass_marks(self) -> None:
        """The beginning and the end of a table take effect when everything before them is in the kernel."""
        while self._waiting and not self._waiting[0].datagram:
            waiting = self._waiting.popleft()
            self._done = waiting.sequence
            match waiting.message:
                case TableBegin(total=total):
                    self._total, self._table_injected = total, 0
                case TableEnd(total=total):
                    self._total, self._ended = total, True

    def observed(self, queued_bytes: int, new_drops: int, now: float) -> None:
        """Take what the kernel's socket shows: bytes that its thread has not read yet, and datagrams lost since the
        last look."""
        if new_drops:
            self._dropped += new_drops
            self._session_dropped += new_drops
            self._fail(now, f"the kernel dropped {new_drops} datagrams")
        if self._ended and not queued_bytes and not self._restart and self._condition is Condition.CATCHING_UP:
            self._condition, self._since, self._reason = Condition.COMPLETE, now, ""

    def acknowledgement(self) -> Ack | None:
        """What to tell the sender now, or None."""
        if self._done == self._acked or (self._waiting and self._done - self._acked < ACK_EVERY):
            return None
        self._acked = self._done
        return Ack(self.session, self._done, self._session_injected, self._session_dropped)

    def restart(self, now: float) -> str:
        """Why a new session is needed, or an empty string."""
        if not self._restart and now - self._last_word > RESTART_SECONDS:
            self._fail(now, f"no word from the active director for {RESTART_SECONDS:g} s")
        return self._restart

    def lost(self, now: float, reason: str) -> None:
        """The shell reports a loss: the connection to the active director broke, the kernel's thread was restarted,
        ..."""
        self._fail(now, reason)

    def status(self, now: float) -> Status:
        """A silence is a condition of its own. It ends by itself if the next message shows that nothing was missed."""
        condition, since, reason = self._condition, self._since, self._reason
        if condition is Condition.COMPLETE and now - self._last_word > SILENCE_SECONDS:
            condition, since = Condition.BEHIND, self._last_word + SILENCE_SECONDS
            reason = f"no word from the active director for {SILENCE_SECONDS:g} s"
        return Status(
            condition=condition,
            since=since,
            reason=reason,
            injected=self._table_injected,
            total=self._total,
            sessions=self.session,
            gaps=self._gaps,
            dropped=self._dropped,
            malformed=self._malformed,
            stale=self._stale,
            lacking=self._lacking if now < self._lacking_until else 0,
            connections=self._connections,
            datagrams=self._datagrams,
            heard_seconds=None if self._heard is None else now - self._heard,
        )

    @property
    def complete(self) -> bool:
        """Whether we are complete, apart from a silence."""
        return self._condition is Condition.COMPLETE

    @property
    def waiting(self) -> int:
        """Datagrams that wait for the kernel."""
        return len(self._waiting)

    @property
    def _last_word(self) -> float:
        return self._began if self._heard is None else self._heard

    def _take_numbered(self, message: Records | TableBegin | TableEnd, now: float) -> None:
        if self._restart:
            return  # a new session brings everything again
        if not self._follows(message.sequence - 1, now):
            return
        self._sequence = message.sequence
        datagram = b""
        if isinstance(message, Records):
            try:
                datagram = records.readdressed(message.datagram, BACKUP_ID)
            except DatagramError as error:
                self._malformed += 1
                self._fail(now, f"a malformed datagram from the active director: {error}")
                return
        if len(self._waiting) >= 2 * WINDOW:
            self._fail(now, "the active director sends too much")
            return
        if isinstance(message, TableEnd):
            self._lacking, self._lacking_until = message.lacking, now + message.lacking_seconds
        self._waiting.append(_Waiting(message.sequence, message, datagram))
        self._pass_marks()

    def _follows(self, sequence: int, now: float) -> bool:
        if sequence == self._sequence and self._welcome:
            return True
        if not self._restart:
            self._gaps += 1
            self._fail(now, f"a gap: messages {self._sequence + 1} to {sequence} did not come")
        return False

    def _fail(self, now: float, reason: str) -> None:
        """We are no longer complete, and a new session is needed."""
        self._restart = self._restart or reason
        self._leave(now, reason)

    def _leave(self, now: float, reason: str) -> None:
        if self._condition is not Condition.BEHIND:
            if self._condition is Condition.COMPLETE:
                self._since = now
            self._condition, self._reason = Condition.BEHIND, reason


# --- the active director's end
# --------------------------------------------------------------------------------------------


class SenderStatus(msgspec.Struct, frozen=True):
    """`reached` of `total` connections of the table have been acknowledged or are on their way."""

    session: int
    total: int
    reached: int
    table_sent: bool
    settled: bool
    unacknowledged: int
    live_waiting: int
    live_datagrams: int
    bulk_datagrams: int
    ended: str


@dataclass(slots=True)
class Bulk:
    """A table to be sent, of about `total` connections: parts, each a list of records as bytes, made when it is taken.
    At most `lacking` more connections are not in it; the last of these expires in `lacking_seconds`."""

    parts: Iterator[Sequence[bytes]]
    total: int
    lacking: int = 0
    lacking_seconds: int = 0


@dataclass(slots=True)
class _Table:
    """What is left of the table to be sent."""

    bulk: Bulk
    begun: bool = False
    sent: int = 0


class Sender:
    """The active director's end of one session. The shell sends `greeting()` and then services and state. It gives
    captured datagrams to `live` from the beginning, calls `table` when the table is known, and gives acknowledgements
    to `receive`. After each of these, and at least every ALIVE_SECONDS, it sends what `outgoing(now)` returns."""

    def __init__(self, hello: Hello, boot: str, now: float) -> None:
        """The hello has been decoded, so it has our version."""
        self.session = hello.session
        self.peer_boot = hello.boot
        self.boot = boot
        self.ended = ""  # why the session is over
        self._told = False
        self._live: deque[bytes] = deque()
        self._table: _Table | None = None
        self._sequence = self._acked = 0
        self._spoke = self._progressed = now
        self._total = self._reached = self._live_sent = self._bulk_sent = 0
        self._table_sent = False

    def greeting(self) -> Welcome:
        return Welcome(PROTOCOL, self.boot, self.session)

    def table(self, bulk: Bulk) -> None:
        """Send the whole table. A part includes everything that `live` was given before the part is taken."""
        self._table = _Table(bulk)
        self._total, self._reached, self._table_sent = bulk.total, 0, False

    def live(self, datagrams: Iterable[bytes]) -> None:
        """Datagrams from the kernel's master, addressed to the peer's backup."""
        if self.ended:
            return
        self._live.extend(datagrams)
        if len(self._live) > LIVE_QUEUE:
            self.end(f"the standby is too slow: {len(self._live)} datagrams wait for it")

    def receive(self, message: Message, now: float) -> None:
        if not isinstance(message, Ack) or message.session != self.session:
            return
        if not self._acked <= message.sequence <= self._sequence:
            self.end(f"the standby acknowledges message {message.sequence} of {self._sequence}")
            return
        if message.sequence > self._acked:
            self._acked, self._progressed = message.sequence, now

    def end(self, reason: str) -> None:
        """End this session. The standby is told, and asks again. Everything that waited is dropped."""
        self.ended = self.ended or reason
        self._live.clear()
        self._table = None

    def outgoing(self, now: float) -> list[Message]:
        """What to send now, in this order."""
        if self._acked == self._sequence:
            self._progressed = now
        elif now - self._progressed > STALL_SECONDS:
            self.end(f"the standby has acknowledged nothing for {STALL_SECONDS:g} s")
        if self.ended:
            told, self._told = self._told, True
            return [] if told else [Refused(self.session, self.ended)]
        messages: list[Message] = []
        while self._live and self._unacknowledged < WINDOW:
            messages.append(self._numbered(self._live.popleft(), bulk=False))
            self._live_sent += 1
        if self._table is not None:
            self._add_bulk(self._table, messages)
        if not messages and now - self._spoke >= ALIVE_SECONDS:
            messages.append(Alive(self.session, self._sequence))
        if messages:
            self._spoke = now
        return messages

    @property
    def more(self) -> bool:
        """Whether `outgoing` could return more of the table at once."""
        return self._table is not None and self._unacknowledged < BULK_WINDOW

    def next_timer(self) -> float:
        """The latest time for the next call of `outgoing`."""
        return self._spoke + ALIVE_SECONDS

    @property
    def settled(self) -> bool:
        """Whether everything sent is in the standby's kernel. A planned handover waits for this."""
        return (
            self._table_sent
            and not self.ended
            and not self._live
            and self._table is None
            and self._acked == self._sequence
        )

    def status(self) -> SenderStatus:
        return SenderStatus(
            session=self.session,
            total=self._total,
            reached=self._reached,
            table_sent=self._table_sent,
            settled=self.settled,
            unacknowledged=self._unacknowledged,
            live_waiting=len(self._live),
            live_datagrams=self._live_sent,
            bulk_datagrams=self._bulk_sent,
            ended=self.ended,
        )

    @property
    def _unacknowledged(self) -> int:
        return self._sequence - self._acked

    def _numbered(self, datagram: bytes, *, bulk: bool) -> Records:
        return Records(self.session, self._next(), bulk, datagram)

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _add_bulk(self, table: _Table, messages: list[Message]) -> None:
        """Add some of the table. It must be sent in the turn in which it is taken, or it would be older than live
        records."""
        if not table.begun:
            table.begun = True
            messages.append(TableBegin(self.session, self._next(), table.bulk.total))
        if self._unacknowledged >= BULK_WINDOW:
            return
        part = next(table.bulk.parts, None)
        if part is None:
            b = table.bulk
            messages.append(TableEnd(self.session, self._next(), table.sent, b.lacking, b.lacking_seconds))
            self._table, self._table_sent = None, True
            return
        for datagram in records.packed(part, BACKUP_ID, BULK_BYTES):
            self._bulk_sent += 1
            messages.append(self._numbered(datagram, bulk=True))
        table.sent += len(part)
        self._reached += len(part)
