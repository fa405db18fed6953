"""Traffic: arrivals and their costs. Made once for a case and a seed, and the same for every policy.

Arrivals are Poisson with the case's rate; costs are lognormal (exponential where the CV is 1). With `hold_seconds`
requests come on connections that stay open. With `keep_seconds` each request has its own connection, which stays open
and idle after the answer. With `past` the connections from before the start return within the first second, as after
the loss of a director: a storm for which no law can have learned anything.

Invariant: requests are in the order of their moments; `connection` of a short request is its own number.
"""

from __future__ import annotations

from math import log, sqrt

import msgspec

from feedback.simulate.case import Case
from feedback.simulate.draw import Draw


class Held(msgspec.Struct, frozen=True):
    """A connection that stays open."""

    start: float
    end: float


class Traffic(msgspec.Struct, frozen=True):
    """Parallel lists with one entry for each request: its moment, its cost in seconds of a core, its wait (exponential
    with mean 1, to be multiplied by the server's mean), its connection, and the seconds for which its client keeps the
    connection after the answer. `held` is empty if each request has its own connection. `wait` and `keep` are empty if
    there is none."""

    at: list[float]
    cost: list[float]
    wait: list[float]
    connection: list[int]
    held: list[Held]
    keep: list[float]


def make(case: Case, draw: Draw) -> Traffic:
    return _held(case, draw) if case.hold_seconds else _short(case, draw)


def _moments(case: Case, per_second: float, draw: Draw) -> list[float]:
    """Moments of a Poisson process; `per_second` is the rate at part 1."""
    moments, ends = [], [load.at_seconds for load in case.load[1:]] + [case.seconds]
    for load, end in zip(case.load, ends, strict=True):
        rate, now, end = load.part * per_second, load.at_seconds, min(end, case.seconds)
        if rate <= 0:
            continue
        now += draw.expovariate(rate)
        while now < end:
            moments.append(now)
            now += draw.expovariate(rate)
    return moments


def _costs(case: Case, count: int, draw: Draw) -> list[float]:
    mean, cv = case.cost_seconds, case.cost_cv
    if cv == 0:
        return [mean] * count
    if cv == 1:
        return [draw.expovariate(1 / mean) for _ in range(count)]
    sigma = sqrt(log(1 + cv * cv))
    mu = log(mean) - sigma * sigma / 2
    return [draw.lognormvariate(mu, sigma) for _ in range(count)]


def _short(case: Case, draw: Draw) -> Traffic:
    at = _moments(case, case.capacity, draw)
    waits = [draw.expovariate(1.0) for _ in at] if _waits(case) else []
    costs = _costs(case, len(at), draw)
    keeps = [draw.expovariate(1 / case.keep_seconds) for _ in at] if case.keep_seconds else []
    return Traffic(at, costs, waits, [], [], keeps)


def _waits(case: Case) -> bool:
    return any(change.io_seconds for change in case.change)


def _held(case: Case, draw: Draw) -> Traffic:
    per_connection = case.requests_per_second * case.hold_seconds
    starts = _moments(case, case.capacity / per_connection, draw)
    before = round(case.load[0].part * case.capacity / case.requests_per_second) if case.past else 0
    starts = sorted([*starts, *(draw.random() for _ in range(before))])
    held = [Held(start, start + draw.expovariate(1 / case.hold_seconds)) for start in starts]
    requests = []
    for number, connection in enumerate(held):
        now = connection.start + draw.expovariate(case.requests_per_second)
        while now < min(connection.end, case.seconds):
            requests.append((now, number))
            now += draw.expovariate(case.requests_per_second)
    requests.sort()
    at = [moment for moment, _ in requests]
    waits = [draw.expovariate(1.0) for _ in at] if _waits(case) else []
    return Traffic(at, _costs(case, len(at), draw), waits, [number for _, number in requests], held, [])
