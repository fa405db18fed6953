"""What a scenario is: variants that run in a guest each, and figures that the host draws from their files.

`run` is the guest's side, everything else the host's. A variant is one policy, or the whole scenario where it does not
compare any. Invariant: `figures` reads files only, so a finished run can be judged again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from feedback.lab.job import Job
from feedback.lab.samples import Sample
from feedback.lab.samples import read as read_samples
from feedback.lab.workload import records
from feedback.lab.workload.records import Record

Figures = dict[str, float]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line chooses; None: the scenario's own. `seconds` is of load, the whole run of one variant.
    With `adopt` somebody else owns the service, and the master adjusts weights and thresholds only."""

    law: str | None = None
    scheduler: str | None = None
    adopt: bool = False
    seconds: float
    seed: int = 1

    @staticmethod
    def of(job: Job) -> Options:
        return msgspec.convert(job.options, Options)


class Scenario(Protocol):
    name: str
    summary: str
    variants: tuple[str, ...]
    seconds: float  # of load in one variant, unless the options say otherwise
    seconds_least: float
    quotas: tuple[float, ...]
    law: str  # of the policy feedback, unless the options say otherwise
    scheduler: str

    def run(self, job: Job, output: Path) -> None:
        """In the guest: the variant job.variant, its files into `output`. Raises LabError."""

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        """A flat map of numbers. A variant that was not run leaves its figures out."""

    def failures(self, figures: Figures) -> list[str]:
        """What the figures fall short of, in words; empty: ok."""


@dataclass(frozen=True, slots=True)
class Event:
    what: str
    at: float
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """All that a variant has left in its output directory. What only the pair's scenarios leave is read from there."""

    records: list[Record]
    samples: list[Sample]
    events: list[Event]
    output: Path = Path()

    @staticmethod
    def read(output: Path) -> Trace:
        return Trace(
            records.read(output / "client.records"),
            read_samples(output / "samples.jsonl")[0],
            read_events(output / "events.jsonl"),
            output,
        )

    def moment(self, what: str) -> float:
        """Of the first event of that name. Raises KeyError."""
        for event in self.events:
            if event.what == what:
                return event.at
        raise KeyError(f"no event {what!r}")


def read_events(path: Path) -> list[Event]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    raw = [json.loads(line) for line in lines if line.endswith("\n")]
    return [Event(each.pop("what"), each.pop("at"), each) for each in raw]


def shortfall(figures: Figures, name: str, *, least: float | None = None, most: float | None = None) -> list[str]:
    """One line if the figure is there and misses its bound. NaN misses every bound."""
    if name not in figures:
        return []
    value = figures[name]
    if least is not None and not value >= least:
        return [f"{name} is {value:.4g}, wanted at least {least:g}"]
    if most is not None and not value <= most:
        return [f"{name} is {value:.4g}, wanted at most {most:g}"]
    return []
