"""Capacity: what one destination can complete, from windows of its agent and the kernel's counters.

Capacity is completions per second at full utilisation, estimated as (completions / utilisation) over the *same*
window. Completions come with the agent's report (same clock) or, where it has no counters for them (UDP, older agents),
from the director's (spans.py).

If clients keep connections, the work for those that end was done long before: from a mean residence of 0.15 s on in the
pool to one of 0.3 s, the count goes over to the mean of those opened and ended. If they last (over 3 s), a new one says
little about its load: then capacity is open connections over utilisation, which needs no history either, in a filter of
its own.

The estimate is kept as the logarithm of that per core, with its variance. A server that has never been busy is assumed
to be average for its size (prior.py). `available` is kept apart, because a neighbour arrives in an instant: capacity =
cores * exp(level) * available. Utilisation is that of the dominant resource: CPU, or what the application says of
itself.

Knows no law and no weight.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import TYPE_CHECKING, Annotated

import msgspec

from feedback.master.pool import FULL, NEARLY_FULL
from feedback.master.servers.arrivals import COUNTED_SECONDS
from feedback.master.servers.filter import CLIP, KNOWN_VARIANCE, PRIOR_VARIANCE, Filter
from feedback.master.servers.neighbour import FADE_SECONDS, Neighbour
from feedback.master.servers.spans import Spans
from feedback.master.servers.starved import Starved
from feedback.master.servers.window import Window

if TYPE_CHECKING:
    from feedback.master.servers.prior import Prior

SAMPLE_SECONDS_MIN = 0.19  # one of the agents' usual reports
SAMPLE_VARIANCE_MAX = 0.08  # a sample is taken as soon as it is as good as this, or as old as the kernel's
HELD_SECONDS_MIN = 5 * SAMPLE_SECONDS_MIN  # open connections hardly change from one report to the next
KEPT_VARIANCE_MAX, KEPT_NOISE = 0.1, 4.0  # of a sample's logarithm, in doubt; times what counting alone makes
DEFAULT_LEVEL = log(100)  # completions per second and core, where nothing at all is known
LEVEL_MAX = 20.0  # of a level, either way: e**20 completions a second and core is no machine
AVAILABLE_SECONDS = 0.2  # one report: a neighbour arrives in an instant
LEARNED_STEP = 0.05  # of a level in the state file
UNLIKE = 3.0  # standard deviations between a first sample and what others say of such a server
SETTLED_SAMPLES = 9  # from here on a level is known and kept, and a sudden difference is a neighbour's
STEAL_FROM = 0.1  # of the server in use: below, too little was asked for to tell what would be given
IDLE = 0.02  # below this utilisation the ratio is noise


class Estimate(msgspec.Struct, frozen=True, gc=False):
    """Capacity in connections per second (`held`: in open connections), its relative standard deviation, and what it
    rests on. `utilisation` is the part of what the service can have that it uses (0..1); `available` the part of the
    server that the service can have; `rate` its connections per second; `starved` the part that a host keeps back.
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
    starved: float = 0.0

    def __str__(self) -> str:
        starved = f" since work waits for a CPU as if {100 * self.starved:.0f} % were not there" if self.starved else ""
        return (
            f"capacity {self.capacity:.1f}{' open' if self.held else '/s'} ±{100 * self.deviation:.0f} % "
            f"({self.cores:g} cores, {100 * self.available:.0f} % of them available{starved}, "
            f"{100 * self.utilisation:.0f} % of that used at {self.rate:.1f}/s, {self.samples} samples)"
        )


class Learned(msgspec.Struct, frozen=True):
    """What is known of one destination's speed: the level (logarithm of completions per second and core; `held`: of
    open connections per core). Coarse, so that it changes seldom: it is kept in a file."""

    level: Annotated[float, msgspec.Meta(ge=-LEVEL_MAX, le=LEVEL_MAX)]
    held: bool = False


