"""Filter: the level of one destination from noisy samples, as a logarithm.

A scalar Kalman filter whose measurement noise is estimated from successive samples (von Neumann), and a CUSUM on the
normalised innovations: a step (an antagonist, a resize) is noticed and learned anew at once. Knows no server, no unit.
"""

from __future__ import annotations

from math import exp, sqrt

PRIOR_VARIANCE = 0.09  # servers of one size differ by some 30 %
KNOWN_VARIANCE = PRIOR_VARIANCE / 4  # half as uncertain: it was learned, by us or by somebody before us
FORGET_SECONDS = 60.0  # without evidence, the level goes back to the prior
DRIFT_PER_SECOND = 0.0004  # variance: 2 % in a second
STEP_SLACK, STEP_LIMIT = 1.0, 6.0  # CUSUM, in standard deviations: noise alone makes one step in days
FADE_STEP = 0.05  # of a level, for each sample: whatever one says, others come before it is believed
VARIANCE_MIN = 1e-4  # nothing is known to better than 1 %
CLIP = 1.2  # one sample moves the estimate by at most a factor of 3.3


class Filter:
    """The level of one destination: scalar Kalman filter, noise estimated from successive samples, CUSUM for steps."""

    __slots__ = ("_down", "_last", "_noise", "_up", "level", "samples", "variance")

    def __init__(self) -> None:
        self.level, self.variance, self.samples = 0.0, PRIOR_VARIANCE, 0
        self._noise, self._last = 0.05, 0.0
        self._up = self._down = 0.0

    def start(self, level: float, variance: float) -> None:
        """The estimate before the first sample."""
        self.level, self.variance = level, variance

    def resume(self, level: float, variance: float) -> None:
        """Go on from what another filter had learned: it counts as seen, not as believed."""
        self.level, self.variance, self.samples, self._last = level, variance, 1, level

    def update(self, sample: float, variance: float, seconds: float) -> None:
        """`variance` is what counting noise alone would give the sample; `seconds` the time since the last one."""
        noise, samples = variance, self.samples
        if samples:
            moved, seen = sample - self._last, self._noise
            jump = moved * moved / 2
            self._noise = seen = seen + 0.06 * ((jump if jump < 1.0 else 1.0) - seen)
            if samples > 3 and seen > noise:
                noise = seen
        off, prior = sample - self.level, self.variance + DRIFT_PER_SECOND * seconds
        score = off / sqrt(prior + noise)
        up, down = self._up + score - STEP_SLACK, self._down - score - STEP_SLACK
        self._up, self._down = up if up > 0.0 else 0.0, down if down > 0.0 else 0.0
        if up > STEP_LIMIT or down > STEP_LIMIT:
            prior += off**2
            self._up = self._down = 0.0
        gain = prior / (prior + noise)
        self.level += gain * (-CLIP if off < -CLIP else CLIP if off > CLIP else off)
        left = (1.0 - gain) * prior
        self.variance = left if left > VARIANCE_MIN else VARIANCE_MIN
        self._last = sample
        self.samples = samples + 1

    def fade(self, sample: float, seconds: float, over_seconds: float) -> None:
        """Believe gradually what is seen for long, whatever else explains it: only downwards, and in small steps."""
        step = (sample - self.level) * (1 - exp(-seconds / over_seconds))
        self.level += min(0.0, max(-FADE_STEP, step))

    def forget(self, towards: float, seconds: float) -> None:
        """Nothing is seen of an idle server: what was known fades towards the prior."""
        keep = exp(-seconds / FORGET_SECONDS)
        self.level = towards + (self.level - towards) * keep
        self.variance = PRIOR_VARIANCE + (self.variance - PRIOR_VARIANCE) * keep
