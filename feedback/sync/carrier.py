"""Carrier: the active director's services, connections and state to the standby, and what arrives here into the kernel.

Shell. Puts together the transport (relay.py), the kernel's threads (replication.py), the session (replica.py) and the
services (mirror.py); knows no election. `lead` and `follow` say which end this director is. At a change of roles the
old end lingers for a moment: what the old active one's kernel still had to say of the newest connections is carried
over and taken, though the roles are exchanged already.

Order within a session: greeting, services (a record binds to its destination only if that is there), then the live
stream, and the table as soon as a thread has read it. Whatever goes wrong ends the session; the standby begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from feedback.ipvs import IpvsError, Kernel
from feedback.ops.logs import Log
from feedback.sync import messages
from feedback.sync.messages import Ack, Changes, Hello, Message, MessageError, Refused, Services, State
from feedback.sync.mirror import Copy, MirrorError, Original
from feedback.sync.replica import Condition, Replica, Sender
from feedback.sync.replication import PUSH_SECONDS, Replication

TURN_SECONDS = 0.02
MIRROR_SECONDS = 0.5
RETRY_SECONDS = 0.5  # between the end of a session and the next
LINGER_SECONDS = 0.5  # of the old end, after a change of roles
INJECT_AT_ONCE = 256
SETTLE_SECONDS = 10.0  # that a planned handover waits for the last difference

LOG = Log("replication")


class Transport(Protocol):
    """What relay.Relay offers."""

    def follow(self, endpoint: str | None) -> None: ...
    def ask(self, message: bytes) -> bool: ...
    def answer(self, route: bytes, message: bytes) -> bool: ...


class Carrier:
    """Open and close inside a running loop. `replication` is None where the kernels replicate among themselves."""

    def __init__(
        self,
        boot: str,
        kernel: Kernel,
        replication: Replication | None,
        *,
        mirror: bool,
        master_state: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.took_seconds: float | None = None  # from the last session's beginning to complete
        self._boot, self._kernel, self._replication = boot, kernel, replication
        self._mirror, self._master_state, self._clock = mirror, master_state, clock
        self._transport: Transport | None = None
        self._leading = False
        self._following: str | None = None
        self._lingers = 0.0
        now = clock()
        self._replica = Replica(boot, now)
        self._copy = Copy()
        self._began = self._pushed = now
        self._sender: Sender | None = None
        self._route = b""
        self._original = Original()
        self._state_sent: tuple[int, int] | None = None
        self._drops = 0
        self._condition = Condition.ABSENT
        self._tasks: set[asyncio.Task[None]] = set()
        self._pumping = False

    # --- life --------------------------------------------------------------------------------------------------------

    def open(self, transport: Transport) -> None:
        self._transport = transport
        loop = asyncio.get_running_loop()
        if self._replication is not None:
            loop.add_reader(self._replication.capture_fd, self._captured)
        self._spawn(self._mirror_always())

    def close(self) -> None:
        if self._replication is not None:
            asyncio.get_running_loop().remove_reader(self._replication.capture_fd)
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- roles -------------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """This director is the active one and serves followers. What the other end still says is taken for a moment."""
        if not self._leading:
            self._leading, self._lingers = True, self._clock() + LINGER_SECONDS

    def follow(self, endpoint: str | None) -> None:
        """This director is the standby of the one at `endpoint` (None: of nobody that can be reached)."""
        if self._leading:
            self._leading, self._lingers = False, self._clock() + LINGER_SECONDS
            self._push()
        if endpoint != self._following:
            self._following = endpoint
            self._begin(self._clock())

    @property
    def following(self) -> str | None:
        return self._following

    def resync(self) -> str | None:
        """Fetch everything again. Returns why that cannot be."""
        if self._leading or self._following is None:
            return "this director follows nobody: ask the standby"
        self._begin(self._clock())
        return None

    async def settle(self) -> str | None:
        """Before a planned handover: have the standby take everything that it lacks. Returns why that was not to be."""
        sender = self._sender
        if sender is None or sender.ended:
            return "no standby follows"
        await self._send_table(sender)
        deadline = self._clock() + SETTLE_SECONDS
        while not sender.settled:
            if sender.ended or self._clock() > deadline:
                return sender.ended or f"the standby has not taken everything after {SETTLE_SECONDS:g} s"
            self._push()
            await asyncio.sleep(0.002)
            self._pump_out(self._clock())
        return None

    # --- what drives it ----------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """At least every TURN_SECONDS."""
        if self._sender is not None and now - self._pushed >= PUSH_SECONDS:
            self._push()
        self._pump_out(now)
        if self._lingers and now > self._lingers:
            self._let_go()
        if not self._leading and self._following is not None:
            self._pump_in(now)
            reason = self._replica.restart(now)
            if reason and now - self._began > RETRY_SECONDS:
                self.counters["sessions_restarted"] += 1
                LOG.warning("session-restarted", reason=reason)
                self._begin(now)
        self._note_condition(now)

    def _let_go(self) -> None:
        """The old end's moment is over."""
        self._lingers = 0.0
        if self._leading and self._transport is not None:
            self._transport.follow(None)
            self._following = None
            self._replica.lost(self._clock(), "this director is active")
        elif self._sender is not None:
            self._sender.end("this director is the standby now")
            self._pump_out(self._clock())

    def _note_condition(self, now: float) -> None:
        status = self._replica.status(now)
        if status.condition is self._condition or self._leading:
            return
        self._condition = status.condition
        if status.complete:
            self.took_seconds = now - self._began
            LOG.info("complete", connections=status.total, seconds=round(self.took_seconds, 3))
        elif status.condition is Condition.BEHIND:
            LOG.warning("behind", reason=status.reason)

    # --- the standby's end -------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        assert self._transport is not None
        self._began = now
        self._transport.follow(self._following)
        if self._following is None:
            self._replica.lost(now, "the active director cannot be reached")
            return
        LOG.info("following", endpoint=self._following)
        self._transport.ask(messages.encode(self._replica.begin(now)))

    def on_stream(self, data: bytes) -> None:
        """A message of the one we follow."""
        now = self._clock()
        message = self._decoded(data)
        if message is None:
            return
        self._replica.receive(message, now)
        if message.session != self._replica.session:
            return
        try:
            if isinstance(message, Services):
                self._copy.take_table(message.data.decode())
                self._apply_copy()
            elif isinstance(message, Changes):
                self._copy.take_changes(message.data.decode())
                self._apply_copy()
            elif isinstance(message, State):
                self._write_state(message.data)
        except (MirrorError, UnicodeDecodeError, IpvsError) as error:
            self._replica.lost(now, str(error))
        self._pump_in(now)

    def _pump_in(self, now: float) -> None:
        if self._replication is None:
            self._replica.observed(0, 0, now)
        elif not self._inject(self._replication, now) and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_later(0.002, self._pump_again)
        ack = self._replica.acknowledgement()
        if ack is not None and self._transport is not None:
            self._transport.ask(messages.encode(ack))

    def _pump_again(self) -> None:
        self._pumping = False
        self._pump_in(self._clock())

    def _inject(self, replication: Replication, now: float) -> bool:
        """As much as the kernel takes now; whether that was all."""
        while self._replica.waiting:
            taken = self._replica.take(INJECT_AT_ONCE)
            done = replication.inject(taken)
            self._replica.injected(done)
            if done < len(taken):
                break
        if self._replica.waiting or self._condition is not Condition.COMPLETE:
            queue = replication.backlog()
            if queue is None:
                self._replica.lost(now, "the kernel's backup sync thread does not run")
                return True
            replication.pacer.observe(queue)
            queued = queue.bytes
        else:
            queued = 0
        drops = replication.drops()
        self._replica.observed(queued, drops - self._drops, now)
        self._drops = drops
        return not self._replica.waiting

    def _apply_copy(self) -> None:
        if not self._mirror or self._leading:
            return
        failed = self._kernel.apply(self._copy.edits(self._kernel.snapshot()))
        if failed:
            self.counters["mirror_refused"] += len(failed)
            LOG.error("mirror-refused", reason=failed[0].text, failed=len(failed))

    def _write_state(self, data: bytes) -> None:
        path = self._master_state
        if path is None or self._leading:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".mirrored")
            new.write_bytes(data)
            new.replace(path)
        except OSError as error:
            self.counters["state_unwritten"] += 1
            LOG.error("state-unwritten", path=str(path), reason=error.strerror)

    # --- the active one's end ----------------------------------------------------------------------------------------

    def on_request(self, route: bytes, data: bytes) -> None:
        """A message of a follower."""
        message = self._decoded(data)
        if isinstance(message, Hello):
            self._greet(route, message)
        elif isinstance(message, Ack) and self._sender is not None and route == self._route:
            self._sender.receive(message, self._clock())
            self._pump_out(self._clock())

    def _greet(self, route: bytes, hello: Hello) -> None:
        if not self._leading:
            self._answer(route, Refused(hello.session, "this director is not the active one"))
            return
        LOG.info("session", session=hello.session)
        self.counters["sessions_served"] += 1
        self._route, self._sender = route, Sender(hello, self._boot, self._clock())
        self._answer(route, self._sender.greeting())
        self._spawn(self._open_session(self._sender))

    async def _open_session(self, sender: Sender) -> None:
        try:
            snapshot = await asyncio.to_thread(self._kernel.snapshot)
        except IpvsError as error:
            sender.end(str(error))
            return
        if sender is self._sender and self._mirror:
            self._answer(self._route, Services(sender.session, self._original.start(snapshot).encode()))
            self._state_sent = None
            self._send_state(sender)
        await self._send_table(sender)

    async def _send_table(self, sender: Sender) -> None:
        if self._replication is None:
            sender.table(())
            return
        sender.reading()
        try:
            table = await asyncio.to_thread(self._replication.table)
        except IpvsError as error:
            sender.end(str(error))
            return
        self.counters["left_out"] += sum(table.left_out.values())
        sender.table(table.records)
        self._pump_out(self._clock())

    def _captured(self) -> None:
        assert self._replication is not None
        datagrams = self._replication.read_captured()
        if datagrams and self._sender is not None:
            self._sender.live(datagrams)
            self._pump_out(self._clock())

    def _push(self) -> None:
        self._pushed = self._clock()
        if self._replication is not None and self._sender is not None:
            self._replication.push()

    def _pump_out(self, now: float) -> None:
        sender = self._sender
        if sender is None:
            return
        for message in sender.outgoing(now):
            if not self._answer(self._route, message):
                sender.end("the standby went away, or is too slow for its queue")
        if sender.ended:
            LOG.warning("session-ended", reason=sender.ended)
            self._sender = None

    def _answer(self, route: bytes, message: Message) -> bool:
        return self._transport is not None and self._transport.answer(route, messages.encode(message))

    # --- services and state, both ends -------------------------------------------------------------------------------

    async def _mirror_always(self) -> None:
        while True:
            await asyncio.sleep(MIRROR_SECONDS)
            try:
                await self._mirror_once()
            except IpvsError as error:
                self.counters["mirror_failed"] += 1
                LOG.error("mirror-failed", reason=str(error))

    async def _mirror_once(self) -> None:
        sender = self._sender
        if not self._mirror or (self._leading and sender is None) or not (self._leading or self._following):
            return
        snapshot = await asyncio.to_thread(self._kernel.snapshot)
        if not self._leading:
            edits = self._copy.edits(snapshot)
            if edits:
                self.counters["mirror_mended"] += len(edits)
                self._apply_copy()
            return
        if sender is not None and sender is self._sender:
            changes = self._original.changes(snapshot)
            if changes:
                self._answer(self._route, Changes(sender.session, changes.encode()))
            self._send_state(sender)

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

    # --- for people --------------------------------------------------------------------------------------------------

    def _decoded(self, data: bytes) -> Message | None:
        try:
            return messages.decode(data)
        except MessageError as error:
            self.counters[f"refused_{error.kind}"] += 1
            if self.counters[f"refused_{error.kind}"] == 1:
                LOG.error("message-refused", kind=error.kind, reason=str(error))
            return None

    def replica(self, now: float) -> tuple[Condition, int, int]:
        """The state of what is here, with how much of how much: for the heartbeat."""
        status = self._replica.status(now)
        return status.condition, status.injected, status.total

    def status(self, now: float) -> dict[str, Any]:
        """For `sync status`: shapes as in docs/sync.md."""
        s = self._replica.status(now)
        text = "the original: this director is active" if self._leading else str(s)
        sender = self._sender.status() if self._sender else None
        return {
            "text": text,
            "state": "original" if self._leading else str(s.condition),
            "reason": s.reason,
            "since_seconds": round(now - s.since, 3),
            "injected": s.injected,
            "total": s.total,
            "took_seconds": self.took_seconds,
            "sessions": s.sessions,
            "gaps": s.gaps,
            "dropped": s.dropped,
            "malformed": s.malformed,
            "connections": s.connections,
            "services": self._copy.services,
            "following": self._following,
            "serving": None
            if sender is None
            else {
                "session": sender.session,
                "total": sender.total,
                "reached": sender.reached,
                "settled": sender.settled,
                "unacknowledged": sender.unacknowledged,
                "live_datagrams": sender.live_datagrams,
                "bulk_datagrams": sender.bulk_datagrams,
            },
            "counters": dict(self.counters),
        }