class Capacity:
    """The running estimate of one destination. Windows come in; `estimate()` tells what is known. `prior` is what its
    pool believes of a server like this one, and how connections are counted there."""

    __slots__ = (
        "_allotment",
        "_available",
        "_busy_seconds",
        "_counted",
        "_first_active",
        "_grown",
        "_had",
        "_held_filter",
        "_last",
        "_learned",
        "_neighbour",
        "_prior",
        "_seconds",
        "_spans",
        "_usual_filter",
        "_utilisation",
        "active",
        "blind",
        "current",
        "displaced",
        "filter",
        "held",
        "offset",
        "placed",
        "rate",
        "seed",
        "starved",
    )

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._usual_filter, self._held_filter = Filter(), Filter()  # of completions, and of open connections
        self.filter = self._usual_filter
        self.held = False
        self.offset: float | None = None  # known difference from the pool's usual level
        self.placed: float | None = None  # the prior's: where it stands among the others
        self.displaced = False  # the prior's: that is not the place of its level now
        self.seed: float | None = None  # the weight that the kernel had, until it tells an offset
        self._seconds = self._counted = self._busy_seconds = self._allotment = self._grown = 0.0  # of half a sample
        self.active = 0  # open connections, by the director's count
        self.blind = True  # whether the director's counters are what completions are known from
        self._first_active: int | None = None  # of this sample
        self._last: Window | None = None
        self._neighbour = Neighbour()
        self.starved = Starved()
        self._available: float | None = None
        self._had = 1.0  # of the server, over a second
        self._utilisation = 0.0
        self.rate = 0.0  # connections per second
        self._spans: Spans | None = None
        self.current: Estimate | None = None  # the estimate, as long as nothing has changed
        self._learned: Learned | None = None  # as it was last told

    def hold(self, held: bool) -> None:
        """Whether connections last so long that open ones tell the load and not completed ones."""
        if held != self.held:
            self.held = held
            self.filter = self._held_filter if held else self._usual_filter
            self.current = None
            self._begin_sample()

    def resume(self, known: Learned) -> None:
        """Go on from what the master before had learned."""
        of = self._held_filter if known.held else self._usual_filter
        of.resume(known.level, KNOWN_VARIANCE)
        self._prior.moved(self)
        self.current = None

    def learned(self) -> Learned | None:
        """None of one that was not sampled often enough to say anything."""
        if self.filter.samples < SETTLED_SAMPLES:
            return None
        known, level = self._learned, self.filter.level
        if known is not None and known.held is self.held and abs(level - known.level) < LEARNED_STEP / 2:
            return known
        level = max(-LEVEL_MAX, min(LEVEL_MAX, round(level / LEARNED_STEP) * LEARNED_STEP))
        if known is None or known.level != level or known.held is not self.held:
            known = self._learned = Learned(level, self.held)
        return known

    def observe(self, window: Window, page: bool = False) -> None:
        """Take one window of its stream, which is an exporter's `page` or an agent."""
        self._neighbour.proves = page
        seconds, completions, own = window.end - window.start, window.completions, window.own
        used = own if own is not None else window.busy - window.stolen
        if window.applications or used < 0.0:
            used = _used(window, used)
        self._follow(window, used, seconds)
        if self.held:
            if self._first_active is None:
                self._first_active = self.active
            self._accumulate(window, seconds, used, self.active * seconds, 0.0)
        elif completions is not None:
            self._accumulate(window, seconds, used, completions, (window.opened or 0.0) - completions)
        else:
            spans = self._counting()
            spans.use(window.end, used * window.cores * seconds)
            self._settle(window, spans)
        if self._last is None and self.seed is not None:
            self._last = window
            self._prior.sized()
        self._last, self.blind = window, completions is None
        if completions is not None:
            self._spans = None
        # One that was never sampled moves with the pool's.
        self.current = self._estimated(window) if self.filter.samples else None

    def observe_kernel(self, active: int, connections: int, now: float) -> None:
        """Take the director's counters: open connections, and the total that moves every 2 s. `active` alone is
        enough for one that is not `blind`."""
        self.active = active
        if self.blind:
            self._counting().look(connections, active, now)

    def _counting(self) -> Spans:
        """The director's own count of its connections."""
        if self._spans is None:
            self._spans = Spans()
        return self._spans

    def _settle(self, window: Window, spans: Spans) -> None:
        """Without the agent's own counters: samples from the director's."""
        for span in spans.spans():
            seconds = span.end - span.start
            self.rate = span.opened / seconds
            used, grown = span.used_seconds / (window.cores * seconds), float(span.opened - span.completed)
            self._accumulate(window, seconds, used, float(span.completed), grown)

    def _follow(self, window: Window, used: float, seconds: float) -> None:
        """Levels that need no counting: available and utilisation, smoothed over half a second."""
        blend, available, neighbour = 1.0 - exp(-seconds / AVAILABLE_SECONDS), self._available, self._neighbour
        left = self._left(window, seconds) if window.stolen or window.own is not None else 1.0
        if window.cpu_pressure is not None:
            starved, prior = self.starved, self._prior
            starved.observe(window.cpu_pressure, used / left, window.cores * left, seconds, prior.usual)
            if starved.ratio < 1.0:
                prior.starves = True
            left *= starved.left
        if available is None:  # the first one is the best that is known: a busy server is not idle because it is new
            available, blend = left, 1.0
        self._available = left = available + blend * (left - available)
        if neighbour.part and self._infers():
            used -= neighbour.part
            left *= 1 - neighbour.denied
        part = used / (left if left > 0.01 else 0.01)
        part = 0.0 if part < 0.0 else 1.0 if part > 1.0 else part
        self._utilisation += blend * (part - self._utilisation)
        if window.opened is not None:
            self.rate += (1.0 - exp(-seconds / COUNTED_SECONDS)) * (window.opened / seconds - self.rate)

    def _left(self, window: Window, seconds: float) -> float:
        """The part of the server that the service can have: what it uses and what is idle, at least what it is entitled
        to, of which it may have more for a moment only.

        A quota is never used to its last tick: what looks idle on a server that is nearly full cannot be had. A
        hypervisor that steals gives a part of what is asked for, and of what will be.
        """
        if window.own is None:
            return max(0.01, 1 - window.stolen / max(window.busy, STEAL_FROM))
        idle = max(0.0, 1 - window.busy) * min(1.0, max(0.0, (FULL - window.busy) / (FULL - NEARLY_FULL)))
        had = window.own + idle
        self._had += (1 - exp(-seconds / COUNTED_SECONDS)) * (had - self._had)
        if window.entitled is not None:
            had = max(min(had, self._had), window.entitled)
        return min(1.0, max(had, 0.01))

    def _accumulate(self, window: Window, seconds: float, used: float, count: float, grown: float) -> None:
        """`count` of a single window is < 0 where more were closed in it than opened."""
        allotment = window.cores * seconds
        busy = used * allotment
        if self._seconds:  # of windows before it that were no sample
            seconds, allotment, busy = self._seconds + seconds, self._allotment + allotment, self._busy_seconds + busy
            count, grown = self._counted + count, self._grown + grown
        if seconds >= (HELD_SECONDS_MIN if self.held else SAMPLE_SECONDS_MIN):
            variance = self._variance(count, busy, busy / allotment, window.grain_seconds)
            if self.held:
                variance += self._growth(count / seconds)
            if variance <= SAMPLE_VARIANCE_MAX or seconds >= COUNTED_SECONDS:
                if self._seconds or self.held:
                    self._begin_sample()
                doubt = 0.0
                if self._prior.kept and not self.held:
                    count, doubt = _worked(count, grown, self._prior.kept)
                self._sample(count, busy, allotment, seconds, variance + doubt, doubt > KEPT_VARIANCE_MAX)
                return
        self._seconds, self._allotment, self._busy_seconds = seconds, allotment, busy
        self._counted, self._grown = count, grown

    def _begin_sample(self) -> None:
        self._seconds, self._first_active = 0.0, None

    def _growth(self, mean: float) -> float:
        """Open connections that become more or fewer are not yet those that go with the present load. `mean` of them
        were open."""
        return ((self.active - (self._first_active or 0)) / mean) ** 2 if mean > 0 else 0.0

    def _variance(self, n: float, busy: float, used: float, grain: float) -> float:
        """Of ln(completions / busy): counting (costs vary: CV 1.5), ticks of the CPU counters, sampling jitter."""
        if n < 1.0 or busy <= 0.0:
            return 10.0
        counting, jitter = 0.01 if self.held else 0.5 * (3.25 / n), 0.03 / (used if used > 0.01 else 0.01)
        return counting + grain / busy + 0.5 * (jitter * jitter) + 0.0002

    def _sample(self, n: float, busy: float, allotment: float, seconds: float, variance: float, building: bool) -> None:
        """`building`: so many more are open than before, or fewer, that the number teaches nothing."""
        of = self.filter
        if self._infers():
            busy = self._without_neighbour(n, busy, allotment, seconds, variance)
        if n >= 3.0 and busy / allotment > IDLE:
            sample = log(n / busy)
            if self.held and of.samples and busy > FULL * allotment and sample > of.level:
                return  # a queue: open connections of a saturated server say at most what it can hold
            if building:
                return
            if not of.samples:
                self._start(sample, variance)
            of.update(sample, variance, seconds)
        elif self._utilisation < FULL and of.samples:
            prior = self._prior.of(self)
            if prior is None:
                return
            of.forget(prior, seconds)
        else:
            return
        if not self.displaced:
            self._prior.moved(self)

    def in_pool(self) -> float | None:
        """Its level less its known difference from the pool's; None of one that was never sampled."""
        return self.filter.level - (self.offset or 0.0) if self.filter.samples else None

    def _infers(self) -> bool:
        """Whether a neighbour's part has to be inferred, and can be."""
        last = self._last
        return not self.held and last is not None and last.own is None and self.filter.samples >= SETTLED_SAMPLES

    def _without_neighbour(self, n: float, busy: float, allotment: float, seconds: float, variance: float) -> float:
        """Busy seconds less a neighbour's."""
        neighbour, used = self._neighbour, busy / allotment
        # Where connections are kept, a queue that is worked off looks like a neighbour for a moment.
        noise = (1 + (KEPT_NOISE - 1) * self._prior.kept) * variance
        own = n * exp(-self.filter.level) / allotment if n > 0.0 else 0.0
        part = neighbour.observe(used, own, noise, seconds)
        if not part:
            return busy
        taken = neighbour.proves and used > FULL  # all that was idle: it looks the same however long it lasts
        if n >= 3 and used > IDLE and not taken:
            self.filter.fade(log(n / busy), seconds, FADE_SECONDS)
            self._prior.moved(self)
        return max(0.0, busy - part * allotment)

    def _start(self, sample: float, variance: float) -> None:
        """From the others' word, unless this server's own is so good and so different that they are not like it: what
        they say would take many samples to outweigh. Three connections say little: they may have been cheap ones. The
        mean of a few is itself as uncertain as they are few, so a liar that is known first is soon outweighed."""
        prior = self._prior.of(self)
        unlike = max(CLIP, UNLIKE * sqrt(PRIOR_VARIANCE + variance))
        if prior is None or abs(sample - prior) > unlike:
            self.filter.start(sample, variance)
        elif self.offset is None:
            self.filter.start(prior, PRIOR_VARIANCE * (1 + 1 / self._prior.others(self)))
        else:
            self.filter.start(prior, KNOWN_VARIANCE)

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
        if self.current is not None or self._last is None:
            return self.current
        estimate = self._estimated(self._last)
        if self.filter.samples:
            self.current = estimate
        return estimate

    def _estimated(self, last: Window) -> Estimate:
        of = self.filter
        level = of.level
        if not of.samples:
            prior = self._prior.of(self)
            level = DEFAULT_LEVEL if prior is None else prior
        available = self._available or 0.0
        if self._neighbour.part and self._infers():
            available *= 1 - self._neighbour.denied
        return Estimate(
            last.cores * exp(level) * available,
            sqrt(of.variance),
            available,
            self._utilisation,
            self.rate,
            last.cores,
            last.memory_available,
            of.samples,
            self.held,
            1.0 - self.starved.left,
        )


def _worked(count: float, grown: float, kept: float) -> tuple[float, float]:
    """For how many connections the CPU has worked in a sample where clients keep them (0..1), and the variance of that
    number's logarithm.

    Elsewhere those that ended, since who waits was not worked for. But those that came and are still open were, at
    their beginning or all along: half way between both here, and the difference is doubt.
    """
    between = count + kept * grown / 2
    return between, (kept * grown / 2 / max(1.0, between)) ** 2


def _used(window: Window, used: float) -> float:
    """The part of the server that the service uses, of the resource that is nearest to its end: `used` of its CPU."""
    for application in window.applications:
        if application.utilisation is not None and application.utilisation > used:
            used = application.utilisation
    return used if used > 0.0 else 0.0
