"""`feedback lab`: what it says without booting anything."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.lab import scenarios
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
    told = json.loads(
        json.dumps(Result("hog", figures, checks, {"kernel": "uml"}, tmp_path).as_json(), allow_nan=False)
    )
    assert told["ok"] is False
    assert told["figures"] == {"reaction_ms": None, "errors": 0}
    assert [(each["figure"], each["ok"]) for each in told["bounds"]] == [
        ("reaction_ms", False),
        ("errors", True),
        ("gain", None),
    ]
