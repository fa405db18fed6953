"""Election: which of two directors is active, and why. The public interface of the pair.

This class owns the decision. It takes `now`, seconds of a monotonic clock that counts suspension (CLOCK_BOOTTIME). It
reads no clock, draws no random number and sends nothing. meaning.py says which event a heartbeat or an answer is;
turns.py which events the passing of time causes; course.py what follows from an event, by the table of transitions.py.
knowledge.py holds what is known, and conclusions from it. heartbeat.py has the datagram and the proof of its freshness,
standing.py the types of input and output.

How the shell uses it: it first hands in everything that was received, and then calls `handle_timer`. After each
`receive_*` and `request_*` it looks at `next_timer()`, and calls `handle_timer(now)` when that is due; it is due at
once when something was decided. It performs the decisions in their order. Nothing happens before the first call of
`receive_installed`.

Invariants: 1. No director becomes active while it knows of a live peer that is active, unless that peer yields. 2.
While a link or the look works in both directions, two directors are never both active for longer than they need to hear
of each other: two intervals by heartbeat; `contest_seconds` and twice `claim_seconds` by the look alone. 3. If both say
that they are active, the one with the greater (term, priority, name) stays. Both compare the same values, so exactly
one stays. After links heal exactly one is active, and no role changes again. 4. A director that stood still for so long
that the peer may have suspected it (its own timer shows this) claims nothing before it has heard the peer again or
looked: what it believed is out of date. 5. Restarting a daemon changes no role: it stays active if the addresses are on
its interfaces, unless the peer is active.

Without heartbeats the look shows only that somebody answers, not with which term. Then the last thing heard decides. A
peer that was standby took over from us. A peer that was active and fell silent was superseded by us. If neither is
known, or if both go on claiming, the director with the lesser name gives up first.
"""

from __future__ import annotations

import copy

from feedback.sync.election.course import Course
from feedback.sync.election.heartbeat import PROTOCOL, Heartbeat, Replica, ReplicaState, Role, Verdict, Window
from feedback.sync.election.knowledge import Knowledge
from feedback.sync.election.meaning import hear, see
from feedback.sync.election.standing import (
    NEVER,
    Happening,
    LinkStatus,
    Notice,
    PeerStatus,
    Settings,
    Status,
    Transition,
)
from feedback.sync.election.transitions import Decision, Event, SendHeartbeat, State
from feedback.sync.election.turns import repeat, turn

__all__ = [
    "NEVER",
    "Election",
    "Happening",
    "LinkStatus",
    "Notice",
    "PeerStatus",
    "Settings",
    "Status",
    "Transition",
]


