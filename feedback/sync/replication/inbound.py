"""Inbound: the standby's end. It applies the active director's services, state and connections here.

This is the shell of replica.Replica (the session's rules) and mirror.Copy (the services). It begins a session, takes
the messages in order, injects records as fast as the kernel's thread takes them, acknowledges, and starts again after a
broken session. It knows no role and no election: whoever calls `follow` is the standby.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from feedback.ipvs import IpvsError, Kernel
from feedback.model import Edit
from feedback.ops.logs import Log
from feedback.sync.replication import messages
from feedback.sync.replication.kernel import Replication
from feedback.sync.replication.messages import Changes, Message, Services, State, Tracking
from feedback.sync.replication.mirror import Copy, MirrorError
from feedback.sync.replication.pace import patience_seconds
from feedback.sync.replication.replica import Condition, Replica, Status

RETRY_SECONDS = 0.5  # between the end of a session and the next
INJECT_AT_ONCE = 32  # datagrams; then heartbeats have their turn
PUMP_SECONDS = 0.002  # the shortest wait before the kernel's thread is asked again whether it takes more

LOG = Log("replication")


class Inbound:
    """`connect` opens a new transport to an endpoint (None: closes it), and `ask` sends a message there. `hear` is
    called with the active director's connection tracking. While `mirrors` is set, services and state follow the active
    director; it is off while this director is active itself."""

    def __init__(
        self,
        boot: str,
        kernel: Kernel,
        replication: Replication | None,
        connect: Callable[[str | None], None],
        ask: Callable[[bytes], bool],
        hear: Callable[[bool, bytes], None],
        *,
        mirror: bool,
        master_state: Path | None,
        clock: Callable[[], float],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.following: str | None = None
        self.took_seconds: float | None = None  # from the beginning of the last session until it was complete
        self._kernel, self._replication = kernel, replication
        self._connect, self._ask, self._hear = connect, ask, hear
        self.mirrors, self._master_state, self._clock = mirror, master_state, clock
        self._began = clock()
        self._replica = Replica(boot, self._began)
        self._copy = Copy()
        self._condition = Condition.ABSENT
        self._drops = 0
        self._pumping = False

    def follow(self, endpoint: str | None) -> None:
        if endpoint != self.following:
            self.following = endpoint
            self.begin()

    def begin(self) -> None:
        """Begin a new session: everything is fetched again."""
        self._began = now = self._clock()
        self._connect(self.following)
        if self.following is None:
            self._replica.lost(now, "nobody is followed")
            return
        LOG.info("following", endpoint=self.following)
        self._ask(messages.encode(self._replica.begin(now)))

    def tell(self, tracks: bool) -> None:
        """Say whether our kernel uses connection tracking. A change is announced by a new session."""
        if tracks is not self._replica.tracks:
            self._replica.tracks = tracks
            if self.following is not None:
                self.begin()

    def leave(self) -> None:
        """This director is active now, and its own table is the original."""
        self.following = None
        self._connect(None)
        self._replica.lost(self._clock(), "this director is active")
        self._condition = Condition.BEHIND

    # --- what arrives ------------------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        now = self._clock()
        self._replica.receive(message, now)
        if message.session != self._replica.session:
            return
        try:
            match message:
                case Services(_, data):
                    self._copy.take_table(data.decode())
                    self._apply(self._copy.edits(self._kernel.snapshot()))
                case Changes(_, data):
                    self._apply(self._copy.take_changes(data.decode()))
                case State(_, data):
                    self._write_state(data)
                case Tracking(_, tracks, data):
                    self._hear(tracks, data)
        except (MirrorError, UnicodeDecodeError, IpvsError) as error:
            self._replica.lost(now, str(error))
        self._pump_soon()

    def turn(self, now: float) -> None:
        self._pump(now)
        reason = self._replica.restart(now)
        if reason and self.following is not None and now - self._began > RETRY_SECONDS:
            self.counters["sessions_restarted"] += 1
            LOG.warning("session-restarted", reason=reason)
            self.begin()
        self._note_condition(now)

    def _pump(self, now: float) -> None:
        """Inject what the kernel takes now, and acknowledge it."""
        if self._replication is None:
            self._replica.observed(0, 0, now)
        elif (seconds := self._inject(self._replication, now)) is not None:
            self._pump_soon(seconds)
        ack = self._replica.acknowledgement()
        if ack is not None:
            self._ask(messages.encode(ack))

    def _pump_soon(self, seconds: float = 0.0) -> None:
        """Handle all messages that came together in one turn: each turn looks at the kernel's queue, which costs more
        than handling a message."""
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_later(seconds, self._pump_again)

    def _pump_again(self) -> None:
        self._pumping = False
        now = self._clock()
        self._pump(now)
        self._note_condition(now)  # at once: a reader who sees `complete` also wants to know how long it took

    def _inject(self, replication: Replication, now: float) -> float | None:
        """Inject as much as the kernel takes now, within bounds. Returns when to look again, or None if nothing waits
        and the kernel has read everything."""
        offered = self._replica.take(INJECT_AT_ONCE)
        done = replication.inject(offered)
        queue = replication.queue
        if queue is None:
            self._replica.lost(now, "the kernel's backup sync thread does not run")
            return None
        self._replica.injected(done)
        unread = queue.bytes + done  # `queue` does not show yet what was injected just now
        self._replica.observed(unread, replication.pacer.lost - self._drops, now)
        self._drops = replication.pacer.lost
        if self._replica.waiting and done == len(offered):
            return PUMP_SECONDS
        if self._replica.waiting or (unread and not self._replica.complete):
            return max(PUMP_SECONDS, patience_seconds(queue))
        return None

    def _note_condition(self, now: float) -> None:
        status = self._replica.status(now)
        if status.condition is self._condition:
            return
        self._condition = status.condition
        if status.complete:
            self.took_seconds = now - self._began
            LOG.info("complete", connections=status.total, seconds=round(self.took_seconds, 3))
        elif status.condition is Condition.BEHIND:
            LOG.warning("behind", reason=status.reason)

    # --- services and state ------------------------------------------------------------------------------------------

    async def mend(self) -> None:
        """Undo what somebody else changed here: changes are made on the active director. Raises IpvsError."""
        snapshot = await asyncio.to_thread(self._kernel.snapshot)
        edits = self._copy.edits(snapshot)
        if edits and self.mirrors:
            self.counters["mirror_mended"] += len(edits)
            self._apply(edits)

    def _apply(self, edits: Sequence[Edit]) -> None:
        failed = self._kernel.apply(edits) if edits and self.mirrors else ()
        if failed:  # the next call sees what the table has become
            self.counters["mirror_refused"] += len(failed)
            LOG.error("mirror-refused", reason=failed[0].text, failed=len(failed))

    def _write_state(self, data: bytes) -> None:
        path = self._master_state
        if path is None or not self.mirrors:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".mirrored")
            new.write_bytes(data)
            new.replace(path)
        except OSError as error:
            self.counters["state_unwritten"] += 1
            LOG.error("state-unwritten", path=str(path), reason=error.strerror)

    # --- for others --------------------------------------------------------------------------------------------------

    @property
    def services(self) -> int:
        return self._copy.services

    def status(self, now: float) -> Status:
        return self._replica.status(now)
