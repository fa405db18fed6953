"""Figures from records and samples. Pure; input in seconds, output in milliseconds where the name says so.

Moments are of the guest's CLOCK_MONOTONIC. A window is half open: from <= moment < to.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from feedback.lab.samples import Sample
from feedback.lab.workload.records import Record

Window = tuple[float, float]
Figures = dict[str, float]


def percentile(values: Sequence[float], fraction: float) -> float:
    """Nearest rank: the least value that at least this fraction does not exceed. NaN if there is none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def within(records: Iterable[Record], windows: Iterable[Window]) -> list[Record]:
    """The requests whose intended moment lies in one of the windows."""
    spans = tuple(windows)
    return [record for record in records if any(start <= record.intended < end for start, end in spans)]


def percentile_ms(records: Iterable[Record], fraction: float) -> float:
    """The percentile over all requests. Failed ones count with the time that they took to fail: leaving them out would
    reward failing."""
    return 1000 * percentile([record.latency_seconds for record in records], fraction)


def errors(records: Iterable[Record]) -> int:
    return sum(not record.ok for record in records)


def shifted(records: Iterable[Record], seconds: float) -> list[Record]:
    """The same on another run's clock."""
    return [record._replace(intended=record.intended + seconds) for record in records]


def refused(records: Iterable[Record]) -> int:
    """Connections that nobody accepted: every destination was at its threshold or at 0, or nobody listened on the
    port."""
    return sum(record.status == -errno.ECONNREFUSED for record in records)


def served(records: Iterable[Record]) -> list[Record]:
    """All but the refused: what was let in must be served in time; what was not has a figure of its own."""
    return [record for record in records if record.status != -errno.ECONNREFUSED]


def share(records: Sequence[Record], server: int) -> float:
    """The part of the answered requests that one server answered. NaN if there are none."""
    answered = [record.server for record in records if record.server]
    return answered.count(server) / len(answered) if answered else math.nan


def peak_share(records: Sequence[Record], server: int, start: float, end: float, width: float, step: float) -> float:
    """The largest share in any window of `width` seconds that lies in start..end, tried every `step`."""
    peak = 0.0
    for i in range(max(0, math.floor((end - start - width) / step)) + 1):
        opened = start + i * step
        found = share(within(records, [(opened, opened + width)]), server)
        peak = max(peak, 0.0 if math.isnan(found) else found)
    return peak


def worst_ratio(
    records: Sequence[Record], others: Sequence[Record], start: float, end: float, width: float, step: float
) -> float:
    """The largest ratio of the p99 of `records` to that of `others` in the same window of `width` seconds, tried every
    `step`. `others` are on the same clock. NaN if there is no window."""
    worst = math.nan
    for i in range(max(0, math.floor((end - start - width) / step)) + 1):
        window = (start + i * step, start + i * step + width)
        found = ratio(percentile_ms(within(records, [window]), 0.99), percentile_ms(within(others, [window]), 0.99))
        worst = found if math.isnan(worst) else max(worst, found)
    return worst


def recovered_at(records: Iterable[Record], start: float, end: float, limit_seconds: float, part: float) -> float:
    """The first moment from `start` on, after which at most this part of the requests of each second until `end` was
    refused, failed or slower than the limit. Infinity if the last second still is."""
    seconds: dict[int, list[bool]] = {}
    for record in within(records, [(start, end)]):
        bad = not record.ok or record.latency_seconds > limit_seconds
        seconds.setdefault(int(record.intended - start), []).append(bad)
    late = [second for second, bads in seconds.items() if sum(bads) > part * len(bads)]
    if not late:
        return start
    return start + max(late) + 1 if max(late) + 1 < int(end - start) else math.inf


def close_to(weights: Sequence[int], truth: Sequence[float], tolerance: float) -> bool:
    """Whether each weight's part of the sum is within `tolerance`, relative, of the true one's."""
    total, total_truth = sum(weights), sum(truth)
    if total <= 0 or min(weights) < 0:
        return False
    return all(
        abs(w / total - t / total_truth) <= tolerance * t / total_truth for w, t in zip(weights, truth, strict=True)
    )


def converged_at(samples: Sequence[Sample], truth: Sequence[float], tolerance: float, hold_seconds: float) -> float:
    """The first moment from which the weights were close to the truth for `hold_seconds`, or infinity. Passing through
    does not count."""
    since = math.inf
    for sample in samples:
        if not close_to(sample.weights, truth, tolerance):
            since = math.inf
            continue
        since = min(since, sample.at)
        if sample.at - since >= hold_seconds:
            return since
    return math.inf


def fell_at(samples: Sequence[Sample], index: int, start: float, fraction: float) -> float:
    """The first moment from `start` on at which the weight's share of the sum is below `fraction` of what it was at
    `start`, or infinity."""
    before = [sample for sample in samples if sample.at <= start]
    if not before:
        return math.inf
    reference = _part(before[-1], index)
    after = (sample.at for sample in samples if sample.at > start and _part(sample, index) < fraction * reference)
    return next(after, math.inf)


def _part(sample: Sample, index: int) -> float:
    total = sum(weight for weight in sample.weights if weight > 0)
    return sample.weights[index] / total if total else 0.0


def utilisation(samples: Sequence[Sample], index: int, quota: float) -> list[tuple[float, float]]:
    """(moment, part of the quota used) between each sample and the next."""
    pairs = pairwise(samples)
    return [(b.at, (b.usage[index] - a.usage[index]) / max(b.at - a.at, 1e-6) / quota) for a, b in pairs]


def idle_share(samples: Sequence[Sample]) -> float:
    """The part of the machine's time that was idle. NaN of fewer than two samples."""
    if len(samples) < 2:
        return math.nan
    return (samples[-1].idle - samples[0].idle) / (samples[-1].at - samples[0].at)


def full_share(samples: Sequence[Sample], width: float = 1.0, idle_least: float = 0.02) -> float:
    """The part of the time, in stretches of about `width` seconds, in which the machine's processors had nothing left
    but `idle_least` of one. NaN of less than one stretch."""
    full, stretches, first = 0, 0, None
    for sample in samples:
        if first is None:
            first = sample
        elif sample.at - first.at >= width:
            full += sample.idle - first.idle < idle_least * (sample.at - first.at)
            stretches, first = stretches + 1, sample
    return full / stretches if stretches else math.nan


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
