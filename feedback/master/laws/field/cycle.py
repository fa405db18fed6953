"""Cycle: a law's own time: the agents' reports since its last turn, averaged, and the time of its next turn.

The loop decides five times a second; the systems that the laws of the field come from did so every 1 to 20 seconds, on
what was read between two turns. Reading only the last window at each turn would be noisier than any of them ever was.

Knows no law. Invariant: every window is counted once, and none of a silent agent.
"""

from __future__ import annotations

import msgspec

from feedback.master.pool import Pool, Row
from feedback.master.servers.fleet import Trust
from feedback.master.servers.window import ApplicationWindow, Window
from feedback.model import DestinationKey

EARLY_SECONDS = 1e-6  # sums of 0.2 are not exact


class Observed(msgspec.Struct, frozen=True):
    """Means over the windows of one turn; None where nothing said it. Rates are per second.

    `busy` is the part of the CPU that was used (0..1), whoever used it; `opened` and `completions` are connections as
    the agent counts them, or as the director does where the agent cannot (then both are its rate of new connections).
    `cpu_pressure` is PSI's part of the time that some task waited for a CPU. What starts with `application_` is the
    application's own word for this port: `utilisation` 0..1, `in_flight` requests, `latency` seconds, `answers` and
    `errors` per second.
    """

    busy: float
    memory_available: float
    cores: float
    opened: float | None = None
    completions: float | None = None
    runnable: float | None = None  # tasks for each core
    cpu_pressure: float | None = None
    application_utilisation: float | None = None
    application_in_flight: float | None = None
    application_latency: float | None = None
    application_answers: float | None = None
    application_errors: float | None = None


class Cycle:
    """One law's turns over one service. The first is as soon as an agent has said something."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: float | None = None
        self._seen: dict[DestinationKey, float] = {}  # end of the last window taken
        self._windows: dict[DestinationKey, list[tuple[float, Observed]]] = {}

    def turn(self, pool: Pool, now: float) -> dict[DestinationKey, Observed] | None:
        """Call at every decision. None while it is not the law's turn; otherwise what was seen since the last one, of
        those members of whom something was."""
        for row in pool.rows:
            self._take(row)
        if not self._windows if self._due is None else now < self._due - EARLY_SECONDS:
            return None
        self._due = now + self._seconds
        windows, self._windows = self._windows, {}
        return {row.key: _mean(windows[row.key]) for row in pool.rows if row.key in windows}

    def _take(self, row: Row) -> None:
        for window in row.latest if row.trust is Trust.FRESH else ():
            if window.seconds > 0 and self._seen.get(row.key) != window.end:
                self._seen[row.key] = window.end
                self._windows.setdefault(row.key, []).append((window.seconds, _observed(row, window)))


def _observed(row: Row, window: Window) -> Observed:
    application = _application(row, window)
    counted = row.estimate.rate if row.estimate is not None else None
    return Observed(
        busy=min(1.0, max(0.0, window.busy)),
        memory_available=min(1.0, max(0.0, window.memory_available)),
        cores=window.cores,
        opened=counted if window.opened is None else window.opened / window.seconds,
        completions=counted if window.completions is None else window.completions / window.seconds,
        runnable=window.runnable,
        cpu_pressure=window.cpu_pressure,
        application_utilisation=application.utilisation if application else None,
        application_in_flight=application.in_flight if application else None,
        application_latency=application.latency_seconds if application else None,
        application_answers=_rate(application.completions, window) if application else None,
        application_errors=_rate(application.errors, window) if application else None,
    )


def _application(row: Row, window: Window) -> ApplicationWindow | None:
    """The applications that report for this destination's port, or for all ports."""
    of_port = {a.port: a for a in window.applications}
    return of_port.get(row.key.port, of_port.get(0))


def _rate(count: int | None, window: Window) -> float | None:
    return None if count is None else count / window.seconds


def _mean(windows: list[tuple[float, Observed]]) -> Observed:
    """Each field's mean over time, of the windows that have it. A sum of completions may be negative where connections
    opened in this turn stay open: it is none."""
    means: dict[str, float | None] = {}
    for name in Observed.__struct_fields__:
        known = [(s, v) for s, o in windows if (v := getattr(o, name)) is not None]
        total = sum(s for s, _ in known)
        means[name] = max(0.0, sum(s * v for s, v in known) / total) if known else None
    return msgspec.convert(means, Observed)


def in_loop(row: Row) -> bool:
    """Whether the row's load has anything to do with our weight: a law that adds up must not do so for a server
    that looks idle because it gets nothing."""
    return not row.quiesced and (row.kernel is None or row.kernel.destination.weight > 0)


def mean(values: list[float]) -> float:
    """0 of nothing."""
    return sum(values) / len(values) if values else 0.0
