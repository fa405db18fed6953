"""One director's connection tracking, for the daemon: what to replicate, and what to write at a takeover.

This is the shell of `table` and `reader`. Entries are written from the ledger in several turns, the newest first: a
client that sent a moment ago is likely to send next. Heartbeats get their turns in between. Invariant: only records
noted before the takeover replace an entry. A later connection has an entry of its own, which knows more than a record.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

from feedback.faults import said
from feedback.ipvs.errors import IpvsError
from feedback.ops.logs import Log
from feedback.sync.conntrack import entries, reader, table
from feedback.sync.conntrack.adjustments import Adjustment, AdjustmentError, Key, decode, encode
from feedback.sync.conntrack.reader import Reader
from feedback.sync.conntrack.table import BATCH, Table

LATE_SECONDS = 0.7  # after a handover: the old active director's last records have come by then (carrier.py)
READ_SECONDS = 0.2  # between two readings of adjustments: later changes are lost with the director
READ_SHARE = 20  # at most a twentieth of the time goes into reading, where the kernel can only show all entries
NEWEST = 1000  # entries; the status shows separately when these were written

LOG = Log("tracking")

Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class Ledger(Protocol):
    """The methods of replication.ledger.Ledger that are used here."""

    def __len__(self) -> int: ...
    def newest(self, now: float, before: float, since: float = 0.0) -> list[bytes]: ...
    def take_before(self, first: int, least: int, now: float, before: float) -> tuple[list[bytes], int | None]: ...


class Tracking:
    """`mode` is `auto`, or `off` to do nothing. `clock` is the ledger's. `changed` is called when the data to replicate
    has changed. Methods raise nothing: an error is logged, and the takeover goes on."""

    def __init__(
        self,
        mode: str,
        ledger: Ledger,
        clock: Callable[[], float],
        spawn: Spawn,
        changed: Callable[[], None],
        netns: str | None = None,
    ) -> None:
        self.wanted = False  # net.ipv4.vs.conntrack is set, and `mode` lets us act
        self.peer: bool | None = None  # the same for the other director; None until it has told us
        self.problem = ""  # why entries cannot be written
        self.untracked = 0  # connections older than the setting, which IPVS therefore does not track
        self.adjustments = encode(())
        self._mode, self._ledger, self._clock, self._netns = mode, ledger, clock, netns
        self._spawn, self._changed = spawn, changed
        self._table: Table | None = None
        self._reader: Reader | None = None
        self._heard: Mapping[Key, Adjustment] = {}
        self._last: dict[str, Any] | None = None
        self._looked = False
        self._unread = ""  # why adjustments could not be read, as last logged

    def close(self) -> None:
        if self._table is not None:
            self._table.close()
        if self._reader is not None:
            self._reader.close()

    def look(self) -> bool:
        """Read the host's setting, and open the socket before it is needed. Returns whether the setting has changed."""
        before, first = self.wanted, not self._looked
        self._looked = True
        self.wanted = self._mode == "auto" and table.wanted(self._netns)
        if self.wanted and self._table is None:
            try:
                self._table, self.problem = Table(self._netns), ""
            except IpvsError as error:
                if str(error) != self.problem:
                    LOG.error("tracking-unwritable", reason=str(error))
                self.problem = str(error)
        if self.wanted and not before and not first:
            self.untracked = len(self._ledger)
        return before is not self.wanted

    def hear(self, wanted: bool, data: bytes) -> None:
        """Take the other director's message. The active director's contains its adjustments."""
        self.peer = wanted
        if not data:
            return
        try:
            self._heard = decode(data)
        except AdjustmentError as error:
            LOG.error("adjustments-refused", reason=str(error))

    def take_over(self) -> None:
        """Write entries: at once for the connections noted last, and in turns for the others."""
        if not self.wanted or self._table is None:
            return
        work = _Work(self._table, self._ledger, self._heard, self._clock)
        self._last = work.status
        self._step(work)
        self._spawn(self._go_on(work), "tracking")

    async def _go_on(self, work: _Work) -> None:
        while not work.done:
            await asyncio.sleep(0)
            self._step(work)
        await asyncio.sleep(LATE_SECONDS)
        try:
            work.late()
        except Exception as error:
            LOG.error("tracking-unwritten", reason=_reason(error))

    def _step(self, work: _Work) -> None:
        try:
            work.step()
        except Exception as error:  # a fault here must not stop the takeover that asked for it
            work.done = True
            LOG.error("tracking-unwritten", reason=_reason(error))
            return
        if work.done:
            LOG.info("tracking-written", **work.status)

    async def attend(self, active: Callable[[], bool]) -> None:
        """Read adjustments whenever this director is active. Never returns."""
        while True:
            took = 0.0 if self._reader is None else self._reader.took_seconds
            await asyncio.sleep(max(READ_SECONDS, READ_SHARE * took))
            try:
                if self.wanted and active() and reader.needed():
                    await self._read()
            except Exception as error:  # pyroute2 has exceptions of its own. One reading failed; the next is tried
                if said(error) != self._unread:
                    LOG.error("adjustments-unread", reason=said(error))
                self._unread = said(error)

    async def _read(self) -> None:
        self._reader = self._reader or Reader()
        found = encode(await self._reader.read())
        self._unread = ""
        if found != self.adjustments:
            self.adjustments = found
            self._changed()

    def status(self) -> dict[str, Any]:
        """For `sync status`."""
        return {
            "mode": self._mode,
            "here": self.wanted,
            "peer": self.peer,
            "problem": self.problem,
            "untracked": self.untracked,
            "adjusted": len(self._heard),
            "written": self._last,
        }


