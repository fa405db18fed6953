"""Report: results as a table for people and as one JSON object for programs. Pure, apart from rich, which makes the
table.

The JSON has a schema number, which is raised when a field changes its meaning or is removed. A figure that is infinite
or does not exist is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from rich.table import Table

from feedback.simulate.policy import Policy
from feedback.simulate.replay import History
from feedback.simulate.verdict import Check, Figures, Results

SCHEMA = 1
COLUMNS = (
    ("p50 ms", "p50_ms", 1.0, 1),
    ("p99 ms", "p99_ms", 1.0, 1),
    ("p99.9 ms", "p999_ms", 1.0, 0),
    ("errors %", "errors", 100.0, 2),
    ("bad s", "bad_seconds", 1.0, 0),
    ("converged s", "converge_s", 1.0, 1),
    ("swing %", "oscillation", 100.0, 2),
    ("writes/min", "writes_a_minute", 1.0, 0),
    ("peak", "peak_utilisation", 1.0, 2),
)


def table(results: Results) -> Table:
    made = Table(title="what each policy came to; x is the p99 over that of the oracle on the same scheduler")
    made.add_column("case")
    made.add_column("policy")
    made.add_column("x", justify="right")
    for title, *_ in COLUMNS:
        made.add_column(title, justify="right")
    for case, found in results.items():
        for number, (policy, figures) in enumerate(found.items()):
            cells = (_number(figures.get(name), scale, digits) for _, name, scale, digits in COLUMNS)
            made.add_row("" if number else case, policy.name, _number(over_oracle(policy, found), 1.0, 2), *cells)
        made.add_section()
    return made


def over_oracle(policy: Policy, found: Mapping[Policy, Figures]) -> float | None:
    oracle = found.get(policy.reference)
    return None if oracle is None or not oracle["p99_ms"] else found[policy]["p99_ms"] / oracle["p99_ms"]


def verdicts(checks: Sequence[Check]) -> list[str]:
    """One line for each promise that is not kept, and a count."""
    failed = [c for c in checks if not c.ok]
    lines = [f"falls short: {c.case}, {c.policy}: {c.name} is {c.got:.3g}, wanted {c.wanted}" for c in failed]
    return [*lines, f"{len(checks) - len(failed)} of {len(checks)} checks hold"] if checks else []


def as_json(results: Results, checks: Sequence[Check], seeds: Sequence[int]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "seeds": list(seeds),
        "ok": all(c.ok for c in checks),
        "cases": {
            case: {
                policy.name: {
                    "law": policy.law,
                    "scheduler": policy.scheduler,
                    "delay": policy.delay,
                    "p99_over_oracle": _plain(over_oracle(policy, found)),
                    **{name: _plain(value) for name, value in figures.items()},
                }
                for policy, figures in found.items()
            }
            for case, found in results.items()
        },
        "checks": [
            {"name": c.name, "case": c.case, "policy": c.policy, "wanted": c.wanted, "got": _plain(c.got), "ok": c.ok}
            for c in checks
        ],
    }


def replay_table(histories: Sequence[History]) -> Table:
    """For each destination its part of its service in per cent, as a mean over the recording, and the effect of
    that."""
    made = Table(title="what would have happened: parts of the service in per cent, means over the recording")
    made.add_column("destination")
    for history in histories:
        made.add_column(history.law, justify="right")
    for key in histories[0].weights:
        made.add_row(f"{key[0]} {key[1]}", *(_number(h.part(key), 100.0, 1) for h in histories))
    made.add_section()
    made.add_row("hottest server used %", *(_number(h.hottest, 100.0, 0) for h in histories))
    made.add_row("time with one overloaded %", *(_number(h.overloaded, 100.0, 1) for h in histories))
    made.add_row(
        "writes a minute", *(_number(60 * h.writes / h.seconds if h.seconds else None, 1.0, 0) for h in histories)
    )
    return made


def replay_as_json(histories: Sequence[History]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "laws": {
            h.law: {
                "writes": h.writes,
                "seconds": round(h.seconds, 3),
                "hottest": _plain(h.hottest),
                "overloaded": _plain(h.overloaded),
                "parts": {
                    f"{service} {destination}": _plain(h.part((service, destination)))
                    for service, destination in h.weights
                },
                "weights": {
                    f"{service} {destination}": changes for (service, destination), changes in h.weights.items()
                },
            }
            for h in histories
        },
    }


def _plain(value: float | None) -> float | None:
    return round(value, 6) if value is not None and isfinite(value) else None


def _number(value: float | None, scale: float, digits: int) -> str:
    if value is None or value != value:
        return "-"
    return f"{scale * value:,.{digits}f}" if isfinite(value) else "never"
