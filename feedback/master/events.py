"""Events: what happened, numbered, the newest kept; and what changed from one decision to the next. Pure.

Owns the numbers and the words of the kinds, which people's hooks rely on. Invariant: numbers grow by one; who asks
since a number gets every later event, or is told how many are gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from feedback.master.controller import Decision
from feedback.master.fleet import Trust
from feedback.master.line import ServiceStatus, Status

SCHEMA = 1
KEPT = 2000

KINDS = (
    "started",
    "role",
    "reloaded",
    "reload-failed",
    "weight-changed",
    "foreign-edit",
    "ejected",
    "readmitted",
    "barred",
    "unbarred",
    "held",
    "released",
    "agent-heard",
    "agent-lost",
    "agent-back",
    "order-given",
    "order-lifted",
    "order-expired",
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

    def since(self, number: int, stream: str = "") -> dict[str, Any]:
        """Those after `number`, which was of `stream`; all where that is another one."""
        if stream not in ("", self._stream) or not 0 <= number <= self._last:
            number = 0
        found = [e for e in self._events if e["number"] > number]
        gone = self._last - number - len(found)
        return {"schema": SCHEMA, "stream": self._stream, "last": self._last, "gone": gone, "events": found}


Change = tuple[str, dict[str, Any]]


class Watcher:
    """What changed from one decision to the next. The first decision is no change."""

    def __init__(self) -> None:
        self._agents: dict[str, Trust] = {}
        self._out: dict[tuple[str, str], tuple[str, str]] = {}
        self._held: dict[str, str] = {}
        self._seen: set[str] = set()

    def observe(self, decision: Decision) -> list[Change]:
        return [c for s in decision.services for c in self._service(s)]

    def _service(self, status: ServiceStatus) -> Iterator[Change]:
        name = str(status.service.key)
        known, before = name in self._seen, self._held.get(name, "")
        self._seen.add(name)
        self._held[name] = status.held
        if known and bool(before) != bool(status.held):
            yield ("held", {"service": name, "reason": status.held}) if status.held else ("released", {"service": name})
        for destination in status.destinations:
            yield from self._agent(destination)
            yield from self._standing(name, destination, known)

    def _agent(self, status: Status) -> Iterator[Change]:
        """One agent may stand behind several destinations: it is told once."""
        address, trust = str(status.member.key.address), status.member.trust
        before = self._agents.get(address)
        if trust is Trust.STALE:
            return  # between the two: it is not lost yet
        self._agents[address] = trust
        if before is None or before is trust:
            return
        if trust is Trust.LOST:
            yield "agent-lost", {"address": address, "age_seconds": round(status.member.age_seconds or 0.0, 1)}
        elif trust is Trust.FRESH:
            yield "agent-heard" if before is Trust.NEVER else "agent-back", {"address": address}

    def _standing(self, service: str, status: Status, known: bool) -> Iterator[Change]:
        key = service, str(status.member.key)
        before, now = self._out.get(key, ("", "")), _out(status)
        self._out[key] = now
        if not known or before[0] == now[0]:
            return
        where = {"service": service, "destination": key[1]}
        if before[0]:
            yield {"ejected": "readmitted", "barred": "unbarred"}[before[0]], where
        if now[0]:
            yield now[0], where | {"reason": now[1]}


def _out(status: Status) -> tuple[str, str]:
    """Whether it is kept out by its failures or by its checks, and the words for it."""
    if status.member.barred:
        return "barred", status.member.barred
    if status.member.quiesced:
        return "", ""
    zero = next((r for r in status.setting.reasons if r.stage == "guard" and r.value == 0), None)
    return ("ejected", zero.text) if zero is not None else ("", "")
