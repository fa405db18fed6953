"""Estimate: the capacity of each destination of one service, from windows of its agent and the kernel's counters.

Capacity is completions per second at full utilisation, estimated as (completions / utilisation) over the *same*
window; a misaligned window costs a factor of four in the tail. Completions come with the agent's report (same clock)
or, where it has no counters for them (UDP, older agents), from the director's ring, which the kernel refreshes every
2 s: then the CPU counters are interpolated to the moments of refresh.

The estimate is kept as the logarithm of completions per second and core, with its variance. A server that has never
been busy is taken for an average one of its size: what one teaches about the cost of a connection serves all.
`available` is kept apart, because a neighbour arrives in an instant: capacity = cores * exp(level) * available.

Knows no law and no weight. Source of the filter: a scalar Kalman filter in the log domain with a CUSUM for steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
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
DEFAULT_LEVEL = log(100)  # completions per second and core, where nothing at all is known
AVAILABLE_SECONDS = 0.4
SATURATED = 0.95
NEARLY_FULL, FULL = 0.8, 0.95
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


class Filter:
    """The level of one destination: scalar Kalman filter, noise estimated from successive samples, CUSUM for steps."""

    __slots__ = ("_down", "_last", "_noise", "_up", "level", "samples", "variance")

    def __init__(self) -> None:
        self.level, self.variance, self.samples = 0.0, PRIOR_VARIANCE, 0
        self._noise, self._last = 0.05, 0.0
        self._up = self._down = 0.0

    def start(self, level: float, variance: float) -> None:
        """What is believed before the first sample."""
        self.level, self.variance = level, variance

    def update(self, sample: float, variance: float, seconds: float) -> None:
        """`variance` is what counting noise alone would give the sample; `seconds` the time since the last one."""
        if self.samples:
            self._noise += 0.06 * (min(1.0, (sample - self._last) ** 2 / 2) - self._noise)
        noise = max(variance, self._noise if self.samples > 3 else 0.0)
        self.variance += DRIFT_PER_SECOND * seconds
        score = (sample - self.level) / sqrt(self.variance + noise)
        self._up = max(0.0, self._up + score - STEP_SLACK)
        self._down = max(0.0, self._down - score - STEP_SLACK)
        if max(self._up, self._down) > STEP_LIMIT:
            self.variance += (sample - self.level) ** 2
            self._up = self._down = 0.0
        gain = self.variance / (self.variance + noise)
        self.level += gain * max(-CLIP, min(CLIP, sample - self.level))
        self.variance = max(1e-4, (1 - gain) * self.variance)
        self._last = sample
        self.samples += 1

    def forget(self, towards: float, seconds: float) -> None:
        """Nothing is seen of an idle server: what was known fades towards the prior."""
        keep = exp(-seconds / FORGET_SECONDS)
        self.level = towards + (self.level - towards) * keep
        self.variance = PRIOR_VARIANCE + (self.variance - PRIOR_VARIANCE) * keep


class Capacity:
    """The running estimate of one destination. Windows come in; `estimate()` tells what is known."""

    def __init__(self, prior: Callable[[Capacity], float | None]) -> None:
        """`prior(self)` is what the pool believes of a server like this one: a level, None if it knows nothing yet."""
        self._prior, self.filter = prior, Filter()
        self.offset: float | None = None  # known difference from the pool's mean level
        self._seconds = self._completions = self._busy_seconds = self._allotment = 0.0
        self._last: Window | None = None
        self._available: float | None = None
        self._utilisation = self._rate = 0.0
        self._history: deque[tuple[float, float]] = deque(maxlen=64)  # (time, cumulative CPU seconds)
        self._counter: tuple[float, int, int] | None = None  # (time, connections, active) at the last refresh

    def observe(self, window: Window, now: float) -> None:
        """Take one window of the agent's stream."""
        used = window.own if window.own is not None else window.busy
        self._follow(window, used)
        if window.completions is None:
            self._history.append(
                (window.end, (self._history[-1][1] if self._history else 0.0) + used * window.cores * window.seconds)
            )
        else:
            self._accumulate(window, used, window.completions)
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
        self._accumulate(window, (used_now - used_before) / (window.cores * seconds), completions)

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
        left = _left(window)
        self._available = left if self._available is None else self._available + blend * (left - self._available)
        part = min(1.0, used / max(self._available, 0.01))
        self._utilisation += blend * (part - self._utilisation)
        if window.opened is not None:
            slow = 1 - exp(-window.seconds / 2.0)
            self._rate += slow * (window.opened / window.seconds - self._rate)

    def _accumulate(self, window: Window, used: float, completions: float) -> None:
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
        self._sample(n, busy, variance)
        self._seconds = self._completions = self._busy_seconds = self._allotment = 0.0

    def _variance(self, n: float, busy: float, grain: float) -> float:
        """Of ln(completions / busy): counting (costs vary: CV 1.5), ticks of the CPU counters, sampling jitter."""
        if n < 1 or busy <= 0:
            return 10.0
        used = busy / self._allotment
        return 0.5 * (3.25 / n) + grain / busy + 0.5 * (0.03 / max(used, 0.01)) ** 2 + 0.0002

    def _sample(self, n: float, busy: float, variance: float) -> None:
        if n >= 3 and busy / self._allotment > IDLE:
            sample = log(n / busy)
            if not self.filter.samples:
                self._start(sample, variance)
            self.filter.update(sample, variance, self._seconds)
        elif self._utilisation < SATURATED and self.filter.samples:
            prior = self._prior(self)
            if prior is not None:
                self.filter.forget(prior, self._seconds)

    def _start(self, sample: float, variance: float) -> None:
        prior = self._prior(self)
        if prior is None:
            self.filter.start(sample, variance)
        else:
            self.filter.start(prior, PRIOR_VARIANCE if self.offset is None else KERNEL_VARIANCE)

    @property
    def window(self) -> Window | None:
        """The last one."""
        return self._last

    @property
    def cores(self) -> float | None:
        return self._last.cores if self._last else None

    def estimate(self) -> Estimate | None:
        """None before the first window."""
        last = self._last
        if last is None or self._available is None:
            return None
        level = self.filter.level
        if not self.filter.samples:
            prior = self._prior(self)
            level = DEFAULT_LEVEL if prior is None else prior
        full = last.cores * exp(level)
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


