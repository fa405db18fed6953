from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.agent.signals.cpu import CgroupCpu
from feedback.agent.signals.entitlement import Entitlement, fair_share
from feedback.agent.signals.files import SignalError
from tests.agent import trees

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("weight", "neighbours", "cores", "share"),
    [
        (100, [], 2.0, 2.0),
        (100, [(100, INFINITE)], 2.0, 1.0),
        (300, [(100, INFINITE)], 2.0, 1.5),
        (100, [(100, 0.25)], 2.0, 1.75),  # a quota leaves the rest to us
        (100, [(100, 0.1), (100, INFINITE)], 1.1, 0.5),
        (100, [(100, 0.4), (100, 0.5), (100, INFINITE)], 2.0, 0.55),  # the first cap lifts the second's share
    ],
)
def test_shares_fill_like_water(
    weight: float, neighbours: list[tuple[float, float]], cores: float, share: float
) -> None:
    assert fair_share(weight, neighbours, cores) == pytest.approx(share)


@given(
    st.floats(1, 10000),
    st.lists(st.tuples(st.floats(1, 10000), st.floats(0.01, 64) | st.just(INFINITE)), max_size=8),
    st.floats(0.1, 64),
)
def test_a_share_is_at_least_what_the_weights_alone_give_and_at_most_everything(
    weight: float, neighbours: list[tuple[float, float]], cores: float
) -> None:
    share = fair_share(weight, neighbours, cores)
    alone = cores * weight / (weight + sum(w for w, _ in neighbours))
    assert alone * (1 - 1e-9) <= share <= cores * (1 + 1e-9)


@pytest.fixture
def group(tmp_path: Path) -> Path:
    trees.cgroup(tmp_path / "rs1", quota="100000 100000")
    trees.cgroup(tmp_path / "rs1/service", usage_usec=1_000_000)
    trees.cgroup(tmp_path / "rs1/neighbour", usage_usec=1_000_000)
    return tmp_path / "rs1"


def test_an_idle_neighbour_takes_nothing(group: Path) -> None:
    source = Entitlement(group, group / "service")
    assert source.sample(1.0, 0.0) is None  # nothing to compare with yet
    assert source.sample(1.0, 0.2) == 1.0


def test_a_busy_neighbour_of_equal_weight_leaves_half(group: Path) -> None:
    source = Entitlement(group, group / "service")
    source.sample(1.0, 0.0)
    trees.use(group / "neighbour", 1_100_000)
    assert source.sample(1.0, 0.2) == 0.5


def test_a_neighbour_made_since_counts_from_the_next_sample(group: Path) -> None:
    source = Entitlement(group, group / "service")
    source.sample(1.0, 0.0)
    trees.cgroup(group / "hog", usage_usec=10, weight=300)
    source.sample(1.0, 0.2)
    trees.use(group / "hog", 200_010)
    assert source.sample(1.0, 0.4) == 0.25


def test_a_neighbour_that_goes_is_forgotten(group: Path) -> None:
    source = Entitlement(group, group / "service")
    source.sample(1.0, 0.0)
    shutil.rmtree(group / "neighbour")
    source.sample(1.0, 0.2)
    assert source.sample(1.0, 0.4) == 1.0


def test_levels_multiply(group: Path) -> None:
    inner = trees.cgroup(group / "service/worker")
    trees.cgroup(group / "service/sidecar", usage_usec=0)
    source = Entitlement(group, inner)
    source.sample(1.0, 0.0)
    trees.use(group / "neighbour", 1_500_000)
    trees.use(group / "service/sidecar", 500_000)
    assert source.sample(1.0, 1.0) == 0.25


def test_without_weights_in_force_nothing_is_said_until_they_are(group: Path) -> None:
    (group / "service/cpu.weight").unlink()
    source = Entitlement(group, group / "service")
    source.sample(1.0, 0.0)
    assert source.sample(1.0, 0.2) is None
    trees.write(group / "service/cpu.weight", "300\n")
    source.sample(1.0, 0.4)
    trees.use(group / "neighbour", 2_000_000)
    assert source.sample(1.0, 0.6) == 0.75


def test_a_service_outside_the_cgroup_is_refused(tmp_path: Path, group: Path) -> None:
    elsewhere = trees.cgroup(tmp_path / "other")
    with pytest.raises(SignalError, match="must lie inside"):
        Entitlement(group, elsewhere)


def test_the_report_carries_it(tmp_path: Path, group: Path) -> None:
    source = CgroupCpu(group, (group / "service",), proc=trees.proc(tmp_path / "proc"))
    source.sample(0.0)
    trees.use(group / "neighbour", 1_500_000)
    assert source.sample(0.2).entitled == 0.5
