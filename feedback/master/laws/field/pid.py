"""`pid`: one PID controller for each server drives its utilisation to the mean of the service. Dropbox's Robinhood.

Source: Dropbox, Robinhood: in-house load balancing service (October 2024): the set-point is the mean utilisation, the
output a *change* of the server's weight, the weights are then normalised; utilisation is the greater of CPU and
requests in flight, so that a server that waits for its disk does not look idle.

In flight has no full scale of its own: it counts where all of the pool say it, for each core and relative to the
pool's mean, at the height of the mean CPU. The application's own utilisation, if it reports one, is used unchanged.
Gains are ours, Robinhood's are not public. The output is a part of the weight, the error a part of the set-point, so
the loop gain is K whatever the load. With turns of 1 s the delay is one to two turns (half an averaging turn, half a
report, the kernel, the connections' length): for an integrator with two turns' delay K = 0.23 overshoots by 10 % and
0.62 is unstable. D is 0: what it would see is the counting noise of a second.

Anti-windup: nothing is added up for a server that is silent or at 0 in the kernel, and none for anybody while the
mean is over 0.95 or under 0.02, where differences mean nothing; a change is at most half and a weight at most 20-fold
of the mean either way.

What it gets wrong: equal utilisation is not least latency, small servers should be cooler; a server that fails fast
looks idle and attracts everything; a gain right for short connections is too high for long ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from feedback.master.laws.field.cycle import Cycle, Observed, in_loop, mean
from feedback.master.laws.options import Gain, Options, Seconds
from feedback.master.pool import Pool, Row, Share, Shares
from feedback.model import DestinationKey

INTERVAL_SECONDS = 1.0
PROPORTIONAL, INTEGRAL, DERIVATIVE = 0.1, 0.2, 0.0
STEP_MAX = 0.5
WEIGHT_MIN, WEIGHT_MAX = 0.05, 20.0
IDLE, SATURATED = 0.02, 0.95


class PidOptions(Options, frozen=True):
    """Gains are parts of the weight for an error that is a part of the mean, for each turn."""

    interval_seconds: Seconds = INTERVAL_SECONDS
    proportional: Gain = PROPORTIONAL
    integral: Gain = INTEGRAL
    derivative: Gain = DERIVATIVE


DEFAULTS = PidOptions()


class Loop:
    """One server's controller, in the form that gives a change: no sum to wind up but the weight itself."""

    __slots__ = ("_before", "_last", "_options")

    def __init__(self, options: PidOptions = DEFAULTS) -> None:
        self._options = options
        self._last: float | None = None
        self._before: float | None = None

    def step(self, error: float) -> float:
        """Change, as a part of the weight, for an error in -1..1."""
        last = error if self._last is None else self._last
        before = last if self._before is None else self._before
        self._last, self._before = error, last
        gains = self._options
        change = gains.proportional * (error - last) + gains.integral * error
        change += gains.derivative * (error - 2 * last + before)
        return max(-STEP_MAX, min(STEP_MAX, change))

    def rest(self) -> None:
        """It was not in the loop: what comes next is not a change from what was."""
        self._last = self._before = None


class Pid:
    Options = PidOptions

    def __init__(self, options: PidOptions = DEFAULTS) -> None:
        self._options = options
        self._cycle = Cycle(options.interval_seconds)
        self._loops: dict[DestinationKey, Loop] = {}
        self._shares: dict[DestinationKey, Share] = {}

    def shares(self, pool: Pool, now: float) -> Shares:
        self._join(pool)
        seen = self._cycle.turn(pool, now)
        if seen is not None:
            self._turn(pool, seen)
        return dict(self._shares)

    def _join(self, pool: Pool) -> None:
        """New servers start at their static weight, over the mean of the pool's."""
        if self._shares.keys() == {row.key for row in pool.rows}:
            return
        middle = mean([float(row.base.weight) for row in pool.rows if row.base.weight]) or 1.0
        kept = self._shares
        self._shares = {row.key: kept.get(row.key) or _static(row, middle) for row in pool.rows}
        self._loops = {row.key: self._loops.get(row.key) or Loop(self._options) for row in pool.rows}

    def _turn(self, pool: Pool, seen: Mapping[DestinationKey, Observed]) -> None:
        used = utilisations({row.key: seen[row.key] for row in pool.rows if row.key in seen and in_loop(row)})
        target = mean(list(used.values()))
        if not IDLE <= target <= SATURATED:
            used = {}
        for key, loop in self._loops.items():
            if key in used:
                self._shares[key] = self._stepped(key, used[key], target)
            else:
                loop.rest()
        self._normalise()

    def _stepped(self, key: DestinationKey, used: float, target: float) -> Share:
        change = self._loops[key].step(max(-1.0, min(1.0, (target - used) / target)))
        value = max(WEIGHT_MIN, min(WEIGHT_MAX, self._shares[key].value * (1 + change)))
        text = f"{100 * used:.0f} % used, the mean is {100 * target:.0f} %: weight changed by {100 * change:+.1f} %"
        return Share(value).because("law", text)

    def _normalise(self) -> None:
        middle = mean([s.value for s in self._shares.values()])
        self._shares = {k: Share(s.value / middle, s.why) for k, s in self._shares.items()}


def utilisations(seen: Mapping[DestinationKey, Observed]) -> dict[DestinationKey, float]:
    """For each server the greatest of CPU, the application's utilisation, and requests in flight."""
    cpu = {k: max(o.busy, o.application_utilisation or 0.0) for k, o in seen.items()}
    flying = {k: o.application_in_flight / o.cores for k, o in seen.items() if o.application_in_flight is not None}
    middle = mean(list(flying.values()))
    if len(flying) < len(seen) or middle <= 0:
        return cpu
    height = mean(list(cpu.values()))
    return {k: max(used, min(1.0, height * flying[k] / middle)) for k, used in cpu.items()}


def _static(row: Row, middle: float) -> Share:
    value = row.base.weight / middle if row.base.weight else 1.0
    return Share(value).because("law", "nothing measured yet: static weight")
