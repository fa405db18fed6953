"""Trace: what happened in a run, ready for figures. Parallel lists; seconds throughout.

`latency` is NaN for a request that was not over at the end. A failed request has the time that it took to fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import msgspec

from feedback.simulate.case import Case
from feedback.simulate.servers import Server

OK, REFUSED, SERVER_ERROR = 0, 1, 2


class Shares(msgspec.Struct, frozen=True):
    """From a moment on: the parts of the service that the servers should get, or could do. They need not sum to 1."""

    at: float
    values: tuple[float, ...]


class Second(msgspec.Struct, frozen=True):
    """The second that ends at `at`: requests sent to each server, and the part of its cores that they used."""

    at: float
    requests: tuple[int, ...]
    utilisation: tuple[float, ...]


class Trace(msgspec.Struct, frozen=True):
    """`writes` are (moment, edits)."""

    case: Case
    at: list[float]
    latency: list[float]
    outcome: bytearray
    seconds: list[Second]
    wanted: list[Shares]
    truth: list[Shares]
    writes: list[tuple[float, int]]


class TraceBuilder:
    """Filled by the world while it runs. Its inner loops write `requests` and `latency` directly."""

    def __init__(self, case: Case, at: list[float]) -> None:
        self._case, self._at = case, at
        self.latency = [nan] * len(at)
        self._outcome = bytearray(len(at))
        self.requests = [0] * len(case.servers)
        self._busy = [0.0] * len(case.servers)
        self._seconds: list[Second] = []
        self._wanted: list[Shares] = []
        self._truth: list[Shares] = []
        self._writes: list[tuple[float, int]] = []

    def failed(self, number: int, now: float, outcome: int) -> None:
        self.latency[number] = now - self._at[number]
        self._outcome[number] = outcome

    def second(self, now: float, servers: Sequence[Server]) -> None:
        used = []
        for index, server in enumerate(servers):
            server.advance(now)
            busy = server.busy_seconds
            used.append(max(0.0, busy - self._busy[index]) / server.cores)
            self._busy[index] = busy
        self._seconds.append(Second(now, tuple(self.requests), tuple(used)))
        self.requests[:] = [0] * len(servers)

    def truth(self, now: float, capacities: Sequence[float]) -> None:
        if self._truth and self._truth[-1].at == now:
            self._truth.pop()
        self._truth.append(Shares(now, tuple(capacities)))

    def decided(self, now: float, shares: Sequence[float] | None, edits: int) -> None:
        if shares is not None:
            self._wanted.append(Shares(now, tuple(shares)))
        if edits:
            self._writes.append((now, edits))

    def finish(self) -> Trace:
        return Trace(
            self._case,
            self._at,
            self.latency,
            self._outcome,
            self._seconds,
            self._wanted,
            self._truth,
            self._writes,
        )
