"""Meaning: which event a heartbeat, or an answer for one of our addresses, stands for.

This module compares the other director's claim with ours. A heartbeat that comes here has proved its freshness
(heartbeat.py). course.py decides what follows.
"""

from __future__ import annotations

from feedback.sync.election.course import Course
from feedback.sync.election.heartbeat import PROTOCOL, Heartbeat, Role
from feedback.sync.election.standing import NEVER, Notice
from feedback.sync.election.transitions import Event, State


def hear(course: Course, heartbeat: Heartbeat, now: float) -> None:
    """Take a fresh heartbeat."""
    m = course.m
    _tell_version(course, heartbeat, now)
    event, reason = of_heartbeat(course, heartbeat, now)
    m.peer, m.peer_was, m.heard_claim_at = heartbeat, heartbeat.role, NEVER
    if heartbeat.macs:
        m.peer_macs = heartbeat.macs
    if not m.holds() or heartbeat.role is Role.STANDBY:
        m.term = max(m.term, heartbeat.term)
    course.event(event, reason, now)


def of_heartbeat(course: Course, heartbeat: Heartbeat, now: float) -> tuple[Event, str]:
    peer = course.settings.peer
    if heartbeat.role is not Role.ACTIVE:
        if course.m.rank(now) < course.m.peer_rank(heartbeat):
            return Event.PEER_FIRST, f"{peer} is {heartbeat.role} and comes first"
        if course.m.state is State.STARTING and course.m.installed:
            return Event.RESUMES, f"the addresses are still here, and {peer} is {heartbeat.role}"
        return Event.OURS_FIRST, f"{peer} is {heartbeat.role}, and nobody is active"
    if heartbeat.yields and course.m.takes(heartbeat):
        return Event.PEER_YIELDS, f"{peer} hands over: {course.m.loss(now)}"
    mine = (course.m.term, course.settings.priority, course.name)
    theirs = (heartbeat.term, heartbeat.priority, peer)
    if course.m.holds() and mine > theirs:
        return Event.PEER_BELOW, f"{peer} is active too, with {_claim(theirs)} below {_claim(mine)}"
    return Event.PEER_ACTIVE, f"{peer} is active with {_claim(theirs)}"


def see(course: Course, address: str, mac: bytes, now: float, does: str) -> None:
    """Take an answer or an announcement for one of our addresses."""
    m = course.m
    if address not in course.settings.addresses or mac in m.macs:
        return None
    if m.peer_macs and mac not in m.peer_macs:
        return m.refuse("foreign-address")
    reason = f"{mac.hex(':')} {does} {address}"
    if m.role is not Role.ACTIVE:
        if not m.answered and m.state in (State.LOOKING, State.WATCHING, State.DOUBTING):
            m.answered = True
        return course.event(Event.ANSWERED, reason, now)
    if now < m.silent_at():
        return None  # heartbeats tell more
    m.answered = True
    m.claimed_at = now if m.claimed_at == NEVER else m.claimed_at
    course.event(*of_contest(course, reason, now), now)
    return None


def of_contest(course: Course, reason: str, now: float) -> tuple[Event, str]:
    """Somebody answers for our addresses while we are active and no link works."""
    m, s = course.m, course.settings
    if m.peer_was in (Role.STANDBY, Role.UNDECIDED):
        return Event.DISPLACED, f"{reason}: {s.peer} took over while no link worked"
    if now - m.claimed_at >= s.claim_seconds * (1 if course.name < s.peer else 2):
        return Event.DISPLACED, f"{reason} for {now - m.claimed_at:.2f} s and no link works: gives way"
    return Event.CONTESTED, reason


def _tell_version(course: Course, heartbeat: Heartbeat, now: float) -> None:
    if heartbeat.version != PROTOCOL:
        course.m.refuse("version")
    if heartbeat.version != course.m.told_version:
        course.m.told_version = heartbeat.version
        text = f"{course.settings.peer} speaks protocol {heartbeat.version}, this side {PROTOCOL}"
        course.happen(Notice(now, f"{text}: its replica is unknown; upgrade the older director"))


def _claim(claim: tuple[int, int, str]) -> str:
    return f"term {claim[0]} priority {claim[1]}"
