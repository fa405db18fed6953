"""Hostile conditions: what the figures say of made-up traces, and that all of it is endured on a real kernel."""

import math
from pathlib import Path

import pytest

from feedback.lab import runner, scenarios
from feedback.lab.figures import Figures
from feedback.lab.samples import Sample
from feedback.lab.scenarios import chaos, chaospair
from feedback.lab.scenarios.chaos import endured
from feedback.lab.trace import Event, Trace, logged
from feedback.lab.workload.records import Record
from tests.lab.judging import missed

WEIGHTS = (50, 100, 200, 400)
BEGIN, MENDED, OVER = 10.0, 15.0, 20.0


def samples(changed: dict[float, tuple[int, ...]]) -> list[Sample]:
    """Ten a second; from each moment on with other weights."""
    made = []
    for i in range(200):
        now = [weights for at, weights in {0.0: WEIGHTS, **changed}.items() if at <= i / 10][-1]
        made.append(Sample(i / 10, now, (0,) * 4, (0,) * 4, (0.0,) * 4, (0.0,) * 4, 0.0))
    return made


def figures(
    name: str,
    changed: dict[float, tuple[int, ...]] | None = None,
    said: dict[str, int] | None = None,
    found: list[Event] | None = None,
    bad: int = 0,
) -> Figures:
    events = [
        Event(name, BEGIN, {"said": {"weight-changed": 3}}),
        Event(f"{name} mended", MENDED, {}),
        *(found or []),
        Event(f"{name} recovered", MENDED + 1, {"seconds": 1.0, "served": True}),
        Event(f"{name} over", OVER, {"said": {"weight-changed": 5, **(said or {})}}),
    ]
    records = [Record(i / 10, 0.01, 500 if i < bad else 200, 1) for i in range(100)]
    return endured.figures(Trace(records, samples(changed or {}), events))


def misses(found: Figures) -> list[str]:
    return missed(chaos.SCENARIO, found)


def test_what_changes_nothing_holds() -> None:
    assert misses(figures("master_killed")) == []


@pytest.mark.parametrize(
    ("changed", "said", "short"),
    [
        ({12.0: (0, 100, 200, 400), 13.0: WEIGHTS}, {}, ["zeroed", "weight_least_agent_killed"]),
        ({12.0: (-1, 100, 200, 400), 13.0: WEIGHTS}, {}, ["zeroed", "weight_least_agent_killed"]),
        ({12.0: (15, 100, 200, 400), 13.0: WEIGHTS}, {}, ["weight_least_agent_killed"]),
        ({16.0: (100, 100, 100, 100)}, {}, ["drift_agent_killed"]),  # static weights, and no way back from them
        ({16.0: (100, 100, 100, 100), 18.5: WEIGHTS}, {}, []),
        ({12.0: (500, 1000, 2000, 4000)}, {}, []),  # of another scale and the same shares
        ({}, {"ejected": 1}, ["ejected"]),
        ({}, {"?": 1000}, ["log_lines_per_second"]),
    ],
)
def test_a_server_that_is_forgotten_and_a_flooded_log_are_found(
    changed: dict[float, tuple[int, ...]], said: dict[str, int], short: list[str]
) -> None:
    assert misses(figures("agent_killed", changed, said)) == short


def test_an_error_and_an_agent_that_does_not_come_back_are_found() -> None:
    assert misses(figures("agent_killed", bad=1)) == ["errors"]
    assert misses(figures("agent_killed") | {"recovered": 0, "served": 0}) == ["recovered", "served"]


@pytest.mark.parametrize(
    ("share", "least", "looks", "short"),
    [
        (0.05, 5.0, 5.0, []),
        (0.7, 5.0, 5.0, ["master_descriptors_cpu_share"]),
        (0.05, 0.0, 5.0, ["master_descriptors_heard_per_second"]),
        (0.05, 5.0, 0.5, ["master_descriptors_looks_per_second"]),
    ],
)
def test_a_master_without_descriptors_must_turn_and_hear_and_not_spin(
    share: float, least: float, looks: float, short: list[str]
) -> None:
    heard = {"rs1": 5.0, "rs2": least, "rs3": 5.0, "rs4": 0.0, "looks": looks}
    event = Event("master_descriptors found", MENDED, {"cpu_share": share, "heard_per_second": heard})
    assert misses(figures("master_descriptors", found=[event])) == short


