"""Course: what follows from an event: the next state, the decisions that come with it, and that state's looks.

Only this module writes `state`, the pending decisions and the list of what happened. turns.py and meaning.py find out
which event it is. The table is in transitions.py.
"""

from __future__ import annotations

import copy

from feedback.sync.election.heartbeat import TERM_MAX
from feedback.sync.election.knowledge import Knowledge
from feedback.sync.election.standing import NEVER, Happening, Settings, Transition
from feedback.sync.election.transitions import (
    AnnounceAgain,
    Event,
    Look,
    PrepareHandover,
    Resume,
    State,
    StepDown,
    TakeOver,
    row,
)

TRANSITIONS_KEPT = 32


class Course:
    """The course of one director. `m` is everything that it knows."""

    def __init__(self, settings: Settings, name: str, m: Knowledge) -> None:
        self.settings, self.name, self.m = settings, name, m

    def __copy__(self) -> Course:
        m = copy.copy(self.m)
        m.window = copy.copy(m.window)
        return Course(self.settings, self.name, m)

    def event(self, event: Event, reason: str, now: float) -> None:
        m = self.m
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
        m = self.m
        transition = Transition(now, m.state, new, event, reason)
        m.transitions = (*m.transitions, transition)[-TRANSITIONS_KEPT:]
        self.happen(transition)
        m.state, m.reason, m.entered_at, m.beat_due = new, reason, now, now
        m.claimed_at = NEVER
        if event in (Event.DISPLACED, Event.ANSWERED):
            m.peer_was = None
        if event in (Event.EXPIRED, Event.PEER_YIELDS):
            m.hold_until = now + self.settings.hold_seconds
        if new in (State.LOOKING, State.DOUBTING):
            self.look_anew(now, missed=1 if event is Event.MISSED else 0)
        elif new is State.WATCHING and event is Event.DISPLACED:
            self.look(now)

    def look_anew(self, now: float, missed: int = 0) -> None:
        self.m.missed = missed
        self.look(now)

    def look(self, now: float) -> None:
        m = self.m
        m.look_at, m.answered = now, False
        m.pending = (*m.pending, Look(self.settings.addresses))

    def hand_over(self, why: str, now: float, force: bool) -> None:
        self.m.forced = force
        self.event(Event.HANDOVER, why, now)

    def happen(self, happening: Happening) -> None:
        self.m.happenings = (*self.m.happenings, happening)[-TRANSITIONS_KEPT:]
