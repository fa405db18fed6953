"""AHP, TOPSIS and the balancer's gates."""

from __future__ import annotations

from itertools import pairwise

import pytest

from feedback.master.laws.field.ahp import consistency_ratio, priorities
from feedback.master.laws.field.cycle import Cycle
from feedback.master.laws.field.topsis import (
    JUDGEMENTS,
    STEP,
    WEIGHTS,
    Topsis,
    closeness,
    criteria,
    imbalance,
    memory_pressure,
)
from feedback.master.pool import Pool
from tests.master.builders import rip
from tests.master.laws.watched import later, pool, values, watched, window


def test_the_judgements_are_reciprocal_and_consistent() -> None:
    for i, row in enumerate(JUDGEMENTS):
        assert [row[j] * JUDGEMENTS[j][i] for j in range(len(row))] == pytest.approx([1.0] * len(row))
    assert 0 <= consistency_ratio(JUDGEMENTS) < 0.05
    assert sum(WEIGHTS) == pytest.approx(1.0)
    assert WEIGHTS[1] > WEIGHTS[0] > WEIGHTS[2] > WEIGHTS[3]


def test_priorities_of_consistent_judgements_are_their_ratios() -> None:
    judgements = ((1.0, 2.0, 4.0), (1 / 2, 1.0, 2.0), (1 / 4, 1 / 2, 1.0))
    assert priorities(judgements) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert consistency_ratio(judgements) == pytest.approx(0.0, abs=1e-9)


def test_contradicting_judgements_are_told() -> None:
    assert consistency_ratio(((1.0, 5.0, 1 / 5), (1 / 5, 1.0, 5.0), (5.0, 1 / 5, 1.0))) > 0.1


@pytest.mark.parametrize(("used", "expected"), [(0.5, 0.0), (0.85, 0.0), (0.925, 0.5), (1.0, 1.0)])
def test_memory_presses_from_85_percent_on(used: float, expected: float) -> None:
    assert memory_pressure(used) == pytest.approx(expected)


def test_scores_by_hand() -> None:
    """Only CPU use differs: the best is the ideal, the worst its opposite, the middle one in proportion."""
    rows = {rip(i): (0.0, 0.0, busy, 0.5) for i, busy in ((1, 0.2), (2, 0.5), (3, 0.6))}
    assert closeness(rows) == pytest.approx({rip(1): 1.0, rip(2): 0.25, rip(3): 0.0})


def test_scores_of_two_criteria_by_hand() -> None:
    """CPU pressure 0.3, 0.4 (length 0.5), memory pressure 0.8, 0.6 (length 1): distances are the weights' gaps."""
    rows = {rip(1): (0.3, 0.8, 0.0, 0.0), rip(2): (0.4, 0.6, 0.0, 0.0)}
    cpu, memory = WEIGHTS[0] * 0.2, WEIGHTS[1] * 0.2
    assert closeness(rows) == pytest.approx({rip(1): cpu / (cpu + memory), rip(2): memory / (cpu + memory)})


def test_no_difference_no_preference() -> None:
    assert closeness({rip(1): (0.1, 0.0, 0.2, 0.3), rip(2): (0.1, 0.0, 0.2, 0.3)}) == {rip(1): 0.5, rip(2): 0.5}
    assert closeness({}) == {}


def test_without_psi_the_waiting_part_of_the_run_queue_presses() -> None:
    told = (window(0.0, runnable=4.0, cpu_pressure=0.1), window(0.0, runnable=4.0), window(0.0))
    seen = Cycle(1.0).turn(pool(*(watched(i, w) for i, w in enumerate(told, 1))), 0.0)
    assert seen is not None
    assert [criteria(seen[rip(i)])[0] for i in (1, 2, 3)] == pytest.approx([0.1, 0.75, 0.0])


def test_imbalance_is_the_coefficient_of_variation() -> None:
    one, other = (0.0, 0.0, 0.2, 0.0), (0.0, 0.0, 0.6, 0.0)
    assert imbalance({rip(1): one, rip(2): other}) == pytest.approx(0.5)
    assert imbalance({rip(1): one, rip(2): one}) == pytest.approx(0.0)


UNEVEN = pool(*(watched(i, window(0.0, busy=b)) for i, b in ((1, 0.95), (2, 0.5), (3, 0.45), (4, 0.1))))


def changes(law: Topsis, members: Pool, seconds: int) -> list[tuple[float, int, float]]:
    """(when, which server, by what factor) of every change."""
    found, before = [], values(law, members, 0.0)
    for now in (0.2 * i for i in range(1, 5 * seconds + 1)):
        after = values(law, later(members, now), now)
        found += [(now, i, a / b) for i, (a, b) in enumerate(zip(after, before, strict=True), 1) if a != b]
        before = after
    return found


def test_the_gates() -> None:
    found = changes(Topsis(), UNEVEN, 300)
    assert found[0][0] == pytest.approx(20.0)  # the third uneven round
    assert len(found) >= 8
    for (at, server, _), (then, next_server, _) in pairwise(found):
        assert then - at >= 30.0 - 1e-6
        assert server != next_server


def test_steps_go_the_way_of_the_score() -> None:
    for _, server, factor in changes(Topsis(), UNEVEN, 300):
        assert factor == pytest.approx(1 / STEP if server == 1 else STEP)


def test_a_small_imbalance_is_left_alone() -> None:
    members = pool(*(watched(i, window(0.0, busy=b)) for i, b in ((1, 0.6), (2, 0.5), (3, 0.4))))
    assert changes(Topsis(), members, 120) == []


def test_three_uneven_rounds_must_be_in_a_row() -> None:
    law = Topsis()
    even = pool(*(watched(i, window(0.0, busy=0.5)) for i in (1, 2, 3, 4)))
    for turn in range(20):
        members = even if turn % 3 == 2 else UNEVEN
        assert values(law, later(members, 10.0 * turn), 10.0 * turn) == [100] * 4


def test_two_servers_take_turns() -> None:
    members = pool(*(watched(i, window(0.0, busy=b)) for i, b in ((1, 0.9), (2, 0.2))))
    assert [server for _, server, _ in changes(Topsis(), members, 150)] == [2, 1, 2, 1, 2]


def test_a_server_out_of_the_loop_is_not_moved() -> None:
    members = pool(*UNEVEN.rows[:3], watched(4, window(0.0, busy=0.0), weight=0))
    assert 4 not in {server for _, server, _ in changes(Topsis(), members, 300)}
