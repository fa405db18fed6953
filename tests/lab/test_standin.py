"""The scenario standin: what its figures say of made-up traces, and that it holds on a real kernel."""

import json
import math
from pathlib import Path

import pytest

from feedback.lab import runner
from feedback.lab.job import Options
from feedback.lab.scenarios import standin
from feedback.lab.trace import Event, Trace
from tests.lab.judging import missed

GOOD = {"bytes": 1000, "wrong_bytes": 0, "connections": 2, "interrupted_seconds": 1.1}


def trace(output: Path, *downloads: dict[str, float], stands_in: float | None = 1004.6) -> Trace:
    (output / "logs").mkdir(exist_ok=True)
    lines = [json.dumps({"session": f"u{i}"} | download) for i, download in enumerate(downloads)]
    (output / "logs" / "client.log").write_text("\n".join(["a warning of Python's", *lines]))
    told = [Event("master stands-in", 16.0, {"wall": stands_in})] if stands_in is not None else []
    events = [Event("clock", 0.0, {"wall": 1000.0}), Event("died", 4.0, {}), Event("end", 16.0, {}), *told]
    return Trace([], [], events, output)


def figures(made: Trace) -> dict[str, float]:
    found = standin.SCENARIO.figures(dict.fromkeys(standin.SCENARIO.variants, made), Options(seconds=16))
    return {figure: value for figure, value in found.items() if value is not None}


def test_downloads_that_go_on_in_time_are_as_they_should_be(tmp_path: Path) -> None:
    found = figures(trace(tmp_path, *[GOOD] * 12))
    assert (found["detection_ms"], found["interrupted_max_ms"]) == (pytest.approx(600), pytest.approx(1100))
    assert missed(standin.SCENARIO, found) == []


@pytest.mark.parametrize(
    ("worse", "figure"),
    [
        ({"wrong_bytes": 1}, "wrong_bytes"),
        ({"interrupted_seconds": 1.31}, "interrupted_max_ms"),
        ({"interrupted_seconds": 12.0}, "resumed"),
        ({"connections": 1}, "resumed"),
    ],
)
def test_one_that_does_not_is_seen(worse: dict[str, float], figure: str, tmp_path: Path) -> None:
    assert figure in missed(standin.SCENARIO, figures(trace(tmp_path, *[GOOD] * 11, GOOD | worse)))


def test_a_failure_that_was_never_found_is_seen(tmp_path: Path) -> None:
    found = figures(trace(tmp_path, *[GOOD] * 12, stands_in=None))
    assert math.isinf(found["detection_ms"])
    assert missed(standin.SCENARIO, found) == ["detection_ms", "takeover_detection_ms"]


@pytest.mark.long
@pytest.mark.lab(on="host")
def test_a_stand_in_goes_on_on_a_real_kernel(tmp_path: Path) -> None:
    result = runner.run("standin", tmp_path / "output", only=["feedback", "takeover"])
    assert missed(standin.SCENARIO, result.figures) == []
