"""Turns: what the passing of time triggers in each state, and decisions repeated because they had no effect.

This module decides when a look is over, when silence counts, and when a handover has taken too long. course.py decides
what follows.
"""

from __future__ import annotations

from feedback.sync.election.course import Course
from feedback.sync.election.heartbeat import Role
from feedback.sync.election.standing import NEVER
from feedback.sync.election.transitions import Event, Resume, State, StepDown


def turn(course: Course, now: float) -> None:
    m = course.m
    if m.state is State.STARTING:
        if now >= m.start_over():
            event = Event.RESTARTED if m.installed else Event.STARTED
            course.event(event, f"{course.settings.peer} was not heard in {now - m.entered_at:.2f} s", now)
    elif m.state is State.STANDBY:
        if now >= m.silent_at():
            course.event(Event.SILENT, m.silence(now), now)
    elif m.state in (State.LOOKING, State.WATCHING, State.DOUBTING):
        if now >= m.look_over():
            _judge_look(course, now)
    elif m.state is State.ACTIVE:
        _turn_active(course, now)
    else:
        _turn_handover(course, now)


def _judge_look(course: Course, now: float) -> None:
    """The time of the last look is over. An answer was handled when it came."""
    m = course.m
    against = m.limitation()
    if m.state is State.WATCHING:
        if m.answered or against or m.announced(now):
            return course.look(now)
        return course.event(Event.MISSED, "a look went unanswered", now)
    m.missed += 1
    if m.missed >= m.looks() and against:
        course.event(Event.UNFIT, f"nobody answers for the addresses, but {against}", now)
    elif m.missed >= m.looks() and (m.state is State.LOOKING or now >= m.silent_at()):
        course.event(Event.UNANSWERED, m.vacancy(now), now)
    if m.state in (State.LOOKING, State.DOUBTING):
        course.look(now)
    return None


def _turn_active(course: Course, now: float) -> None:
    m, s = course.m, course.settings
    unfit = m.limitation() if now - m.unreached_at >= s.unreached_seconds > 0 and m.unreached_at != NEVER else None
    if now < m.silent_at():
        m.claimed_at = NEVER
        _turn_wanted(course, unfit, now)
    elif unfit:
        course.event(Event.ISOLATED, f"{m.silence(now)}, and {unfit}", now)
    else:
        _contest(course, now)


def _turn_wanted(course: Course, unfit: str | None, now: float) -> None:
    """Start a handover that was not requested here, if the peer wishes it or can serve while we cannot."""
    peer = course.m.peer
    if peer is None or now < course.m.hold_until or not (unfit or peer.wishes):
        return
    if course.m.against_handover(now, False) is None:
        why = f"{unfit}, and {course.settings.peer} can serve" if unfit else f"{course.settings.peer} asks for it"
        course.hand_over(why, now, False)


def _contest(course: Course, now: float) -> None:
    """While active without hearing the peer: look from time to time whether it answers for the addresses too."""
    m, s = course.m, course.settings
    claimed = m.claimed_at != NEVER
    if now >= m.look_at + (s.watch_seconds if claimed else s.contest_seconds):
        if not m.answered:
            m.claimed_at = NEVER
        course.look(now)


def _turn_handover(course: Course, now: float) -> None:
    m, s = course.m, course.settings
    limit = s.handover_seconds if m.state is State.HANDING_OVER else s.yield_seconds
    against = m.against_handover(now, m.forced)
    if now >= m.silent_at():
        course.event(Event.SILENT, f"{m.silence(now)}: stays active", now)
    elif against:
        course.event(Event.EXPIRED, f"{against}: stays active", now)
    elif now >= m.entered_at + limit:
        course.event(Event.EXPIRED, f"not handed over within {limit:g} s: stays active", now)


def repeat(course: Course, now: float) -> None:
    """Repeat a decision that had no effect."""
    m = course.m
    wrong = (m.role is Role.ACTIVE and not m.installed) or (m.role is Role.STANDBY and m.installed)
    if not wrong or now - max(m.entered_at, m.repeated_at) < course.settings.repeat_seconds:
        return
    m.repeated_at = now
    if m.role is Role.ACTIVE:
        m.pending = (*m.pending, Resume("active, and the addresses are not there", m.term))
    else:
        m.pending = (*m.pending, StepDown("standby, and the addresses are still there"))
