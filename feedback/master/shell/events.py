"""Events: numbered, the newest kept; and the changes from one decision to the next. Pure.

Owns the numbers and the names of the kinds, which users' hooks rely on. Invariant: numbers grow by one; a reader that
asks since a number gets every later event, or is told how many are gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from feedback.master.account import ServiceStatus
from feedback.master.bounds.eject import Ejected
from feedback.master.controller import Decision
from feedback.master.outcome import By, Out, Status
from feedback.master.servers.fleet import Source, Trust
from feedback.model import Address, DestinationKey, ServiceKey

SCHEMA = 1
KEPT = 2000

KINDS = (
    "started",
    "role",
    "reloaded",
    "reload-failed",
    "service-left",
    "service-removed",
    "weight-changed",
    "foreign-edit",
    "ejected",
    "readmitted",
    "barred",
    "unbarred",
    "check-warning",
    "removed",
    "returned",
    "stands-in",
    "relieved",
    "cut",
    "promoted",
    "held",
    "released",
    "agent-heard",
    "agent-lost",
    "agent-back",
    "exporter-heard",
    "exporter-lost",
    "exporter-back",
    "order-given",
    "order-lifted",
    "order-expired",
    "steered",
    "steer-mended",
    "steer-removal",
)


class Ring:
    """`stream` names this series of numbers: another one begins at each start of the daemon."""

    def __init__(self, stream: str, kept: int = KEPT) -> None:
        self._stream = stream
        self._events: deque[dict[str, Any]] = deque(maxlen=kept)
        self._last = 0

    def add(self, kind: str, wall: float, fields: dict[str, Any]) -> None:
        """`wall` in seconds since 1970. Raises ValueError for a kind that has no word here."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of event")
        self._last += 1
        self._events.append({"number": self._last, "at": round(wall, 3), "kind": kind} | fields)

    def all(self) -> tuple[dict[str, Any], ...]:
        """Those that are kept, the oldest first; none of them changes any more."""
        return tuple(self._events)

    def since(self, number: int, stream: str = "") -> dict[str, Any]:
        """Those after `number`, which was of `stream`; all where that is another one."""
        if stream not in ("", self._stream) or not 0 <= number <= self._last:
            number = 0
        found = [e for e in self._events if e["number"] > number]
        gone = self._last - number - len(found)
        return {"schema": SCHEMA, "stream": self._stream, "last": self._last, "gone": gone, "events": found}


Change = tuple[str, dict[str, Any]]


class Standing(StrEnum):
    """Whether a destination is kept out, and by what: an event each when that begins and ends. A lost agent is told as
    such."""

    IN = ""
    EJECTED = "ejected"
    BARRED = "barred"
    STANDBY = "relieved"  # a stand-in that is not needed


ENDS = {Standing.EJECTED: "readmitted", Standing.BARRED: "unbarred", Standing.STANDBY: "stands-in"}


class Watcher:
    """What changed from one decision to the next. The first decision is no change."""

    def __init__(self) -> None:
        self._agents: dict[Address, Trust] = {}  # by RIP, as last told
        self._known: dict[ServiceKey, dict[DestinationKey, tuple[Trust, Standing, bool]]] = {}
        self._held: dict[ServiceKey, str] = {}
        self._warnings: set[tuple[Address, str]] = set()
        self._holders: dict[ServiceKey, DestinationKey | None] = {}

    def observe(self, decision: Decision) -> list[Change]:
        return [c for s in decision.services for c in self._service(s)] + self._warned(decision)

    def _warned(self, decision: Decision) -> list[Change]:
        """What checks warn of, once for a real server however many services it is in."""
        before = self._warnings
        self._warnings = {warning for service in decision.services for warning in service.warnings}
        new = sorted(self._warnings - before, key=str)
        return [("check-warning", {"address": str(address), "reason": text}) for address, text in new]

    def _service(self, of: ServiceStatus) -> Iterator[Change]:
        key = of.service.key
        known, before = self._known.get(key), self._held.get(key, "")
        self._held[key] = of.held
        if known is not None and bool(before) != bool(of.held):
            yield ("held", {"service": str(key), "reason": of.held}) if of.held else ("released", {"service": str(key)})
        first, known = known is None, known or {}
        holder, self._holders[key] = self._holders.get(key), of.holder
        if not first and of.holder is not None and holder is not None and of.holder != holder:
            yield "promoted", {"service": str(key), "destination": str(of.holder), "instead_of": str(holder)}
        self._known[key] = known
        for destination in of.news:
            now = destination.trust, _standing(destination), destination.gone
            was = known.get(destination.key)
            if was is not None and was[0] is now[0] and was[1] is now[1] and was[2] is now[2]:
                continue
            known[destination.key] = now
            if was is None or was[0] is not now[0]:
                yield from self._agent(destination)
            if not first:
                yield from _moved(destination, Standing.IN if was is None else was[1], now[1])
                if destination.gone != (was is not None and was[2]):
                    yield _left_or_returned(destination)
        if len(known) > len(of):
            there = {d.key for d in of.destinations}
            self._known[key] = {k: v for k, v in known.items() if k in there}

    def _agent(self, of: Status) -> Iterator[Change]:
        """One agent may stand behind several destinations: it is told once."""
        address, trust = of.key.address, of.trust
        before = self._agents.get(address)
        if trust is Trust.STALE:
            return  # between the two: it is not lost yet
        self._agents[address] = trust
        if before is None or before is trust:
            return
        if of.source is Source.HEADER:
            return  # its check tells
        who = "exporter" if of.source is Source.EXPORTER else "agent"
        if trust is Trust.LOST:
            yield f"{who}-lost", {"address": str(address), "age_seconds": round(of.age_seconds or 0.0, 1)}
        elif trust is Trust.FRESH:
            yield f"{who}-heard" if before is Trust.NEVER else f"{who}-back", {"address": str(address)}


def _standing(of: Status) -> Standing:
    if of.zero is not None:
        if of.zero.by is By.STAND_IN:
            return Standing.STANDBY
        return Standing.BARRED if of.zero.barred else Standing.IN
    return Standing.EJECTED if of.out is Out.EJECTED else Standing.IN


def _moved(of: Status, before: Standing, now: Standing) -> Iterator[Change]:
    if before is now:
        return
    where = {"service": str(of.service), "destination": str(of.key)}
    if before is not Standing.IN and not (before is Standing.STANDBY and of.zero is not None):
        yield ENDS[before], where
    if now in (Standing.BARRED, Standing.STANDBY) and of.zero is not None:
        yield str(now), where | {"reason": str(of.zero.why)}
    elif now is Standing.EJECTED:
        why = next((str(step.fact) for step in of.steps if isinstance(step.fact, Ejected)), "")
        yield str(now), where | {"reason": why}


def _left_or_returned(of: Status) -> Change:
    where = {"service": str(of.service), "destination": str(of.key)}
    if not of.gone:
        return "returned", where
    there = of.kernel
    flows = {"active": there.active, "inactive": there.inactive} if there is not None else {}
    return "removed", where | flows | {"reason": str(of.zero.why) if of.zero is not None else ""}
