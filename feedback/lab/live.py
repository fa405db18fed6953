"""Progress while guests run: a table on the terminal, or without one a line now and then.

Reads the files of the variants as they grow. Must not know what a scenario shows, only its quotas and which requests
its p99 is of: when a run ends, the p99 here is that of the figures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from feedback.lab.figures import errors, percentile_ms
from feedback.lab.job import Options
from feedback.lab.kernel import Guest
from feedback.lab.samples import read as read_samples
from feedback.lab.scenario import Scenario
from feedback.lab.trace import EVENTS, RECORDS, SAMPLES, Trace, read_events
from feedback.lab.workload import records
from feedback.lab.workload.records import FORMAT, Record

LINE_SECONDS = 10.0
RECENT_SECONDS = 3.0
UTILISATION_SAMPLES = 10  # some one second
FIGURES = 3  # cells after those of the real servers
BAR = " ▁▂▃▄▅▆▇█"


@dataclass
class Follower:
    """One variant's files, read as they grow."""

    output: Path
    trace: Trace = field(init=False)
    samples_read: int = 0

    def __post_init__(self) -> None:
        self.trace = Trace([], [], [], self.output)

    def read(self) -> None:
        trace = self.trace
        fresh, self.samples_read = read_samples(self.output / SAMPLES, self.samples_read)
        trace.samples.extend(fresh)
        trace.records.extend(records.read(self.output / RECORDS, len(trace.records) * FORMAT.size))
        trace.events[:] = read_events(self.output / EVENTS)

    def seconds(self) -> float | None:
        """Seconds of load so far, by the guest's clock; None before it begins."""
        start, samples, sent = self.trace.when("start"), self.trace.samples, self.trace.records
        last = samples[-1].at if samples else sent[-1].intended if sent else None
        if math.isinf(start) or last is None:
            return None
        return max(0.0, last - start)

    def state(self) -> str:
        return self.trace.events[-1].what if self.trace.events else "set up"

    def recent(self) -> list[Record]:
        sent = self.trace.records
        if not sent:
            return []
        since = sent[-1].intended - RECENT_SECONDS
        return [record for record in sent[-4000:] if record.intended >= since]

    def utilisation(self, quotas: Sequence[float]) -> list[float]:
        last = self.trace.samples[-UTILISATION_SAMPLES:]
        if len(last) < 2:
            return [0.0] * len(quotas)
        seconds = last[-1].at - last[0].at
        pairs = zip(last[0].usage, last[-1].usage, quotas, strict=False)
        return [(after - before) / seconds / quota for before, after, quota in pairs]


class Progress:
    """Call it with what is running. Use as a context manager."""

    def __init__(self, scenario: Scenario, options: Options) -> None:
        self.scenario, self.options = scenario, options
        self.quotas = scenario.quotas
        self.console = Console(stderr=True)
        self.live = Live(console=self.console, refresh_per_second=4, transient=True)
        self.followers: dict[str, Follower] = {}
        self.said = 0.0

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.console.is_terminal:
            self.live.stop()
        elif error is None:
            self._say(self.followers)

    def __call__(self, guests: Sequence[Guest]) -> None:
        for guest in guests:
            follower = self.followers.setdefault(guest.job.variant, Follower(guest.output))
            follower.read()
        if self.console.is_terminal:
            self.live.update(self._table())
        elif time.monotonic() - self.said > LINE_SECONDS:
            self.said = time.monotonic()
            self._say(guest.job.variant for guest in guests)

    def p99_ms(self, variant: str) -> float:
        """The p99 of the requests measured so far. At the end of the run it is what the figures say. NaN if there are
        none."""
        return percentile_ms(self.scenario.measured(self.followers[variant].trace, self.options), 0.99)

    def _table(self) -> Table:
        # Two lines a policy, so that it fits 80 columns: weights above, utilisation below.
        table = Table(
            title="real servers: weight, and the part of their CPU quota in use",
            box=SIMPLE,
            padding=(0, 1),
            pad_edge=False,
        )
        for heading in ("policy", "seconds", *(f"rs{i}" for i in range(1, len(self.quotas) + 1))):
            table.add_column(heading, no_wrap=True)
        for heading in ("p99 now", "p99 ms", "errors"):
            table.add_column(heading, justify="right", no_wrap=True)
        for variant, follower in self.followers.items():
            name, clock, phase, *rest = self._cells(variant, follower)
            table.add_row(
                name, f"{clock}\n{phase}", *(cell.replace(" ", "\n", 1) for cell in rest[:-FIGURES]), *rest[-FIGURES:]
            )
        return table

    def _cells(self, variant: str, follower: Follower) -> list[str]:
        seconds = follower.seconds()
        whole = self.options.seconds
        clock = "starting" if seconds is None else f"{min(seconds, whole):.0f}/{whole:.0f}"
        weights = follower.trace.samples[-1].weights if follower.trace.samples else ()
        servers = [
            f"{_weight(weights, i)} {_bar(used)}{used:.0%}" for i, used in enumerate(follower.utilisation(self.quotas))
        ]
        times = [_ms(percentile_ms(follower.recent(), 0.99)), _ms(self.p99_ms(variant))]
        return [variant, clock, follower.state(), *servers, *times, str(errors(follower.trace.records))]

    def _say(self, variants: Iterable[str]) -> None:
        for variant in variants:
            self.console.print(self._line(variant), highlight=False, markup=False)

    def _line(self, variant: str) -> str:
        names = (
            "time",
            "phase",
            *(f"rs{i}" for i in range(1, len(self.quotas) + 1)),
            "p99 (3 s)",
            "p99",
            "errors",
        )
        cells = self._cells(variant, self.followers[variant])[1:]
        return f"{variant:9} " + "  ".join(f"{name} {cell}" for name, cell in zip(names, cells, strict=True))


def _weight(weights: Sequence[int], index: int) -> str:
    if index >= len(weights) or weights[index] < 0:
        return "-"
    return str(weights[index])


def _bar(part: float) -> str:
    return BAR[min(len(BAR) - 1, max(0, round(part * (len(BAR) - 1))))]


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f}"
