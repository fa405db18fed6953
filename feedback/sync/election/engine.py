"""Engine: decides which director is active. `Election` is one; `Following` follows another program's decision.

The interface is `Engine`: facts in, decisions out, no I/O. `Following` follows keepalived, whose notices arrive by
`receive_notice`. A coordination service with leases, for more than two directors, could be a third engine: its lease
would be the notice, and its fencing token the term. Heartbeats would then only carry the replica's state and show which
link works.

`Following` sends and checks heartbeats as the election does, for the status and to choose the relay's link. It bases no
decision on them. Invariant: its role is that of the last notice, whatever the peer says.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from feedback.sync.election.election import (
    Happening,
    Notice,
    PeerStatus,
    Settings,
    Status,
    Transition,
)
from feedback.sync.election.heartbeat import PROTOCOL, Heartbeat, Replica, Role, Verdict, Window
from feedback.sync.election.keepalived import Notice as Word
from feedback.sync.election.standing import links_of
from feedback.sync.election.transitions import Decision, SendHeartbeat, State, StepDown, TakeOver

TRANSITIONS_KEPT = 32


class Cause(StrEnum):
    DIRECTED = "directed"  # another program decided


class Engine(Protocol):
    """The methods that the daemon needs; Election describes each of them."""

    settings: Settings

    @property
    def role(self) -> Role: ...
    def receive_heartbeat(self, heartbeat: Heartbeat, link: str, now: float) -> None: ...
    def receive_refused(self, kind: str) -> None: ...
    def receive_answer(self, address: str, mac: bytes, now: float) -> None: ...
    def receive_claim(self, address: str, mac: bytes, now: float) -> None: ...
    def receive_reach(self, target: str, reachable: bool, now: float) -> None: ...
    def receive_interface(self, interface: str, up: bool, now: float) -> None: ...
    def receive_macs(self, macs: tuple[bytes, ...]) -> None: ...
    def receive_installed(self, installed: bool) -> None: ...
    def receive_replica(self, replica: Replica, now: float) -> None: ...
    def receive_handed_over(self, now: float) -> None: ...
    def request_handover(self, now: float, force: bool = False) -> str | None: ...
    def next_timer(self) -> float: ...
    def handle_timer(self, now: float) -> tuple[Decision, ...]: ...
    def heartbeat(self, now: float) -> Heartbeat: ...
    def next_event(self) -> Happening | None: ...
    def limitation(self) -> str | None: ...
    def status(self, now: float) -> Status: ...


class Following:
    """The engine that obeys another program. `active` is its first role: the one before a restart."""

    def __init__(self, settings: Settings, name: str, boot: int, now: float, *, active: bool = False) -> None:
        self.settings = settings
        self._name = name
        self._window = Window(boot, settings.fresh_seconds, settings.silence_seconds)
        self._state = State.ACTIVE if active else State.STANDBY
        self._reason = "as before the restart" if active else "nothing was said yet"
        self._entered = self._clock = self._beat_due = now
        self._term = 1 if active else 0
        self._sequence = 0
        self._peer: Heartbeat | None = None
        self._replica = Replica()
        self._pending: list[Decision] = [TakeOver(self._reason, self._term)] if active else []
        self._happenings: list[Happening] = []
        self._transitions: list[Transition] = []
        self._refused: dict[str, int] = {}
        self._told_version = PROTOCOL

    @property
    def role(self) -> Role:
        return Role.ACTIVE if self._state is State.ACTIVE else Role.STANDBY

    def receive_notice(self, word: Word, now: float) -> None:
        """Take the other program's decision."""
        new = State.ACTIVE if word.active else State.STANDBY
        if new is self._state:
            return
        old, self._state, self._reason, self._entered = self._state, new, str(word), now
        transition = Transition(now, old, new, Cause.DIRECTED, self._reason)
        self._transitions = [*self._transitions[-TRANSITIONS_KEPT + 1 :], transition]
        self._happenings.append(transition)
        if new is State.ACTIVE:
            self._term = max(self._term, self._peer.term if self._peer else 0) + 1
            self._pending.append(TakeOver(self._reason, self._term))
        else:
            self._pending.append(StepDown(self._reason))
        self._clock = now

    def receive_heartbeat(self, heartbeat: Heartbeat, link: str, now: float) -> None:
        if heartbeat.version == PROTOCOL and heartbeat.name not in (self.settings.peer, self._name):
            return self.receive_refused("name")
        verdict = self._window.receive(heartbeat, link, now)
        if verdict is Verdict.FRESH:
            self._peer = heartbeat
            self._tell_version(heartbeat, now)
        elif verdict is not Verdict.DUPLICATE:
            self.receive_refused(verdict.value)
        return None

    def _tell_version(self, heartbeat: Heartbeat, now: float) -> None:
        if heartbeat.version not in (PROTOCOL, self._told_version):
            text = f"{self.settings.peer} speaks heartbeat protocol {heartbeat.version}, this director {PROTOCOL}"
            self._happenings.append(Notice(now, text))
        self._told_version = heartbeat.version

    def receive_refused(self, kind: str) -> None:
        self._refused[kind] = self._refused.get(kind, 0) + 1

    def receive_replica(self, replica: Replica, now: float) -> None:
        self._replica = replica

    # The facts that an election would weigh have no effect here: the other program sees for itself.

    def receive_answer(self, address: str, mac: bytes, now: float) -> None: ...
    def receive_claim(self, address: str, mac: bytes, now: float) -> None: ...
    def receive_reach(self, target: str, reachable: bool, now: float) -> None: ...
    def receive_interface(self, interface: str, up: bool, now: float) -> None: ...
    def receive_macs(self, macs: tuple[bytes, ...]) -> None: ...
    def receive_installed(self, installed: bool) -> None: ...
    def receive_handed_over(self, now: float) -> None: ...

    def request_handover(self, now: float, force: bool = False) -> str | None:
        return "keepalived decides: lower the priority of this director there, or stop it"

    def limitation(self) -> str | None:
        return None

    def next_timer(self) -> float:
        return self._clock if self._pending else self._beat_due

    def handle_timer(self, now: float) -> tuple[Decision, ...]:
        decisions, self._pending = self._pending, []
        if now >= self._beat_due:
            self._beat_due = now + self.settings.interval_seconds
            decisions.append(SendHeartbeat())
        return tuple(decisions)

    def heartbeat(self, now: float) -> Heartbeat:
        self._sequence += 1
        self._window.send(self._sequence, now)
        heard_boot, heard_sequence = self._window.echo()
        return Heartbeat(
            name=self._name,
            boot=self._window.boot,
            sequence=self._sequence,
            role=self.role,
            term=self._term,
            priority=self.settings.priority,
            replica=self._replica,
            installed=self._state is State.ACTIVE,
            heard_boot=heard_boot,
            heard_sequence=heard_sequence,
        )

    def next_event(self) -> Happening | None:
        return self._happenings.pop(0) if self._happenings else None

    def status(self, now: float) -> Status:
        return Status(
            name=self._name,
            state=self._state,
            role=self.role,
            reason=self._reason,
            for_seconds=now - self._entered,
            term=self._term,
            installed=None,
            replica=self._replica,
            peer=self._peer_status(now),
            links=links_of(self._window.links, now),
            unreached=(),
            limitation=None,
            handover_limitation=self.request_handover(now),
            refused=tuple(sorted(self._refused.items())),
            transitions=tuple(self._transitions),
        )

    def _peer_status(self, now: float) -> PeerStatus | None:
        peer = self._peer
        if peer is None:
            return None
        age = now - self._window.heard_at
        return PeerStatus(
            name=self.settings.peer,
            alive=age <= self.settings.silence_seconds,
            age_seconds=age,
            role=peer.role,
            term=peer.term,
            priority=peer.priority,
            replica=peer.replica,
            installed=peer.installed,
            reach=peer.reach,
            healthy=peer.healthy,
            version=peer.version,
        )
