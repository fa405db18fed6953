"""Estimate: the capacity of each destination of one service, from windows of its agent and the kernel's counters.

Capacity is completions per second at full utilisation, estimated as (completions / utilisation) over the *same*
window. Completions come with the agent's report (same clock) or, where it has no counters for them (UDP, older agents),
from the director's (ring.py).

Where clients keep connections (a pool whose mean residence is over 0.3 s), those that end were worked for long before:
then the count lies half way to those that came. Where they last (over 3 s), a new one says little of the load that it
brings: then capacity is open connections over utilisation, which needs no history either.

The estimate is kept as the logarithm of that per core, with its variance. A server that has never been busy is taken
for an average one of its size: what one teaches about the cost of a connection serves all. `available` is kept apart,
because a neighbour arrives in an instant: capacity = cores * exp(level) * available. Utilisation is that of the
dominant resource: CPU, or what the application says of itself.

Knows no law and no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, log, sqrt
from typing import Annotated

import msgspec

from feedback.master.filter import PRIOR_VARIANCE, Filter
from feedback.master.fleet import Window
from feedback.master.neighbour import FADE_SECONDS, Neighbour
from feedback.master.ring import Ring
from feedback.model import DestinationEntry, DestinationKey

KERNEL_VARIANCE = 0.02  # a weight found in the kernel at start was learned by somebody
SAMPLE_SECONDS_MIN, SAMPLE_SECONDS_MAX = 0.19, 2.0
SAMPLE_VARIANCE_MAX = 0.08  # a sample is taken as soon as it is as good as this, or old
HELD_SECONDS_MIN = 0.95
HELD_ABOVE, HELD_BELOW = 3.0, 1.5  # mean residence in seconds
KEPT_ABOVE, KEPT_BELOW = 0.3, 0.15  # seconds likewise: clients keep connections, or wait for something else than CPU
KEPT_VARIANCE_MAX, KEPT_NOISE = 0.1, 4.0  # of a sample's logarithm, in doubt; times what counting alone makes
DEFAULT_LEVEL = log(100)  # completions per second and core, where nothing at all is known
AVAILABLE_SECONDS, HAD_SECONDS = 0.2, 1.0
SATURATED = 0.95
POOL_SATURATED = 0.88
NEARLY_FULL, FULL = 0.8, 0.95
LEARNED_STEP, LEARNED_SAMPLES = 0.05, 5  # of a level in the state file; before it is worth keeping
SETTLED_SAMPLES = 9  # from here on a sudden difference is a neighbour's
STEAL_FROM = 0.1  # of the server in use: below, too little was asked for to tell what would be given
IDLE = 0.02  # below this utilisation the ratio is noise


class Estimate(msgspec.Struct, frozen=True):
    """Capacity in connections per second (`held`: in open connections), its relative standard deviation, and what it
    rests on. `utilisation` is the part of what the service can have that it uses (0..1); `available` the part of the
    server that the service can have; `rate` its connections per second.
    """

    capacity: float
    deviation: float
    available: float
    utilisation: float
    rate: float
    cores: float
    memory_available: float
    samples: int
    held: bool = False


class Learned(msgspec.Struct, frozen=True):
    """What is known of one destination's speed: the level (logarithm of completions per second and core; `held`: of
    open connections per core). Coarse, so that it changes seldom: it is kept in a file."""

    level: Annotated[float, msgspec.Meta(ge=-20, le=20)]
    held: bool = False


class Capacity:
    """The running estimate of one destination. Windows come in; `estimate()` tells what is known."""

    def __init__(self, prior: Callable[[Capacity], float | None], changed: Callable[[], None]) -> None:
        """`prior(self)` is what the pool believes of a server like this one: a level, None if it knows nothing yet.
        `changed()` is called when the level has moved."""
        self._changed = changed
        self._prior = prior
        self._filters = (Filter(), Filter())  # of completions, and of open connections
        self.held = False
        self.kept = False  # whether clients keep connections after the answer
        self.offset: float | None = None  # known difference from the pool's mean level
        self._seconds = self._counted = self._busy_seconds = self._allotment = self._grown = 0.0
        self._active = 0
        self._first_active: int | None = None  # of this sample
        self._last: Window | None = None
        self._neighbour = Neighbour()
        self._available: float | None = None
        self._had = 1.0  # of the server, over a second
        self._utilisation = self._rate = 0.0
        self._ring = Ring()

    @property
    def filter(self) -> Filter:
        return self._filters[self.held]

    def hold(self, held: bool) -> None:
        """Whether connections last so long that open ones tell the load and not completed ones."""
        if held != self.held:
            self.held = held
            self._begin_sample()

    def resume(self, known: Learned) -> None:
        self._filters[known.held].resume(known.level, KERNEL_VARIANCE)

    def observe(self, window: Window) -> None:
        """Take one window of the agent's stream."""
        used = _used(window)
        self._follow(window, used)
        if self.held:
            if self._first_active is None:
                self._first_active = self._active
            self._accumulate(window, used, self._active * window.seconds)
        elif window.completions is not None:
            self._accumulate(window, used, window.completions, (window.opened or 0.0) - window.completions)
        else:
            self._ring.use(window.end, used * window.cores * window.seconds)
            self._settle(window)
        self._last = window

    def observe_kernel(self, entry: DestinationEntry, now: float) -> None:
        """Take the director's counters: open connections, and the total that moves every 2 s."""
        self._active = entry.active
        self._ring.look(entry.counters.connections, entry.active, now)

    def _settle(self, window: Window) -> None:
        """Without the agent's own counters: samples from the director's."""
        for span in self._ring.spans():
            seconds = span.end - span.start
            self._rate = span.opened / seconds
            aligned = msgspec.structs.replace(window, start=span.start, end=span.end)
            used, grown = span.used_seconds / (window.cores * seconds), float(span.opened - span.completed)
            self._accumulate(aligned, used, float(span.completed), grown)

    def _follow(self, window: Window, used: float) -> None:
        """Levels that need no counting: available and utilisation, smoothed over half a second."""
        blend = 1 - exp(-window.seconds / AVAILABLE_SECONDS)
        left = self._left(window)
        self._available = left if self._available is None else self._available + blend * (left - self._available)
        taken = self._neighbour.part if self._infers() else 0.0
        part = min(1.0, max(0.0, used - taken) / max(self._available * (1 - taken), 0.01))
        self._utilisation += blend * (part - self._utilisation)
        if window.opened is not None:
            slow = 1 - exp(-window.seconds / 2.0)
            self._rate += slow * (window.opened / window.seconds - self._rate)

    def _left(self, window: Window) -> float:
        """The part of the server that the service can have: what it uses and what is idle, at least what it is entitled
        to, of which it may have more for a moment only.

        A quota is never used to its last tick: what looks idle on a server that is nearly full cannot be had. A
        hypervisor that steals gives a part of what is asked for, and of what will be.
        """
        if window.own is None:
            return max(0.01, 1 - window.stolen / max(window.busy, STEAL_FROM))
        idle = max(0.0, 1 - window.busy) * min(1.0, max(0.0, (FULL - window.busy) / (FULL - NEARLY_FULL)))
        had = window.own + idle
        self._had += (1 - exp(-window.seconds / HAD_SECONDS)) * (had - self._had)
        if window.entitled is not None:
            had = max(min(had, self._had), window.entitled)
        return min(1.0, max(had, 0.01))

    def _accumulate(self, window: Window, used: float, count: float, grown: float = 0.0) -> None:
        allotment = window.cores * window.seconds
        self._seconds += window.seconds
        self._allotment += allotment
        self._counted += count  # that of a single window may be negative: opened before it, closed in it
        self._grown += grown
        self._busy_seconds += used * allotment
        if self._seconds < (HELD_SECONDS_MIN if self.held else SAMPLE_SECONDS_MIN):
            return
        n, busy = self._counted, self._busy_seconds
        variance = self._variance(n, busy, window.grain_seconds) + (self._growth(n) if self.held else 0.0)
        if variance > SAMPLE_VARIANCE_MAX and self._seconds < SAMPLE_SECONDS_MAX:
            return
        worked, doubt = self._worked()
        self._sample(worked, busy, variance + doubt, building=doubt > KEPT_VARIANCE_MAX)
        self._begin_sample()

    def _begin_sample(self) -> None:
        self._seconds = self._counted = self._busy_seconds = self._allotment = self._grown = 0.0
        self._first_active = None

    def _worked(self) -> tuple[float, float]:
        """For how many connections the CPU has worked in this sample, and the variance of that number's logarithm.

        Those that ended, since who waits was not worked for. But where clients keep connections, those that came and
        are still open were, at their beginning or all along: half way between both then, and the difference is doubt.
        """
        ended = self._counted
        if self.held or not self.kept:
            return ended, 0.0
        between = ended + self._grown / 2
        return between, (self._grown / 2 / max(1.0, between)) ** 2

    def _growth(self, n: float) -> float:
        """Open connections that become more or fewer are not yet those that go with the present load."""
        mean = n / self._seconds
        return ((self._active - (self._first_active or 0)) / mean) ** 2 if mean > 0 else 0.0

    def _variance(self, n: float, busy: float, grain: float) -> float:
        """Of ln(completions / busy): counting (costs vary: CV 1.5), ticks of the CPU counters, sampling jitter."""
        if n < 1 or busy <= 0:
            return 10.0
        used = busy / self._allotment
        counting = 0.01 if self.held else 0.5 * (3.25 / n)
        return counting + grain / busy + 0.5 * (0.03 / max(used, 0.01)) ** 2 + 0.0002

    def _sample(self, n: float, busy: float, variance: float, *, building: bool) -> None:
        """`building`: so many more are open than before, or fewer, that the number teaches nothing."""
        if self._infers():
            busy = self._without_neighbour(max(0.0, n), busy, variance)
        if n >= 3 and busy / self._allotment > IDLE:
            sample = log(n / busy)
            if self.held and self.filter.samples and busy > SATURATED * self._allotment and sample > self.filter.level:
                return  # a queue: open connections of a saturated server say at most what it can hold
            if building:
                return
            if not self.filter.samples:
                self._start(sample, variance)
            self.filter.update(sample, variance, self._seconds)
            self._changed()
        elif self._utilisation < SATURATED and self.filter.samples:
            prior = self._prior(self)
            if prior is not None:
                self.filter.forget(prior, self._seconds)
                self._changed()

    def _infers(self) -> bool:
        """Whether a neighbour's part has to be inferred, and can be."""
        last = self._last
        return not self.held and last is not None and last.own is None and self.filter.samples >= SETTLED_SAMPLES

    def _without_neighbour(self, n: float, busy: float, variance: float) -> float:
        """Busy seconds less a neighbour's."""
        level, used = self.filter.level, busy / self._allotment
        # Where connections are kept, a queue that is worked off looks like a neighbour for a moment.
        noise = KEPT_NOISE * variance if self.kept else variance
        self._neighbour.observe(used, n * exp(-level) / self._allotment, noise, self._seconds)
        if self._neighbour.part and n >= 3 and used > IDLE:
            self.filter.fade(log(n / busy), self._seconds, FADE_SECONDS)
        return max(0.0, busy - self._neighbour.part * self._allotment)

    def _start(self, sample: float, variance: float) -> None:
        prior = self._prior(self)
        if prior is None:
            self.filter.start(sample, variance)
        else:
            self.filter.start(prior, PRIOR_VARIANCE if self.offset is None else KERNEL_VARIANCE)

    @property
    def utilisation(self) -> float:
        return self._utilisation

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
        available = self._available * (1 - self._neighbour.part if self._infers() else 1.0)
        return Estimate(
            capacity=last.cores * exp(level) * available,
            deviation=sqrt(self.filter.variance),
            available=available,
            utilisation=self._utilisation,
            rate=self._rate,
            cores=last.cores,
            memory_available=last.memory_available,
            samples=self.filter.samples,
            held=self.held,
        )


