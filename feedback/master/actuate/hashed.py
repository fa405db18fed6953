"""`mh` and `sh`: a weight is a number of places in a hash table, and each edit rebuilds the table.

A client whose place changes goes to another server (its open connections stay), so changes are few and made together. A
weight of 0 does not give up the places: `mh` keeps those of the last weight, `sh` gives one bucket. Clients hashed
there are refused unless the service has the flag `fallback`.

Source: ip_vs_mh.c (permutations over weight / gcd, shifted to six bits; `last_weight`), ip_vs_sh.c (256 buckets filled
with `weight` each in the order of the list, at least one each, until they are used up: whoever comes after gets none).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import msgspec

from feedback.master.actuate.weight import MOVE_SECONDS, OUT_OF_SERVICE, WithinPart, rest, switched
from feedback.master.bounds.limits import REWRITE
from feedback.master.pool import Pool, Row
from feedback.model import ServiceFlags

NO_FALLBACK = "out of service; without the flag fallback its clients are refused"


class Places(msgspec.Struct, frozen=True, gc=False):
    number: int
    of: str

    def __str__(self) -> str:
        return f"{self.number} {self.of}"


class _Table:
    """Written at once where that cannot wait; else where a weight is off by 10 %, and only so often."""

    def __init__(self) -> None:
        self._written_at: float | None = None

    def _write(self, pool: Pool, seconds: float, why: str, *, at_once: bool) -> None:
        if not at_once and not _any_off(pool.rows, REWRITE):
            rest(pool.rows, WithinPart(REWRITE))
        elif not at_once and self._written_at is not None and pool.now - self._written_at < seconds:
            rest(pool.rows, why)
        else:
            self._written_at = pool.now


class Permuted(_Table):
    """mh: at most 63, so that no shift throws bits away, and without a common divisor, so that one server's change does
    not deal all places anew. Written if a weight is off by 10 %, every 10 s at most."""

    LIMIT = 63

    def aim(self, pool: Pool) -> None:
        _six_bits(pool.rows, self.LIMIT)
        _explain(pool, "places in the hash table")
        self._write(pool, MOVE_SECONDS, "resting: each edit rebuilds the hash table", at_once=switched(pool.rows))


def _six_bits(rows: Sequence[Row], limit: int) -> None:
    largest = max((row.part for row in rows), default=0.0)
    for row in rows:
        row.aim = max(1, round(limit * row.part / largest)) if row.part > 0 else 0
    serving = [row for row in rows if row.aim]
    last = max(serving, key=lambda row: (row.aim, row.key), default=None)
    while len(serving) > 1 and last is not None and gcd(*(row.aim for row in serving)) > 1:
        last.aim -= 1  # 63, 63, ... would be divided down to 1, 1, ...


def _any_off(rows: Sequence[Row], dead_band: float) -> bool:
    return any(abs(row.weight - row.aim) > max(dead_band * row.weight, 1) for row in rows)


class Buckets(_Table):
    """sh: the weights are buckets, and all of them together are 256. Written once a minute at most, and at once when
    somebody comes or goes."""

    BUCKETS, SECONDS_MIN = 256, 60.0  # an edit moves the clients of all servers after the edited one

    def aim(self, pool: Pool) -> None:
        rows = pool.rows
        serving = [row for row in rows if row.part > 0]
        for row in rows:
            row.aim = 0
        if serving:
            gone = len(rows) - len(serving)  # one bucket each, whatever we write
            dealt = apportion([row.part for row in serving], max(len(serving), self.BUCKETS - gone))
            for row, places in zip(serving, dealt, strict=True):
                row.aim = places
        _explain(pool, f"of {self.BUCKETS} buckets")
        if not serving:
            return
        anew = switched(rows) or sum(max(1, row.weight) for row in rows) != self.BUCKETS
        self._write(pool, self.SECONDS_MIN, "resting: each edit moves clients from server to server", at_once=anew)


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


def _explain(pool: Pool, text: str) -> None:
    zero = OUT_OF_SERVICE if ServiceFlags.SCHED1 in pool.service.flags else NO_FALLBACK
    for row in pool.rows:
        row.note = Places(row.aim, text) if row.aim else zero
