"""Election: which of two directors is active, and why. The public face of the pair.

Owns the decision; takes `now` (seconds of a monotonic clock that counts suspension: CLOCK_BOOTTIME) and reads no clock,
draws no number, sends nothing. The states and what may follow are in transitions.py, what is known and what follows
from it in knowledge.py, the datagram and what proves its freshness in heartbeat.py, the face's words in standing.py.

How the shell uses it: hand in everything that was received before `handle_timer`, all of it; after each `receive_*` and
`request_*` look at `next_timer()` and call `handle_timer(now)` when it is due (it is due at once when something was
decided); perform its decisions in their order. `receive_installed` must have been called once before anything happens.

Invariants:
1. Nobody becomes active while it knows of a live peer that is active, unless that one yields.
2. While a link or the look works in both directions, two are never active for longer than it takes to hear of each
   other: two intervals by heartbeat, `contest_seconds` and twice `claim_seconds` by the look alone.
3. Of two that both say that they are active, the greater (term, priority, name) stays; both know both, so exactly one.
   After healing exactly one is active, and no role changes again.
4. Who stood still for so long that the peer may have suspected it (its own timer tells) claims nothing before it has
   heard the peer anew or looked: what it believed is from before.
5. A restarted daemon changes no role: who finds the addresses on its own interfaces goes on, unless the peer is active.

Without heartbeats the look tells only that somebody answers, not with which term. Then the last thing heard decides: a
peer that was standby took over from us; one that was active and silent was superseded by us. When neither is known, or
the claims go on, the lesser name gives up first.
"""

from __future__ import annotations

import copy

from feedback.sync.election.heartbeat import (
    PROTOCOL,
    TERM_MAX,
    Heartbeat,
    Replica,
    ReplicaState,
    Role,
    Verdict,
    Window,
)
from feedback.sync.election.knowledge import NEVER, Knowledge
from feedback.sync.election.standing import Happening, LinkStatus, Notice, PeerStatus, Settings, Status, Transition
from feedback.sync.election.transitions import (
    AnnounceAgain,
    Decision,
    Event,
    Look,
    PrepareHandover,
    Resume,
    SendHeartbeat,
    State,
    StepDown,
    TakeOver,
    row,
)

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

TRANSITIONS_KEPT = 32


