"""`mh` and `sh`: a weight is a number of places in a table of hashes, and each edit fills the table anew.

A client whose place changes hands goes to another server (its open connections stay), so changes are few and all at
once. A weight of 0 does not give up the places: `mh` keeps those of the last weight, `sh` gives one bucket. Clients
hashed there are refused unless the service has the flag `fallback`.

Source: ip_vs_mh.c (permutations over weight / gcd, shifted to six bits; `last_weight`), ip_vs_sh.c (256 buckets filled
with `weight` each in the order of the list, at least one each, until they are used up: whoever comes after gets none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

from feedback.master.actuate.weight import Wanted, Weight, Weights, current, resting, switched
from feedback.master.pool import Pool
from feedback.model import DestinationKey, ServiceFlags

NO_FALLBACK = "out of service; without the flag fallback its clients are refused"


class Permuted:
    """mh: at most 63, so that no shift throws bits away, and without a common divisor, so that one server's change does
    not deal all places anew. Written if a weight is off by 10 %, every 10 s at most."""

    LIMIT, DEAD_BAND, SECONDS_MIN = 63, 0.10, 10.0

    def __init__(self) -> None:
        self._written_at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        aims = _six_bits({m.key: wanted.share(m) for m in pool.members}, self.LIMIT)
        weights = _explained(pool, aims, "places in the table of hashes")
        if switched(pool, weights):
            self._written_at = now
            return weights
        if not any(_off(current(m), aims[m.key], self.DEAD_BAND) for m in pool.members):
            return resting(pool, f"within {100 * self.DEAD_BAND:.0f} % of what is wanted")
        if self._written_at is not None and now - self._written_at < self.SECONDS_MIN:
            return resting(pool, "resting: each edit fills the table of hashes anew")
        self._written_at = now
        return weights


def _six_bits(shares: Mapping[DestinationKey, float], limit: int) -> dict[DestinationKey, int]:
    largest = max(shares.values(), default=0.0)
    if largest <= 0:
        return dict.fromkeys(shares, 0)
    aims = {k: max(1, round(limit * s / largest)) if s > 0 else 0 for k, s in shares.items()}
    last = max(aims, key=lambda k: (aims[k], k))
    several = sum(w > 0 for w in aims.values()) > 1
    while several and gcd(*aims.values()) > 1:  # 63, 63, ... would be divided down to 1, 1, ...
        aims[last] -= 1
    return aims


def _off(have: int | None, aim: int, dead_band: float) -> bool:
    return abs((have or 0) - aim) > max(dead_band * (have or 0), 1)


class Buckets:
    """sh: the weights are buckets, and all of them together are 256. Written once a minute at most, and at once when
    somebody comes or goes."""

    BUCKETS, DEAD_BAND, SECONDS_MIN = 256, 0.10, 60.0

    def __init__(self) -> None:
        self._written_at: float | None = None

    def weights(self, pool: Pool, wanted: Wanted, now: float) -> Weights:
        serving = [m.key for m in pool.members if wanted.share(m) > 0]
        if not serving:
            return {m.key: Weight(0, NO_FALLBACK) for m in pool.members}
        gone = len(pool.members) - len(serving)  # one bucket each, whatever we write
        dealt = apportion([wanted.shares[k].value for k in serving], max(len(serving), self.BUCKETS - gone))
        aims = dict.fromkeys((m.key for m in pool.members), 0) | dict(zip(serving, dealt, strict=True))
        weights = _explained(pool, aims, f"of {self.BUCKETS} buckets")
        have = sum(max(1, current(m) or 0) for m in pool.members)
        if switched(pool, weights) or have != self.BUCKETS:
            self._written_at = now
            return weights
        if not any(_off(current(m), aims[m.key], self.DEAD_BAND) for m in pool.members):
            return resting(pool, f"within {100 * self.DEAD_BAND:.0f} % of what is wanted")
        if self._written_at is not None and now - self._written_at < self.SECONDS_MIN:
            return resting(pool, "resting: each edit moves clients from server to server")
        self._written_at = now
        return weights


def apportion(shares: Sequence[float], places: int) -> list[int]:
    """Whole numbers with exactly this sum, each at least 1, in proportion to positive shares (largest remainder).
    `places` must be at least as many as there are shares."""
    left, total = places - len(shares), sum(shares)
    # Everybody has one place already; the rest is dealt by what each is still short of.
    short = [max(0.0, places * s / total - 1) for s in shares]
    scale = left / sum(short) if sum(short) > 0 else 0.0
    exact = [s * scale for s in short]
    dealt = [int(e) for e in exact]
    order = sorted(range(len(shares)), key=lambda i: (dealt[i] - exact[i], i))
    for n in range(left - sum(dealt)):
        dealt[order[n % len(order)]] += 1
    return [1 + d for d in dealt]


def _explained(pool: Pool, aims: Mapping[DestinationKey, int], text: str) -> dict[DestinationKey, Weight]:
    fallback = ServiceFlags.SCHED1 in pool.service.flags
    zero = "out of service" if fallback else NO_FALLBACK
    return {k: Weight(w, f"{w} {text}" if w else zero) for k, w in aims.items()}
