"""From a trace to figures, alone or against the oracle's. Pure; seconds in, milliseconds out where the name says so.

A request that was not over at the end counts with the time that it had waited by then, if that is more than the
time-out; otherwise it is left out. Bad seconds compare by the second in which a request was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, isnan, nan
from statistics import pstdev

from feedback.simulate.trace import OK, REFUSED, Second, Shares, Trace

TAIL_SECONDS = 20.0
CLOSE = 0.10
HOLDS_SECONDS = 0.5
BAD = 2.0


def figures(trace: Trace, oracle: Trace | None) -> dict[str, float]:
    """All figures of a run; those against the oracle only with one."""
    start = trace.case.measure_from_seconds
    latencies = sorted(latency for _, latency, _ in over(trace, start))
    found = {f"p{name}_ms": 1000 * percentile(latencies, part) for name, part in (("50", 0.5), ("99", 0.99))}
    found |= {"p999_ms": 1000 * percentile(latencies, 0.999), "mean_ms": 1000 * _mean(latencies)}
    found |= error_shares(trace, start)
    found["converge_s"] = converge_seconds(trace)
    found["writes_a_minute"] = writes_a_minute(trace, start, trace.case.seconds)
    found["writes_a_minute_at_rest"] = writes_a_minute(trace, trace.case.seconds - TAIL_SECONDS / 2, trace.case.seconds)
    found["peak_utilisation"] = peak_utilisation(trace, start)
    swings = oscillation(trace.seconds)
    if oracle is not None:
        found["bad_seconds"] = float(bad_seconds(trace, oracle, start))
        found["oscillation"] = swings - oscillation(oracle.seconds)
    return found


def over(trace: Trace, start: float) -> list[tuple[float, float, int]]:
    """(sent at, latency, outcome) of the requests from `start` on that count."""
    end, timeout = trace.case.seconds, trace.case.timeout_seconds
    rows = []
    for at, latency, outcome in zip(trace.at, trace.latency, trace.outcome, strict=True):
        if at < start:
            continue
        if isnan(latency):
            latency = end - at
            if latency <= timeout:
                continue
        rows.append((at, latency, outcome))
    return rows


def percentile(ordered: Sequence[float], part: float) -> float:
    """Nearest rank of a sorted sequence. NaN of nothing."""
    return ordered[max(0, ceil(part * len(ordered)) - 1)] if ordered else float("nan")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def error_shares(trace: Trace, start: float) -> dict[str, float]:
    """Parts of the requests: refused at the director, answered with an error or not at all, answered too late."""
    rows = over(trace, start)
    count = len(rows) or 1
    refused = sum(outcome == REFUSED for _, _, outcome in rows)
    failed = sum(outcome not in (OK, REFUSED) for _, _, outcome in rows)
    late = sum(outcome == OK and latency > trace.case.timeout_seconds for _, latency, outcome in rows)
    return {
        "errors": (refused + failed + late) / count,
        "refused": refused / count,
        "server_errors": failed / count,
        "timeouts": late / count,
    }


def means_by_second(trace: Trace, start: float) -> dict[int, float]:
    """Second in which it was sent -> mean latency."""
    sums: dict[int, tuple[float, int]] = {}
    for at, latency, _ in over(trace, start):
        total, count = sums.get(int(at), (0.0, 0))
        sums[int(at)] = (total + latency, count + 1)
    return {second: total / count for second, (total, count) in sums.items()}


def bad_seconds(trace: Trace, oracle: Trace, start: float) -> int:
    """Seconds whose mean latency is over twice the oracle's in the same second."""
    best = means_by_second(oracle, start)
    return sum(mean > BAD * best.get(second, inf) for second, mean in means_by_second(trace, start).items())


def converge_seconds(trace: Trace) -> float:
    """From the case's event until every share is within 10 % of the true one, and stays so for half a second. NaN for
    a policy that tells no shares."""
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
    """The largest standard deviation, over the servers, of the share of requests by the second, in the last 20."""
    last = [s for s in seconds if s.at > seconds[-1].at - TAIL_SECONDS] if seconds else []
    shares = [[n / (sum(s.requests) or 1) for n in s.requests] for s in last]
    return max((pstdev(column) for column in zip(*shares, strict=True)), default=0.0) if len(shares) > 1 else 0.0


def peak_utilisation(trace: Trace, start: float) -> float:
    """Mean over the seconds of: the most used server's utilisation over the pool's mean. 1 is even."""
    cores = [s.cores for s in trace.case.servers]
    ratios = []
    for second in trace.seconds:
        mean = sum(u * c for u, c in zip(second.utilisation, cores, strict=True)) / sum(cores)
        if second.at > start and mean > 0:
            ratios.append(max(second.utilisation) / mean)
    return _mean(ratios)
