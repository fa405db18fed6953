"""Each figure on a trace made by hand."""

from __future__ import annotations

from math import ceil, inf, isnan, nan
from random import Random
from typing import Any

import pytest

from feedback.simulate import figures
from feedback.simulate.trace import OK, REFUSED, SERVER_ERROR, Second, Shares, Trace
from tests.simulate.builders import case


def trace(rows: list[tuple[float, float, int]] = [], **fields: Any) -> Trace:  # noqa: B006
    """`rows` are (sent at, latency, outcome)."""
    settings = {"seconds": 10.0, "timeout_seconds": 2.0, "cores": (1.0, 3.0)}
    made = case(**(settings | {k: fields.pop(k) for k in list(fields) if k in ("seconds", "event_seconds")}))
    empty: dict[str, Any] = {"seconds": [], "wanted": [], "truth": [], "writes": []}
    return Trace(
        case=made,
        at=[at for at, _, _ in rows],
        latency=[latency for _, latency, _ in rows],
        outcome=bytearray(outcome for _, _, outcome in rows),
        **(empty | {("seconds" if k == "by_second" else k): v for k, v in fields.items()}),
    )


def test_percentiles_are_by_nearest_rank() -> None:
    assert figures.percentiles([3.0, 2.0, 4.0, 1.0], (0.5, 0.99)) == [2.0, 4.0]
    assert isnan(figures.percentiles([], (0.5,))[0])


@pytest.mark.parametrize("shape", ["random", "rising", "falling", "few", "strange"])
def test_percentiles_are_those_of_the_sorted_values(shape: str) -> None:
    draw = Random(shape)
    values = [draw.lognormvariate(0.0, 1.5) for _ in range(20_000)]
    match shape:
        case "rising" | "falling":
            values.sort(reverse=shape == "falling")
        case "few":
            values = [float(round(v)) for v in values]
        case "strange":  # each that the sample has is unlike the rest
            values = [v + 100.0 if i % figures.SAMPLED else -v for i, v in enumerate(values)]
    parts, ordered = (0.001, 0.5, 0.99, 0.999), sorted(values)
    assert figures.percentiles(values, parts) == [ordered[ceil(part * len(values)) - 1] for part in parts]


def test_errors_are_refused_failed_and_late() -> None:
    made = trace([(1, 0.1, OK), (2, 2.5, OK), (3, 0.0, REFUSED), (4, 0.1, SERVER_ERROR)])
    assert figures.error_shares(figures.over(made, 0.0), 2.0) == {
        "errors": 0.75,
        "refused": 0.25,
        "server_errors": 0.25,
        "timeouts": 0.25,
    }


def test_what_was_not_over_counts_once_it_is_late_and_not_before() -> None:
    made = trace([(0.5, 0.1, OK), (1, nan, OK), (9, nan, REFUSED)])
    assert figures.over(made, 0.0) == ([0.5, 1], [0.1, 9.0], bytes([OK, OK]))
    assert figures.over(made, 0.7) == ([1], [9.0], bytes([OK]))
    assert figures.over(trace([(0.5, 0.1, OK), (1, 0.2, REFUSED)]), 0.7) == ([1], [0.2], bytes([REFUSED]))


def test_a_bad_second_is_over_twice_the_oracles() -> None:
    oracle = trace([(1.1, 0.1, OK), (2.1, 0.1, OK), (3.1, 0.1, OK)])
    ours = trace([(1.2, 0.19, OK), (2.2, 0.21, OK), (3.2, 0.1, OK), (3.3, 0.5, OK)])
    for start, bad in ((0.0, 2), (3.0, 1)):
        means = [figures.means_by_second(figures.over(made, start)) for made in (ours, oracle)]
        assert figures.bad_seconds(*means) == bad


def test_convergence_counts_from_the_event_and_must_hold() -> None:
    truth = [Shares(0.0, (1.0, 1.0)), Shares(4.0, (1.0, 3.0))]
    times = [k / 5 for k in range(50)]
    wanted = [Shares(t, (1.0, 1.0) if t < 5 or t == 6 else (1.05, 2.95)) for t in times]
    made = trace(truth=truth, wanted=wanted, event_seconds=4.0)
    assert figures.converge_seconds(made) == pytest.approx(1.0)
    passing = [Shares(t, (1.0, 3.0) if t in (5.0, 7.0) else (1.0, 1.0)) for t in times]
    assert figures.converge_seconds(trace(truth=truth, wanted=passing, event_seconds=4.0)) == inf
    assert isnan(figures.converge_seconds(trace(truth=truth)))


def test_shares_are_close_within_a_tenth_whatever_their_sum() -> None:
    assert figures.close((10, 30.5), (1, 3))
    assert not figures.close((12, 30), (1, 3))
    assert figures.close((0, 5), (0, 2))
    assert not figures.close((0, 0), (1, 1))


def test_writes_are_of_the_window_and_for_a_minute() -> None:
    assert figures.writes_a_minute(trace(writes=[(1, 3), (6, 2), (9, 1)]), 5.0, 10.0) == pytest.approx(36)


def test_oscillation_is_the_worst_deviation_of_the_last_twenty_seconds() -> None:
    still = [Second(float(t), (5, 15), (0.5, 0.5)) for t in range(1, 40)]
    assert figures.oscillation(still) == 0.0
    swings = [Second(float(t), (10, 0) if t % 2 else (0, 10), (0.5, 0.5)) for t in range(1, 41)]
    assert figures.oscillation(swings) == pytest.approx(0.5)
    assert figures.oscillation(swings[:10] + [Second(10.0 + t, (5, 5), (0, 0)) for t in range(1, 25)]) == 0.0
    assert figures.oscillation([]) == 0.0


def test_peak_utilisation_is_the_hottest_over_the_mean_by_cores() -> None:
    by_second = [Second(1.0, (1, 1), (1.0, 0.0)), Second(2.0, (1, 1), (0.8, 0.4)), Second(3.0, (1, 1), (0.5, 0.5))]
    assert figures.peak_utilisation(trace(by_second=by_second), 1.0) == pytest.approx((0.8 / 0.5 + 1.0) / 2)
