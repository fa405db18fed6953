"""`wlc`: a stock with two minutes of memory. Closed connections count until their FIN time-out, so that a weight raised
by 10 % floods the server for seconds.

The memory is cancelled instead of waited out. At each tick a weight is the overhead that the server should have when
the tick ends: its closed connections, its share of the arrivals, and 256 for each connection that it should have open.
The kernel fills the least overhead/weight and so sends each server exactly that.

Long connections: it should have open what it has plus what comes. Short ones, which come and go within a tick: its
share of the mean number open. That term does the work: one connection too many weighs as much as 256 closed ones, so
the kernel itself levels the open ones to the shares, within microseconds, as it does under `sed`. (With the term of the
arrivals alone it levels them to the closed ones, which are the shares of two minutes ago.)

Source: ip_vs_wlc.c, ip_vs.h: the overhead is active * 256 + inactive.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from feedback.master.actuate.weight import ACTIVE, CATCH_UP, REST_SECONDS, rest, surviving
from feedback.master.pool import Pool, Row
from feedback.master.servers.arrivals import COUNTED_SECONDS
from feedback.model import WEIGHT_MAX

GROWTH, GROWTH_FROM = 1.5, 0.25  # a server comes up to its share of the open connections by this in COUNTED_SECONDS
EXPLAINED = "its share of the arrivals on top of its present load"


class Memory:
    """wlc: overhead (active * 256 + inactive) / weight, with the memory of closed connections cancelled each tick.
    A row's `actuator` is how many connections are open there, on the mean."""

    RESOLUTION = 20_000  # of the largest weight: a closed connection more or less is seen
    HEAL_SECONDS = 10.0  # the stock of closed connections is drawn towards its part over this time
    ARRIVALS_PER_SERVER = 4.0  # a tick lasts until this many connections are expected for an average server

    def __init__(self) -> None:
        self._written_at: float | None = None
        self._at: float | None = None

    def aim(self, pool: Pool) -> None:
        rows, now = pool.rows, pool.now
        serving = [row for row in rows if row.part > 0]
        if not serving:
            for row in rows:
                row.aim = 0
            return
        self._observe(rows, now)
        tick = self._tick(pool, len(serving))
        switch = any((not row.weight) != (row.part <= 0) for row in rows)
        if self._written_at is not None and now - self._written_at < 0.9 * tick and not switch:
            rest(rows, "until the next tick")
            return
        self._written_at = now
        arrivals = self._arrivals(pool, tick)
        staying = surviving(pool, tick)
        total = sum(row.actuator for row in serving)
        busy = 1 - exp(-total / len(serving))  # how likely an average server is not idle
        overheads = []
        for row, coming in zip(rows, arrivals, strict=True):
            if row.part <= 0:
                overheads.append(0.0)
                continue
            count = row.active + coming
            # Where servers are mostly idle a choice meets none of them open, and they must not be counted on.
            usual = busy * min(row.part * total, GROWTH * row.actuator + GROWTH_FROM)
            opened = staying * count + (1 - staying) * usual
            # The last term decides where nothing is open and nothing comes.
            overheads.append(row.inactive + count + (ACTIVE - 1) * opened + row.part)
        most = max(1e-6, *overheads)
        scale = min(max(1.0, self.RESOLUTION / most), WEIGHT_MAX / most)
        for row, overhead in zip(rows, overheads, strict=True):
            if row.part <= 0:
                row.aim = 0
            else:
                row.aim, row.note = max(1, min(WEIGHT_MAX, round(overhead * scale))), EXPLAINED

    def _tick(self, pool: Pool, serving: int) -> float:
        """Seconds between writes: as short as the loop is, longer where few connections arrive."""
        if pool.flow <= 0:
            return REST_SECONDS
        return min(REST_SECONDS, max(pool.interval_seconds, self.ARRIVALS_PER_SERVER * serving / pool.flow))

    def _observe(self, rows: Sequence[Row], now: float) -> None:
        blend = 0.0 if self._at is None else 1 - exp(-max(0.0, now - self._at) / COUNTED_SECONDS)
        self._at = now
        for row in rows:
            mean = row.actuator or 0.0
            row.actuator = mean + blend * (row.active - mean) if row.part > 0 else None

    def _arrivals(self, pool: Pool, tick: float) -> list[float]:
        """How many connections each should get in this tick: its share, less where it is above its part of what is
        open, and at most a little more where it is below. The rest goes to those above."""
        opened, closed = sum(row.active for row in pool.rows), sum(row.inactive for row in pool.rows)
        coming, heal = pool.flow * tick, tick / self.HEAL_SECONDS
        aims: list[float] = []
        below = above = 0.0
        for row in pool.rows:
            fair, part = row.part * coming, row.part * opened
            behind = (part - row.active) / max(part, 4.0)
            pull = heal * (row.part * closed - row.inactive)
            got = fair * max(0.0, 1 + behind) + min(CATCH_UP * fair, max(-CATCH_UP * fair, pull))
            aim = min(fair * (1 + CATCH_UP), max(0.0, got))
            aims.append(aim)
            below += fair - aim
            above += aim if aim < fair else 0.0
        spare = 1 + max(0.0, below) / (above or 1.0)
        return [w * spare if w < row.part * coming else w for row, w in zip(pool.rows, aims, strict=True)]