def _left(window: Window) -> float:
    """The part of the server that the service can have: what it uses, what is idle, at least what it is entitled to.

    A quota is never used to its last tick: what looks idle on a server that is nearly full cannot be had.
    """
    if window.own is None:
        return 1.0
    idle = max(0.0, 1 - window.busy) * min(1.0, max(0.0, (FULL - window.busy) / (FULL - NEARLY_FULL)))
    return min(1.0, max(window.own + idle, window.entitled or 0.0, 0.01))


class Estimator:
    """The capacities of one service's destinations, which share what is known of the cost of a connection."""

    def __init__(self) -> None:
        self._capacities: dict[DestinationKey, Capacity] = {}
        self._seeds: dict[DestinationKey, float] = {}
        self._counted = (-1, 0, 0.0)

    def capacity(self, key: DestinationKey) -> Capacity:
        if key not in self._capacities:
            self._capacities[key] = Capacity(self._prior)
        return self._capacities[key]

    def keep(self, keys: set[DestinationKey]) -> None:
        """Forget destinations that are gone."""
        if self._capacities.keys() - keys:
            self._capacities = {k: c for k, c in self._capacities.items() if k in keys}

    def seed(self, weights: Mapping[DestinationKey, float]) -> None:
        """Start from what the kernel has: a restarted master continues, it does not begin. Takes effect for each
        server as its size becomes known."""
        self._seeds = {k: w for k, w in weights.items() if w > 0}

    def _prior(self, of: Capacity) -> float | None:
        """The mean level of the servers that have been sampled, and this one's known difference from it."""
        self._place()
        known, total = self._known()
        if of.filter.samples:
            known, total = known - 1, total - of.filter.level + (of.offset or 0.0)
        if known <= 0:
            return None if of.offset is None else DEFAULT_LEVEL + of.offset
        return total / known + (of.offset or 0.0)

    def _known(self) -> tuple[int, float]:
        """How many have been sampled, and the sum of their levels; counted anew only when one of them changed."""
        samples = sum(c.filter.samples for c in self._capacities.values())
        if samples != self._counted[0]:
            levels = [c.filter.level - (c.offset or 0.0) for c in self._capacities.values() if c.filter.samples]
            self._counted = (samples, len(levels), sum(levels))
        return self._counted[1:]

    def _place(self) -> None:
        """Turn seeds into offsets once the sizes of all seeded servers are known."""
        if not self._seeds:
            return
        sizes = {k: c.cores for k in self._seeds if (c := self._capacities.get(k)) is not None}
        levels = {k: log(w / size) for k, w in self._seeds.items() if (size := sizes.get(k))}
        if len(levels) < len(self._seeds):
            return
        mean = sum(levels.values()) / len(levels)
        for key, level in levels.items():
            self._capacities[key].offset = level - mean
        self._seeds = {}
