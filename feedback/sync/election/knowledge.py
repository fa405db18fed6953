"""What one director knows of itself and its peer, and conclusions from that, without any action.

This module owns every changing value of the election, and answers questions about them: who is alive, who comes first,
what prevents a takeover or a handover, what a takeover loses. It decides nothing; course.py does.
"""

from __future__ import annotations

import msgspec

from feedback.sync.election.heartbeat import PROTOCOL, Heartbeat, Replica, ReplicaState, Role, Window
from feedback.sync.election.standing import NEVER, Happening, PeerStatus, Settings, Status, Transition, links_of
from feedback.sync.election.transitions import ROLES, Decision, State


class Knowledge(msgspec.Struct):
    """All values but the window are immutable: a shallow copy with a copy of the window is independent."""

    settings: Settings
    name: str
    window: Window
    clock: float  # the latest `now`
    turn_at: float  # the last handle_timer
    entered_at: float
    watch_from: float  # silence counts from here at the earliest
    beat_due: float
    reason: str = "just started"
    state: State = State.STARTING
    sequence: int = 0
    term: int = 0  # that of our claim while active, else the highest known
    peer: Heartbeat | None = None  # the last fresh one
    peer_macs: tuple[bytes, ...] = ()
    macs: tuple[bytes, ...] = ()
    installed: bool | None = None
    replica: Replica = Replica()
    replica_at: float = NEVER  # when the replica became complete, or ceased to be
    reach: tuple[tuple[str, bool], ...] = ()
    interfaces: tuple[tuple[str, bool], ...] = ()
    unreached_at: float = NEVER  # since when we are not fit
    look_at: float = NEVER  # the last look
    answered: bool = False  # whether that look was answered
    missed: int = 0  # consecutive looks without an answer
    peer_was: Role | None = None  # its role when last heard; None: not heard since we gave way to a look
    stalled_at: float = NEVER
    heard_claim_at: float = NEVER  # the peer's announcement, heard while it was silent on every link
    claimed_at: float = NEVER  # while active: when the peer began to answer for our addresses
    announced_at: float = NEVER
    repeated_at: float = NEVER
    forced: bool = False  # the handover that is under way
    wish_until: float = NEVER
    hold_until: float = NEVER
    told_version: int = PROTOCOL
    pending: tuple[Decision, ...] = ()
    happenings: tuple[Happening, ...] = ()
    transitions: tuple[Transition, ...] = ()
    refused: tuple[tuple[str, int], ...] = ()

    @property
    def role(self) -> Role:
        return ROLES[self.state]

    def refuse(self, kind: str) -> None:
        """Count a refused datagram."""
        counts = dict(self.refused)
        counts[kind] = counts.get(kind, 0) + 1
        self.refused = tuple(sorted(counts.items()))

    def limitation(self) -> str | None:
        """Why this director could not serve, or None."""
        down = [name for name, up in self.interfaces if not up]
        if down:
            return f"{', '.join(down)} has no carrier"
        if self.reach and not any(reachable for _, reachable in self.reach):
            return f"none of {len(self.reach)} reach targets answers"
        return None

    def holds(self) -> bool:
        """Whether we have a claim of our own, whose term the peer's heartbeats must not raise."""
        return self.role is Role.ACTIVE or self.state is State.DOUBTING

    def takes(self, heartbeat: Heartbeat) -> bool:
        """Whether we take over from a peer that yields. If we are active already, the peer has what it wants."""
        if self.role is not Role.STANDBY:
            return self.state is State.ACTIVE
        complete = self.replica.state is ReplicaState.COMPLETE
        return self.limitation() is None and (complete or heartbeat.forced)

    def announced(self, now: float) -> bool:
        """Whether the peer's announcement said that it serves, and nothing newer was heard. An unanswered look says
        little then: perhaps nobody hears us, although we hear others."""
        return now - self.heard_claim_at < self.settings.announced_seconds

    def healthy(self, now: float) -> bool:
        return now - self.stalled_at >= 1.0

    def silent_at(self) -> float:
        return max(self.window.heard_at, self.watch_from) + self.settings.silence_seconds

    def alive(self, now: float) -> bool:
        return now < self.window.heard_at + self.settings.silence_seconds

    def start_over(self) -> float:
        s = self.settings
        return self.entered_at + (s.resume_seconds if self.installed else s.start_seconds)

    def look_over(self) -> float:
        s = self.settings
        if self.state is State.LOOKING:
            return self.look_at + s.look_seconds
        if self.state is State.DOUBTING:
            return self.look_at + (s.look_seconds if self.missed < s.looks else s.watch_seconds)
        return self.look_at + (s.watch_seconds if self.answered or self.limitation() else s.look_seconds)

    def looks(self) -> int:
        """How many looks are needed. If the two never heard each other, the lesser name lets the other go first."""
        strangers = self.peer is None and self.name < self.settings.peer
        return self.settings.looks + (2 if strangers else 0)

    def rank(self, now: float) -> tuple[object, ...]:
        """The rank that decides who comes first while nobody is active. Both compute both ranks from the same
        heartbeats."""
        here = bool(self.installed)
        complete = self.replica.state is ReplicaState.COMPLETE
        return (here, self.term if here else 0, self.limitation() is None, complete, self.settings.priority, self.name)

    def peer_rank(self, peer: Heartbeat) -> tuple[object, ...]:
        complete = peer.replica.state is ReplicaState.COMPLETE
        here = peer.installed
        return (here, peer.term if here else 0, peer.reach, complete, peer.priority, self.settings.peer)

    def wishes(self, now: float) -> bool:
        s = self.settings
        if self.role is not Role.STANDBY or self.against_wish(now) is not None:
            return False
        ready_at = max(self.entered_at, self.replica_at) + s.fail_back_seconds
        return now < self.wish_until or (
            s.fail_back and now >= ready_at and self.peer is not None and self.peer.priority < s.priority
        )

    def against_wish(self, now: float) -> str | None:
        peer = self.peer
        if not self.alive(now) or peer is None or peer.role is not Role.ACTIVE:
            return f"{self.settings.peer} is not heard to be active"
        if self.replica.state is not ReplicaState.COMPLETE:
            return f"not complete: {_replica(self.replica)}"
        return self.limitation()

    def against_handover(self, now: float, force: bool) -> str | None:
        peer, name = self.peer, self.settings.peer
        if self.role is not Role.ACTIVE:
            return f"{self.name} is not active, it is {self.state}"
        if peer is None or not self.alive(now):
            return f"{name} is not heard"
        if peer.role is not Role.STANDBY:
            return f"{name} is {peer.role}"
        if not (peer.reach and peer.healthy):
            return f"{name} reaches nothing or has no carrier" if peer.healthy else f"{name} stalled just now"
        if force:
            return None
        if peer.version != PROTOCOL:
            return f"{name} speaks protocol {peer.version}: whether it is complete is unknown"
        if peer.replica.state is not ReplicaState.COMPLETE:
            return f"{name} is not complete: {_replica(peer.replica)}"
        return None

    def silence(self, now: float) -> str:
        heard = self.window.heard_at
        if heard == NEVER:
            return f"{self.settings.peer} is not heard"
        return f"{self.settings.peer} is silent for {now - heard:.2f} s"

    def vacancy(self, now: float) -> str:
        word = "nobody is active" if self.alive(now) else self.silence(now)
        text = f"{word}, {self.missed} looks unanswered"
        return text if self.state is State.DOUBTING else f"{text}; {self.loss(now)}"

    def loss(self, now: float) -> str:
        """What a takeover loses."""
        text = _replica(self.replica)
        if self.replica.state is ReplicaState.BEHIND:
            since = "" if self.replica_at == NEVER else f" since {max(0.0, now - self.replica_at):.1f} s"
            return f"{text}{since}: connections opened {'since then ' if since else ''}are lost"
        if self.replica.state is ReplicaState.CATCHING_UP:
            return f"{text}: connections not copied yet are lost"
        return text

    def status(self, now: float) -> Status:
        now = max(now, self.clock)
        return Status(
            name=self.name,
            state=self.state,
            role=self.role,
            reason=self.reason,
            for_seconds=now - self.entered_at,
            term=self.term,
            installed=self.installed,
            replica=self.replica,
            peer=self.peer_status(now),
            links=links_of(self.window.links, now),
            unreached=tuple(name for name, reachable in self.reach if not reachable),
            limitation=self.limitation(),
            handover_limitation=self.against_handover(now, False),
            refused=self.refused,
            transitions=self.transitions,
        )

    def peer_status(self, now: float) -> PeerStatus | None:
        peer = self.peer
        if peer is None:
            return None
        return PeerStatus(
            name=self.settings.peer,
            alive=self.alive(now),
            age_seconds=now - self.window.heard_at,
            role=peer.role,
            term=peer.term,
            priority=peer.priority,
            replica=peer.replica,
            installed=peer.installed,
            reach=peer.reach,
            healthy=peer.healthy,
            version=peer.version,
        )


def _replica(replica: Replica) -> str:
    if replica.state is ReplicaState.NONE:
        return "no replica"
    if replica.state is ReplicaState.CATCHING_UP:
        return f"replica catching up, {replica.done} of {replica.total}"
    return f"replica {replica.state}"
