"""A level from noisy samples: how soon a step is learned."""

from __future__ import annotations

from math import log, sqrt
from random import Random

from feedback.master.servers.filter import Filter

NOISE, SECONDS = 0.02, 0.2  # variance of a sample, and the time between two


def test_a_server_that_is_half_as_fast_from_one_moment_on_is_known_within_a_second() -> None:
    """The Kalman filter alone would take six: after a minute it hardly believes a sample."""
    random, of = Random(1), Filter()
    of.start(0.0, 0.09)
    for _ in range(300):
        of.update(random.gauss(0.0, sqrt(NOISE)), NOISE, SECONDS)
    before = of.level
    for _ in range(5):
        of.update(random.gauss(-log(2), sqrt(NOISE)), NOISE, SECONDS)
    assert abs(before) < 0.1
    assert of.level < -0.8 * log(2)


def test_noise_alone_is_no_step() -> None:
    random, of = Random(2), Filter()
    of.start(0.0, 0.09)
    levels = []
    for _ in range(20_000):
        of.update(random.gauss(0.0, sqrt(NOISE)), NOISE, SECONDS)
        levels.append(of.level)
    assert max(map(abs, levels[300:])) < 0.2
