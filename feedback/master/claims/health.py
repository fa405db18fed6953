"""Health: whether the service of each destination answers, by the director's own checks. Pure: outcomes in, bars out.

Owns rise and fall, and when which destination is asked. The first outcome decides at once; after that it takes `rise`
good ones or `fall` bad ones in a row to change. Checks are spread over the interval by a number made from their key,
the same at each start, and drift by a tenth, so that thousands never fall together.

A healthy agent and a healthy service are two things: either can keep a server out, neither can bring it in.
Source: keepalived's checkers and HAProxy's `rise` and `fall`.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

import msgspec

from feedback.config.probe import AgentSource, Check
from feedback.master.claims.advice import Advice, AdviceError
from feedback.master.outcome import By, Zero
from feedback.master.servers.fleet import Trust
from feedback.model import DestinationKey, ServiceKey

DRIFT = 0.1  # of the interval
FIRST_SECONDS = 1.0  # within this each destination is asked for the first time

NOT_CHECKED = Zero(By.CHECK, "not checked yet")


class Verdict(StrEnum):
    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


class Outcome(msgspec.Struct, frozen=True):
    """Of one check: `text` says what was seen, for people."""

    good: bool
    text: str


class Checked(msgspec.Struct, frozen=True):
    """How a health check stands, for people: `up` is None before the first outcome."""

    up: bool | None
    text: str


class Health:
    """One destination's."""

    __slots__ = ("_rise_fall", "_row", "last", "verdict")

    def __init__(self, rise: int, fall: int) -> None:
        self._rise_fall = {True: rise, False: fall}
        self._row = 0  # outcomes in a row that speak against the verdict
        self.verdict = Verdict.UNKNOWN
        self.last: Outcome | None = None

    def observe(self, outcome: Outcome) -> None:
        self.last = outcome
        new = Verdict.UP if outcome.good else Verdict.DOWN
        self._row = 0 if new is self.verdict else self._row + 1
        if self.verdict is Verdict.UNKNOWN or self._row >= self._rise_fall[outcome.good]:
            self.verdict, self._row = new, 0


class Probe(msgspec.Struct, frozen=True):
    """Something to ask now: the shell does, and hands back an Outcome, a line, or None where an agent was silent."""

    service: ServiceKey
    destination: DestinationKey
    what: Check | AgentSource


class Schedule:
    """When each destination is due. Each is asked again only after `done`."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval = interval_seconds
        self._keys: tuple[DestinationKey, ...] = ()
        self._due: dict[DestinationKey, float] = {}
        self._rounds: dict[DestinationKey, int] = {}
        self._asked: set[DestinationKey] = set()

    def take(self, keys: tuple[DestinationKey, ...], now: float) -> list[DestinationKey]:
        """Who is due, each once."""
        if keys != self._keys:
            self._keys = keys
            first = min(FIRST_SECONDS, self._interval)
            self._due = {k: self._due[k] if k in self._due else now + first * _part(k, 0) for k in keys}
            self._asked &= self._due.keys()
        due = [k for k, at in self._due.items() if at <= now and k not in self._asked]
        self._asked.update(due)
        return due

    def done(self, key: DestinationKey) -> None:
        """The interval counts from when it was due, so that a slow answer does not make checks rarer."""
        self._asked.discard(key)
        if key in self._due:
            self._rounds[key] = number = self._rounds.get(key, 0) + 1
            self._due[key] += self._interval * (1 + DRIFT * (2 * _part(key, number) - 1))

    def late(self, now: float) -> None:
        """After a pause nobody is asked several times to catch up."""
        self._due = {k: now if at < now - self._interval else at for k, at in self._due.items()}


def _part(key: DestinationKey, number: int) -> float:
    """0..1, the same for the same key and number. (A CRC is linear: it would move all keys together.)"""
    return int.from_bytes(blake2b(f"{key} {number}".encode(), digest_size=4).digest()) / 2**32


class Watch:
    """What is asked about the destinations of one service, and what came of it."""

    def __init__(self, service: ServiceKey, check: Check | None, source: AgentSource | None) -> None:
        self._service = service
        self._check, self._source = check, source
        self._keys: tuple[DestinationKey, ...] = ()
        self._health: dict[DestinationKey, Health] = {}
        self._advice: dict[DestinationKey, Advice] = {}
        self._schedules: list[tuple[Check | AgentSource, Schedule]] = [
            (what, Schedule(what.interval_seconds)) for what in (check, source) if what is not None
        ]

    def probes(self, keys: tuple[DestinationKey, ...], now: float) -> list[Probe]:
        """What to ask now."""
        if not self._schedules:
            return []
        if keys != self._keys:
            self._keys, there = keys, set(keys)
            self._health = {k: v for k, v in self._health.items() if k in there}
            self._advice = {k: v for k, v in self._advice.items() if k in there}
        found = []
        for what, schedule in self._schedules:
            schedule.late(now)
            found += [Probe(self._service, key, what) for key in schedule.take(keys, now)]
        return found

    def receive(self, probe: Probe, result: Outcome | bytes | None, now: float) -> str:
        """Take what came of a probe. Returns what was wrong with an agent's line, or ''."""
        schedule = next((s for what, s in self._schedules if what == probe.what), None)
        if schedule is None:
            return ""  # asked before a reload
        schedule.done(probe.destination)
        if isinstance(result, Outcome) and self._check is not None:
            fresh = Health(self._check.rise, self._check.fall)
            self._health.setdefault(probe.destination, fresh).observe(result)
        elif isinstance(result, bytes):
            try:
                self._advice.setdefault(probe.destination, Advice()).observe(result, now)
            except AdviceError as error:
                return str(error)
        return ""

    def checked(self, key: DestinationKey) -> Checked | None:
        """None where nothing is checked."""
        if self._check is None:
            return None
        health = self._health.get(key)
        if health is None or health.last is None:
            return Checked(None, "not checked yet")
        return Checked(health.verdict is Verdict.UP, health.last.text)

    def advice(self, key: DestinationKey) -> Advice | None:
        """What its agent said, if it ever did."""
        found = self._advice.get(key)
        return found if found is not None and found.heard else None

    @property
    def idle(self) -> bool:
        """Whether nothing is asked at all."""
        return not self._schedules

    def barred(self, key: DestinationKey, serves: bool) -> Zero | None:
        """Why it must get nothing. Before the first outcome who serves goes on, and who does not waits."""
        health, advice = self._health.get(key), self._advice.get(key)
        if self._check is not None and not (health and health.last):
            return None if serves else NOT_CHECKED
        if health is not None and health.last is not None and health.verdict is Verdict.DOWN:
            failed = not health.last.good
            return Zero(By.CHECK, f"check fails: {health.last.text}" if failed else "check failed, and is not back yet")
        said = advice.bar() if advice is not None else ""
        return Zero(By.ADVICE, said) if said else None

    def trust(self, key: DestinationKey, now: float, stale: float, lost: float) -> tuple[Trust, float | None]:
        """How far the agent's last word can be trusted, and its age: a failure to connect makes it old, no more."""
        advice = self.advice(key)
        if advice is None or self._source is None:
            return Trust.NEVER, None
        age = max(0.0, now - advice.heard_at)
        patience = max(stale, 3 * self._source.interval_seconds)
        if age <= patience:
            return Trust.FRESH, age
        return (Trust.STALE if age <= max(lost, patience) else Trust.LOST), age
