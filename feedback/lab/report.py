"""How a run ends for a person: a table of its figures, what they fall short of, and the name of its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from feedback.lab.bounds import Check
from feedback.lab.error import LabError
from feedback.lab.runner import Result
from feedback.lab.scenario import Scenario
from feedback.lab.trace import Trace

QUIET_SHARE = 0.15  # of the time: with more waiting for a CPU, the latencies are partly the host's


def table(result: Result, *, stderr: bool) -> None:
    console = Console(stderr=stderr)
    made = Table(title=f"{result.scenario}: {'as it should be' if result.ok else 'falls short'}")
    made.add_column("figure")
    made.add_column("value", justify="right")
    made.add_column("wanted", justify="right")
    made.add_column("holds")
    checks = {check.figure: check for check in result.checks}
    for name, value in result.figures.items():
        made.add_row(name, _number(value), *_judged(checks.get(name)))
    console.print(made)
    for failure in result.failures:
        console.print(f"falls short: {failure}", highlight=False)
    waited = result.environment["host_waited_share"]
    if waited > QUIET_SHARE:
        console.print(
            f"other work on this machine had a part in it: something waited for a CPU {waited:.0%} of the time"
        )
    console.print(f"all files: {result.output}", highlight=False, soft_wrap=True)


def picture(result: Result, scenario: Scenario, only: Sequence[str]) -> str:
    """One line: the picture's name, or why there is none."""
    from feedback.lab.picture import draw

    variants = [variant for variant in scenario.variants if not only or variant in only]
    traces = {variant: Trace.read(result.output / variant) for variant in variants}
    path = result.output / f"{scenario.name}.svg"
    try:
        return f"picture: {draw(Path(path), f'{scenario.name}: {scenario.summary}', traces, scenario.quotas)}"
    except LabError as error:
        return str(error)


def _judged(check: Check | None) -> tuple[str, str]:
    """What was wanted, and whether it holds; of a figure without a bound nothing."""
    if check is None or check.ok is None:
        return "", ""
    return check.wanted(), "yes" if check.ok else "no"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "never" if value > 0 else "-"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
