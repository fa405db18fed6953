"""Estimate: the capacity of each destination of one service, from windows of its agent and the kernel's counters.

Capacity is completions per second at full utilisation, estimated as (completions / utilisation) over the *same*
window; a misaligned window costs a factor of four in the tail. Completions come with the agent's report (same clock)
or, where it has no counters for them (UDP, older agents), from the director's ring, which the kernel refreshes every
2 s: then the CPU counters are interpolated to the moments of refresh.

The estimate is kept as z, the logarithm of a server's speed relative to its number of cores and to the pool's mean cost
of a connection, with its variance: so a server that has never been busy is taken for an average one of its size, and
what one server teaches about the cost of a connection serves all. `available` is kept apart, because a neighbour
arrives in an instant: capacity = cores * exp(z) / cost * available.

Knows no law and no weight. Source of the filter: a scalar Kalman filter in the log domain with a CUSUM for steps.
"""

from __future__ import annotations

from collections import deque
from math import exp, log, sqrt

import msgspec

from feedback.master.fleet import Window
from feedback.model import DestinationEntry, DestinationKey

PRIOR_VARIANCE = 0.09  # servers of one size differ by some 30 %
KERNEL_VARIANCE = 0.02  # a weight found in the kernel at start was learned by somebody
FORGET_SECONDS = 60.0  # without evidence, z goes back to the prior
DRIFT_PER_SECOND = 0.0004  # variance: 2 % in a second
STEP_SLACK, STEP_LIMIT = 1.0, 6.0  # CUSUM, in standard deviations
SAMPLE_SECONDS_MIN, SAMPLE_SECONDS_MAX = 0.19, 2.0
SAMPLE_VARIANCE_MAX = 0.08  # a sample is taken as soon as it is as good as this, or old
CLIP = 1.2  # one sample moves the estimate by at most a factor of 3.3
COST_MEMORY_SECONDS = 30.0
AVAILABLE_SECONDS = 0.4
SATURATED = 0.95
IDLE = 0.02  # below this utilisation the ratio is noise


class Estimate(msgspec.Struct, frozen=True):
    """Capacity in connections per second, its standard deviation (relative), and what it rests on.

    `utilisation` is the part of what the service can have that it uses (0..1); `available` the part of the server that
    the service can have; `rate` its connections per second.
    """

    capacity: float
    deviation: float
    available: float
    utilisation: float
    rate: float
    cores: float
    memory_available: float
    samples: int


class Cost:
    """The pool's CPU seconds per connection: a decaying ratio of sums. Used only through logarithms of ratios."""

    def __init__(self) -> None:
        self.busy_seconds, self.completions, self._at = 1e-3, 0.1, 0.0

    def add(self, busy_seconds: float, completions: float, now: float) -> None:
        keep = exp(-max(0.0, now - self._at) / COST_MEMORY_SECONDS) if self._at else 1.0
        self.busy_seconds = self.busy_seconds * keep + busy_seconds
        self.completions = self.completions * keep + completions
        self._at = now

    @property
    def seconds(self) -> float:
        return max(self.busy_seconds, 1e-9) / max(self.completions, 1e-3)


class Filter:
    """z of one destination: scalar Kalman filter, noise estimated from successive samples, CUSUM for steps."""

    __slots__ = ("_down", "_last", "_noise", "_up", "samples", "updated_at", "variance", "z")

    def __init__(self) -> None:
        self.z, self.variance, self.samples, self.updated_at = 0.0, PRIOR_VARIANCE, 0, 0.0
        self._noise, self._last = 0.05, 0.0
        self._up = self._down = 0.0

    def update(self, y: float, variance: float, seconds: float, now: float) -> None:
        """`y` is one sample of z, `variance` what counting noise alone would give it."""
        if self.samples:
            self._noise += 0.06 * (min(1.0, (y - self._last) ** 2 / 2) - self._noise)
        noise = max(variance, self._noise if self.samples > 3 else 0.0)
        self.variance += DRIFT_PER_SECOND * seconds
        score = (y - self.z) / sqrt(self.variance + noise)
        self._up = max(0.0, self._up + score - STEP_SLACK)
        self._down = max(0.0, self._down - score - STEP_SLACK)
        if max(self._up, self._down) > STEP_LIMIT:
            self.variance += (y - self.z) ** 2
            self._up = self._down = 0.0
        gain = self.variance / (self.variance + noise)
        self.z += gain * max(-CLIP, min(CLIP, y - self.z))
        self.variance = max(1e-4, (1 - gain) * self.variance)
        self._last, self.updated_at = y, now
        self.samples += 1

    def forget(self, seconds: float) -> None:
        """Nothing is seen of an idle server: what was known fades towards the prior."""
        keep = exp(-seconds / FORGET_SECONDS)
        self.z *= keep
        self.variance = PRIOR_VARIANCE + (self.variance - PRIOR_VARIANCE) * keep


