"""The end of a run for people: a table of its figures, the bounds that they miss, and the file of its picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from feedback.lab.bounds import Check
from feedback.lab.error import LabError
from feedback.lab.job import Options
from feedback.lab.runner import Result
from feedback.lab.scenario import Scenario
from feedback.lab.trace import Trace
from feedback.lab.verdict import Verdict

TITLES = {Verdict.OK: "as it should be", Verdict.FAILED: "falls short", Verdict.INCONCLUSIVE: "inconclusive"}


def table(result: Result, *, stderr: bool) -> None:
    console = Console(stderr=stderr)
    made = Table(title=f"{result.scenario}: {TITLES[result.verdict]}")
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
    if result.disturbed:
        console.print(f"inconclusive: {result.disturbed}", highlight=False, soft_wrap=True)
    times = (
        f"{variant} {each['guest_seconds']:.1f} s by the guest's clock, {each['wall_seconds']:.1f} s on the wall"
        for variant, each in result.environment["times"].items()
    )
    console.print(f"took: {'; '.join(times)}", highlight=False, soft_wrap=True)
    console.print(f"all files: {result.output}", highlight=False, soft_wrap=True)


def picture(result: Result, scenario: Scenario, options: Options, only: Sequence[str]) -> str:
    """One line: the picture's name, or why there is none."""
    from feedback.lab.picture import draw

    path = result.output / f"{scenario.name}.svg"
    if result.disturbed:
        path.unlink(missing_ok=True)  # of a run before this one
        return "no picture: it would show this machine's other work"
    traces = {variant: Trace.read(result.output / variant) for variant in scenario.played(options, only)}
    try:
        return f"picture: {draw(path, f'{scenario.name}: {scenario.summary}', traces, scenario.quotas)}"
    except LabError as error:
        return str(error)


def _judged(check: Check | None) -> tuple[str, str]:
    """The bound, and whether it holds. Empty for a figure without a bound."""
    if check is None or check.ok is None:
        return "", ""
    return check.wanted(), "yes" if check.ok else "no"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "never" if value > 0 else "-"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
