"""Scripts play to their end and say the same each time, and a difference between two runs is found and named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.golden import Run, compared
from tests.pipeline.scripts import SCRIPTS
from tests.pipeline.stage import Place

PLAYED = ("orders-adopted", "restarts-wlc-owned", "checks-owned-without-agents")


def run(name: str, directory: Path) -> Run:
    place = Place(directory, [])
    SCRIPTS[name](place)
    made = Run(list(place.turns))
    return msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Run)


@pytest.mark.parametrize("name", PLAYED)
def test_a_script_says_the_same_each_time(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = run(name, tmp_path / "a")
    assert sum(turn["edits"] for turn in first.turns) > 5
    found = compared(first, run(name, tmp_path / "b"))
    assert found.compared > 500
    assert not found.counts


def test_each_kind_of_difference_is_named(tmp_path: Path) -> None:
    old = run("life-sed", tmp_path)
    new = msgspec.json.decode(msgspec.json.encode(old), type=Run)
    last = max(i for i, turn in enumerate(new.turns) if turn["rows"])
    keys = list(new.turns[last]["rows"])
    before = {key: new.turns[last]["rows"][key][0] for key in keys}
    changes = (0, before[keys[1]] + 1, round(before[keys[2]] * 1.1), before[keys[3]] * 2)
    for key, weight in zip(keys, changes, strict=True):
        new.turns[last]["rows"][key] = [weight, 50, 40]
    new.turns[last]["held"] = ["for a test"]
    kinds = compared(old, new).counts
    assert kinds == {"held": 1} | dict.fromkeys(
        ("zero", "weight by 1", "weight < 20 %", "weight over 20 %"), len(new.turns) - last
    ) | {"threshold": 4 * (len(new.turns) - last)}


def test_what_ended_a_run_is_a_difference() -> None:
    found = compared(Run([]), Run([], "ZeroDivisionError: in its decision"))
    assert found.first == {"error in new": "ZeroDivisionError: in its decision"}
