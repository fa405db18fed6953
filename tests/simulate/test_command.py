"""`feedback simulate` as people and programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.master.laws import names
from feedback.simulate import suite

SHORT = """
name = "short"
seconds = 3
measure_from_seconds = 1
[[server]]
cores = 1
[[server]]
cores = 2
[[load]]
part = 0.5
"""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.toml"
    path.write_text(SHORT)
    return path


def test_the_list_has_every_case_and_law() -> None:
    answer = CliRunner().invoke(main, ["simulate", "--list"])
    assert answer.exit_code == 0
    assert [line.split()[0] for line in answer.output.splitlines()[:-1]] == list(suite.NAMES)
    assert all(name in answer.output for name in names())


def test_every_law_runs_on_every_scheduler_of_a_case_and_the_last_line_is_json(short: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "p.svg"
    arguments = ["--scenario", str(short), "--json", "--jobs", "1", "--seeds", "1", "--picture", str(picture)]
    answer = CliRunner().invoke(main, ["simulate", *arguments])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["schema"] == 1
    assert found["seeds"] == [1]
    runs = {(r["law"], r["scheduler"]) for r in found["cases"]["short"].values()}
    laws = {"plain", "oracle", "exporter", "no agent", *names()} - {"static", "failover", "overflow", "spillover"}
    assert runs == {(law, scheduler) for law in laws for scheduler in ("sed", "wlc", "wrr")}
    assert picture.stat().st_size > 1000
    assert "3/3 short" in answer.stderr


def test_two_processes_give_what_one_gives(short: Path) -> None:
    arguments = ["simulate", "--scenario", str(short), "--law", "capacity", "--seeds", "2", "--json", "--jobs"]
    one, two = (CliRunner().invoke(main, [*arguments, jobs]).stdout.splitlines()[-1] for jobs in ("1", "2"))
    assert json.loads(one) == json.loads(two)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--case", "nothing"], "case 'nothing': expected one of"),
        (["--case", "step", "--law", "best"], "law 'best': expected one of"),
        (["--case", "step", "--scheduler", "mh"], "scheduler 'mh' is not modelled"),
        (["--scenario", "/nowhere.toml"], "/nowhere.toml: cannot be read"),
    ],
)
def test_what_cannot_be_run_is_one_line(arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(main, ["simulate", *arguments])
    assert answer.exit_code == 1
    assert words in answer.output
    assert len(answer.output.splitlines()) == 1


def test_the_suite_runs_for_a_second_of_each_case(monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    quick = tuple(
        msgspec.structs.replace(c, seconds=1.0, measure_from_seconds=0.0, event_seconds=0.0) for c in suite.CASES
    )
    monkeypatch.setattr(suite, "CASES", quick)
    answer = CliRunner().invoke(
        main, ["simulate", "--scheduler", "sed", "--law", "capacity", "--no-late", "--jobs", "1", "--json"]
    )
    assert answer.exit_code == 0, answer.output
    assert set(json.loads(answer.stdout.splitlines()[-1])["cases"]) == set(suite.NAMES) - {"wlc-memory", "udp"}
