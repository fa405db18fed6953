"""Carrier: runs the end of replication that this director's role needs.

`lead` and `follow` choose the end: outbound.py serves a standby, inbound.py follows the active director. When roles
change, the old end keeps running for a moment, so that the old active kernel's last records of the newest connections
still reach the other director. This module does not know the election.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from feedback.faults import said
from feedback.ipvs import IpvsError, Kernel
from feedback.ops.logs import Log
from feedback.ops.tasks import Tasks
from feedback.sync.replication import messages
from feedback.sync.replication.inbound import Inbound
from feedback.sync.replication.kernel import Replication
from feedback.sync.replication.messages import Ack, Hello, Message, MessageError
from feedback.sync.replication.outbound import Outbound
from feedback.sync.replication.replica import Condition

TURN_SECONDS = 0.02
MIRROR_SECONDS = 0.5
MEND_TURNS = 4
LINGER_SECONDS = 0.5

LOG = Log("replication")


class Transport(Protocol):
    """The methods of relay.Relay that are used here."""

    def follow(self, endpoint: str | None) -> None: ...
    def ask(self, message: bytes) -> bool: ...
    def answer(self, route: bytes, message: bytes) -> bool: ...


class Carrier:
    """Open and close it inside a running loop. `replication` is None where the kernels replicate between themselves, or
    not at all. `hear_tracking` is called with what the other director says of its connection tracking."""

    def __init__(
        self,
        boot: str,
        kernel: Kernel,
        replication: Replication | None,
        *,
        mirror: bool,
        master_state: Path | None,
        hear_tracking: Callable[[bool, bytes], None] = lambda tracks, data: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._replication, self._mirror, self._clock = replication, mirror, clock
        self._transport: Transport | None = None
        self._leading = False
        self._lingers: float | None = None
        self._endpoint: str | None = None  # the active director's, while this director is not active
        self._tasks = Tasks(LOG, self._failed)
        ends = {"mirror": mirror, "master_state": master_state, "clock": clock}
        self._in = Inbound(boot, kernel, replication, self._connect, self._ask, hear_tracking, **ends)  # type: ignore[arg-type]
        self._out = Outbound(boot, kernel, replication, self._answer, self._tasks.start, hear_tracking, **ends)  # type: ignore[arg-type]

    # --- life --------------------------------------------------------------------------------------------------------

    def open(self, transport: Transport) -> None:
        self._transport = transport
        if self._replication is not None:
            asyncio.get_running_loop().add_reader(self._replication.capture_fd, self._out.captured)
        self._tasks.start(self._mirror_always(), "mirror")

    def close(self) -> None:
        if self._replication is not None:
            asyncio.get_running_loop().remove_reader(self._replication.capture_fd)
        self._tasks.cancel()

    def _failed(self, name: str, reason: str) -> None:
        """One of our tasks ended with a fault. The session ends; the standby is told so and begins a new one."""
        self.counters["faults"] += 1
        self._out.end(f"a fault of this director: {reason}")

    def _connect(self, endpoint: str | None) -> None:
        if self._transport is not None:
            self._transport.follow(endpoint)

    def _ask(self, message: bytes) -> bool:
        return self._transport is not None and self._transport.ask(message)

    def _answer(self, route: bytes, message: bytes) -> bool:
        return self._transport is not None and self._transport.answer(route, message)

    # --- roles -------------------------------------------------------------------------------------------------------

    def lead(self) -> None:
        """This director is the active one and serves followers."""
        if not self._leading:
            self._leading, self._lingers = True, self._clock() + LINGER_SECONDS
            self._in.mirrors = False

    def follow(self, endpoint: str | None) -> None:
        """This director is the standby of the one at `endpoint` (None: no active director can be reached)."""
        if self._leading:
            self._leading, self._lingers = False, self._clock() + LINGER_SECONDS
            self._out.push()
        self._in.mirrors = self._mirror
        self._endpoint = endpoint
        if self._lingers is None:  # else following begins when the old end is done: clients come first
            self._in.follow(endpoint)

    @property
    def following(self) -> str | None:
        return None if self._leading else self._endpoint

    def resync(self) -> str | None:
        """Fetch everything again. Returns the reason if that is impossible."""
        if self._leading or self._in.following is None:
            return "this director follows nobody: ask the standby"
        self._in.begin()
        return None

    def tell_tracking(self, tracks: bool, data: bytes) -> None:
        """Tell the other director, whichever end it is, about connection tracking here."""
        self._in.tell(tracks)
        self._out.tell(tracks, data)

    async def settle(self) -> str | None:
        """Before a planned handover: send the standby everything that it lacks. Returns the reason if that fails."""
        return await self._out.settle()

    # --- what drives it ----------------------------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """To be called at least every TURN_SECONDS."""
        if self._replication is not None:
            self._replication.tend()
            if self._leading:
                self._out.repeat(self._replication.hold())
        self._out.turn(now)
        if not self._leading or self._lingers is not None:
            self._in.turn(now)
        if self._lingers is not None and now > self._lingers:
            self._lingers = None
            if self._leading:
                self._in.leave()
            else:
                self._out.end("this director is the standby now")
                self._in.follow(self._endpoint)

    def on_request(self, route: bytes, data: bytes) -> None:
        """A message from a follower."""
        message = self._decoded(data)
        if isinstance(message, Hello) and self._leading:
            self._out.greet(route, message)
        elif isinstance(message, Hello):
            self._out.refuse(route, message, "this director is not the active one")
        elif isinstance(message, Ack):
            self._out.acknowledged(route, message)

    def on_stream(self, data: bytes) -> None:
        """A message from the director that we follow."""
        message = self._decoded(data)
        if message is not None:
            self._in.receive(message)

    async def _mirror_always(self) -> None:
        """At the active end, send what changed. At the standby's, undo what somebody changed here."""
        turn = 0
        while True:
            await asyncio.sleep(MIRROR_SECONDS)
            turn += 1
            try:
                if self._leading:
                    await self._out.mirror_once()
                elif self._in.following is not None and turn % MEND_TURNS == 0:
                    await self._in.mend()
            except IpvsError as error:
                self._not_mirrored(str(error))
            except Exception as error:
                self.counters["faults"] += 1
                self._not_mirrored(said(error))

    def _not_mirrored(self, reason: str) -> None:
        self.counters["mirror_failed"] += 1
        LOG.error("mirror-failed", reason=reason)

    def _decoded(self, data: bytes) -> Message | None:
        try:
            return messages.decode(data)
        except MessageError as error:
            self.counters[f"refused_{error.kind}"] += 1
            if self.counters[f"refused_{error.kind}"] == 1:
                LOG.error("message-refused", kind=error.kind, reason=str(error))
            return None

    # --- for others --------------------------------------------------------------------------------------------------

    def replica(self, now: float) -> tuple[Condition, int, int]:
        """For the heartbeat: the condition of this director's copy, connections held, and connections in all."""
        status = self._in.status(now)
        return status.condition, status.injected, status.total

    def lacking(self, now: float) -> int:
        """The most connections that a takeover would cut, or that a standby joining now would lack."""
        held = 0 if self._replication is None else self._replication.held().lacking
        return max(held, 0 if self._leading else self._in.status(now).lacking)

    def _ledger(self) -> dict[str, int] | None:
        return None if self._replication is None else self._replication.held()._asdict()

    def status(self, now: float) -> dict[str, Any]:
        """The replication part of `sync status`; docs/sync.md has its fields."""
        s, serving = self._in.status(now), self._out.status()
        return {
            "state": "original" if self._leading else str(s.condition),
            "text": "the original: this director is active" if self._leading else str(s),
            "reason": s.reason,
            "since_seconds": round(now - s.since, 3),
            "injected": s.injected,
            "total": s.total,
            "took_seconds": self._in.took_seconds,
            "sessions": s.sessions,
            "gaps": s.gaps,
            "dropped": s.dropped,
            "malformed": s.malformed,
            "connections": s.connections,
            "lacking": s.lacking,
            "ledger": self._ledger(),
            "services": self._in.services,
            "following": self.following,
            "serving": None
            if serving is None
            else {
                "session": serving.session,
                "total": serving.total,
                "reached": serving.reached,
                "settled": serving.settled,
                "unacknowledged": serving.unacknowledged,
                "live_datagrams": serving.live_datagrams,
                "bulk_datagrams": serving.bulk_datagrams,
            },
            "counters": dict(self.counters + self._in.counters + self._out.counters),
        }
