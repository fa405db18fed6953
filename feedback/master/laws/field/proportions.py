"""`proportions`: four columns of measurements, each with its own proportion. The manager of IBM's Network Dispatcher.

Source: the public manual (Network Dispatcher, WebSphere Edge Load Balancer: manager, proportions, weightbound,
smoothing index, sensitivity) and the product's MIB: columns ACTIVE, NEW, PORT and SYSTEM with proportions 50/50/0/0;
integer weights of 1 to weightbound 20, at first half of it; smoothing index 1.5 (4 moves slowly); written only where
the weights change by more than 5 %; every 2 s; all servers down: everybody half the weightbound.

The manual does not publish how a column becomes a weight. `goodness` below is ours, and so is what the smoothing index
divides: a server at the column's mean is worth 1, one with nothing 2, one with twice the mean 0; the wanted weight is
half the weightbound times the goodness; the weight moves towards it by 1/index of the difference. No later scheme of
that product is used. The sensitivity is of the sum of all changes, not of the change of the sum: with this goodness
the sum hardly changes. PORT is the application's latency in place of an advisor's probe, SYSTEM the CPU in use.

What it gets wrong: with the default columns it equalises connections, whatever the size of the servers, as `lc` does;
below an index of 1.5 it swings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from feedback.master.laws.field.cycle import Cycle, Observed, mean
from feedback.master.laws.options import Gain, Options, Ratio, Seconds
from feedback.master.pool import Pool, Row, Share, Shares
from feedback.master.servers.fleet import Trust
from feedback.model import DestinationKey

WEIGHT_BOUND = 20
SMOOTHING = 1.5
SENSITIVITY = 0.05
INTERVAL_SECONDS = 2.0


class Columns(msgspec.Struct, frozen=True):
    """One value for each column: proportions (they sum to 1), or what was measured of a server (None: nothing)."""

    active: float | None = None
    new: float | None = None
    port: float | None = None
    system: float | None = None


class ColumnOptions(Options, frozen=True):
    """The manual's proportions, in parts or per cent: what counts is their ratio."""

    active: Gain = 50.0
    new: Gain = 50.0
    port: Gain = 0.0
    system: Gain = 0.0


class ProportionsOptions(Options, frozen=True):
    interval_seconds: Seconds = INTERVAL_SECONDS
    weight_bound: Annotated[int, msgspec.Meta(ge=2, le=100)] = WEIGHT_BOUND
    smoothing: Annotated[float, msgspec.Meta(ge=1, le=1000)] = SMOOTHING
    sensitivity: Ratio = SENSITIVITY
    proportions: ColumnOptions = ColumnOptions()


DEFAULTS = ProportionsOptions()


class Proportions:
    Options = ProportionsOptions

    def __init__(self, options: ProportionsOptions = DEFAULTS) -> None:
        self._options = options
        given = msgspec.structs.asdict(options.proportions)
        total = sum(given.values()) or 1.0
        self._proportions = Columns(**{k: v / total for k, v in given.items()})
        self._cycle = Cycle(options.interval_seconds)
        self._smooth: dict[DestinationKey, float] = {}  # before rounding, or a high index would never move anything
        self._shares: dict[DestinationKey, Share] = {}

    def shares(self, pool: Pool, now: float) -> Shares:
        self._smooth = {row.key: self._smooth.get(row.key, self._options.weight_bound / 2) for row in pool.rows}
        known = self._shares
        self._shares = {row.key: known.get(row.key) or _first(self._options.weight_bound) for row in pool.rows}
        seen = self._cycle.turn(pool, now)
        if seen is not None:
            self._manage(pool, seen)
        return dict(self._shares)

    def _manage(self, pool: Pool, seen: Mapping[DestinationKey, Observed]) -> None:
        if all(row.trust is Trust.LOST for row in pool.rows):
            self._smooth = dict.fromkeys(self._smooth, self._options.weight_bound / 2)
            text = "no server is heard: all get half the weightbound"
            self._shares = {k: Share(w).because("law", text) for k, w in self._smooth.items()}
            return
        measured = {row.key: _measured(row, seen.get(row.key)) for row in pool.rows}
        worth = dict.fromkeys(measured, 0.0)
        for column, proportion in msgspec.structs.asdict(self._proportions).items():
            for key, good in goodness({k: getattr(c, column) for k, c in measured.items()}).items():
                worth[key] += proportion * good
        for key, before in self._smooth.items():
            self._smooth[key] = smoothed(before, self._options.weight_bound / 2 * worth[key], self._options.smoothing)
        self._publish(measured)

    def _publish(self, measured: Mapping[DestinationKey, Columns]) -> None:
        """Integers, if they differ enough from those in force."""
        bound = self._options.weight_bound
        new = {k: float(min(bound, max(1, round(w)))) for k, w in self._smooth.items()}
        now = {k: self._shares[k].value for k in new}
        if sum(abs(new[k] - now[k]) for k in new) <= self._options.sensitivity * sum(now.values()):
            return
        self._shares = {k: Share(w).because("law", _text(measured[k], now[k], w, bound)) for k, w in new.items()}


def goodness(column: Mapping[DestinationKey, float | None]) -> dict[DestinationKey, float]:
    """For each server in one column: 2 at a value of 0, 1 at the mean or if unknown, 0 at twice the mean or more."""
    middle = mean([v for v in column.values() if v is not None])
    if middle <= 0:
        return dict.fromkeys(column, 1.0)
    return {k: 1.0 if v is None else max(0.0, 2 - v / middle) for k, v in column.items()}


def smoothed(weight: float, wanted: float, index: float) -> float:
    return weight + (wanted - weight) / max(1.0, index)


def _first(bound: int) -> Share:
    return Share(bound / 2).because("law", "half the weightbound at the start")


def _measured(row: Row, seen: Observed | None) -> Columns:
    active = None if row.kernel is None else float(row.kernel.active)
    if seen is None:
        return Columns(active=active)
    return Columns(active, seen.opened, seen.application_latency, seen.busy)


def _text(measured: Columns, before: float, weight: float, bound: int) -> str:
    """A text like the manager's report: the weights now and new, and the columns they come from."""
    columns = ", ".join(f"{k} {v:.4g}" for k, v in msgspec.structs.asdict(measured).items() if v is not None)
    return f"{columns or 'nothing measured'}: {before:.0f} -> {weight:.0f} of {bound}"