def _used(window: Window) -> float:
    """The part of the server that the service uses, of the resource that is nearest to its end."""
    said = [a.utilisation for a in window.applications if a.utilisation is not None]
    return max(window.own if window.own is not None else window.busy - window.stolen, *said, 0.0)


class Estimator:
    """The capacities of one service's destinations, which share what is known of the cost of a connection."""

    def __init__(self) -> None:
        self._capacities: dict[DestinationKey, Capacity] = {}
        self._seeds: dict[DestinationKey, float] = {}
        self._mean: tuple[int, float] | None = None
        self._held = self._kept = False

    def capacity(self, key: DestinationKey) -> Capacity:
        if key not in self._capacities:
            self._capacities[key] = Capacity(self._prior, self._forget_mean)
            self._set_mode(self._capacities[key])
        return self._capacities[key]

    def residence(self, seconds: float) -> None:
        """How long connections last in this pool, on the mean: decides what capacity counts, with hysteresis. In a
        saturated pool they last because they queue: that tells nothing of them."""
        queues = seconds > KEPT_ABOVE and self._saturated()
        held = seconds >= HELD_BELOW if self._held else seconds > HELD_ABOVE and not queues
        kept = seconds >= KEPT_BELOW if self._kept else seconds > KEPT_ABOVE and not queues
        if (held, kept) == (self._held, self._kept):
            return
        self._held, self._kept = held, kept
        self._forget_mean()
        for capacity in self._capacities.values():
            self._set_mode(capacity)

    def _set_mode(self, capacity: Capacity) -> None:
        capacity.hold(self._held)
        capacity.kept = self._kept

    def _saturated(self) -> bool:
        used = [c.utilisation for c in self._capacities.values() if c.window is not None]
        return bool(used) and sum(used) / len(used) > POOL_SATURATED

    def keep(self, keys: set[DestinationKey]) -> None:
        """Forget destinations that are gone."""
        if self._capacities.keys() - keys:
            self._capacities = {k: c for k, c in self._capacities.items() if k in keys}
            self._forget_mean()

    def seed(self, weights: Mapping[DestinationKey, float]) -> None:
        """Start from what the kernel has: a restarted master continues, it does not begin. Takes effect for each
        server as its size becomes known."""
        self._seeds = {k: w for k, w in weights.items() if w > 0}

    def learned(self) -> dict[DestinationKey, Learned]:
        """Of every destination that was sampled often enough to say anything."""
        return {
            k: Learned(round(c.filter.level / LEARNED_STEP) * LEARNED_STEP, c.held)
            for k, c in self._capacities.items()
            if c.filter.samples >= LEARNED_SAMPLES
        }

    def resume(self, learned: Mapping[DestinationKey, Learned]) -> None:
        """Go on from what the master before had learned."""
        for key, known in learned.items():
            self.capacity(key).resume(known)
        self._forget_mean()

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
        """How many have been sampled, and the sum of their levels; counted anew only when one of them moved."""
        if self._mean is None:
            levels = [c.filter.level - (c.offset or 0.0) for c in self._capacities.values() if c.filter.samples]
            self._mean = (len(levels), sum(levels))
        return self._mean

    def _forget_mean(self) -> None:
        self._mean = None

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
        self._forget_mean()
