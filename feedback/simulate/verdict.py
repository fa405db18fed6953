"""Verdict: the project's promises about `capacity`, checked against figures. Each check has wanted, got and ok. Pure.

Figures are means over seeds. `overload` is judged separately: no policy can be as fast as with spare capacity, and shed
requests count. A check is made only if its runs exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from statistics import mean
from typing import TypeAlias

import msgspec

from feedback.simulate.policy import EXPORTER, NO_AGENT, ORACLE, PLAIN, Policy
from feedback.simulate.run import Outcome

Figures: TypeAlias = Mapping[str, float]
Results: TypeAlias = Mapping[str, Mapping[Policy, Figures]]  # case -> policy -> figures

LAW = "capacity"
OVER_ORACLE = {"sed": 1.05, "wlc": 1.15, "wrr": 1.25}
STARVED = 1.15  # on sed, in the case of that name: only waiting shows what is taken
OVERLOADS, BLACKHOLE, REST = ("overload", "overload-forgetful"), "blackhole", "cold-start"
SHEDDING_GAIN = 4.0
ERRORS = 0.01
WRITES_A_MINUTE = 250.0
LATER = 1.10
BETTER = 1.05
ERRORS_APART = 0.001  # a law that fails more requests is not better for being fast


class Check(msgspec.Struct, frozen=True):
    name: str
    case: str
    policy: str
    wanted: str
    got: float
    ok: bool


def average(outcomes: Iterable[Outcome]) -> dict[str, dict[Policy, dict[str, float]]]:
    """Means over the seeds. A figure that was infinite once is infinite."""
    rows: dict[str, dict[Policy, list[dict[str, float]]]] = {}
    for outcome in outcomes:
        rows.setdefault(outcome.case, {}).setdefault(outcome.policy, []).append(outcome.figures)
    return {
        case: {p: {name: mean(f[name] for f in found) for name in found[0]} for p, found in policies.items()}
        for case, policies in rows.items()
    }


def checks(results: Results) -> list[Check]:
    return [check for case, found in results.items() for policy in found for check in _policy(case, policy, found)]


def _policy(case: str, policy: Policy, found: Mapping[Policy, Figures]) -> Iterator[Check]:
    oracle = found.get(policy.reference)
    if policy.law != LAW or oracle is None:
        return
    ours = found[policy]
    if policy.delay != 1:
        yield from _later(case, policy, found)
        return
    yield from _against_oracle(case, policy, ours, oracle)
    yield from _others(case, policy, found)
    if case == BLACKHOLE:
        yield _most("errors", case, policy, ours["errors"], ERRORS)
    if case == REST and policy.scheduler == "sed":
        yield _most("writes a minute at rest", case, policy, ours["writes_a_minute_at_rest"], WRITES_A_MINUTE)


def _against_oracle(case: str, policy: Policy, ours: Figures, oracle: Figures) -> Iterator[Check]:
    if case in OVERLOADS:
        if policy.scheduler == "sed":
            got = oracle["p99_ms"] / ours["p99_ms"]
            text = f">= {SHEDDING_GAIN:g}"
            name = "p99 without thresholds over p99"
            yield Check(name, case, policy.name, text, got, got >= SHEDDING_GAIN)
        return
    limit = OVER_ORACLE.get(policy.scheduler)
    if limit is not None and case == "starved":
        limit = max(limit, STARVED)
    if limit is not None:
        yield _most("p99 over the oracle's", case, policy, ours["p99_ms"] / oracle["p99_ms"], limit)
    if policy.scheduler == "sed":
        yield _most("bad seconds", case, policy, ours["bad_seconds"], 0)


def _later(case: str, policy: Policy, found: Mapping[Policy, Figures]) -> Iterator[Check]:
    prompt = found.get(Policy(policy.law, policy.scheduler))
    if prompt is not None:
        got = found[policy]["p99_ms"] / prompt["p99_ms"]
        yield _most(f"p99 with {policy.delay:g} times the delay over p99", case, policy, got, LATER)


def _others(case: str, policy: Policy, found: Mapping[Policy, Figures]) -> Iterator[Check]:
    """No other law is better by more than 5 %."""
    ours = found[policy]
    rivals = {
        p.law: ours["p99_ms"] / f["p99_ms"]
        for p, f in found.items()
        if p.law not in (LAW, ORACLE, EXPORTER, NO_AGENT)
        and (p.scheduler, p.delay) == (policy.scheduler, policy.delay)
        and f["errors"] <= ours["errors"] + ERRORS_APART
    }
    rivals = {law: ratio for law, ratio in rivals.items() if isfinite(ratio)}
    if set(rivals) - {PLAIN}:
        best = max(rivals, key=lambda law: rivals[law])
        yield _most(f"p99 over the best other law's ({best})", case, policy, rivals[best], BETTER)


def _most(name: str, case: str, policy: Policy, got: float, limit: float) -> Check:
    return Check(name, case, policy.name, f"<= {limit:g}", got, got <= limit)
