"""What the scenarios deadflows and writers make of what their clients noticed, on made-up traces."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from feedback.lab import runner, scenarios
from feedback.lab.scenarios.deadflows import of_clients
from feedback.lab.scenarios.writers import of_writers
from feedback.lab.trace import Event
from feedback.lab.workload.waiting import Waited
from feedback.lab.workload.writers import End, Write
from tests.lab.judging import missed

DIED, WOKEN = 100.0, 110.0


def udp(*servers: str, silence: float = 0.0) -> Waited:
    return Waited("udp", "udp", list(servers), silence, DIED)


def tcp(server: str, told: float = 0.0, *, woken: bool = True) -> Waited:
    return Waited("tcp", "route4", [server], 0.0, 0.0, told, "ECONNRESET" if told else "", woken)


def test_the_longest_silence_and_the_last_to_be_told_count() -> None:
    found = of_clients(
        [udp("r1", "r2", silence=1.2), udp("r1", "r3", silence=1.5), udp("r2"), tcp("r1", DIED + 1.3), tcp("r2")],
        DIED,
        WOKEN,
        "r1",
    )
    assert (found["udp_silence_max_ms"], found["tcp_told_max_ms"]) == (pytest.approx(1500), pytest.approx(1300))
    assert (found["disturbed_others"], found["udp_on_dead"], found["tcp_on_dead"]) == (0, 2, 1)


def test_who_learns_it_by_asking_was_not_told() -> None:
    found = of_clients([udp("r1", silence=math.inf), tcp("r1", WOKEN + 0.1)], DIED, WOKEN, "r1")
    assert (found["udp_silence_max_ms"], found["tcp_told_max_ms"]) == (math.inf, math.inf)
    assert (found["udp_never"], found["tcp_never"]) == (1, 1)


@pytest.mark.parametrize(
    "other", [tcp("r2", DIED + 1), tcp("r2", woken=False), udp("r2", "r3"), udp("r2", silence=0.6), udp()]
)
def test_a_client_of_a_healthy_server_that_notices_anything_is_disturbed(other: Waited) -> None:
    assert of_clients([other, udp("r1", "r2"), tcp("r1", 101)], DIED, WOKEN, "r1")["disturbed_others"] == 1


def events(*promoted: float) -> list[Event]:
    made: list[tuple[str, float, dict[str, Any]]] = [
        ("clock", 0.0, {"wall": 1000.0}),
        ("promote", 10.0, {"server": "r2"}),
        ("closed", 10.2, {"server": "r1"}),
        ("healed", 20.0, {}),
        *(("master promoted", 30.0, {"wall": 1000.0 + at}) for at in promoted),
    ]
    return [Event(*each) for each in made]


def writes(*, late: bool = False) -> list[Write]:
    before = [Write(0, "r1", 9.0 + i / 20, 9.01 + i / 20) for i in range(22)]
    after = [Write(0, "r2", 10.2 + i / 20, 10.21 + i / 20) for i in range(20)]
    return [*before, *after, *([Write(1, "r1", 10.3, 10.31)] if late else [])]


def test_an_orderly_change_of_the_writer() -> None:
    found = of_writers(writes(), [End(False, "r1", 10.12, "ECONNRESET")], events(10.1))
    assert (found["orders"], found["writes_at_old_after_order"], found["overlap"], found["returned"]) == (1, 0, 0, 0)
    assert found["pause_max_ms"] == pytest.approx(150) and found["closed_both_ms"] == pytest.approx(100)


def test_a_write_at_the_old_one_after_the_order_counts_twice_where_the_new_one_has_one() -> None:
    found = of_writers(writes(late=True), [End(False, "r1", 10.12, "ECONNRESET")], events(10.1))
    assert (found["writes_at_old_after_order"], found["overlap"]) == (1, 1)


def test_a_change_after_the_healing_is_a_return() -> None:
    assert of_writers(writes(), [], events(10.1, 21.0))["returned"] == 1


def test_without_an_order_of_a_master_the_operators_counts() -> None:
    found = of_writers(writes(), [], events())
    assert found["orders"] == 0 and found["writes_at_old_after_order"] == 1  # sent between 10.0 and the change


@pytest.mark.long
@pytest.mark.lab(on="host")
def test_nobody_is_left_behind_on_a_real_kernel(tmp_path: Path) -> None:
    result = runner.run("deadflows", tmp_path / "output", only=("feedback", "takeover"))
    assert missed(scenarios.named("deadflows"), result.figures) == []
