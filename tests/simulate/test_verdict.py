"""Which promises are checked, and when they hold."""

from __future__ import annotations

from math import inf
from typing import Any

from feedback.simulate.policy import Policy
from feedback.simulate.report import as_json, table, verdicts
from feedback.simulate.run import Outcome
from feedback.simulate.verdict import Check, average, checks


def figures(p99: float, **others: float) -> dict[str, float]:
    return {"p99_ms": p99, "errors": 0.0, "bad_seconds": 0.0, "writes_a_minute_at_rest": 0.0} | others


def made(case: str, **by_name: dict[str, float]) -> dict[tuple[str, str], Check]:
    """`law_scheduler` -> figures; `late` for twice the delay of capacity on sed."""
    policies: dict[Policy, Any] = {}
    for name, found in by_name.items():
        law, scheduler = ("capacity", "sed") if name == "late" else name.split("_")
        policies[Policy(law, scheduler, 2.0 if name == "late" else 1.0)] = found
    return {(c.policy, c.name.split(" (")[0]): c for c in checks({case: policies})}


def test_sed_must_be_within_five_percent_of_the_oracle_and_have_no_bad_second() -> None:
    good = made("step", oracle_sed=figures(100), capacity_sed=figures(104))
    assert good["capacity@sed", "p99 over the oracle's"].ok
    assert good["capacity@sed", "bad seconds"].ok
    bad = made("step", oracle_sed=figures(100), capacity_sed=figures(106, bad_seconds=1))
    assert [c.ok for c in bad.values()] == [False, False]


def test_each_scheduler_has_its_own_margin() -> None:
    found = made("step", oracle_wlc=figures(100), capacity_wlc=figures(114), oracle_wrr=figures(100),
                 capacity_wrr=figures(126))  # fmt: skip
    assert found["capacity@wlc", "p99 over the oracle's"].ok
    assert not found["capacity@wrr", "p99 over the oracle's"].ok


def test_overload_is_judged_by_what_shedding_gains() -> None:
    found = made("overload", oracle_sed=figures(7000), capacity_sed=figures(1500))
    assert [c.name for c in found.values()] == ["p99 without thresholds over p99"]
    assert next(iter(found.values())).ok


def test_twice_the_delay_may_cost_a_tenth() -> None:
    found = made("step", oracle_sed=figures(100), capacity_sed=figures(100), late=figures(111))
    assert not found["capacity@sed delay x2", "p99 with 2 times the delay over p99"].ok


def test_a_better_law_is_told_unless_it_fails_more() -> None:
    found = made("step", oracle_sed=figures(100), capacity_sed=figures(104), pid_sed=figures(90))
    assert not found["capacity@sed", "p99 over the best other law's"].ok
    found = made("step", oracle_sed=figures(100), capacity_sed=figures(104), pid_sed=figures(90, errors=0.1))
    assert ("capacity@sed", "p99 over the best other law's") not in found


def test_errors_and_writes_are_bounded_where_it_matters() -> None:
    found = made("blackhole", oracle_wlc=figures(100), capacity_wlc=figures(100, errors=0.02))
    assert not found["capacity@wlc", "errors"].ok
    found = made("cold-start", oracle_sed=figures(1), capacity_sed=figures(1, writes_a_minute_at_rest=251))
    assert not found["capacity@sed", "writes a minute at rest"].ok


def test_seeds_are_averaged_and_what_was_never_once_is_never() -> None:
    policy = Policy("capacity", "sed")
    runs = [Outcome("step", seed, policy, figures(p99, converge_s=c)) for seed, p99, c in ((1, 10, 1.0), (2, 20, inf))]
    mean = average(runs)["step"][policy]
    assert (mean["p99_ms"], mean["converge_s"]) == (15, inf)


def test_the_report_has_no_infinities_and_names_what_falls_short() -> None:
    policy, oracle = Policy("capacity", "sed"), Policy("oracle", "sed")
    results = {"step": {oracle: figures(100), policy: figures(120, converge_s=inf)}}
    found = checks(results)
    whole = as_json(results, found, [1])
    assert whole["cases"]["step"]["capacity@sed"]["converge_s"] is None
    assert whole["cases"]["step"]["capacity@sed"]["p99_over_oracle"] == 1.2
    assert whole["ok"] is False
    assert "falls short: step, capacity@sed: p99 over the oracle's is 1.2, wanted <= 1.05" in verdicts(found)
    assert table(results).row_count == 2
