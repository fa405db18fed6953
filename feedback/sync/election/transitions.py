"""The states of a director, what may happen in each, and what follows: one literal table.

This module owns the table and the terms of the election: states, events, decisions. It knows no time and no peer;
meaning.py and turns.py say which event occurred, and course.py follows the table. A pair (state, event) has a row, or
is in IGNORED because the event says nothing new in that state. Any other pair is a defect: it raises an error with the
director's name, its state and the event (as h11 does: https://github.com/python-hyper/h11/blob/master/h11/_state.py).

    STARTING      has heard nobody yet; claims nothing
    STANDBY       hears the peer
    LOOKING       the peer is silent, or it says that nobody is active and we come first: asks once more, by ARP or
                  neighbour solicitation, whether anybody answers for the addresses
    WATCHING      somebody answers (the data path works), or this director is not fit: takes nothing and looks again
    ACTIVE        has the addresses
    HANDING_OVER  active, while the shell sends the last difference
    YIELDING      active, and asks the peer to take over now; keeps the addresses until the peer has done so
    DOUBTING      has the addresses, but stalled or lost all contact: claims nothing until it knows that nobody took
                  over

Every transition into ACTIVE carries a TakeOver or a Resume. Every transition that gives up the addresses, to STANDBY or
WATCHING, carries a StepDown. A decision names the wanted state, never a change, so performing it twice is harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

import msgspec

from feedback.sync.election.heartbeat import Role


class State(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"
    LOOKING = "looking"
    WATCHING = "watching"
    ACTIVE = "active"
    HANDING_OVER = "handing-over"
    YIELDING = "yielding"
    DOUBTING = "doubting"


class Event(StrEnum):
    STARTED = "started"  # the start-up time is over and nobody was heard
    RESTARTED = "restarted"  # the same, and the addresses are on our interfaces
    PEER_ACTIVE = "peer-active"  # the peer says that it is active, and its claim is above ours
    PEER_BELOW = "peer-below"  # the peer says that it is active, and our claim is above its
    PEER_YIELDS = "peer-yields"  # the peer is active and wants us to take over now
    PEER_FIRST = "peer-first"  # nobody is active and the peer comes first
    OURS_FIRST = "ours-first"  # nobody is active and we come first
    RESUMES = "resumes"  # the same, just after our start, with the addresses still on our interfaces
    SILENT = "silent"  # no fresh heartbeat on any link for so long that the peer is suspected
    ANSWERED = "answered"  # somebody else answers for the addresses
    MISSED = "missed"  # one look went unanswered while watching
    UNANSWERED = "unanswered"  # enough looks went unanswered, and this director is fit
    UNFIT = "unfit"  # the same, but this director could not serve
    DISPLACED = "displaced"  # we are active, but the peer took the addresses while no link worked
    CONTESTED = "contested"  # we are active; the peer also answers, but we superseded it
    STALLED = "stalled"  # our own loop stood still for so long that the peer may have suspected us
    ISOLATED = "isolated"  # we are active, but no link works and no target is reached
    HANDOVER = "handover"  # a handover is wanted, and nothing prevents it
    HANDED_OVER = "handed-over"  # the last difference is sent
    EXPIRED = "expired"  # the handover was not complete in time, or something prevents it now


class TakeOver(msgspec.Struct, frozen=True):
    """Be active: add the addresses, announce them, serve. `term` is the claim's number."""

    reason: str
    term: int


class Resume(msgspec.Struct, frozen=True):
    """Be active as before: nobody else was active in between. Addresses that exist stay; missing ones are added."""

    reason: str
    term: int


class StepDown(msgspec.Struct, frozen=True):
    """Be standby: remove the addresses, at once."""

    reason: str


class PrepareHandover(msgspec.Struct, frozen=True):
    """Stay active, send the peer the last difference, then call `receive_handed_over`."""

    reason: str


class Look(msgspec.Struct, frozen=True):
    """Ask on the service interfaces who has these addresses; each answer goes to `receive_answer`."""

    addresses: tuple[str, ...]


class AnnounceAgain(msgspec.Struct, frozen=True):
    """Stay active and announce the addresses once more, since somebody else announced them."""

    reason: str


class SendHeartbeat(msgspec.Struct, frozen=True):
    """Send `election.heartbeat(now)`, encoded once, over every link."""


Decision: TypeAlias = TakeOver | Resume | StepDown | PrepareHandover | Look | AnnounceAgain | SendHeartbeat


class TransitionError(RuntimeError):
    """A defect of the election: it raised an event that cannot happen in its state."""


Do: TypeAlias = type[TakeOver] | type[Resume] | type[StepDown] | type[PrepareHandover] | type[AnnounceAgain] | None

_S, _E = State, Event

