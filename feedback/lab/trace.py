"""Trace: everything that a variant of a scenario left in its output directory, read whole or while it grows.

Reads files only, so a finished run can be judged again. Must not know what any scenario shows.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feedback.lab.samples import Sample
from feedback.lab.samples import read as read_samples
from feedback.lab.workload import records
from feedback.lab.workload.records import Record

RECORDS = "client.records"
SAMPLES = "samples.jsonl"
EVENTS = "events.jsonl"
_EVENT = re.compile(rb"\bevent=([a-z-]+)")


@dataclass(frozen=True, slots=True)
class Event:
    """`at` is a moment of the guest's CLOCK_MONOTONIC."""

    what: str
    at: float
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """Files that only the pair's scenarios write are read from `output` when they are asked for."""

    records: list[Record]
    samples: list[Sample]
    events: list[Event]
    output: Path = Path()

    @staticmethod
    def read(output: Path) -> Trace:
        return Trace(
            records.read(output / RECORDS), read_samples(output / SAMPLES)[0], read_events(output / EVENTS), output
        )

    def moment(self, what: str) -> float:
        """The time of the first event of that name. Raises KeyError."""
        for event in self.events:
            if event.what == what:
                return event.at
        raise KeyError(f"no event {what!r}")

    def when(self, what: str) -> float:
        """The same of a trace that still grows: infinity while there is none."""
        return next((event.at for event in self.events if event.what == what), math.inf)


def read_events(path: Path) -> list[Event]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    raw = [json.loads(line) for line in lines if line.endswith("\n")]
    return [Event(each.pop("what"), each.pop("at"), each) for each in raw]


def logged(logs: Path) -> dict[str, int]:
    """How often the daemons have logged each event, over all files of the directory; a line that is none counts as
    `?`."""
    found: Counter[str] = Counter()
    for path in logs.iterdir():
        for line in path.read_bytes().splitlines():
            event = _EVENT.search(line)
            found[event[1].decode() if event else "?"] += 1
    return dict(found)
