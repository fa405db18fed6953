"""`topsis`: servers ranked by four weighted criteria; one server is moved at a time, seldom. A VM cluster's balancer.

Source: Proxmox's ha-manager (TOPSIS over the load of nodes; a balancer that moves when the coefficient of variation of
the load is over 0.3 for three rounds of ten seconds, one motion at a time); TOPSIS: Hwang and Yoon, 1981. Criteria and
their judgements are ours, by AHP (ahp.py), in Proxmox's order: a resource that is running out before one that is used,
memory before CPU. A motion of a VM becomes a step of a weight: by a quarter, up for a server that ranks better than the
mean, down for one that ranks worse.

Criteria, all costs: CPU pressure (PSI some; without PSI the part of the run queue that waits), memory pseudo-pressure
(none below 85 % used, whole at 100 %), CPU in use, memory in use. The rule wants 80 % instead of 85 where KSM merges
much; no agent reports what KSM merges, so 85 it is.

Gates: a round every 10 s, three uneven rounds in a row, 30 s of quiet after a change, never the same server twice in a
row. Scores are relative, the best of two nearly equal servers has 1 and the other 0, which is why there must be gates.

What it gets wrong: it was made for costly migrations, so it takes minutes where connections need seconds. It leaves a
spread of 0.3 alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import dist, sqrt
from typing import Annotated

import msgspec

from feedback.master.laws.field.ahp import priorities
from feedback.master.laws.field.cycle import Cycle, Observed, in_loop, mean
from feedback.master.laws.options import Gain, Options, Seconds
from feedback.master.pool import Pool, Row, Share, Shares
from feedback.model import DestinationKey

CRITERIA = ("CPU pressure", "memory pressure", "CPU use", "memory use")
JUDGEMENTS = (
    (1.0, 1 / 2, 3.0, 5.0),
    (2.0, 1.0, 4.0, 7.0),
    (1 / 3, 1 / 4, 1.0, 3.0),
    (1 / 5, 1 / 7, 1 / 3, 1.0),
)
WEIGHTS = priorities(JUDGEMENTS)
MEMORY_USED_MAX = 0.85
INTERVAL_SECONDS = 10.0
IMBALANCE = 0.3
ROUNDS = 3
QUIET_SECONDS = 30.0
STEP = 1.25
FACTOR_MAX = 16.0  # how far a weight gets from the static one


class TopsisOptions(Options, frozen=True):
    """The gates: a coefficient of variation, uneven rounds in a row, a quiet time; and how far one step goes."""

    interval_seconds: Seconds = INTERVAL_SECONDS
    imbalance: Gain = IMBALANCE
    rounds: Annotated[int, msgspec.Meta(ge=1, le=1000)] = ROUNDS
    quiet_seconds: Annotated[float, msgspec.Meta(ge=0, le=86400)] = QUIET_SECONDS
    step: Annotated[float, msgspec.Meta(gt=1, le=16)] = STEP


DEFAULTS = TopsisOptions()


class Topsis:
    Options = TopsisOptions

    def __init__(self, options: TopsisOptions = DEFAULTS) -> None:
        self._options = options
        self._cycle = Cycle(options.interval_seconds)
        self._factors: dict[DestinationKey, float] = {}  # of the static weight
        self._texts: dict[DestinationKey, str] = {}
        self._uneven = 0  # rounds in a row
        self._moved: DestinationKey | None = None
        self._moved_at: float | None = None

    def shares(self, pool: Pool, now: float) -> Shares:
        self._factors = {row.key: self._factors.get(row.key, 1.0) for row in pool.rows}
        seen = self._cycle.turn(pool, now)
        if seen is not None:
            self._round(pool, seen, now)
        return {row.key: self._share(row) for row in pool.rows}

    def _share(self, row: Row) -> Share:
        text = self._texts.get(row.key, "nothing measured yet: static weight")
        return Share(row.base.weight * self._factors[row.key]).because("law", text)

    def _round(self, pool: Pool, seen: Mapping[DestinationKey, Observed], now: float) -> None:
        rows = {row.key: criteria(seen[row.key]) for row in pool.rows if row.key in seen and in_loop(row)}
        scores, spread = closeness(rows), imbalance(rows)
        self._uneven = self._uneven + 1 if spread > self._options.imbalance else 0
        self._texts = {k: f"score {s:.2f}: {_described(rows[k])}" for k, s in scores.items()}
        quiet = self._moved_at is not None and now - self._moved_at < self._options.quiet_seconds
        if self._uneven < self._options.rounds or quiet:
            return
        self._move(scores, now)

    def _move(self, scores: Mapping[DestinationKey, float], now: float) -> None:
        """One step for the server that is furthest from the mean, of those that may move."""
        middle = mean(list(scores.values()))
        step = self._options.step
        steps = {k: step if s > middle else 1 / step for k, s in scores.items() if s != middle and k != self._moved}
        steps = {k: s for k, s in steps.items() if 1 / FACTOR_MAX <= self._factors[k] * s <= FACTOR_MAX}
        if not steps:
            return
        key = max(steps, key=lambda k: (abs(scores[k] - middle), k))
        self._factors[key] *= steps[key]
        self._texts[key] += f": moved {'up' if steps[key] > 1 else 'down'} by a step"
        self._moved, self._moved_at, self._uneven = key, now, 0


def criteria(seen: Observed) -> tuple[float, ...]:
    """In the order of CRITERIA, 0..1, less is better."""
    used = 1 - seen.memory_available
    return (_cpu_pressure(seen), memory_pressure(used), seen.busy, used)


def memory_pressure(used: float) -> float:
    """0 up to 85 % used, 1 at 100 %."""
    return max(0.0, (used - MEMORY_USED_MAX) / (1 - MEMORY_USED_MAX))


def _cpu_pressure(seen: Observed) -> float:
    if seen.cpu_pressure is not None:
        return seen.cpu_pressure
    return max(0.0, 1 - 1 / seen.runnable) if seen.runnable else 0.0


def closeness(rows: Mapping[DestinationKey, tuple[float, ...]]) -> dict[DestinationKey, float]:
    """TOPSIS: 1 for the ideal (least of every criterion), 0 for its opposite; 0.5 for all where there is no
    difference."""
    if not rows:
        return {}
    lengths = [sqrt(sum(v * v for v in column)) or 1.0 for column in zip(*rows.values(), strict=True)]
    weighted = {k: [w * v / n for w, v, n in zip(WEIGHTS, r, lengths, strict=True)] for k, r in rows.items()}
    columns = list(zip(*weighted.values(), strict=True))
    best, worst = [min(c) for c in columns], [max(c) for c in columns]
    return {k: _closeness(dist(r, best), dist(r, worst)) for k, r in weighted.items()}


def _closeness(to_best: float, to_worst: float) -> float:
    return to_worst / (to_best + to_worst) if to_best + to_worst > 0 else 0.5


def imbalance(rows: Mapping[DestinationKey, tuple[float, ...]]) -> float:
    """Coefficient of variation of the load, which is the weighted sum of the criteria."""
    loads = [sum(w * v for w, v in zip(WEIGHTS, row, strict=True)) for row in rows.values()]
    middle = mean(loads)
    return sqrt(mean([(x - middle) ** 2 for x in loads])) / middle if middle > 0 else 0.0


def _described(row: tuple[float, ...]) -> str:
    return ", ".join(f"{name} {100 * value:.0f} %" for name, value in zip(CRITERIA, row, strict=True))