TABLE: Mapping[tuple[State, Event], tuple[State, Do]] = {
    (_S.STARTING, _E.STARTED): (_S.LOOKING, None),
    (_S.STARTING, _E.RESTARTED): (_S.DOUBTING, None),
    (_S.STARTING, _E.PEER_ACTIVE): (_S.STANDBY, StepDown),
    (_S.STARTING, _E.PEER_FIRST): (_S.STANDBY, StepDown),
    (_S.STARTING, _E.OURS_FIRST): (_S.LOOKING, None),
    (_S.STARTING, _E.RESUMES): (_S.ACTIVE, Resume),
    #
    (_S.STANDBY, _E.SILENT): (_S.LOOKING, None),
    (_S.STANDBY, _E.OURS_FIRST): (_S.LOOKING, None),
    (_S.STANDBY, _E.PEER_YIELDS): (_S.ACTIVE, TakeOver),
    #
    (_S.LOOKING, _E.PEER_ACTIVE): (_S.STANDBY, None),
    (_S.LOOKING, _E.PEER_FIRST): (_S.STANDBY, None),
    (_S.LOOKING, _E.PEER_YIELDS): (_S.ACTIVE, TakeOver),
    (_S.LOOKING, _E.ANSWERED): (_S.WATCHING, None),
    (_S.LOOKING, _E.UNFIT): (_S.WATCHING, None),
    (_S.LOOKING, _E.UNANSWERED): (_S.ACTIVE, TakeOver),
    (_S.LOOKING, _E.STALLED): (_S.STANDBY, None),
    #
    (_S.WATCHING, _E.PEER_ACTIVE): (_S.STANDBY, None),
    (_S.WATCHING, _E.PEER_FIRST): (_S.STANDBY, None),
    (_S.WATCHING, _E.PEER_YIELDS): (_S.ACTIVE, TakeOver),
    (_S.WATCHING, _E.MISSED): (_S.LOOKING, None),
    (_S.WATCHING, _E.STALLED): (_S.STANDBY, None),
    #
    (_S.ACTIVE, _E.PEER_ACTIVE): (_S.STANDBY, StepDown),
    (_S.ACTIVE, _E.PEER_BELOW): (_S.ACTIVE, AnnounceAgain),
    (_S.ACTIVE, _E.CONTESTED): (_S.ACTIVE, AnnounceAgain),
    (_S.ACTIVE, _E.DISPLACED): (_S.WATCHING, StepDown),
    (_S.ACTIVE, _E.STALLED): (_S.DOUBTING, None),
    (_S.ACTIVE, _E.ISOLATED): (_S.DOUBTING, None),
    (_S.ACTIVE, _E.HANDOVER): (_S.HANDING_OVER, PrepareHandover),
    #
    (_S.HANDING_OVER, _E.PEER_ACTIVE): (_S.STANDBY, StepDown),
    (_S.HANDING_OVER, _E.PEER_BELOW): (_S.ACTIVE, Resume),
    (_S.HANDING_OVER, _E.SILENT): (_S.ACTIVE, Resume),
    (_S.HANDING_OVER, _E.EXPIRED): (_S.ACTIVE, Resume),
    (_S.HANDING_OVER, _E.HANDED_OVER): (_S.YIELDING, None),
    (_S.HANDING_OVER, _E.STALLED): (_S.DOUBTING, None),
    #
    (_S.YIELDING, _E.PEER_ACTIVE): (_S.STANDBY, StepDown),
    (_S.YIELDING, _E.PEER_BELOW): (_S.STANDBY, StepDown),
    (_S.YIELDING, _E.SILENT): (_S.ACTIVE, Resume),
    (_S.YIELDING, _E.EXPIRED): (_S.ACTIVE, Resume),
    (_S.YIELDING, _E.STALLED): (_S.DOUBTING, None),
    #
    (_S.DOUBTING, _E.PEER_ACTIVE): (_S.STANDBY, StepDown),
    (_S.DOUBTING, _E.PEER_BELOW): (_S.STANDBY, StepDown),
    (_S.DOUBTING, _E.PEER_FIRST): (_S.STANDBY, StepDown),
    (_S.DOUBTING, _E.OURS_FIRST): (_S.ACTIVE, Resume),
    (_S.DOUBTING, _E.ANSWERED): (_S.WATCHING, StepDown),
    (_S.DOUBTING, _E.UNANSWERED): (_S.ACTIVE, Resume),
}

_PEER_IS_STANDBY = frozenset({_E.PEER_FIRST, _E.OURS_FIRST})

IGNORED: Mapping[State, frozenset[Event]] = {
    _S.STARTING: frozenset({_E.ANSWERED, _E.STALLED}),
    _S.STANDBY: frozenset({_E.PEER_ACTIVE, _E.PEER_FIRST, _E.ANSWERED, _E.STALLED}),
    _S.LOOKING: frozenset({_E.OURS_FIRST, _E.SILENT}),
    _S.WATCHING: frozenset({_E.OURS_FIRST, _E.SILENT, _E.ANSWERED, _E.UNFIT}),
    _S.ACTIVE: frozenset({_E.PEER_YIELDS, _E.SILENT}) | _PEER_IS_STANDBY,
    _S.HANDING_OVER: frozenset({_E.CONTESTED, _E.DISPLACED}) | _PEER_IS_STANDBY,
    _S.YIELDING: frozenset({_E.CONTESTED, _E.DISPLACED}) | _PEER_IS_STANDBY,
    _S.DOUBTING: frozenset({_E.SILENT, _E.UNFIT, _E.STALLED}),
}

ROLES: Mapping[State, Role] = {
    _S.STARTING: Role.UNDECIDED,
    _S.STANDBY: Role.STANDBY,
    _S.LOOKING: Role.STANDBY,
    _S.WATCHING: Role.STANDBY,
    _S.ACTIVE: Role.ACTIVE,
    _S.HANDING_OVER: Role.ACTIVE,
    _S.YIELDING: Role.ACTIVE,
    _S.DOUBTING: Role.UNDECIDED,
}


def row(name: str, state: State, event: Event) -> tuple[State, Do] | None:
    """The next state and what to do, or None if the event says nothing new. Raises TransitionError."""
    if event in IGNORED[state]:
        return None
    try:
        return TABLE[state, event]
    except KeyError:
        raise TransitionError(f"director {name}: {event} cannot happen in state {state}") from None
