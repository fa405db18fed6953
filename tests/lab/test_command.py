"""`feedback lab`: what it says without booting anything."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.lab import runner, scenarios
from feedback.lab.bounds import Bound, judge
from feedback.lab.runner import Result


def test_list_names_every_scenario() -> None:
    answer = CliRunner().invoke(main, ["lab", "list"])
    assert answer.exit_code == 0
    assert [line.split()[0] for line in answer.output.splitlines()] == list(scenarios.names())


def test_list_as_json_tells_policies_and_length() -> None:
    answer = CliRunner().invoke(main, ["lab", "list", "--json"])
    (hog,) = (each for each in json.loads(answer.output)["scenarios"] if each["name"] == "hog")
    assert set(hog["policies"]) == {"wlc", "static", "oracle", "feedback"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "there is no scenario 'nothing': choose from"),
        (["hog", "--seconds", "3"], "at least 30 seconds"),
        (["hog", "--only", "wlc,best"], "hog has no 'best': choose from"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    answer = CliRunner().invoke(main, ["lab", "run", *arguments, "--output", str(tmp_path / "out")])
    assert answer.exit_code == 1
    assert words in answer.output
    assert len(answer.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_result_is_json_even_when_something_never_happened(tmp_path: Path) -> None:
    figures = {"reaction_ms": math.inf, "errors": 0}
    checks = judge([Bound("reaction_ms", most=1000), Bound("errors", most=0), Bound("gain", least=5)], figures)
    result = Result("hog", figures, checks, {"kernel": "uml"}, tmp_path)
    told = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert (told["verdict"], told["ok"]) == ("failed", False)
    assert told["figures"] == {"reaction_ms": None, "errors": 0}
    assert [(each["figure"], each["ok"]) for each in told["bounds"]] == [
        ("reaction_ms", False),
        ("errors", True),
        ("gain", None),
    ]


BUSY = "another process held this machine's processors"


def made(output: Path, gain: float, disturbed: str = "") -> Result:
    figures = {"gain_over_wlc": gain}
    checks = [] if disturbed else judge([Bound("gain_over_wlc", least=5)], figures)
    times = {"wlc": {"guest_seconds": 60.5, "wall_seconds": 93.2}}
    return Result("hog", figures, checks, {"times": times}, output, disturbed)


def invoke(monkeypatch: pytest.MonkeyPatch, arguments: list[str], output: Path, *results: Result) -> Any:
    """The command on runs that came to these results; each is asked for once."""
    left = list(results)
    for name in ("wlc", "feedback", "static", "oracle"):
        (output / name).mkdir(parents=True)
        (output / name / "events.jsonl").write_text('{"what": "start", "at": 0.0}\n')
    monkeypatch.setattr(runner, "run", lambda *_, **__: left.pop(0))
    answer = CliRunner().invoke(main, ["lab", *arguments, "--output", str(output)])
    assert left == []
    return answer


@pytest.mark.parametrize(("gain", "status", "words"), [(22.0, 0, "as it should be"), (3.0, 1, "falls short")])
def test_a_run_ends_with_a_verdict_and_both_clocks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gain: float, status: int, words: str
) -> None:
    output = tmp_path / "out"
    answer = invoke(monkeypatch, ["run", "hog"], output, made(output, gain))
    assert answer.exit_code == status
    assert words in answer.output
    assert ">= 5" in answer.output
    assert "wlc 60.5 s by the guest's clock, 93.2 s on the wall" in answer.output
    assert (output / "hog.svg").exists()


def test_a_disturbed_run_has_a_status_of_its_own_and_leaves_no_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "hog.svg").write_text("of a run before")
    answer = invoke(monkeypatch, ["run", "hog", "--json"], output, made(output, 0.3, BUSY))
    assert answer.exit_code == 75
    assert BUSY in answer.output
    assert "falls short" not in answer.output
    told = json.loads(answer.stdout.splitlines()[-1])
    assert (told["verdict"], told["ok"], told["bounds"], told["disturbed"]) == ("inconclusive", None, [], BUSY)
    assert not (output / "hog.svg").exists()


@pytest.mark.parametrize(("second", "disturbed", "status"), [(22.0, "", 0), (3.0, "", 1), (0.3, BUSY, 75)])
def test_a_disturbed_demo_runs_once_more_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: float, disturbed: str, status: int
) -> None:
    output = tmp_path / "out"
    answer = invoke(monkeypatch, ["demo"], output, made(output, 0.3, BUSY), made(output, second, disturbed))
    assert answer.exit_code == status
    assert answer.output.count(f"Once more, since the first run was inconclusive: {BUSY}") == 1


def test_a_demo_that_nothing_disturbs_runs_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "out"
    answer = invoke(monkeypatch, ["demo"], output, made(output, 22.0))
    assert answer.exit_code == 0
    assert "Once more" not in answer.output
