"""`orca`: the weight is a server's completions for each unit of utilisation. gRPC's weighted_round_robin.

Source: gRFC A58 (weighted_round_robin over ORCA load reports), the C core's implementation of it, and A51:
    weight = qps / (utilization + eps / qps * error_utilization_penalty)
utilisation is what the application says, or else the CPU's. Nothing said for 3 min: the weight is unknown. For 10 s
after the first word (and again after being unknown, or out of service) it is not used. Weights are updated every 1 s.
An unknown weight counts as the mean of the known ones; with fewer than two known ones all are equal.

Here a query is a connection, because that is what a director hands out; both terms are taken over the same windows,
of the last second (the policy does not smooth, its reports do). Without the agent's own counters (UDP) qps is the
director's rate of new connections, which the kernel refreshes every 2 s: then the two windows are not the same.
The errors' part is the application's own count, where it gives one.

What it gets wrong: its noise goes straight into the weights; ten seconds of equal weights at the start of an unequal
pool; a neighbour's use of the CPU counts as this service's; the penalty is too small for a server that fails fast.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from feedback.master.laws.field.cycle import Cycle, Observed, mean
from feedback.master.laws.options import Gain, Options, Seconds
from feedback.master.pool import Pool, Row, Share, Shares
from feedback.model import DestinationKey

BLACKOUT_SECONDS = 10.0
EXPIRATION_SECONDS = 180.0
UPDATE_SECONDS = 1.0
ERROR_UTILISATION_PENALTY = 1.0


class OrcaOptions(Options, frozen=True):
    """The options of gRFC A58. The names are the same, apart from units."""

    update_seconds: Seconds = UPDATE_SECONDS
    blackout_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = BLACKOUT_SECONDS
    expiration_seconds: Seconds = EXPIRATION_SECONDS
    error_utilisation_penalty: Gain = ERROR_UTILISATION_PENALTY


class _Endpoint:
    """One destination's weight, since when there has been one, and when it was last updated."""

    __slots__ = ("options", "since", "text", "updated_at", "weight")

    def __init__(self, options: OrcaOptions) -> None:
        self.options = options
        self.weight, self.updated_at, self.text = 0.0, 0.0, ""
        self.since: float | None = None

    def update(self, seen: Observed, now: float) -> None:
        qps, utilisation, errors = seen.completions or 0.0, _utilisation(seen), _errors(seen)
        new = weight(qps, utilisation, errors, self.options.error_utilisation_penalty)
        if new <= 0:
            return  # A report that says nothing is no report.
        self.since = now if self.since is None else self.since
        self.weight, self.updated_at = new, now
        self.text = f"{qps:.1f}/s at {100 * utilisation:.0f} % used, {100 * errors:.1f} % errors"

    def known(self, now: float) -> float | None:
        if self.since is None:
            return None
        if now - self.updated_at >= self.options.expiration_seconds:
            self.since = None
            return None
        return self.weight if now - self.since >= self.options.blackout_seconds else None


DEFAULTS = OrcaOptions()


class Orca:
    Options = OrcaOptions

    def __init__(self, options: OrcaOptions = DEFAULTS) -> None:
        self._options = options
        self._cycle = Cycle(options.update_seconds)
        self._endpoints: dict[DestinationKey, _Endpoint] = {}
        self._shares: dict[DestinationKey, Share] = {}

    def shares(self, pool: Pool, now: float) -> Shares:
        self._endpoints = {row.key: self._endpoint(row) for row in pool.rows}
        seen = self._cycle.turn(pool, now)
        for key, observed in (seen or {}).items():
            self._endpoints[key].update(observed, now)
        if seen is not None or self._shares.keys() != self._endpoints.keys():
            self._shares = self._update(now)
        return dict(self._shares)

    def _endpoint(self, row: Row) -> _Endpoint:
        """Anew after it was out of service, as after a reconnect."""
        kept = self._endpoints.get(row.key)
        return _Endpoint(self._options) if kept is None or row.quiesced else kept

    def _update(self, now: float) -> dict[DestinationKey, Share]:
        known = {k: w for k, e in self._endpoints.items() if (w := e.known(now)) is not None}
        if len(known) < 2:
            text = f"{len(known)} of {len(self._endpoints)} weights known: all equal"
            return {k: Share(1.0).because("law", text) for k in self._endpoints}
        average = mean(list(known.values()))
        return {k: _share(e, known.get(k), average) for k, e in self._endpoints.items()}


def _share(endpoint: _Endpoint, known: float | None, average: float) -> Share:
    if known is None:
        why = (
            f"reports expired or not yet {endpoint.options.blackout_seconds:g} s old"
            if endpoint.weight
            else "no load reported"
        )
        return Share(average).because("law", f"{why}: the mean weight")
    return Share(known).because("law", endpoint.text)


def weight(qps: float, utilisation: float, errors: float, penalty: float = ERROR_UTILISATION_PENALTY) -> float:
    """The formula above, `errors` being eps / qps; 0 where it cannot be told."""
    if qps <= 0 or utilisation <= 0:
        return 0.0
    return qps / (utilisation + errors * penalty)


def _utilisation(seen: Observed) -> float:
    return seen.application_utilisation or seen.busy


def _errors(seen: Observed) -> float:
    if not seen.application_errors or not seen.application_answers:
        return 0.0
    return seen.application_errors / seen.application_answers
