"""What holds of every scenario, on one made-up trace that has the events of all."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from feedback.lab import scenarios
from feedback.lab.bounds import judge
from feedback.lab.job import Options
from feedback.lab.listener import LOOKS
from feedback.lab.owners.program import PROGRAMS
from feedback.lab.pair import looks
from feedback.lab.pair.topology import FLOATING
from feedback.lab.samples import Sample
from feedback.lab.scenarios import chaospair, join, overflow, splitlinks
from feedback.lab.scenarios.chaos import endured
from feedback.lab.scenarios.silence import FAILURES
from feedback.lab.trace import Event, Trace
from feedback.lab.workload import streams, waiting, writers
from feedback.lab.workload.load import requests
from feedback.lab.workload.records import Record
from feedback.lab.workload.streams import Stream

SECONDS = 60.0
SAID = {"said": {"state-saved": 1}}
FOUND: dict[str, Any] = {
    "passed": 500,
    "dropped": 50,
    "cpu_share": 0.1,
    "heard_per_second": {"rs1": 5.0, "rs2": 5.0, LOOKS: 5.0},
    "expired": True,
    "left_seconds": 7200.0,
    "weight": 0,
    "kept": 1,
    "saved_seconds": 1.0,
    "resumed": 2,
}


def events() -> list[Event]:
    clock = count(1)

    def now() -> float:
        return next(clock) * 0.25

    made = [Event("start", 0.0, {})]
    for name in endured.NAMES:
        made.append(Event(name, now(), {**SAID, "wall": 0.0}))
        made.append(Event(f"{name} found", now(), FOUND))
        made.append(Event(f"{name} recovered", now(), {"seconds": 1.0, "served": True}))
        made.append(Event(f"{name} over", now(), SAID))
    made.append(Event("disk told", now(), {"notes": [endured.TOLD]}))
    for name in FAILURES:
        made += [Event(f"{name}{suffix}", now(), {"seconds": 1.0}) for suffix in ("", " dead", " back")]
        made.append(Event(f"recovered {name}", now(), {"seconds": 1.0}))
    for name in splitlinks.PHASES:
        made += [
            Event(name, now(), {"edits": []}),
            Event(f"{name} done", now(), {}),
        ]  # `seen` is a phase, and a word of adopt
    made += [Event(f"{name} hurt", now(), {"passed": 500, "dropped": 50}) for name in chaospair.PHASES]
    made += [Event(step.what, now(), {}) for step in overflow.STEPS]
    for name in ("hog", "overload", "high", "broken", "reload", "stopped", "crash", "restart"):
        made.append(Event(name, now(), {}))
    made.append(Event("visits", now(), {"found": {"10.77.1.1": "r1"}}))
    made.append(Event("replica", now(), {"took_seconds": 1.0}))
    made.append(Event("join", now(), {}))
    made += [Event("lost", now(), {}), Event("restored", now(), {})]
    made.append(Event("complete", now(), {"seconds": 1.0}))
    made.append(Event("tables", now(), {"first": 200_000, "second": 200_000, "templates": 20_000}))
    made.append(Event("templates", now(), {"shortest_seconds": 299}))
    made += [Event("death", now(), {}), Event("handover", now(), {})]
    made.append(Event("transition", now(), {"new": "active"}))
    made += [Event("low", now(), {}), Event("back", now(), {}), Event("mended", now(), {})]
    made.append(Event("visits", now(), {"found": {"10.77.1.1": "r1"}}))
    made.append(Event("memory", now(), {"oom_kills": 0, "peak_bytes": 1}))
    made.append(Event("operator", now(), {"address": "10.77.0.12", "weight": 0}))
    made.append(Event("held", SECONDS, {"found": []}))
    made.append(Event("transfers", now(), {"transfers": 32, "failed": 0, "connections": 8}))
    made.append(Event("calls", now(), {"made": 30, "kept": 30}))
    made += [Event("died", now(), {"server": "r1"}), Event("wake", now(), {}), Event("healed", now(), {})]
    made.append(Event("end", SECONDS, {}))
    return made


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    (tmp_path / "logs").mkdir()
    for name in PROGRAMS:
        (tmp_path / "logs" / f"{name}.log").touch()
    seen = [looks.Look(i / 20, 0.001, i % len(FLOATING), looks.D1 if i < 800 else looks.D2, 0) for i in range(1200)]
    (tmp_path / looks.FILE).write_bytes(b"".join(looks.FORMAT.pack(*look) for look in seen))
    kinds = ("talk", "idle", "download", "mute", "udp")
    streams.write(tmp_path / streams.FILE, [Stream(i, kind, "route4", 16, 16, 0.01) for i, kind in enumerate(kinds)])
    for name in (waiting.FILE, writers.WRITES, writers.ENDS):
        (tmp_path / name).touch()
    some, none = (100,) * 4, (0,) * 4
    table = [Sample(i / 10, some, none, none, (i / 100,) * 4, (i / 100,) * 4, 0.0, none, none) for i in range(600)]
    moments = [request.offset_seconds for request in requests(join.load(Options(seconds=SECONDS)))]
    return Trace([Record(at, 0.01, 200, 1 + i % 4) for i, at in enumerate(moments)], table, events(), tmp_path)


@pytest.mark.parametrize("name", scenarios.names())
def test_its_name_is_that_of_its_file(name: str) -> None:
    assert scenarios.named(name).name == name


@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("name", scenarios.names())
def test_where_every_policy_has_run_every_bound_is_on_a_figure(name: str, adopt: bool, trace: Trace) -> None:
    """A misspelt one would never be missed."""
    scenario = scenarios.named(name)
    options = Options(seconds=SECONDS, adopt=adopt)
    figures = scenario.figures(dict.fromkeys(scenario.variants, trace), options)
    checks = judge(scenario.bounds, figures)
    assert checks
    assert [check.figure for check in checks if check.ok is None] == []
