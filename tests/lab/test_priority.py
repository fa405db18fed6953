"""The figures of the priority pools, on tables of the kernel made by hand."""

import msgspec
import pytest

from feedback.lab.samples import Sample
from feedback.lab.scenarios.overflow import QUOTAS, out_of_order, over_capacity, refused_with_room
from feedback.lab.scenarios.spillover import spill_before
from feedback.lab.workload.records import Record

Three = tuple[int, int, int]


def sample(
    at: float,
    active: Three,
    weights: Three = (100, 80, 60),
    *,
    inactive: Three = (0, 0, 0),
    upper: Three = (60, 60, 0),
    lower: Three = (48, 48, 0),
) -> Sample:
    none = (0.0, 0.0, 0.0)
    return Sample(at, weights, active, inactive, none, none, 0.0, upper, lower)


@pytest.mark.parametrize(
    ("tables", "worst"),
    [
        ([((50, 0, 0), (100, 80, 60)), ((100, 0, 0), (100, 80, 60))], 0),
        ([((99, 0, 0), (100, 80, 60)), ((101, 0, 0), (100, 80, 60))], 1),
        ([((90, 0, 0), (100, 80, 60)), ((90, 0, 0), (70, 60, 50))], 0),  # the capacity fell: nothing was given
        ([((90, 0, 0), (70, 60, 50)), ((91, 0, 0), (70, 60, 50))], 21),  # and this was
        ([((70, 0, 0), (70, 60, 50)), ((75, 0, 0), (80, 60, 50))], 0),  # given after the capacity rose
    ],
)
def test_only_connections_given_count_as_over_capacity(tables: list[tuple[Three, Three]], worst: int) -> None:
    assert over_capacity([sample(i, active, weights) for i, (active, weights) in enumerate(tables)]) == worst


@pytest.mark.parametrize(
    ("tables", "count"),
    [
        ([(100, 0, 0), (101, 5, 0)], 0),
        ([(50, 0, 0), (50, 1, 0)], 1),
        ([(101, 81, 0), (80, 81, 1)], 0),  # was full a moment ago
        ([(101, 40, 0), (101, 40, 1)], 1),  # the second had room for what the third was given
        ([(50, 9, 0), (50, 8, 0)], 0),  # connections that end are no sign
    ],
)
def test_out_of_order_is_a_later_one_served_while_an_earlier_had_room(tables: list[Three], count: int) -> None:
    assert out_of_order([sample(i, active) for i, active in enumerate(tables)]) == count


@pytest.mark.parametrize(("used", "count"), [((1.0, 1.0, 1.0), 0), ((1.0, 1.0, 0.7), 2)])
def test_a_refusal_is_needless_while_a_server_is_not_busy(used: tuple[float, float, float], count: int) -> None:
    samples = [
        msgspec.structs.replace(
            sample(k / 10, (0, 0, 0)), usage=tuple(u * q * k / 10 for u, q in zip(used, QUOTAS, strict=True))
        )
        for k in range(50)
    ]
    records = [Record(3.0, 0.0, -111, 0), Record(4.0, 0.0, -111, 0), Record(4.5, 0.01, 200, 3)]
    assert refused_with_room(records, samples) == count


def spilt(*moments: float) -> list[Record]:
    return [Record(at, 0.01, 200, 3) for at in moments]


def test_nothing_is_early_once_the_service_pool_is_full() -> None:
    samples = [sample(0, (30, 30, 0)), sample(1, (50, 55, 0), inactive=(10, 5, 0)), sample(2, (50, 50, 9))]
    assert spill_before(spilt(0.5, 1.5), samples) == 0


def test_every_connection_before_the_pool_is_full_is_early() -> None:
    samples = [sample(0, (30, 30, 0)), sample(1, (40, 59, 1)), sample(2, (60, 60, 2))]
    assert spill_before(spilt(0.5, 0.6, 1.5), samples) == 2


def test_later_it_is_early_only_while_somebody_surely_has_room() -> None:
    samples = [sample(0, (60, 60, 0)), sample(1, (50, 47, 0)), sample(2, (50, 47, 1)), sample(3, (50, 50, 1))]
    assert spill_before(spilt(0.5), samples) == 0
    assert spill_before(spilt(1.5), samples) == 1
    assert spill_before(spilt(2.5), samples) == 1


def test_a_server_stays_full_until_it_is_under_its_lower_threshold() -> None:
    """The kernel's mark: the second fills while the first has lost some, and neither is at its threshold any more."""
    samples = [sample(0, (59, 40, 0)), sample(1, (52, 58, 0)), sample(2, (50, 55, 1)), sample(3, (49, 50, 2))]
    assert spill_before(spilt(1.5, 2.5), samples) == 0
    assert spill_before(spilt(0.5), samples) == 0  # may just have filled


def test_a_quiesced_server_has_no_room() -> None:
    quiesced = [sample(i, (60 - 20 * bool(i), 60, i), weights=(0, 80, 1)) for i in range(3)]
    assert spill_before(spilt(1.5), quiesced) == 0