class _Work:
    """The writing of one takeover. `status` is for commands, and is updated as it goes on."""

    def __init__(
        self, table: Table, ledger: Ledger, adjustments: Mapping[Key, Adjustment], clock: Callable[[], float]
    ) -> None:
        self.done = False
        self.status: dict[str, Any] = {"entries": 0, "replaced": 0, "refused": {}, "newest_ms": None, "took_ms": None}
        self.status["late"] = 0
        self._table, self._adjustments, self._clock, self._began = table, adjustments, clock, clock()
        self._ledger, self._batches = ledger, batches(ledger, clock)

    def step(self) -> None:
        """One batch. Raises IpvsError."""
        bodies = next(self._batches, None)
        self.done = bodies is None
        if bodies is not None:
            written = self._table.write(bodies, self._adjustments)
            self.status["entries"] += written.entries
            self.status["replaced"] += written.replaced
            self.status["refused"] = dict(Counter(self.status["refused"]) + Counter(written.refused))
        milliseconds = round(1000 * (self._clock() - self._began), 1)
        if self.status["newest_ms"] is None and (self.done or self.status["entries"] >= NEWEST):
            self.status["newest_ms"] = milliseconds
        self.status["took_ms"] = milliseconds

    def late(self) -> None:
        """Write entries for records that came after the takeover began, where none exist. Raises IpvsError."""
        now = self._clock()
        bodies = [body for body in self._ledger.newest(now, now, self._began) if entries.tracked(body)]
        for at in range(0, len(bodies), BATCH):
            written = self._table.write(bodies[at : at + BATCH], self._adjustments, replace=False)
            self.status["late"] += written.entries


def _reason(error: Exception) -> str:
    """The kernel's message, or the place of a fault of ours."""
    return str(error) if isinstance(error, IpvsError | OSError) else said(error)


def batches(ledger: Ledger, clock: Callable[[], float]) -> Iterator[list[bytes]]:
    """The tracked records that the ledger noted before now, each once, BATCH at a time: first those noted last, then
    all others in the ledger's order."""
    before = clock()
    newest = [body for body in ledger.newest(before, before) if entries.tracked(body)]
    done = {entries.key(body) for body in newest}
    waiting = newest
    part: int | None = 0
    while waiting or part is not None:
        while len(waiting) < BATCH and part is not None:
            bodies, part = ledger.take_before(part, BATCH, clock(), before)
            waiting += [body for body in bodies if entries.tracked(body) and entries.key(body) not in done]
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]