class Election:
    """One director's side. `boot` is a random number, not 0, unique to this start of this director."""

    def __init__(self, settings: Settings, name: str, boot: int, now: float) -> None:
        if name == settings.peer:
            raise ValueError(f"both directors are called {name}: each needs its own name")
        if not settings.addresses:
            raise ValueError("no addresses: a pair without a VIP has nothing to take over")
        self.settings = settings
        self.name = name
        window = Window(boot, settings.fresh_seconds, settings.silence_seconds)
        self._m = Knowledge(settings, name, window, now, now, now, now, now)
        self._course = Course(settings, name, self._m)

    def __copy__(self) -> Election:
        """An independent copy, for exploration and for "what if"."""
        twin = object.__new__(type(self))
        twin.settings, twin.name, twin._course = self.settings, self.name, copy.copy(self._course)
        twin._m = twin._course.m
        return twin

    @property
    def state(self) -> State:
        return self._m.state

    @property
    def role(self) -> Role:
        return self._m.role

    # What was received

    def receive_heartbeat(self, heartbeat: Heartbeat, link: str, now: float) -> None:
        """Take a decoded heartbeat. One that does not prove its freshness is counted and has no effect."""
        now = self._advance(now)
        reflected = heartbeat.boot == self._m.window.boot
        if heartbeat.version == PROTOCOL and heartbeat.name != self.settings.peer and not reflected:
            return self.receive_refused("name")
        verdict = self._m.window.receive(heartbeat, link, now)
        if verdict is Verdict.FRESH:
            return hear(self._course, heartbeat, now)
        if verdict is not Verdict.DUPLICATE:
            self.receive_refused(verdict.value)
        return None

    def receive_refused(self, kind: str) -> None:
        """Count a refused datagram by the kind of its HeartbeatError."""
        self._m.refuse(kind)

    def receive_answer(self, address: str, mac: bytes, now: float) -> None:
        """Somebody answered a look for one of our addresses."""
        see(self._course, address, mac, self._advance(now), "answers for")

    def receive_claim(self, address: str, mac: bytes, now: float) -> None:
        """Somebody announced one of our addresses without being asked."""
        now = self._advance(now)
        known = address in self.settings.addresses and mac in self._m.peer_macs and mac not in self._m.macs
        if known and now >= self._m.silent_at():
            self._m.heard_claim_at = now
        see(self._course, address, mac, now, "announces")

    def receive_reach(self, target: str, reachable: bool, now: float) -> None:
        """A reach target answered, or did not answer within the shell's time. One target that answers is enough."""
        now = self._advance(now)
        self._m.reach = _put(self._m.reach, target, reachable)
        self._weigh(now)

    def receive_interface(self, interface: str, up: bool, now: float) -> None:
        """The carrier state of an interface for VIPs. Each of them must be up."""
        now = self._advance(now)
        self._m.interfaces = _put(self._m.interfaces, interface, up)
        self._weigh(now)

    def receive_macs(self, macs: tuple[bytes, ...]) -> None:
        """The MACs of all our interfaces for VIPs. The peer recognises us by them."""
        self._m.macs = macs

    def receive_installed(self, installed: bool) -> None:
        """Whether all VIPs are on our interfaces."""
        self._m.installed = installed

    def receive_replica(self, replica: Replica, now: float) -> None:
        """How complete our copy of the active director's connections is."""
        now = self._advance(now)
        complete = ReplicaState.COMPLETE
        if (replica.state is complete) != (self._m.replica.state is complete):
            self._m.replica_at = now
        self._m.replica = replica

    def receive_handed_over(self, now: float) -> None:
        """The last difference has been sent: the peer may take over."""
        now = self._advance(now)
        if self._m.state is not State.HANDING_OVER:
            return
        against = self._m.against_handover(now, self._m.forced)
        event = Event.EXPIRED if against else Event.HANDED_OVER
        self._course.event(event, against or f"the last difference is sent: {self.settings.peer} may take over", now)

    # What is asked

    def request_handover(self, now: float, force: bool = False) -> str | None:
        """Hand over to the peer or, on the standby, ask the active director to. Returns the reason if that is refused,
        or None if it is under way. With `force` the peer need not be complete."""
        now = self._advance(now)
        if self._m.state in (State.HANDING_OVER, State.YIELDING):
            return "a handover is under way"
        if self.role is Role.ACTIVE:
            against = self._m.against_handover(now, force)
            if against is None:
                self._course.hand_over("requested", now, force)
            return against
        against = self._m.against_wish(now)
        if against is None:
            self._m.wish_until = now + self.settings.handover_seconds + self.settings.yield_seconds
        return against

    def next_timer(self) -> float:
        """When handle_timer is due. If something was decided this is at once: no later than the latest `now`."""
        m, s = self._m, self.settings
        if m.pending:
            return m.clock
        due = m.beat_due
        if m.state is State.STARTING and m.installed is not None:
            due = min(due, self._m.start_over())
        elif m.state in (State.LOOKING, State.WATCHING, State.DOUBTING):
            due = min(due, self._m.look_over())
        elif m.state is State.STANDBY:
            due = min(due, self._m.silent_at())
        elif m.state is State.YIELDING:
            due = min(due, m.entered_at + s.yield_seconds)
        return due

    def handle_timer(self, now: float) -> tuple[Decision, ...]:
        """What is to be done now, in this order."""
        now = self._advance(now)
        m = self._m
        m.turn_at = now
        if m.installed is not None:
            turn(self._course, now)
            repeat(self._course, now)
        if now >= m.beat_due:
            late = now - m.beat_due >= self.settings.interval_seconds
            m.beat_due = (now if late else m.beat_due) + self.settings.interval_seconds
            if m.installed is not None:
                m.pending = (*m.pending, SendHeartbeat())
        decisions, m.pending = m.pending, ()
        return decisions

    def heartbeat(self, now: float) -> Heartbeat:
        """The heartbeat to send now, over every link. Each call makes a new one."""
        m = self._m
        now = max(now, m.clock)
        m.sequence += 1
        m.window.send(m.sequence, now)
        heard_boot, heard_sequence = m.window.echo()
        return Heartbeat(
            name=self.name,
            boot=m.window.boot,
            sequence=m.sequence,
            role=self.role,
            term=m.term,
            priority=self.settings.priority,
            replica=m.replica,
            installed=bool(m.installed),
            macs=m.macs,
            heard_boot=heard_boot,
            heard_sequence=heard_sequence,
            yields=m.state is State.YIELDING,
            forced=m.state is State.YIELDING and m.forced,
            wishes=self._m.wishes(now),
            reach=self.limitation() is None,
            healthy=self._m.healthy(now),
        )

    def next_event(self) -> Happening | None:
        """The oldest transition or notice not yet fetched, or None."""
        if not self._m.happenings:
            return None
        first, *rest = self._m.happenings
        self._m.happenings = tuple(rest)
        return first

    def limitation(self) -> str | None:
        """Why this director could not serve, or None."""
        return self._m.limitation()

    def status(self, now: float) -> Status:
        """Everything that an operator may ask for."""
        return self._m.status(max(now, self._m.clock))

    # Time

    def _advance(self, now: float) -> float:
        """The first step of every entry point. It keeps time from running backwards, and notices a stall before
        anything else happens."""
        m = self._m
        now = max(now, m.clock)
        m.clock = now
        if now - m.turn_at > self.settings.silence_seconds:
            self._stall(now - m.turn_at, now)
        return now

    def _stall(self, seconds: float, now: float) -> None:
        """After a stall, what was heard and sent before proves nothing: the peer must be heard again."""
        m = self._m
        m.turn_at = m.watch_from = m.beat_due = now
        if seconds >= self.settings.unhealthy_seconds:
            m.stalled_at = now
        m.window.forget()
        if m.state is State.STARTING:
            m.entered_at = now
        elif m.state is State.DOUBTING:
            self._course.look_anew(now)
        self._course.event(Event.STALLED, f"stalled for {seconds:.2f} s: the peer may have taken over", now)

    # Reasons

    def _weigh(self, now: float) -> None:
        fit = self.limitation() is None
        self._m.unreached_at = NEVER if fit else now if self._m.unreached_at == NEVER else self._m.unreached_at


def _put(facts: tuple[tuple[str, bool], ...], name: str, value: bool) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted({**dict(facts), name: value}.items()))
