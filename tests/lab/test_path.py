"""The scenario `path`: what its figures say of made-up traces, and that it runs on a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.lab import runner
from feedback.lab.job import Options
from feedback.lab.samples import Sample
from feedback.lab.scenarios import path
from feedback.lab.trace import Event, Trace
from feedback.lab.workload.records import Record
from tests.lab.judging import missed

OPTIONS = Options(seconds=28)
EVENTS = [("start", 0.0), ("lost", 2.0), ("restored", 5.0), ("lost", 8.0), ("restored", 11.0), ("end", 28.0)]


def trace(*out: tuple[float, float]) -> Trace:
    """Ten samples a second; the server is out of service in these spans."""

    def weight(at: float) -> int:
        return 0 if any(begin <= at < end for begin, end in out) else 100

    samples = [
        Sample(i / 10, (100, weight(i / 10), 100), (0,) * 3, (0,) * 3, (0.0,) * 3, (0.0,) * 3, 0.0) for i in range(280)
    ]
    records = [Record(i / 10, 0.01, -110 if 20 <= i < 25 else 200, 1) for i in range(280)]
    return Trace(records, samples, [Event(what, at, {}) for what, at in EVENTS])


def test_the_longest_of_all_losses_counts() -> None:
    traces = {"through": trace((3.0, 5.5), (9.4, 12.0)), "tunnel": trace((3, 6), (9, 12)), "rip": trace()}
    figures = path.SCENARIO.figures(traces, OPTIONS)
    assert (figures["found_ms"], figures["back_ms"]) == (pytest.approx(1400), pytest.approx(1000))
    assert (figures["rip_check_found"], figures["losses_rip"], figures["errors_rip"]) == (0, 2, 5)
    assert missed(path.SCENARIO, figures) == []


@pytest.mark.parametrize(
    "traces, fails",
    [
        ({"through": trace((3.0, 5.5))}, "found_ms"),  # the second loss was never found
        ({"through": trace((3.0, 5.5), (9.6, 12.0))}, "found_ms"),
        ({"tunnel": trace()}, "found_tunnel_ms"),
        ({"rip": trace((3.0, 5.5))}, "rip_check_found"),
    ],
)
def test_what_is_late_or_found_by_the_wrong_check_misses(traces: dict[str, Trace], fails: str) -> None:
    good = {"through": trace((3, 6), (9, 12)), "tunnel": trace((3, 6), (9, 12)), "rip": trace()}
    assert missed(path.SCENARIO, path.SCENARIO.figures(good | traces, OPTIONS)) == [fails]


@pytest.mark.lab(on="host")
@pytest.mark.parametrize("variant", ["through", pytest.param("tunnel", marks=pytest.mark.long)])
def test_a_check_through_the_service_finds_what_the_rip_hides(tmp_path: Path, variant: str) -> None:
    result = runner.run("path", tmp_path / "output", options=Options(seconds=9), only=[variant])
    assert result.disturbed or missed(path.SCENARIO, result.figures) == [], result.figures


@pytest.mark.lab(on="host")
@pytest.mark.long
def test_a_check_of_the_rip_does_not(tmp_path: Path) -> None:
    result = runner.run("path", tmp_path / "output", options=Options(seconds=9), only=["rip"])
    assert (result.figures["rip_check_found"], result.figures["losses_rip"]) == (0, 1)
