"""Figures: these records and samples, these numbers."""

import math

import pytest

from feedback.lab import figures
from feedback.lab.samples import Sample
from feedback.lab.workload.records import Record


def answered(at: float, server: int = 1, latency: float = 0.01, status: int = 200) -> Record:
    return Record(at, latency, status, server)


def sampled(at: float, *weights: int, usage: tuple[float, ...] = (), idle: float = 0.0) -> Sample:
    none = tuple(0 for _ in weights)
    return Sample(at, weights, none, none, usage or tuple(0.0 for _ in weights), (), idle)


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [
        ([5.0], 0.99, 5.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        ([float(i) for i in range(1, 101)], 0.99, 99.0),
        ([float(i) for i in range(1, 101)], 0.999, 100.0),
        ([3.0, 1.0, 2.0], 1.0, 3.0),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], fraction: float, expected: float) -> None:
    assert figures.percentile(values, fraction) == expected


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(figures.percentile([], 0.99))


def test_a_window_is_half_open_and_goes_by_the_intended_moment() -> None:
    records = [answered(1.0), answered(2.0, latency=5.0), answered(3.0)]
    assert figures.within(records, [(1.0, 3.0)]) == records[:2]


def test_a_request_that_failed_counts_with_the_time_it_took_to_fail() -> None:
    records = [answered(0.0, latency=0.01), answered(0.0, latency=10.0, status=-110)]
    assert figures.percentile_ms(records, 0.99) == 10_000
    assert figures.errors(records) == 1


def test_any_status_but_200_is_an_error() -> None:
    assert figures.errors([answered(0.0, status=s) for s in (200, 500, -111)]) == 2


def test_a_share_leaves_out_what_no_server_answered() -> None:
    assert figures.share([answered(0, 1), answered(0, 2), answered(0, 0, status=-110)], 2) == 0.5


def test_the_peak_share_finds_the_worst_window() -> None:
    records = [answered(t / 10, 4 if 20 <= t < 50 else 1) for t in range(100)]
    assert figures.peak_share(records, 4, 0.0, 10.0, width=3.0, step=0.25) == 1.0
    assert figures.peak_share(records, 4, 5.0, 10.0, width=3.0, step=0.25) == 0.0


TRUTH = (0.05, 0.10, 0.20, 0.40)


@pytest.mark.parametrize(
    ("weights", "close"),
    [
        ((50, 100, 200, 400), True),
        ((5, 10, 20, 40), True),
        ((58, 100, 200, 400), True),
        ((100, 100, 100, 100), False),
        ((50, 100, 200, 200), False),
        ((0, 0, 0, 0), False),
        ((-1, 100, 200, 400), False),
    ],
)
def test_weights_are_close_when_each_part_is_within_a_fifth(weights: tuple[int, ...], close: bool) -> None:
    assert figures.close_to(weights, TRUTH, 0.2) is close


def test_passing_through_the_true_shares_does_not_count_as_convergence() -> None:
    good, bad = (50, 100, 200, 400), (100, 100, 100, 100)
    moments = [(0.0, bad), (1.0, good), (1.5, bad), (2.0, good), (2.5, good), (3.0, good)]
    samples = [sampled(at, *weights) for at, weights in moments]
    assert figures.converged_at(samples, TRUTH, 0.2, hold_seconds=1.0) == 2.0
    assert figures.converged_at(samples[:-1], TRUTH, 0.2, hold_seconds=1.0) == math.inf


def test_a_fall_is_of_the_share_and_not_of_the_number() -> None:
    samples = [sampled(0, 100, 100), sampled(1, 50, 50), sampled(2, 80, 100)]
    assert figures.fell_at(samples, 0, 0.5, 0.95) == 2
    assert figures.fell_at(samples[:2], 0, 0.5, 0.95) == math.inf


def test_a_fall_before_the_start_is_none() -> None:
    samples = [sampled(0, 100, 100), sampled(1, 50, 100), sampled(2, 50, 100)]
    assert figures.fell_at(samples, 0, 1.0, 0.95) == math.inf


def test_utilisation_is_usage_over_time_and_quota() -> None:
    samples = [sampled(0.0, 1, usage=(0.0,)), sampled(2.0, 1, usage=(0.1,))]
    assert figures.utilisation(samples, 0, quota=0.1) == [(2.0, 0.5)]


def test_idle_share_is_of_the_time_between_first_and_last() -> None:
    assert figures.idle_share([sampled(0.0, idle=5.0), sampled(10.0, idle=8.0)]) == pytest.approx(0.3)


REFUSED = -111


def test_the_refused_are_counted_apart_from_what_was_let_in() -> None:
    records = [answered(0.0), answered(0.0, status=REFUSED), answered(0.0, status=500), answered(0.0, status=-110)]
    assert figures.refused(records) == 1
    assert [r.status for r in figures.served(records)] == [200, 500, -110]


@pytest.mark.parametrize(
    ("late", "status", "recovered"),
    [
        ((), 200, 10.0),
        ((12.5, 12.6), 200, 13.0),  # slow until there
        ((12.5, 12.6), REFUSED, 13.0),  # refused at once is no recovery either
        ((11.5, 14.5), 200, 15.0),  # the last one counts
        ((19.5,), 200, math.inf),  # still ill at the end
    ],
)
def test_recovery_is_the_moment_after_the_last_bad_second(
    late: tuple[float, ...], status: int, recovered: float
) -> None:
    good = [answered(t / 10) for t in range(200)]
    ill = [answered(at, latency=0.01 if status != 200 else 2.0, status=status) for at in late]
    assert figures.recovered_at(good + ill, 10.0, 20.0, limit_seconds=0.5, part=0.05) == recovered


def test_the_worst_ratio_is_of_the_same_moments_on_one_clock() -> None:
    ours = [answered(t / 10, latency=0.3 if 50 <= t < 60 else 0.1) for t in range(200)]
    theirs = figures.shifted([answered(100 + t / 10, latency=0.1 if t < 100 else 1.0) for t in range(200)], -100)
    assert figures.worst_ratio(ours, theirs, 0.0, 20.0, 3.0, 0.5) == pytest.approx(3.0)
    assert figures.worst_ratio(ours, theirs, 10.0, 20.0, 3.0, 0.5) == pytest.approx(0.1)


def test_a_machine_is_full_in_the_seconds_in_which_it_was_hardly_idle() -> None:
    idle = [0.0, 0.3, 0.6, 0.6, 0.61, 0.61, 0.9, 1.2]  # each half second; full in the second one of three
    samples = [sampled(10 + i / 2, 1, idle=each) for i, each in enumerate(idle)]
    assert figures.full_share(samples) == pytest.approx(1 / 3)
    assert figures.full_share(samples, idle_least=0.0) == 0
    assert math.isnan(figures.full_share(samples[:2]))
    assert math.isnan(figures.full_share([]))
