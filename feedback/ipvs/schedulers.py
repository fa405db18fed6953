"""The kernel's schedulers as plain choices over a list of destinations: which one gets the next connection.

Each is faithful to its kernel source down to ties (the head of the list wins) and cursors. The list is in the kernel's
order, in which a new destination is put at the head. An overloaded destination is skipped by all of them, and so is one
of weight 0. Knows nothing of services, edits or time. Not here: sh, mh, lblc, lblcr, twos, which hash or draw lots.
Source: net/netfilter/ipvs/ip_vs_{rr,wrr,lc,wlc,sed,nq,fo,ovf}.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import Generic, Protocol, TypeVar


class Candidate(Protocol):
    """What a scheduler looks at. Candidates are told apart by identity."""

    @property
    def weight(self) -> int: ...
    @property
    def active(self) -> int: ...
    @property
    def inactive(self) -> int: ...
    @property
    def overloaded(self) -> bool: ...


C = TypeVar("C", bound=Candidate)


class Scheduler(Generic[C]):
    """One service's scheduler with its state. The base has none and is told of changes in vain."""

    def choose(self, candidates: Sequence[C]) -> C | None:
        """The destination of the next connection; None refuses it. The caller counts the connection afterwards."""
        raise NotImplementedError

    def changed(self, candidates: Sequence[C]) -> None:
        """A destination was added, removed or set."""

    def removing(self, candidates: Sequence[C], leaving: C) -> None:
        """`leaving` is about to be removed from `candidates`."""


def usable(candidate: Candidate) -> bool:
    return candidate.weight > 0 and not candidate.overloaded


class _RoundRobin(Scheduler[C]):
    """The usable one after the last; the cursor stays on what it chose, and steps back if that is removed."""

    def __init__(self) -> None:
        self._last: C | None = None  # None: the head of the list itself

    def choose(self, candidates: Sequence[C]) -> C | None:
        start = _after(candidates, self._last)
        for candidate in (*candidates[start:], *candidates[:start]):
            if usable(candidate):
                self._last = candidate
                return candidate
        return None

    def removing(self, candidates: Sequence[C], leaving: C) -> None:
        if leaving is self._last:
            at = _after(candidates, leaving) - 1
            self._last = candidates[at - 1] if at > 0 else None


class _WeightedRoundRobin(Scheduler[C]):
    """Passes over the list, each for a lower weight: from the maximum down in steps of the greatest common divisor.

    Every change, also a SET_DEST that changes nothing, puts the cursor back to the head: a weight written before each
    connection sends them all to one server.
    """

    def __init__(self) -> None:
        self._last: C | None = None
        self._place = 0  # of `_last`, as long as it is there
        self._step, self._maximum, self._current = 1, 0, 0

    def changed(self, candidates: Sequence[C]) -> None:
        weights = [candidate.weight for candidate in candidates if candidate.weight > 0]
        self._last = None
        self._step = gcd(*weights) or 1
        # The last pass is for a weight of 1, so the first one is for this and not for the maximum.
        self._maximum = max(weights, default=0) - (self._step - 1)
        if self._current > self._maximum or not self._current:
            self._current = self._maximum
        elif self._step > 1:
            self._current = self._current // self._step * self._step + 1

    def choose(self, candidates: Sequence[C]) -> C | None:
        if self._maximum == 0:
            return None
        began, position = self._last, self._position(candidates)
        stop: C | None = None
        last_pass = restarted = False
        while True:
            for place in range(position, len(candidates)):
                candidate = candidates[place]
                if not candidate.overloaded and candidate.weight >= self._current:
                    self._last, self._place = candidate, place
                    return candidate
                if stop is not None and candidate is stop:
                    self._last = candidate
                    return None
            position = 0
            self._current -= self._step
            if self._current <= 0:
                self._current = self._maximum
                if last_pass or began is None:
                    self._last = None
                    return None
                restarted = True
            last_pass = self._current <= self._step
            if last_pass and restarted:
                stop = began  # the first pass for a weight of 1 saw only those behind `began`: now those up to it

    def _position(self, candidates: Sequence[C]) -> int:
        if self._place < len(candidates) and candidates[self._place] is self._last:
            return self._place + 1
        return _after(candidates, self._last)


class _Least(Scheduler[C]):
    """The first of the least cost over weight, compared by products as the kernel does: no rounding."""

    def __init__(self, cost: Callable[[Candidate], int], *, weighted: bool = True, idle_first: bool = False) -> None:
        self._cost = cost
        self._weighted = weighted
        self._idle_first = idle_first

    def choose(self, candidates: Sequence[C]) -> C | None:
        least: C | None = None
        for candidate in candidates:
            if not usable(candidate):
                continue
            if self._idle_first and candidate.active == 0:
                return candidate
            if least is None or self._less(candidate, least):
                least = candidate
        return least

    def _less(self, one: C, other: C) -> bool:
        if not self._weighted:
            return self._cost(one) < self._cost(other)
        return self._cost(one) * other.weight < self._cost(other) * one.weight


class _Failover(Scheduler[C]):
    """The highest weight; with `overflow` only while its active connections are at most its weight: it admits one
    more than its weight."""

    def __init__(self, *, overflow: bool = False) -> None:
        self._overflow = overflow

    def choose(self, candidates: Sequence[C]) -> C | None:
        highest: C | None = None
        for candidate in candidates:
            if not usable(candidate) or (self._overflow and candidate.active > candidate.weight):
                continue
            if highest is None or candidate.weight > highest.weight:
                highest = candidate
        return highest


def _overhead(candidate: Candidate) -> int:
    return candidate.active * 256 + candidate.inactive


def _shortest_delay(candidate: Candidate) -> int:
    return candidate.active + 1


MODELLED = frozenset({"rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"})


def make(name: str) -> Scheduler[C]:
    """A fresh scheduler. Raises KeyError if it is not modelled."""
    made: dict[str, Callable[[], Scheduler[C]]] = {
        "rr": _RoundRobin,
        "wrr": _WeightedRoundRobin,
        "lc": lambda: _Least(_overhead, weighted=False),
        "wlc": lambda: _Least(_overhead),
        "sed": lambda: _Least(_shortest_delay),
        "nq": lambda: _Least(_shortest_delay, idle_first=True),
        "fo": _Failover,
        "ovf": lambda: _Failover(overflow=True),
    }
    return made[name]()


def _after(candidates: Sequence[C], last: C | None) -> int:
    """Where the one after `last` stands; the head of the list if `last` is the head or is gone."""
    for index, candidate in enumerate(candidates):
        if candidate is last:
            return index + 1
    return 0
