"""Outbound: the active director's end. It serves one follower with services, state, the live stream and the table.

This is the shell of replica.Sender (the session's rules) and mirror.Original (the services). What the kernel's master
sends is captured and passed on. Threads read the table and the services. A new hello replaces the session before it.
The order within a session is: greeting; services, since a record binds only to a destination that exists; then the live
stream; and the table as soon as it has been read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from feedback.ipvs import IpvsError, Kernel
from feedback.ops.logs import Log
from feedback.sync.replication import messages
from feedback.sync.replication.kernel import PUSH_SECONDS, Replication
from feedback.sync.replication.messages import Ack, Changes, Hello, Message, Refused, Services, State, Tracking
from feedback.sync.replication.mirror import Original
from feedback.sync.replication.replica import Bulk, Sender, SenderStatus

SETTLE_SECONDS = 10.0  # how long a planned handover waits for the last difference
SETTLE_TURN_SECONDS = 0.005
SETTLE_PUSHES, SETTLE_PUSH_SECONDS = 2, 0.025  # the first makes the kernel send; the second covers what came meanwhile
MEND_SECONDS = 1.0
BULK_SECONDS = 0.005  # between two batches of the table: it shares the processor with clients and heartbeats

LOG = Log("replication")

Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class Outbound:
    """`answer` sends a message to a follower's route and returns whether it could. `spawn` runs a coroutine in the
    background. `hear` is called with the follower's connection tracking."""

    def __init__(
        self,
        boot: str,
        kernel: Kernel,
        replication: Replication | None,
        answer: Callable[[bytes, bytes], bool],
        spawn: Spawn,
        hear: Callable[[bool, bytes], None],
        *,
        mirror: bool,
        master_state: Path | None,
        clock: Callable[[], float],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._boot, self._kernel, self._replication = boot, kernel, replication
        self._transport, self._spawn, self._hear = answer, spawn, hear
        self._tracking = (False, b"")
        self._mirror, self._master_state, self._clock = mirror, master_state, clock
        self._sender: Sender | None = None
        self._route = b""
        self._original = Original()
        self._state_sent: tuple[int, int] | None = None
        self._pushed = self._mended = clock()
        self._pumping = False
        self._lost = 0  # datagrams from our own kernel's master

    @property
    def serves(self) -> bool:
        return self._sender is not None

    def refuse(self, route: bytes, hello: Hello, reason: str) -> None:
        self._answer(route, Refused(hello.session, reason))

    def greet(self, route: bytes, hello: Hello) -> None:
        LOG.info("session", session=hello.session)
        self.counters["sessions_served"] += 1
        self._route, self._sender = route, Sender(hello, self._boot, self._clock())
        self._answer(route, self._sender.greeting())
        self._hear(hello.tracks, b"")
        self._send_tracking(self._sender)
        self._spawn(self._open_session(self._sender), "session")

    def acknowledged(self, route: bytes, ack: Ack) -> None:
        if self._sender is not None and route == self._route:
            self._sender.receive(ack, self._clock())
            self._pump(self._clock())

    def tell(self, tracks: bool, data: bytes) -> None:
        """Tell the follower about connection tracking here."""
        self._tracking = tracks, data
        if self._sender is not None:
            self._send_tracking(self._sender)

    def _send_tracking(self, sender: Sender) -> None:
        self._answer(self._route, Tracking(sender.session, *self._tracking))

    def end(self, reason: str) -> None:
        if self._sender is not None:
            self._sender.end(reason)
            self._pump(self._clock())

    # --- what drives it ----------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        if self._sender is not None and now - self._pushed >= PUSH_SECONDS:
            self.push()
        if self._replication is not None and now - self._mended >= MEND_SECONDS:
            self._mended = now
            self._mend(self._replication)
        self._pump(now)

    def _mend(self, replication: Replication) -> None:
        """Repair the kernel's threads. A new session makes up for datagrams that were lost."""
        change = replication.mend()
        if change is not None:
            LOG.warning("replication-mended", change=change)
        lost = replication.captured_losses()
        if lost > self._lost:
            self.end(f"the capture has lost {lost - self._lost} datagrams")
        self._lost = lost

    def push(self) -> None:
        """Make the kernel send what it holds back."""
        self._pushed = self._clock()
        if self._replication is not None and self._sender is not None:
            self._replication.push()

    def captured(self) -> None:
        """The kernel's master has sent something."""
        assert self._replication is not None
        datagrams = self._replication.read_captured()
        if datagrams and self._sender is not None:
            self._sender.live(datagrams)
            self._pump(self._clock())

    def repeat(self, datagrams: list[bytes]) -> None:
        """Send records that were given to our kernel again."""
        if datagrams and self._sender is not None:
            self._sender.live(datagrams)

    async def settle(self) -> str | None:
        """Before a planned handover: send the standby what the kernel still holds back. It has all the rest, or it is
        not complete and there is no handover. Returns the reason if that fails."""
        sender = self._sender
        if sender is None or sender.ended:
            return "no standby follows"
        for _ in range(SETTLE_PUSHES):
            self.push()
            await asyncio.sleep(SETTLE_PUSH_SECONDS)
        deadline = self._clock() + SETTLE_SECONDS
        while not sender.settled:
            if sender.ended or self._clock() > deadline:
                return sender.ended or f"the standby has not taken everything after {SETTLE_SECONDS:g} s"
            await asyncio.sleep(SETTLE_TURN_SECONDS)
            self._pump(self._clock())
        return None

    async def mirror_once(self) -> None:
        """Send what changed in services and state since the last call. Raises IpvsError."""
        sender = self._sender
        if sender is None or not self._mirror:
            return
        snapshot = await asyncio.to_thread(self._kernel.snapshot)
        if sender is not self._sender:
            return
        changes = self._original.changes(snapshot)
        if changes:
            self._answer(self._route, Changes(sender.session, changes.encode()))
        self._send_state(sender)

    # --- a session ---------------------------------------------------------------------------------------------------

    async def _open_session(self, sender: Sender) -> None:
        if self._mirror:
            try:
                snapshot = await asyncio.to_thread(self._kernel.snapshot)
            except IpvsError as error:
                sender.end(str(error))
                return
            if sender is not self._sender:
                return
            self._answer(self._route, Services(sender.session, self._original.start(snapshot).encode()))
            self._state_sent = None
            self._send_state(sender)
        await self._send_table(sender)

    async def _send_table(self, sender: Sender) -> None:
        if self._replication is None:
            sender.table(Bulk(iter(()), 0))
            return
        try:
            left_out = await asyncio.to_thread(self._replication.know)
        except IpvsError as error:
            sender.end(str(error))
            return
        self.counters["left_out"] += sum(left_out.values())
        sender.table(self._replication.bulk())
        self._pump(self._clock())

    def _send_state(self, sender: Sender) -> None:
        path = self._master_state
        if path is None:
            return
        with contextlib.suppress(OSError):  # no master here, or none yet
            found = path.stat()
            seen = (found.st_ino, found.st_mtime_ns)
            if seen != self._state_sent:
                self._answer(self._route, State(sender.session, path.read_bytes()))
                self._state_sent = seen

    def _pump(self, now: float) -> None:
        sender = self._sender
        if sender is None:
            return
        for message in sender.outgoing(now):
            if not self._answer(self._route, message):
                sender.end("the standby went away, or is too slow for its queue")
        if sender.ended:
            LOG.warning("session-ended", reason=sender.ended)
            self._sender = None
        elif sender.more and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_later(BULK_SECONDS, self._pump_on)

    def _pump_on(self) -> None:
        self._pumping = False
        self._pump(self._clock())

    def _answer(self, route: bytes, message: Message) -> bool:
        return self._transport(route, messages.encode(message))

    def status(self) -> SenderStatus | None:
        return self._sender.status() if self._sender else None