class Election:
    """One director's side. `boot` is a random number, not 0, that no other start of any director shares."""

    def __init__(self, settings: Settings, name: str, boot: int, now: float) -> None:
        if name == settings.peer:
            raise ValueError(f"both directors are called {name}: each needs a name of its own")
        if not settings.addresses:
            raise ValueError("no addresses: a pair without a VIP has nothing to take over")
        self.settings = settings
        self.name = name
        window = Window(boot, settings.fresh_seconds, settings.silence_seconds)
        self._m = Knowledge(settings, name, window, now, now, now, now, now)

    def __copy__(self) -> Election:
        """A copy that goes its own way from here: for exploration, and for "what if"."""
        twin = object.__new__(type(self))
        twin.settings, twin.name, twin._m = self.settings, self.name, copy.copy(self._m)
        twin._m.window = copy.copy(self._m.window)
        return twin

    @property
    def state(self) -> State:
        return self._m.state

    @property
    def role(self) -> Role:
        return self._m.role

    # What was received

    def receive_heartbeat(self, heartbeat: Heartbeat, link: str, now: float) -> None:
        """A decoded heartbeat. What proves nothing is counted and has no effect."""
        now = self._advance(now)
        reflected = heartbeat.boot == self._m.window.boot
        if heartbeat.version == PROTOCOL and heartbeat.name != self.settings.peer and not reflected:
            return self.receive_refused("name")
        verdict = self._m.window.receive(heartbeat, link, now)
        if verdict is Verdict.FRESH:
            return self._hear(heartbeat, now)
        if verdict is not Verdict.DUPLICATE:
            self.receive_refused(verdict.value)
        return None

    def receive_refused(self, kind: str) -> None:
        """Count a datagram that was not taken: the kind of a HeartbeatError."""
        counts = dict(self._m.refused)
        counts[kind] = counts.get(kind, 0) + 1
        self._m.refused = tuple(sorted(counts.items()))

    def receive_answer(self, address: str, mac: bytes, now: float) -> None:
        """Somebody answered a look for one of our addresses."""
        self._see(address, mac, self._advance(now), "answers for")

    def receive_claim(self, address: str, mac: bytes, now: float) -> None:
        """Somebody announced one of our addresses unasked."""
        now = self._advance(now)
        known = address in self.settings.addresses and mac in self._m.peer_macs and mac not in self._m.macs
        if known and now >= self._m.silent_at():
            self._m.heard_claim_at = now
        self._see(address, mac, now, "announces")

    def receive_reach(self, target: str, reachable: bool, now: float) -> None:
        """A reach target answered, or did not for as long as the shell waits. One that answers is enough."""
        now = self._advance(now)
        self._m.reach = _put(self._m.reach, target, reachable)
        self._weigh(now)

    def receive_interface(self, interface: str, up: bool, now: float) -> None:
        """The carrier of an interface that is to have VIPs. Each must be up."""
        now = self._advance(now)
        self._m.interfaces = _put(self._m.interfaces, interface, up)
        self._weigh(now)

    def receive_link(self, link: str, up: bool, now: float) -> None:
        """The carrier of a heartbeat link, for the status: silence is counted in heartbeats."""
        self._advance(now)
        self._m.links = _put(self._m.links, link, up)

    def receive_macs(self, macs: tuple[bytes, ...]) -> None:
        """The MACs of all our interfaces that are to have VIPs: the peer knows us by them."""
        self._m.macs = macs

    def receive_installed(self, installed: bool) -> None:
        """Whether the VIPs are on our interfaces (all of them)."""
        self._m.installed = installed

    def receive_replica(self, replica: Replica, now: float) -> None:
        """How complete our copy of the active one's connections is."""
        now = self._advance(now)
        complete = ReplicaState.COMPLETE
        if (replica.state is complete) != (self._m.replica.state is complete):
            self._m.replica_at = now
        self._m.replica = replica

    def receive_handed_over(self, now: float) -> None:
        """The last difference is sent: the peer may take over."""
        now = self._advance(now)
        if self._m.state is not State.HANDING_OVER:
            return
        against = self._m.against_handover(now, self._m.forced)
        event = Event.EXPIRED if against else Event.HANDED_OVER
        self._event(event, against or f"the last difference is sent: {self.settings.peer} may take over", now)

    # What is asked

    def request_handover(self, now: float, force: bool = False) -> str | None:
        """Hand over to the peer, or, on the standby, ask the active one to. Returns why not, or None: it is under way.
        `force` hands over to a peer that is not complete."""
        now = self._advance(now)
        if self._m.state in (State.HANDING_OVER, State.YIELDING):
            return "a handover is under way"
        if self.role is Role.ACTIVE:
            against = self._m.against_handover(now, force)
            if against is None:
                self._hand_over("requested", now, force)
            return against
        against = self._m.against_wish(now)
        if against is None:
            self._m.wish_until = now + self.settings.handover_seconds + self.settings.yield_seconds
        return against

    def next_timer(self) -> float:
        """When handle_timer is due: at once (not later than the latest `now`) when something was decided."""
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
            self._turn(now)
            self._repeat(now)
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
            heard_boot=m.window.echo_boot,
            heard_sequence=m.window.echo_sequence,
            yields=m.state is State.YIELDING,
            forced=m.state is State.YIELDING and m.forced,
            wishes=self._m.wishes(now),
            reach=self.limitation() is None,
            healthy=self._m.healthy(now),
        )

    def next_event(self) -> Happening | None:
        """The oldest transition or notice that was not taken yet."""
        if not self._m.happenings:
            return None
        first, *rest = self._m.happenings
        self._m.happenings = tuple(rest)
        return first

    def limitation(self) -> str | None:
        """Why this director could not serve, or None."""
        return self._m.limitation()

    def status(self, now: float) -> Status:
        """Everything that an operator may ask."""
        return self._m.status(max(now, self._m.clock))

    # Time

    def _advance(self, now: float) -> float:
        """Every entry's first step: time never runs backwards, and a stall is noticed before anything else is."""
        m = self._m
        now = max(now, m.clock)
        m.clock = now
        if now - m.turn_at > self.settings.silence_seconds:
            self._stall(now - m.turn_at, now)
        return now

    def _stall(self, seconds: float, now: float) -> None:
        """What was heard and sent before proves nothing now: the peer must be heard anew."""
        m = self._m
        m.turn_at = m.watch_from = m.beat_due = now
        if seconds >= self.settings.unhealthy_seconds:
            m.stalled_at = now
        m.window.forget()
        if m.state is State.STARTING:
            m.entered_at = now
        elif m.state is State.DOUBTING:
            self._look_anew(now)
        self._event(Event.STALLED, f"stood still for {seconds:.2f} s: the peer may have taken over", now)

    # Turns: what time alone brings about, in each state

    def _turn(self, now: float) -> None:
        m = self._m
        if m.state is State.STARTING:
            if now >= self._m.start_over():
                event = Event.RESTARTED if m.installed else Event.STARTED
                self._event(event, f"{self.settings.peer} was not heard in {now - m.entered_at:.2f} s", now)
        elif m.state is State.STANDBY:
            if now >= self._m.silent_at():
                self._event(Event.SILENT, self._m.silence(now), now)
        elif m.state in (State.LOOKING, State.WATCHING, State.DOUBTING):
            if now >= self._m.look_over():
                self._judge_look(now)
        elif m.state is State.ACTIVE:
            self._turn_active(now)
        else:
            self._turn_handover(now)

    def _judge_look(self, now: float) -> None:
        """The last look had its time. What was answered has been dealt with when the answer came."""
        m = self._m
        against = self.limitation()
        if m.state is State.WATCHING:
            if m.answered or against or m.announced(now):
                return self._look(now)
            return self._event(Event.MISSED, "a look went unanswered", now)
        m.missed += 1
        if m.missed >= self._m.looks() and against:
            self._event(Event.UNFIT, f"nobody answers for the addresses, but {against}", now)
        elif m.missed >= self._m.looks() and (m.state is State.LOOKING or now >= self._m.silent_at()):
            self._event(Event.UNANSWERED, self._m.vacancy(now), now)
        if m.state in (State.LOOKING, State.DOUBTING):
            self._look(now)
        return None

    def _turn_active(self, now: float) -> None:
        m, s = self._m, self.settings
        unfit = (
            self.limitation() if now - m.unreached_at >= s.unreached_seconds > 0 and m.unreached_at != NEVER else None
        )
        if now < self._m.silent_at():
            m.claimed_at = NEVER
            self._turn_wanted(unfit, now)
        elif unfit:
            self._event(Event.ISOLATED, f"{self._m.silence(now)}, and {unfit}", now)
        else:
            self._contest(now)

    def _turn_wanted(self, unfit: str | None, now: float) -> None:
        """A handover that nobody requested here: the peer wishes it, or serves where we cannot."""
        peer = self._m.peer
        if peer is None or now < self._m.hold_until or not (unfit or peer.wishes):
            return
        if self._m.against_handover(now, False) is None:
            why = f"{unfit}, and {self.settings.peer} can serve" if unfit else f"{self.settings.peer} asks for it"
            self._hand_over(why, now, False)

    def _contest(self, now: float) -> None:
        """Active without hearing the peer: look from time to time whether it answers for the addresses too."""
        m, s = self._m, self.settings
        claimed = m.claimed_at != NEVER
        if now >= m.look_at + (s.watch_seconds if claimed else s.contest_seconds):
            if not m.answered:
                m.claimed_at = NEVER
            self._look(now)

    def _turn_handover(self, now: float) -> None:
        m, s = self._m, self.settings
        limit = s.handover_seconds if m.state is State.HANDING_OVER else s.yield_seconds
        against = self._m.against_handover(now, m.forced)
        if now >= self._m.silent_at():
            self._event(Event.SILENT, f"{self._m.silence(now)}: stays active", now)
        elif against:
            self._event(Event.EXPIRED, f"{against}: stays active", now)
        elif now >= m.entered_at + limit:
            self._event(Event.EXPIRED, f"not handed over within {limit:g} s: stays active", now)

    def _repeat(self, now: float) -> None:
        """A decision that had no effect is said again: what is wanted stays wanted."""
        m = self._m
        wrong = (self.role is Role.ACTIVE and not m.installed) or (self.role is Role.STANDBY and m.installed)
        if not wrong or now - max(m.entered_at, m.repeated_at) < self.settings.repeat_seconds:
            return
        m.repeated_at = now
        if self.role is Role.ACTIVE:
            m.pending = (*m.pending, Resume("active, and the addresses are not there", m.term))
        else:
            m.pending = (*m.pending, StepDown("standby, and the addresses are still there"))

    # Meaning: which event it is

    def _hear(self, heartbeat: Heartbeat, now: float) -> None:
        m = self._m
        self._tell_version(heartbeat, now)
        event, reason = self._meaning(heartbeat, now)
        m.peer, m.peer_was, m.heard_claim_at = heartbeat, heartbeat.role, NEVER
        if heartbeat.macs:
            m.peer_macs = heartbeat.macs
        if not self._m.holds() or heartbeat.role is Role.STANDBY:
            m.term = max(m.term, heartbeat.term)
        self._event(event, reason, now)

    def _meaning(self, heartbeat: Heartbeat, now: float) -> tuple[Event, str]:
        peer = self.settings.peer
        if heartbeat.role is not Role.ACTIVE:
            if self._m.rank(now) < self._m.peer_rank(heartbeat):
                return Event.PEER_FIRST, f"{peer} is {heartbeat.role} and comes first"
            if self._m.state is State.STARTING and self._m.installed:
                return Event.RESUMES, f"the addresses are still here, and {peer} is {heartbeat.role}"
            return Event.OURS_FIRST, f"{peer} is {heartbeat.role}, and nobody is active"
        if heartbeat.yields and self._m.takes(heartbeat):
            return Event.PEER_YIELDS, f"{peer} hands over: {self._m.loss(now)}"
        mine = (self._m.term, self.settings.priority, self.name)
        theirs = (heartbeat.term, heartbeat.priority, peer)
        if self._m.holds() and mine > theirs:
            return Event.PEER_BELOW, f"{peer} is active too, with {_claim(theirs)} below {_claim(mine)}"
        return Event.PEER_ACTIVE, f"{peer} is active with {_claim(theirs)}"

    def _see(self, address: str, mac: bytes, now: float, does: str) -> None:
        m = self._m
        if address not in self.settings.addresses or mac in m.macs:
            return None
        if m.peer_macs and mac not in m.peer_macs:
            return self.receive_refused("foreign-address")
        reason = f"{mac.hex(':')} {does} {address}"
        if self.role is not Role.ACTIVE:
            if not m.answered and m.state in (State.LOOKING, State.WATCHING, State.DOUBTING):
                m.answered = True
            return self._event(Event.ANSWERED, reason, now)
        if now < self._m.silent_at():
            return None  # heartbeats tell more
        m.answered = True
        m.claimed_at = now if m.claimed_at == NEVER else m.claimed_at
        self._event(*self._displaced(reason, now), now)
        return None

    def _displaced(self, reason: str, now: float) -> tuple[Event, str]:
        m, s = self._m, self.settings
        if m.peer_was in (Role.STANDBY, Role.UNDECIDED):
            return Event.DISPLACED, f"{reason}: {s.peer} took over while no link worked"
        if now - m.claimed_at >= s.claim_seconds * (1 if self.name < s.peer else 2):
            return Event.DISPLACED, f"{reason} for {now - m.claimed_at:.2f} s and no link works: gives way"
        return Event.CONTESTED, reason

    # What follows

    def _event(self, event: Event, reason: str, now: float) -> None:
        m = self._m
        follows = row(self.name, m.state, event)
        if follows is None:
            return
        new, do = follows
        if do is AnnounceAgain:
            if now - m.announced_at >= self.settings.contest_seconds:
                m.announced_at = now
                m.pending = (*m.pending, AnnounceAgain(reason))
            return
        if do is TakeOver:
            m.term = min(max(m.term, m.peer.term if m.peer else 0) + 1, TERM_MAX)
            m.pending = (*m.pending, TakeOver(reason, m.term))
        elif do is Resume:
            m.term = max(m.term, 1)
            m.pending = (*m.pending, Resume(reason, m.term))
        elif do is StepDown:
            m.pending = (*m.pending, StepDown(reason))
        elif do is PrepareHandover:
            m.pending = (*m.pending, PrepareHandover(reason))
        self._enter(new, event, reason, now)

    def _enter(self, new: State, event: Event, reason: str, now: float) -> None:
        m = self._m
        transition = Transition(now, m.state, new, event, reason)
        m.transitions = (*m.transitions, transition)[-TRANSITIONS_KEPT:]
        self._happen(transition)
        m.state, m.reason, m.entered_at, m.beat_due = new, reason, now, now
        m.claimed_at = NEVER
        if event in (Event.DISPLACED, Event.ANSWERED):
            m.peer_was = None
        if event in (Event.EXPIRED, Event.PEER_YIELDS):
            m.hold_until = now + self.settings.hold_seconds
        if new in (State.LOOKING, State.DOUBTING):
            self._look_anew(now, missed=1 if event is Event.MISSED else 0)
        elif new is State.WATCHING and event is Event.DISPLACED:
            self._look(now)

    def _look_anew(self, now: float, missed: int = 0) -> None:
        self._m.missed = missed
        self._look(now)

    def _look(self, now: float) -> None:
        m = self._m
        m.look_at, m.answered = now, False
        m.pending = (*m.pending, Look(self.settings.addresses))

    def _hand_over(self, why: str, now: float, force: bool) -> None:
        self._m.forced = force
        self._event(Event.HANDOVER, why, now)

    def _happen(self, happening: Happening) -> None:
        self._m.happenings = (*self._m.happenings, happening)[-TRANSITIONS_KEPT:]

    def _tell_version(self, heartbeat: Heartbeat, now: float) -> None:
        if heartbeat.version != PROTOCOL:
            self.receive_refused("version")
        if heartbeat.version != self._m.told_version:
            self._m.told_version = heartbeat.version
            text = f"{self.settings.peer} speaks protocol {heartbeat.version}, this side {PROTOCOL}"
            self._happen(Notice(now, f"{text}: its replica is not known; upgrade the older one"))

    # Reasons

    def _weigh(self, now: float) -> None:
        fit = self.limitation() is None
        self._m.unreached_at = NEVER if fit else now if self._m.unreached_at == NEVER else self._m.unreached_at


def _put(facts: tuple[tuple[str, bool], ...], name: str, value: bool) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted({**dict(facts), name: value}.items()))


def _claim(claim: tuple[int, int, str]) -> str:
    return f"term {claim[0]} priority {claim[1]}"
