"""What agents say and what befalls a master breaks no invariant. `python -m tests.pipeline` looks further."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from feedback.model import SetDestination
from tests.pipeline import interference, invariants, storm
from tests.pipeline.face import room
from tests.pipeline.interference import Pair
from tests.pipeline.killed import CONFIG, order
from tests.pipeline.master import Master
from tests.pipeline.stage import Place, Stage, rip, service

SEEDS = (*range(1, 13), 72, 1539)  # with two that found something
PAIRS = range(1, 7), range(7, 25)


def test_no_storm_breaks_an_invariant(tmp_path: Path) -> None:
    broken = [found for seed in SEEDS for found in storm.play(seed, tmp_path)[0]]
    assert not broken, "\n\n".join(f"seed {b.seed}, turn {b.turn}: {b.text}" for b in broken[:3])


@pytest.mark.parametrize("seeds", [PAIRS[0], pytest.param(PAIRS[1], marks=pytest.mark.long)], ids=["some", "more"])
def test_a_lie_moves_no_other_server(seeds: range, tmp_path: Path) -> None:
    broken = [found for seed in seeds for found in interference.play(seed, tmp_path)[0]]
    assert not broken, "\n".join(f"seed {b.seed}, turn {b.turn}: {b.text}" for b in broken[:9])


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))])
@pytest.mark.parametrize("attack", interference.ATTACKS)
def test_an_attack_of_one_agent_moves_no_other_server_and_ends_nothing(attack: str, seed: int, tmp_path: Path) -> None:
    for scheduler, thresholds in (("sed", "learned"), ("wlc", "learned"), ("wrr", "")):
        for state in tmp_path.iterdir():
            state.unlink()
        pair = Pair(attack, scheduler, 9, seed, tmp_path, thresholds)
        assert not list(pair.run())[:5]
        broken = [*invariants.settings(pair.deceived), *invariants.edits(pair.deceived)]
        assert not [*broken, *invariants.state(pair.deceived)]


def test_the_invariants_see_what_is_broken(tmp_path: Path) -> None:
    """Each of them, on a pool into which a fault is put."""
    stage = Stage(service(3, extra='scheduler = "sed"'), Place(tmp_path, []), cores=(1.0, 1.0, 1.0))
    stage.run(1.0)
    master, key = stage.master, stage.service
    sound = [
        *invariants.faults(master),
        *invariants.settings(master),
        *invariants.edits(master),
        *invariants.serving(master, key, [rip(0), rip(1), rip(2)], []),
        *invariants.orders(master, []),
        *invariants.obeyed(master, key),
        *invariants.state(master),
    ]
    assert not sound
    assert next(iter(invariants.orders(master, [order(1)]))).startswith("order lost")
    master.controller.orders.give(order(1))
    assert next(iter(invariants.orders(master, []))).startswith("order back")
    assert next(iter(invariants.obeyed(master, key))).startswith("order not obeyed")
    master.controller.orders.lift(order(1))
    have = master.table.rows[key][rip(0)].destination
    for weight in (-1, 2**31):
        from_the_wire = SetDestination(key, have.__class__(have.key, weight))
        master.failed = master.table.apply([from_the_wire])
        if weight > 0:
            assert next(iter(invariants.edits(master))).startswith("refused")
    for i in range(3):
        stage.put(i, weight=0)
    assert next(iter(invariants.serving(master, key, [rip(0)], []))).startswith("all zero")
    stage.put(1, weight=5)
    assert next(iter(invariants.serving(master, key, [rip(0)], []))).startswith("none able")
    assert not list(invariants.serving(master, key, [rip(1)], []))


@pytest.mark.parametrize("step", [41, pytest.param(7, marks=pytest.mark.long)])
def test_a_master_killed_in_the_middle_of_a_state_write_comes_back_with_every_order(step: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.killed", str(step)], stdout=subprocess.PIPE, check=True, timeout=300
    )
    found = json.loads(ended.stdout)
    assert found["instructions"] > 20, "the trap sprang"
    assert found["bytes"] > 1
    assert not found["lost"]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (str(rip(1)), "10.0.0.2:nowhere"),
        ('"kind": "drain"', '"kind": "drown"'),
        ('"level": 1.0', '"level": 50.0'),
        ('"level": 1.0', '"level": "fast"'),
    ],
)
def test_an_entry_of_the_state_that_does_not_fit_takes_no_other_along(good: str, bad: str, tmp_path: Path) -> None:
    """The last one is spoilt, or what was learned; the orders before it stand, and the master starts."""
    from feedback.config import MasterConfig, parse

    codec = room("state")
    learned = room("state").Learned(1.0)
    services = {"tcp:192.0.2.1:80": codec.ServiceState(learned={str(rip(3)): learned})}
    state = codec.State(services=services, orders=(order(0), order(1)))
    text = codec.encode(state).decode()
    at = text.rindex(good)
    path = tmp_path / "state.json"
    path.write_text(text[:at] + bad + text[at + len(good) :])
    master = Master(parse(CONFIG, MasterConfig), path)
    standing = master.controller.orders.all()
    assert order(0) in standing
    assert (order(1) in standing) == ("level" in good)
    master.turn()
    assert master.weight(next(iter(master.table.rows)), rip(0)) == 0
