"""The live view: followed to its end, it says of a run what the figures say of it."""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from feedback.lab import scenarios
from feedback.lab.job import Job, Options
from feedback.lab.kernel import Guest
from feedback.lab.live import Progress
from feedback.lab.samples import Sample
from feedback.lab.scenarios import join
from feedback.lab.scenarios.silence import FAILURES
from feedback.lab.trace import EVENTS, RECORDS, SAMPLES, Trace
from feedback.lab.workload.load import requests
from feedback.lab.workload.records import pack

START, SECONDS = 1000.25, 60.0
SILENCE = {f"{what}{suffix}": 20.0 + i for i, what in enumerate(FAILURES) for suffix in ("", " dead", " back")}


@dataclass(frozen=True)
class Run:
    """One variant's files as its guest has left them; events are seconds after the start."""

    scenario: str
    variant: str
    events: Mapping[str, float]
    figure: str

    def moments(self) -> list[float]:
        options = Options(seconds=SECONDS)
        if self.scenario == "join":
            return [START + request.offset_seconds for request in requests(join.load(options))]
        return [START + i / 40 for i in range(int(40 * SECONDS))]

    def records(self) -> list[bytes]:
        """In the order of their ends, and slowest at first and in the middle: what is left out of the windows shows."""
        draw = random.Random(7)
        made = []
        for moment in self.moments():
            since = moment - START
            slow = 5.0 if since < 9 or 30 <= since < 38 else 0.1 + since / 100
            made.append((moment, slow * draw.uniform(0.5, 1.5)))
        return [pack(at, latency, 200, 1) for at, latency in sorted(made, key=lambda each: each[0] + each[1])]

    def lines(self) -> list[bytes]:
        events = {"start": 0.0, **self.events, "end": SECONDS}
        told: list[dict[str, Any]] = [{"what": what, "at": START + at} for what, at in events.items()]
        return [json.dumps(each).encode() + b"\n" for each in sorted(told, key=lambda each: each["at"])]

    def samples(self) -> list[bytes]:
        none, some = (0,) * 4, (100,) * 4
        made = [Sample(START + i / 10, some, none, none, (i / 100,) * 4, (i / 100,) * 4, i / 20) for i in range(600)]
        return [msgspec.json.encode(sample) + b"\n" for sample in made]


RUNS = [
    Run("hog", "feedback", {"hog": 30.0}, "p99_feedback_ms"),
    Run("hog", "wlc", {"hog": 30.0}, "p99_wlc_static_ms"),
    Run("join", "feedback", {"join": 24.0}, "p99_feedback_ms"),
    Run("overload", "static", {"overload": 20.0, "back": 40.0}, "p99_static_ms"),
    Run("blackhole", "plain_sed", {"broken": 15.0, "mended": 45.0}, "p99_plain_sed_ms"),
    Run("silence", "feedback", SILENCE, "p99_ms"),
    Run("chaos", "feedback", {}, "p99_ms"),
    Run("adopt", "keepalived", {"reload": 17.0, "stopped": 20.0, "hog": 44.0}, "p99_keepalived_ms"),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.scenario}-{run.variant}")
def test_its_p99_is_that_of_the_figures_when_the_run_has_ended(run: Run, tmp_path: Path) -> None:
    scenario, options = scenarios.named(run.scenario), Options(seconds=SECONDS)
    progress = Progress(scenario, options)
    guest = cast(Guest, SimpleNamespace(job=Job(task="scenario", output="", variant=run.variant), output=tmp_path))
    files = {RECORDS: run.records(), EVENTS: run.lines(), SAMPLES: run.samples()}
    shown = []
    for part in (0.0, 0.1, 0.35, 0.7, 1.0):
        for name, pieces in files.items():
            data = b"".join(pieces)
            (tmp_path / name).write_bytes(data[: int(part * len(data))])  # cut in the middle of a record or a line
        progress([guest])
        shown.append(progress.p99_ms(run.variant))
    figures = scenario.figures({run.variant: Trace.read(tmp_path)}, options)
    assert shown[-1] == figures[run.figure]
    assert not math.isnan(shown[-1])
    assert math.isnan(shown[0])


def test_where_there_is_no_terminal_its_last_line_is_of_the_whole_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RUNS[0]
    guest = cast(Guest, SimpleNamespace(job=Job(task="scenario", output="", variant=run.variant), output=tmp_path))
    for name, pieces in ((RECORDS, run.records()), (EVENTS, run.lines()), (SAMPLES, run.samples())):
        (tmp_path / name).write_bytes(b"".join(pieces))
    with Progress(scenarios.named("hog"), Options(seconds=SECONDS)) as progress:
        progress([guest])
    p99 = progress.p99_ms(run.variant)
    last = " ".join(capsys.readouterr().err.split()).rpartition("feedback time")[2]
    assert f" p99 {p99:.0f} errors 0" in last


def test_requests_that_a_scenario_leaves_out_are_in_no_p99(tmp_path: Path) -> None:
    run = RUNS[0]
    (tmp_path / RECORDS).write_bytes(b"".join(run.records()))
    (tmp_path / EVENTS).write_bytes(b"".join(run.lines()))
    trace = Trace.read(tmp_path)
    measured = scenarios.named("hog").measured(trace, Options(seconds=SECONDS))
    assert {int(record.intended - START) for record in measured} == {*range(10, 30), *range(40, 60)}