@pytest.mark.parametrize(
    ("told", "found", "said", "short"),
    [
        ("it could not be written to the disk", {}, {}, []),
        ("", {}, {}, ["disk_told"]),
        ("it could not be written to the disk", {"weight": 50}, {}, ["disk_weight"]),
        ("it could not be written to the disk", {"kept": 0}, {}, ["disk_kept"]),
        ("it could not be written to the disk", {"resumed": 1}, {}, ["disk_resumed"]),
        ("it could not be written to the disk", {"saved_seconds": 9.0}, {}, ["disk_saved_ms"]),
        ("it could not be written to the disk", {}, {"state-failed": 5}, ["disk_said"]),
    ],
)
def test_an_order_that_is_lost_on_a_full_disk_is_found(
    told: str, found: dict[str, float], said: dict[str, int], short: list[str]
) -> None:
    seen = {"weight": 0, "kept": 1, "resumed": 2, "saved_seconds": 0.5, **found}
    events = [Event("disk told", BEGIN, {"notes": [told]}), Event("disk found", MENDED, seen)]
    drained = {11.0: (0, 100, 200, 400)}  # by the order, so it is no fault
    made = figures("disk", drained, {"state-failed": 1, "state-saved": 1, **said}, events)
    assert misses(made) == short


def test_a_clock_that_disturbs_or_leaves_an_order_standing_is_found() -> None:
    good = Event("clock found", MENDED, {"expired": True, "left_seconds": 7799})
    bad = Event("clock found", MENDED, {"expired": False, "left_seconds": 0})
    assert misses(figures("clock", found=[good])) == []
    assert misses(figures("clock", said={"agent-lost": 1}, found=[good])) == ["clock_disturbed"]
    assert misses(figures("clock", found=[bad])) == ["clock_expired", "clock_left_seconds"]


def test_a_link_that_was_not_hurt_proves_nothing() -> None:
    event = Event("loss found", MENDED, {"passed": 500, "dropped": 0})
    assert misses(figures("loss", found=[event])) == ["loss_dropped"]


def test_events_are_counted_by_their_name_and_what_is_none_apart(tmp_path: Path) -> None:
    (tmp_path / "master.log").write_text("level=info event=weight-changed new=1\nTraceback\n  File\n")
    (tmp_path / "rs1-agent.log").write_text("level=info event=weight-changed new=2\n")
    assert logged(tmp_path) == {"weight-changed": 2, "?": 2}


@pytest.mark.parametrize("missing", ["complete_ms", "role_changes", "lost", "both_dropped"])
def test_a_pair_must_change_nothing_and_be_complete(missing: str) -> None:
    good = dict.fromkeys(("errors", "lost", "udp_lost", "role_changes", "both_active_ms"), 0.0)
    good |= {"established": 1008.0, "complete_ms": 20.0, "log_lines": 60.0}
    good |= {"loss_dropped": 60.0, "both_dropped": 100.0, "delay_passed": 200.0, "duplicates_passed": 200.0}
    assert missed(chaospair.SCENARIO, good) == []
    wrong = {"role_changes": 1.0, "lost": 1.0, "both_dropped": 0.0, "complete_ms": math.inf}
    worse = good | {missing: wrong[missing]}
    assert missed(chaospair.SCENARIO, worse) == [missing]


@pytest.mark.long
@pytest.mark.lab(on="host")
@pytest.mark.parametrize("name", ["chaos", "chaospair"])
def test_hostile_conditions_are_endured_on_a_real_kernel(name: str, tmp_path: Path) -> None:
    result = runner.run(name, tmp_path / "output")
    assert missed(scenarios.named(name), result.figures) == []  # also where the run is inconclusive
