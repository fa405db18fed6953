"""Other sources than agents on the real kernel, and the figures of `hog` with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from feedback.lab import runner
from feedback.lab.bounds import judge
from feedback.lab.error import LabError
from feedback.lab.job import Options
from feedback.lab.procfs import stat
from feedback.lab.scenarios import hog
from tests.lab.test_scenarios import TRUE, trace

needs_node_exporter = pytest.mark.skipif(
    shutil.which("prometheus-node-exporter") is None, reason="Debian's package prometheus-node-exporter is absent"
)


@pytest.mark.parametrize("source, bounded", [("exporter", "over_agents"), ("none", "worst_over_static")])
def test_hog_judges_the_source_and_not_the_agents(source: str, bounded: str) -> None:
    made = trace({"start": 0, "hog": 30, "end": 60}, [(0, TRUE)], 60)
    options = Options(seconds=60, source=source)
    figures = hog.SCENARIO.figures(dict.fromkeys(hog.SCENARIO.played(options), made), options)
    assert (figures["over_agents"], figures["gain_over_wlc"], figures["worst_over_static"]) == (1, 1, 1)
    checks = {check.figure: check.ok for check in judge(hog.SCENARIO.bounds, figures)}
    assert bounded in checks and "over_oracle" not in checks
    assert set(checks.values()) <= {True, False}


def test_a_source_that_a_scenario_has_not_is_refused(tmp_path: Path) -> None:
    for name, source, why in (("hog", "snmp", "choose from exporter, none"), ("join", "none", "it has agents only")):
        with pytest.raises(LabError, match=why):
            runner.run(name, tmp_path, options=Options(seconds=60, source=source))


def test_a_quota_is_a_processor_of_that_speed() -> None:
    lines = stat(usage_seconds=10.0, up_seconds=100.0, quota=0.2, booted=7).splitlines()
    assert lines[1].split()[:5] == ["cpu0", "5000", "0", "0", "5000"]
    assert "btime 7" in lines


@needs_node_exporter
@pytest.mark.long
@pytest.mark.lab(on="host")
@pytest.mark.parametrize("source", ["exporter", "none"])
def test_hog_runs_with_each_source_on_a_real_kernel(source: str, tmp_path: Path) -> None:
    options = Options(seconds=40, source=source)
    result = runner.run("hog", tmp_path / "output", options=options, only=["static", source])
    assert not result.disturbed, result.disturbed
    assert result.figures["gain_over_static"] > (4 if source == "exporter" else 1.5)
    assert result.figures["errors"] == 0
