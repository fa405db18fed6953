"""A client's requests: arrivals, costs and holding times from a seed, as data.

Pure. The same plan gives the same requests at the same offsets, so that policies are compared on the same work.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import exp, log, sqrt


@dataclass(frozen=True, slots=True)
class Load:
    """Poisson arrivals of `rate` a second for `seconds`. Each request costs `cost_ms` of CPU on average, lognormal with
    `cost_variation` (standard deviation over mean; 0: always the same). It is held open, idle, for `hold_seconds` on
    average, uniform from 0 to twice that, because a longer tail would outlast the run. After the answer the client
    keeps the connection for `keep_seconds` on average, in the same distribution, as browsers and proxies do. `steps`
    are (offset, rate) in order: from that offset on, the rate is another one."""

    address: str
    port: int
    rate: float
    seconds: float
    seed: int
    cost_ms: float
    cost_variation: float = 0.0
    hold_seconds: float = 0.0
    keep_seconds: float = 0.0
    timeout_seconds: float = 10.0
    steps: tuple[tuple[float, float], ...] = ()

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> Load:
        fields = json.loads(text)
        return Load(**{**fields, "steps": tuple((offset, rate) for offset, rate in fields["steps"])})


@dataclass(frozen=True, slots=True)
class Request:
    offset_seconds: float  # after the start
    cost_ms: float
    hold_seconds: float
    keep_seconds: float


def requests(load: Load) -> Iterator[Request]:
    # One generator for each quantity: so changing the rate or the cost does not change the others.
    gaps, costs, holds, keeps = (random.Random(f"{load.seed}-{what}") for what in ("gap", "cost", "hold", "keep"))
    offset = _after(load, 0.0, gaps)
    while offset < load.seconds:
        hold, keep = holds.uniform(0, 2 * load.hold_seconds), keeps.uniform(0, 2 * load.keep_seconds)
        yield Request(offset, _cost(load, costs), hold, keep)
        offset = _after(load, offset, gaps)


def _after(load: Load, offset: float, generator: random.Random) -> float:
    """The next arrival. The gap is exponential in expected arrivals, so it is shorter or longer in a step of another
    rate."""
    left, rate = generator.expovariate(1.0), load.rate
    for begins, next_rate in load.steps:
        if begins > offset:
            if (begins - offset) * rate >= left:
                break
            left, offset = left - (begins - offset) * rate, begins
        rate = next_rate
    return offset + left / rate


def _cost(load: Load, generator: random.Random) -> float:
    if not load.cost_variation:
        return load.cost_ms
    # For a lognormal of mean m and variation v: sigma^2 = ln(1 + v^2), mu = ln m - sigma^2 / 2.
    variance = log(1 + load.cost_variation**2)
    return load.cost_ms * exp(generator.gauss(-variance / 2, sqrt(variance)))
