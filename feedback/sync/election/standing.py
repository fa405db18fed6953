"""Input and output of the election: settings, events, status. Plain types, no rules."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec

from feedback.sync.election.heartbeat import Heard, Replica, Role
from feedback.sync.election.transitions import State

NEVER = float("-inf")
Positive = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`peer` is the other director's name, `addresses` the VIPs, in text, as `Look` asks for them.

    The time from death to decision is `suspect_intervals` intervals, then `looks` looks of `look_seconds`: 0.13 s, and
    0.03 s more where timers come 10 ms late.

    `watch_seconds`: between looks while somebody answers. `contest_seconds`: between looks of an active director that
    does not hear its peer. `claim_seconds`: how long that one defends its addresses against a director that it
    superseded. `start_seconds`: how long a director without the addresses waits for a peer. `resume_seconds`: how long
    one with the addresses waits. `fresh_seconds`: how old a heartbeat may be. `handover_seconds`: the time for the last
    difference. `yield_seconds`: the time for the peer to take over. `hold_seconds`: between handovers that nobody
    requested. `unhealthy_seconds`: a director that stood still for so long says so for a second, and nobody hands over
    to it meanwhile. `unreached_seconds`: how long the reach targets must be silent before a handover. `repeat_seconds`:
    after this time a decision that had no effect is repeated."""

    peer: str
    addresses: tuple[str, ...]
    priority: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 100
    interval_seconds: Positive = 0.03
    suspect_intervals: Annotated[int, msgspec.Meta(ge=2, le=100)] = 3
    look_seconds: Positive = 0.02
    looks: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    watch_seconds: Positive = 0.05
    contest_seconds: Positive = 0.3
    claim_seconds: Positive = 0.2
    announced_seconds: Positive = 35.0
    start_seconds: Positive = 3.0
    resume_seconds: Positive = 0.3
    fresh_seconds: Positive = 0.5
    handover_seconds: Positive = 2.0
    yield_seconds: Positive = 0.5
    hold_seconds: Positive = 10.0
    unreached_seconds: Positive = 0.5
    unhealthy_seconds: Positive = 0.5
    repeat_seconds: Positive = 1.0
    fail_back: bool = False
    fail_back_seconds: Positive = 60.0

    @property
    def silence_seconds(self) -> float:
        return self.suspect_intervals * self.interval_seconds


class Transition(msgspec.Struct, frozen=True):
    at: float
    old: State
    new: State
    event: StrEnum  # an Event, or the cause of engine.py
    reason: str


class Notice(msgspec.Struct, frozen=True):
    """Something that the operator should be told once."""

    at: float
    text: str


Happening: TypeAlias = Transition | Notice


class LinkStatus(msgspec.Struct, frozen=True):
    """`age_seconds` is the time since the last proven heartbeat over this link; None if there was none."""

    link: str
    age_seconds: float | None


def links_of(heard: Iterable[Heard], now: float) -> tuple[LinkStatus, ...]:
    """The links, sorted by name."""
    return tuple(LinkStatus(h.link, None if h.at == NEVER else now - h.at) for h in sorted(heard, key=lambda h: h.link))


class PeerStatus(msgspec.Struct, frozen=True):
    """The peer as of its last fresh heartbeat, `age_seconds` ago. `alive`: not silent."""

    name: str
    alive: bool
    age_seconds: float
    role: Role
    term: int
    priority: int
    replica: Replica
    installed: bool
    reach: bool
    healthy: bool
    version: int


class Status(msgspec.Struct, frozen=True):
    """`limitation` says why this director would not take over if the peer died now, `handover_limitation` why it would
    not hand over now. None if nothing prevents it."""

    name: str
    state: State
    role: Role
    reason: str
    for_seconds: float
    term: int
    installed: bool | None
    replica: Replica
    peer: PeerStatus | None
    links: tuple[LinkStatus, ...]
    unreached: tuple[str, ...]
    limitation: str | None
    handover_limitation: str | None
    refused: tuple[tuple[str, int], ...]
    transitions: tuple[Transition, ...]
