"""Asking: the probes of real servers, and their times. Pure: outcomes in, probes out.

A question is a check and its target. Each is asked once, however many services want it, and all of them use the one
answer: fifty ports of a server that share a check cost one probe. Checks are spread over the interval by a number made
from their target, the same at each start, and drift, so that thousands never fall together.

Invariant: from a fault to the verdict it takes at most `fall` times the interval, the last deadline included, where
`fall` is at least 2 and the timeout at most half of the interval. So drift only shortens an interval, and after an
outcome against the verdict the next probe goes out sooner by the timeout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import msgspec

from feedback.config.exporter import Exporter
from feedback.config.probe import AgentSource, Check
from feedback.master.claims.advice import Advice, AdviceError
from feedback.master.claims.health import Health, Outcome, Unasked, Verdict
from feedback.master.sources.reading import Unread
from feedback.model import Address, Destination, DestinationKey, Family, Forward, TunnelType, format_endpoint
from feedback.wire import Report

if TYPE_CHECKING:
    from feedback.master.claims.watch import Watch

DRIFT = 0.1  # of the interval: checks that fell together drift apart
FIRST_SECONDS = 1.0  # within this each target is asked for the first time

What: TypeAlias = Check | AgentSource | Exporter


# The result of a probe; None if an agent was silent, or if there was no memory to ask.
Result: TypeAlias = Outcome | Unasked | bytes | Report | Unread | None


class Passage(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """How a packet for a VIP reaches a real server unchanged: what the kernel looks at of a destination for it.
    `family` is the VIP's."""

    family: Family
    address: Address
    forward: Forward
    tunnel_type: TunnelType
    tunnel_port: int
    tunnel_flags: int

    @staticmethod
    def of(family: Family, to: Destination) -> Passage:
        return Passage(family, to.key.address, to.forward, to.tunnel_type, to.tunnel_port, to.tunnel_flags)


class Through(msgspec.Struct, frozen=True, cache_hash=True):
    """The way of a client's packet: to this VIP, and on by this passage."""

    vip: Address
    passage: Passage


class Target(msgspec.Struct, frozen=True, cache_hash=True):
    """The server that is asked: at its own address, or `through` a service."""

    address: Address
    port: int
    through: Through | None = None

    @property
    def connect_to(self) -> tuple[Address, int]:
        return (self.address if self.through is None else self.through.vip), self.port

    def __str__(self) -> str:
        own = format_endpoint(self.address, self.port)
        return own if self.through is None else f"{own} through {self.through.vip}"


class Probe(msgspec.Struct, frozen=True):
    """Something to ask now: the shell does, and hands back an Outcome, Unasked, a line, an exporter's Report or why it
    was Unread, or None where an agent was silent. `mark` is the firewall mark to send with, 0 for none."""

    target: Target
    what: What
    mark: int = 0


class Answered(NamedTuple):
    """How long a good answer to a check took, and when it came."""

    seconds: float
    at: float


class Subject:
    """A target of one question, and what came of it."""

    __slots__ = (
        "advice",
        "answered",
        "asked",
        "due",
        "health",
        "rounds",
        "target",
        "unasked",
        "unread",
        "weighed",
        "weighed_at",
    )

    def __init__(self, target: Target, what: What, due: float) -> None:
        self.target, self.due = target, due
        self.asked, self.rounds = False, 0
        self.unasked: Unasked | None = None  # the last time
        self.unread: Unread | None = None  # likewise
        self.answered: Answered | None = None  # the last good outcome
        self.weighed: float | None = None  # the last weight in an answer, and when it was heard
        self.weighed_at = 0.0
        self.health = Health(what.rise, what.fall) if isinstance(what, Check) else None
        self.advice = Advice() if isinstance(what, AgentSource) else None

    @property
    def verdict(self) -> Verdict:
        return self.health.verdict if self.health is not None else Verdict.UNKNOWN


class Taken(NamedTuple):
    """What a result came to: what was wrong with an agent's line, and whether a verdict changed."""

    problem: str = ""
    turned: bool = False


