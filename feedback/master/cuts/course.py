"""Course: the cut of one destination as the pipeline sees it, from the first suspicion to the end. Pure.

    LISTING   its flows are read from the kernel's table: once it has left, nobody knows them any more
    CUTTING   it leaves the table in this very decision, and its clients are told
    OVER      all of them that can be told have been; of an evicted one, the kernel has forgotten them, too

| from | by | to |
|---|---|---|
| nothing | its check fails for the first time, or it must leave the table | LISTING |
| LISTING | its check passes again | nothing |
| LISTING | it must leave, and its flows are listed, or LIST_SECONDS are over | CUTTING |
| CUTTING | the shell says what became of the flows, or CUT_SECONDS are over | OVER |
| OVER | it may be in the table again; an evicted one may at once | nothing |

A destination leaves because its check fails (`gone`, which claims say), or because it is evicted: it lives, its flows
must end, and it comes back once they are forgotten. Added before that, it would have them again.

Invariants: a destination waits in the table for its list at most LIST_SECONDS; an evicted one is out for at most
CUT_SECONDS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

import msgspec

from feedback.config import OnFailure
from feedback.master.cuts.plan import Summary
from feedback.master.outcome import By, Fact, Zero
from feedback.master.pool import Row
from feedback.model import Destination, DestinationKey, ServiceKey

LIST_SECONDS = 0.3  # a table of 30,000 connections takes so long
CUT_SECONDS = 15.0  # more than a plan and the kernel's forgetting take: the shell is stuck, or has ended


class Stage(StrEnum):
    LISTING = "listing"
    CUTTING = "cutting"
    OVER = "over"


class Do(StrEnum):
    """What the shell must do."""

    LIST = "list"
    CUT = "cut"
    FORGET = "forget"  # the list is not needed
    SOME = "some"  # end the flows of some clients, of one that stays in the table


class Cut(msgspec.Struct, frozen=True):
    """An action for the shell. `both`: the server is to hear of the end too. `back`: it comes back, so it is over only
    once the kernel has forgotten the flows. `clients`: whose flows, of SOME."""

    do: Do
    service: ServiceKey
    destination: Destination
    both: bool = False
    back: bool = False
    clients: IPv4Network | IPv6Network | None = None

    @property
    def place(self) -> tuple[ServiceKey, DestinationKey]:
        return self.service, self.destination.key


class Told(msgspec.Struct, frozen=True):
    """The shell reports that the flows are listed (`summary` is None), or what happened to them."""

    service: ServiceKey
    destination: DestinationKey
    flows: int
    summary: Summary | None = None


class Evicted(msgspec.Struct, frozen=True):
    """Why one that lives must leave the table. `patient`: until it may, it serves as it did."""

    why: Fact
    both: bool
    patient: bool


@dataclass(slots=True, eq=False)
class Course:
    """`leaving_at`: since when it must leave; `left_at`: since when it is out; `listed`: how many flows were."""

    stage: Stage = Stage.LISTING
    leaving_at: float | None = None
    left_at: float = 0.0
    listed: int | None = None

    def receive(self, told: Told) -> None:
        if told.summary is not None:
            self.stage = Stage.OVER
        else:
            self.listed = told.flows

    def may_leave(self, now: float) -> bool:
        if self.leaving_at is None:
            self.leaving_at = now
        return self.listed is not None or now - self.leaving_at >= LIST_SECONDS


def finish(rows: Iterable[Row], now: float) -> None:
    """Whose eviction is over may be in the table again. Before anything else: it may be the only one that serves."""
    for row in rows:
        course = row.cut
        if course is not None and course.stage is Stage.CUTTING and now - course.left_at > CUT_SECONDS:
            course.stage = Stage.OVER
        if row.evicted is None:
            continue
        faster = row.kernel is None and (course is None or course.stage is Stage.LISTING)  # somebody else was
        if faster or (course is not None and course.stage is Stage.OVER):
            row.evicted = None
            row.gone = row.gone and row.absence is not None  # which claims have judged in this turn


def turn(service: ServiceKey, rows: Iterable[Row], now: float) -> list[Cut]:
    """What the shell must do after this decision. A row that must leave and whose flows are not listed yet stays for
    this turn (`gone` is taken back)."""
    actions: list[Cut] = []
    for row in rows:
        course = row.cut
        if row.evicted is None and course is None and row.on_failure is not OnFailure.CUT:
            continue
        leaves = row.gone or row.evicted is not None
        if course is None and row.kernel is not None and (leaves or row.wavers):
            course = row.cut = Course()
            actions.append(Cut(Do.LIST, service, row.kernel.destination))
        if course is None:
            continue
        if leaves:
            actions += _leave(service, row, course, now)
        elif course.stage is Stage.OVER or not row.wavers:
            row.cut = None
            actions.append(Cut(Do.FORGET, service, row.base))
    return actions


def _leave(service: ServiceKey, row: Row, course: Course, now: float) -> list[Cut]:
    evicted = row.evicted
    if course.stage is not Stage.LISTING or row.kernel is None:
        _out(row)
        return []
    if not course.may_leave(now):
        row.gone = False
        if evicted is not None and evicted.patient:
            row.zero = None
        elif evicted is not None and row.zero is None:
            row.zero = Zero(By.ORDER, evicted.why)
        return []
    course.stage, course.left_at = Stage.CUTTING, now
    _out(row)
    back = evicted is not None
    return [Cut(Do.CUT, service, row.kernel.destination, evicted is not None and evicted.both, back)]


def _out(row: Row) -> None:
    row.gone = True
    if row.evicted is not None and row.zero is None:
        row.zero = Zero(By.ORDER, row.evicted.why)