class Capacity:
    """The running estimate of one destination. Windows come in; `estimate()` tells what is known."""

    def __init__(self, cost: Cost) -> None:
        self._cost, self.filter = cost, Filter()
        self._seconds = self._completions = self._busy_seconds = self._allotment = 0.0
        self._last: Window | None = None
        self._available: float | None = None
        self._utilisation = self._rate = 0.0
        self._history: deque[tuple[float, float]] = deque(maxlen=64)  # (time, cumulative CPU seconds)
        self._counter: tuple[float, int, int] | None = None  # (time, connections, active) at the last refresh

    def seed(self, z: float) -> None:
        """Start from what the kernel has: a restarted master continues, it does not begin."""
        self.filter.z, self.filter.variance = z, KERNEL_VARIANCE

    def observe(self, window: Window, now: float) -> None:
        """Take one window of the agent's stream."""
        used = window.own if window.own is not None else window.busy
        self._follow(window, used)
        if window.completions is None:
            self._history.append(
                (window.end, (self._history[-1][1] if self._history else 0.0) + used * window.cores * window.seconds)
            )
        else:
            self._accumulate(window, used, window.completions, now)
        self._last = window

    def observe_kernel(self, entry: DestinationEntry, now: float) -> None:
        """Without the agent's own counters: a sample from one refresh of the director's counters to the next."""
        if self._last is None or self._last.completions is not None:
            return
        count = entry.counters.connections
        if self._counter is None or count < self._counter[1]:
            self._counter = (now, count, entry.active)
            return
        before, connections, active = self._counter
        used_before, used_now = self._used_at(before), self._used_at(now)
        if count == connections or used_before is None or used_now is None:
            return
        self._counter = (now, count, entry.active)
        seconds = now - before
        self._rate = (count - connections) / seconds
        completions = float(count - connections - (entry.active - active))
        window = msgspec.structs.replace(self._last, start=before, end=now)
        self._accumulate(window, (used_now - used_before) / (window.cores * seconds), completions, now)

    def _used_at(self, at: float) -> float | None:
        """Cumulative CPU seconds at a moment, interpolated; None if the reports do not cover it yet."""
        later = None
        for time, used in reversed(self._history):
            if time <= at:
                if later is None:
                    return used if at - time < 0.5 else None
                return used + (later[1] - used) * (at - time) / (later[0] - time)
            later = (time, used)
        return None

    def _follow(self, window: Window, used: float) -> None:
        """Levels that need no counting: available and utilisation, smoothed over half a second."""
        blend = 1 - exp(-window.seconds / AVAILABLE_SECONDS)
        left = 1.0
        if window.own is not None:
            left = max(1.0 - max(0.0, window.busy - window.own), window.entitled or 0.0, 0.0)
        self._available = left if self._available is None else self._available + blend * (left - self._available)
        part = min(1.0, used / max(self._available, 0.01))
        self._utilisation += blend * (part - self._utilisation)
        if window.opened is not None:
            slow = 1 - exp(-window.seconds / 2.0)
            self._rate += slow * (window.opened / window.seconds - self._rate)

    def _accumulate(self, window: Window, used: float, completions: float, now: float) -> None:
        allotment = window.cores * window.seconds
        self._seconds += window.seconds
        self._allotment += allotment
        self._completions += completions  # a single window may be negative: connections opened before it, closed in it
        self._busy_seconds += used * allotment
        if self._seconds < SAMPLE_SECONDS_MIN:
            return
        n, busy = self._completions, self._busy_seconds
        variance = self._variance(n, busy, window.grain_seconds)
        if variance > SAMPLE_VARIANCE_MAX and self._seconds < SAMPLE_SECONDS_MAX:
            return
        self._sample(n, busy, variance, now)
        self._seconds = self._completions = self._busy_seconds = self._allotment = 0.0

    def _variance(self, n: float, busy: float, grain: float) -> float:
        """Of ln(completions / busy): counting (costs vary: CV 1.5), ticks of the CPU counters, sampling jitter."""
        if n < 1 or busy <= 0:
            return 10.0
        used = busy / self._allotment
        return 0.5 * (3.25 / n) + grain / busy + 0.5 * (0.03 / max(used, 0.01)) ** 2 + 0.0002

    def _sample(self, n: float, busy: float, variance: float, now: float) -> None:
        self._cost.add(busy, n, now)
        if n >= 3 and busy / self._allotment > IDLE:
            self.filter.update(log(n / busy * self._cost.seconds), variance, self._seconds, now)
        elif self._utilisation < SATURATED:
            self.filter.forget(self._seconds)

    def estimate(self) -> Estimate | None:
        """None before the first window."""
        last = self._last
        if last is None or self._available is None:
            return None
        full = last.cores * exp(self.filter.z) / self._cost.seconds
        return Estimate(
            capacity=full * self._available,
            deviation=sqrt(self.filter.variance),
            available=self._available,
            utilisation=self._utilisation,
            rate=self._rate,
            cores=last.cores,
            memory_available=last.memory_available,
            samples=self.filter.samples,
        )


class Estimator:
    """The capacities of one service's destinations, which share the cost of a connection."""

    def __init__(self) -> None:
        self.cost = Cost()
        self._capacities: dict[DestinationKey, Capacity] = {}

    def capacity(self, key: DestinationKey) -> Capacity:
        if key not in self._capacities:
            self._capacities[key] = Capacity(self.cost)
        return self._capacities[key]

    def keep(self, keys: set[DestinationKey]) -> None:
        """Forget destinations that are gone."""
        self._capacities = {k: c for k, c in self._capacities.items() if k in keys}