class Series:
    """One question, put to all its targets. It lives as long as a watch has it."""

    def __init__(self, what: What) -> None:
        self.what = what
        self._subjects: dict[Target, Subject] = {}

    def keep(self, targets: Iterable[Target], now: float) -> None:
        """These are asked from now on, and no others."""
        first, before = min(FIRST_SECONDS, self.what.interval_seconds), self._subjects
        self._subjects = {
            target: before.get(target) or Subject(target, self.what, now + first * _part(target, 0))
            for target in targets
        }

    def subject(self, target: Target) -> Subject | None:
        return self._subjects.get(target)

    def take(self, now: float) -> list[Probe]:
        """Who is due, each once, and again only when its answer is here. After a pause nobody is asked several times
        to catch up."""
        found, late = [], now - self.what.interval_seconds
        for subject in self._subjects.values():
            if subject.due < late:
                subject.due = now
            if subject.due <= now and not subject.asked:
                subject.asked = True
                found.append(Probe(subject.target, self.what))
        return found

    def put_off(self, target: Target) -> None:
        """It could not be asked yet: at the next turn."""
        subject = self._subjects.get(target)
        if subject is not None:
            subject.asked = False

    def receive(self, target: Target, result: Result, now: float) -> Taken:
        """Take what came of a probe."""
        subject = self._subjects.get(target)
        if subject is None:
            return Taken()  # asked before a reload
        before = subject.verdict
        problem = _take(subject, result, now)
        self._again(subject)
        return Taken(problem, subject.verdict is not before)

    def _again(self, subject: Subject) -> None:
        """The interval counts from when it was due, so that a slow answer does not make checks rarer."""
        subject.asked = False
        subject.rounds += 1
        if isinstance(self.what, Exporter):  # as seldom as was said
            subject.due += self.what.interval_seconds
            return
        subject.due += self.what.interval_seconds * (1 - DRIFT * _part(subject.target, subject.rounds))
        if subject.health is not None and subject.health.wavers:
            subject.due -= self.what.timeout_seconds


def _take(subject: Subject, result: Result, now: float) -> str:
    subject.unasked = result if isinstance(result, Unasked) else None
    subject.unread = result if isinstance(result, Unread) else None
    if isinstance(result, Outcome) and subject.health is not None:
        subject.health.observe(result)
        if result.good and result.seconds is not None:
            subject.answered = Answered(result.seconds, now)
        if result.weight is not None:
            subject.weighed, subject.weighed_at = result.weight, now
    elif isinstance(result, bytes) and subject.advice is not None:
        try:
            subject.advice.observe(result, now)
        except AdviceError as error:
            return str(error)
    return ""


def _part(target: Target, number: int) -> float:
    """0..1, the same for the same target and number. (A CRC is linear: it would move all of them together.)"""
    return int.from_bytes(blake2b(f"{target} {number}".encode(), digest_size=4).digest()) / 2**32


# A watch, its destinations, and how each is reached where its check goes through the service.
Wanted: TypeAlias = Sequence[tuple["Watch", tuple[DestinationKey, ...], tuple[Passage | None, ...]]]


class Asking:
    """The questions of all services, and their answers."""

    def __init__(self) -> None:
        self._series: WeakValueDictionary[What, Series] = WeakValueDictionary()
        self._wanted: Wanted = ()

    def series(self, what: What) -> Series:
        """The one of this question."""
        found = self._series.get(what)
        if found is None:
            self._series[what] = found = Series(what)
        return found

    def probes(self, wanted: Wanted, now: float) -> list[Probe]:
        """The questions for these services and their destinations."""
        if wanted != self._wanted:
            self._wanted = wanted
            self._rearrange(now)
        return [probe for series in self._series.values() for probe in series.take(now)]

    def _rearrange(self, now: float) -> None:
        for series in list(self._series.values()):
            series.keep((t for watch, keys, ways in self._wanted for t in watch.targets(series, keys, ways)), now)
        for watch, keys, ways in self._wanted:
            watch.follow(keys, ways)

    def put_off(self, probe: Probe) -> None:
        """It could not be asked yet."""
        series = self._series.get(probe.what)
        if series is not None:
            series.put_off(probe.target)

    def receive(self, probe: Probe, result: Result, now: float) -> Taken:
        """Take what came of a probe."""
        series = self._series.get(probe.what)
        return series.receive(probe.target, result, now) if series is not None else Taken()
