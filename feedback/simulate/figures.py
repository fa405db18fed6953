"""Figures from a trace, alone or relative to the oracle's. Pure; input in seconds, output in milliseconds where the
name says so.

A request that was not over at the end counts with the time that it had waited by then, if that is more than the
time-out; otherwise it is left out. Bad seconds are compared by the second in which a request was sent.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import compress
from math import ceil, inf, isnan, isqrt, nan
from statistics import pstdev
from typing import NamedTuple

from feedback.simulate.trace import OK, REFUSED, Second, Shares, Trace

TAIL_SECONDS = 20.0
CLOSE = 0.10
HOLDS_SECONDS = 0.5
BAD = 2.0
SAMPLED = 64  # every so manieth value


class Counted(NamedTuple):
    """Parallel lists: the requests that count, in the order in which they were sent."""

    at: Sequence[float]
    latency: Sequence[float]
    outcome: Sequence[int]


class Reference(NamedTuple):
    """What other runs are compared with: the second in which requests were sent -> their mean latency; how much the
    shares oscillate."""

    means: Mapping[int, float]
    oscillation: float


def reference(oracle: Trace) -> Reference:
    return Reference(means_by_second(over(oracle, oracle.case.measure_from_seconds)), oscillation(oracle.seconds))


def figures(trace: Trace, oracle: Reference | None) -> dict[str, float]:
    """All figures of a run. Those relative to the oracle exist only if one is given."""
    start = trace.case.measure_from_seconds
    counted = over(trace, start)
    latencies = counted.latency
    p50, p99, p999 = percentiles(latencies, (0.5, 0.99, 0.999))
    found = {"p50_ms": 1000 * p50, "p99_ms": 1000 * p99, "p999_ms": 1000 * p999, "mean_ms": 1000 * _mean(latencies)}
    found |= error_shares(counted, trace.case.timeout_seconds)
    found["converge_s"] = converge_seconds(trace)
    found["writes_a_minute"] = writes_a_minute(trace, start, trace.case.seconds)
    found["writes_a_minute_at_rest"] = writes_a_minute(trace, trace.case.seconds - TAIL_SECONDS / 2, trace.case.seconds)
    found["peak_utilisation"] = peak_utilisation(trace, start)
    if oracle is not None:
        found["bad_seconds"] = float(bad_seconds(means_by_second(counted), oracle.means))
        found["oscillation"] = oscillation(trace.seconds) - oracle.oscillation
    return found


def over(trace: Trace, start: float) -> Counted:
    """The requests from `start` on that count."""
    first = bisect_left(trace.at, start)
    at, latency, outcome = trace.at[first:], trace.latency[first:], trace.outcome[first:]
    unfinished = list(compress(range(len(at)), map(isnan, latency)))
    if not unfinished:
        return Counted(at, latency, outcome)
    counts = bytearray(b"\1") * len(at)
    for i in unfinished:
        latency[i] = trace.case.seconds - at[i]
        counts[i] = latency[i] > trace.case.timeout_seconds
    return Counted(list(compress(at, counts)), list(compress(latency, counts)), bytes(compress(outcome, counts)))


def percentiles(values: Sequence[float], parts: Sequence[float]) -> list[float]:
    """Nearest ranks, as in the sorted sequence; NaN if it is empty. `parts` rise. A sample says where each is, so that
    only what is near it must be sorted."""
    if not values:
        return [nan] * len(parts)
    sample = sorted(values[::SAMPLED])
    slack = 2 * isqrt(len(sample))  # four standard deviations of the median's place in the sample
    found, rest = [], values
    for part in parts:
        rank = max(0, ceil(part * len(values)) - 1)
        place = rank // SAMPLED
        low = sample[place - slack] if place >= slack else -inf
        high = sample[place + slack] if place + slack < len(sample) else inf
        rest = [v for v in rest if v >= low]
        near = sorted([v for v in rest if v <= high])
        at = rank - (len(values) - len(rest))
        if not 0 <= at < len(near):  # the sample was not like the rest
            near, at = sorted(values), rank
        found.append(near[at])
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def error_shares(counted: Counted, timeout_seconds: float) -> dict[str, float]:
    """Parts of the requests: refused at the director, answered with an error or not at all, answered too late."""
    count = len(counted.at) or 1
    refused = counted.outcome.count(REFUSED)
    failed = len(counted.at) - refused - counted.outcome.count(OK)
    late = 0
    if max(counted.latency, default=0.0) > timeout_seconds:
        latencies = zip(counted.latency, counted.outcome, strict=True)
        late = sum(outcome == OK and latency > timeout_seconds for latency, outcome in latencies)
    return {
        "errors": (refused + failed + late) / count,
        "refused": refused / count,
        "server_errors": failed / count,
        "timeouts": late / count,
    }


def means_by_second(counted: Counted) -> dict[int, float]:
    """The second in which requests were sent -> their mean latency."""
    means: dict[int, float] = {}
    begin = 0
    while begin < len(counted.at):
        second = int(counted.at[begin])
        end = bisect_left(counted.at, second + 1, begin)
        means[second] = _mean(counted.latency[begin:end])
        begin = end
    return means


def bad_seconds(means: Mapping[int, float], best: Mapping[int, float]) -> int:
    """Seconds whose mean latency is over twice the oracle's in the same second."""
    return sum(mean > BAD * best.get(second, inf) for second, mean in means.items())


def converge_seconds(trace: Trace) -> float:
    """The time from the case's event until every share is within 10 % of the true one and stays there for half a
    second. NaN for a policy that reports no shares."""
    if not trace.wanted:
        return nan
    since = inf
    for wanted in trace.wanted:
        if wanted.at < trace.case.event_seconds:
            continue
        if not close(wanted.values, _true(trace.truth, wanted.at)):
            since = inf
        elif since == inf:
            since = wanted.at
        if wanted.at - since >= HOLDS_SECONDS:
            return since - trace.case.event_seconds
    return inf


def close(values: Sequence[float], truth: Sequence[float]) -> bool:
    """Each part of the sum within 10 % of the true part."""
    total, whole = sum(values), sum(truth)
    if total <= 0 or whole <= 0:
        return False
    return all(abs(v / total - t / whole) <= CLOSE * t / whole + 1e-9 for v, t in zip(values, truth, strict=True))


def _true(truth: Sequence[Shares], at: float) -> Sequence[float]:
    return next((t.values for t in reversed(truth) if t.at <= at), ())


def writes_a_minute(trace: Trace, start: float, end: float) -> float:
    return 60 * sum(edits for at, edits in trace.writes if start <= at < end) / max(1e-9, end - start)


def oscillation(seconds: Sequence[Second]) -> float:
    """The share of requests that a server gets in each of the last 20 seconds: the largest standard deviation of any
    server."""
    last = [s for s in seconds if s.at > seconds[-1].at - TAIL_SECONDS] if seconds else []
    shares = [[n / (sum(s.requests) or 1) for n in s.requests] for s in last]
    return max((pstdev(column) for column in zip(*shares, strict=True)), default=0.0) if len(shares) > 1 else 0.0


def peak_utilisation(trace: Trace, start: float) -> float:
    """The utilisation of the busiest server over the pool's mean, as a mean over the seconds. 1 is even."""
    cores = [s.cores for s in trace.case.servers]
    ratios = []
    for second in trace.seconds:
        mean = sum(u * c for u, c in zip(second.utilisation, cores, strict=True)) / sum(cores)
        if second.at > start and mean > 0:
            ratios.append(max(second.utilisation) / mean)
    return _mean(ratios)
