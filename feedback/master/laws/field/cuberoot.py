"""`cuberoot`: each weight rises or falls by the cube root of how far the server's load is from 0.95. LVS's own law.

Source: Wensong Zhang, Dynamic Feedback Load Balancing Scheduling (LVS knowledge base), and his mail to lvs-users of
July 2002 on what Piranha shipped (the same with `1 - loadavg` under the root):
    AGGREGATE_LOAD = 0.1 INPUT + 0.4 CPU + 0.1 MEMORY + 0.1 PROCESS + 0.3 RESPONSE
    w' = w + A cbrt(0.95 - AGGREGATE_LOAD),  A = 5,  DEFAULT_WEIGHT <= w' <= 10 DEFAULT_WEIGHT,  every 5 to 20 s
and w' is written only where it differs from w by more than a threshold. DEFAULT_WEIGHT is the static weight.

INPUT is new connections over the pool's mean, as published. Substituted: PROCESS, the number of processes, is the run
queue for each core; RESPONSE, a probe's time, is the application's latency or, where one of the pool does not say it,
how long a connection stays by Little's law (active over rate), both over the pool's mean and at most 8, the published
scale. The coefficient of an unknown index is spread over the known ones. The threshold is ours: one, as a weight is an
integer. Left out: an unreachable server's weight of 0. Silence is not death here; the guard has the policy for it.

The trap: the root is infinitely steep where the load is right and flat where it is wrong, so it hunts around the
set-point and hurries nowhere; and it adds up: below 0.95 all weights rise to the upper clamp, where all are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import cbrt
from typing import Annotated

import msgspec

from feedback.master.laws.field.cycle import Cycle, Observed, mean
from feedback.master.laws.options import Gain, Options, Ratio, Seconds
from feedback.master.pool import Pool, Row, Share, Shares
from feedback.model import DestinationKey

TARGET = 0.95
ADJUSTMENT = 5.0  # A
SCALE = 10.0
INTERVAL_SECONDS = 5.0
THRESHOLD = 1.0
INDEX_MAX = 8.0


class Coefficients(Options, frozen=True):
    """The weights of the indices. They need not sum to 1: an unknown index leaves its own to the others."""

    input: Gain = 0.1
    cpu: Gain = 0.4
    memory: Gain = 0.1
    process: Gain = 0.1
    response: Gain = 0.3


class CubeRootOptions(Options, frozen=True):
    """`adjustment` is A; a weight stays within `scale` times the static one; `threshold` is in units of weight."""

    interval_seconds: Seconds = INTERVAL_SECONDS
    target: Ratio = TARGET
    adjustment: Gain = ADJUSTMENT
    scale: Annotated[float, msgspec.Meta(gt=1, le=1000)] = SCALE
    threshold: Gain = THRESHOLD
    coefficients: Coefficients = Coefficients()


DEFAULTS = CubeRootOptions()


class CubeRoot:
    Options = CubeRootOptions

    def __init__(self, options: CubeRootOptions = DEFAULTS) -> None:
        self._options = options
        self._cycle = Cycle(options.interval_seconds)
        self._shares: dict[DestinationKey, Share] = {}

    def shares(self, pool: Pool, now: float) -> Shares:
        before = self._shares
        self._shares = {row.key: before.get(row.key) or _default(row) for row in pool.rows}
        seen = self._cycle.turn(pool, now)
        if seen:
            inputs, responses = _inputs(seen), _responses(pool, seen)
            for row in pool.rows:
                if row.key in seen:
                    indices = _indices(seen[row.key], inputs.get(row.key), responses.get(row.key))
                    load = aggregate(indices, self._options.coefficients)
                    self._shares[row.key] = _adjusted(row, self._shares[row.key].value, load, self._options)
        return dict(self._shares)


def adjusted(weight: float, load: float, default: float, options: CubeRootOptions = DEFAULTS) -> float:
    """w' of the formula above."""
    moved = weight + options.adjustment * cbrt(options.target - load)
    return min(options.scale * default, max(default, moved))


def aggregate(indices: Mapping[str, float], coefficients: Coefficients = DEFAULTS.coefficients) -> float:
    """AGGREGATE_LOAD of the indices that are known (one at least); 0 where none of them counts."""
    parts = {k: float(getattr(coefficients, k)) for k in indices}
    return sum(parts[k] * v for k, v in indices.items()) / (sum(parts.values()) or 1.0)


def _default(row: Row) -> Share:
    return Share(float(row.base.weight)).because("law", "nothing reported yet: the default weight")


def _adjusted(row: Row, weight: float, load: float, options: CubeRootOptions) -> Share:
    default = float(row.base.weight)
    new = adjusted(weight, load, default, options)
    kept = default <= weight <= options.scale * default and abs(new - weight) <= options.threshold
    text = f"aggregate load {load:.2f}, target {options.target:g}: {weight:.1f} {'kept' if kept else f'-> {new:.1f}'}"
    return Share(weight if kept else new).because("law", text)


def _indices(seen: Observed, load: float | None, response: float | None) -> dict[str, float]:
    process = None if seen.runnable is None else min(INDEX_MAX, seen.runnable)
    known = {
        "input": load,
        "cpu": seen.busy,
        "memory": 1 - seen.memory_available,
        "process": process,
        "response": response,
    }
    return {k: v for k, v in known.items() if v is not None}


def _inputs(seen: Mapping[DestinationKey, Observed]) -> dict[DestinationKey, float]:
    """N_i / (sum N / n)."""
    return _relative({k: o.opened for k, o in seen.items() if o.opened is not None})


def _responses(pool: Pool, seen: Mapping[DestinationKey, Observed]) -> dict[DestinationKey, float]:
    told = {k: o.application_latency for k, o in seen.items() if o.application_latency is not None}
    if len(told) < len(seen):
        told = {
            row.key: row.kernel.active / rate
            for row in pool.rows
            if row.key in seen and row.kernel is not None and (rate := seen[row.key].opened)
        }
    return {k: min(INDEX_MAX, v) for k, v in _relative(told).items()}


def _relative(values: Mapping[DestinationKey, float]) -> dict[DestinationKey, float]:
    """The values over their mean; empty if all are 0."""
    middle = mean(list(values.values()))
    return {k: v / middle for k, v in values.items()} if middle > 0 else {}
