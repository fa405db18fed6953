"""Options of laws: what is said in the file is what the law does, and what does not fit is one line with the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.config import ConfigError, MasterConfig, parse
from feedback.master import Controller
from feedback.master.laws import load, names
from feedback.master.laws.field.cuberoot import CubeRootOptions, adjusted, aggregate
from feedback.master.laws.field.orca import weight
from feedback.master.laws.field.pid import Loop, PidOptions
from feedback.master.laws.options import Options
from feedback.ops import keys
from tests.master.builders import VIRTUAL, config

ADJUSTABLE = {"capacity", "cuberoot", "linear", "orca", "pid", "proportions", "topsis"}


def with_options(law: str, text: str) -> str:
    return f'[[service]]\nvirtual = "{VIRTUAL}"\nlaw = "{law}"\n[service.law_options]\n{text}\n'


def test_these_laws_can_be_adjusted() -> None:
    assert {n for n in names() if hasattr(load(n), "Options")} >= ADJUSTABLE


@pytest.mark.parametrize("name", sorted(ADJUSTABLE))
def test_every_default_of_a_law_can_be_said_in_the_file(name: str) -> None:
    schema: Any = load(name).Options  # type: ignore[attr-defined]
    assert issubclass(schema, Options)
    said = msgspec.to_builtins(schema())
    assert msgspec.convert(said, schema) == schema()
    load(name, said)


@pytest.mark.parametrize(
    ("law", "text", "words"),
    [
        ("pid", "integral = -1", "service[0].law_options.integral: Expected `float` >= 0.0"),
        (
            "pid",
            "integrl = 0.2",
            "service[0].law_options: unknown field `integrl`: did you mean integral?",
        ),
        (
            "proportions",
            "proportions = { active = 'x' }",
            "service[0].law_options.proportions.active: Expected `float`",
        ),
        ("failover", "cut = 'yes'", "service[0].law_options.cut: 'yes': expected one of both, clients, never"),
        ("topsis", "rounds = 1.5", "service[0].law_options.rounds: Expected `int`"),
        ("static", "weight = 1", "service[0].law_options: law 'static' has no options"),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_key(law: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Controller(parse(with_options(law, text), MasterConfig))
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_check_says_so_and_a_reload_with_bad_options_changes_nothing(tmp_path: Path) -> None:
    _, secret, _ = keys.create(tmp_path / "master")
    path = tmp_path / "master.toml"
    path.write_text(f'key = "{secret}"\nenrolled = "{tmp_path}"\n' + with_options("orca", "blackout_seconds = 1e9"))
    answer = CliRunner().invoke(main, ["master", "check", "--config", str(path)])
    assert answer.exit_code == 1
    assert "service[0].law_options.blackout_seconds" in answer.output
    controller = Controller(config(2))
    with pytest.raises(ConfigError):
        controller.reconfigure(parse(with_options("pid", "integral = -1"), MasterConfig))
    assert len(controller.decide(0.0).services[0].destinations) == 2


def test_options_are_what_the_laws_reckon_with() -> None:
    assert adjusted(10, 0.95 - 0.125, 1, CubeRootOptions(adjustment=2.0, scale=100)) == pytest.approx(11.0)
    assert aggregate({"cpu": 0.5, "memory": 1.0}, CubeRootOptions().coefficients) == pytest.approx(0.6)
    assert weight(100, 0.5, 0.5, 2.0) == pytest.approx(100 / 1.5)
    assert Loop(PidOptions(proportional=0, integral=0.5)).step(0.4) == pytest.approx(0.2)
