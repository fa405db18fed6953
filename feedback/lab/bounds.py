"""Bounds: limits on the figures of a scenario, as data, and the code that judges them. Pure.

A figure that does not exist is not judged: its variant was not run. A figure that is not a number misses every bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from feedback.lab.figures import Figures


class Bound(msgspec.Struct, frozen=True):
    """`figure` is at least `least` and at most `most`; each is a number, or the name of another figure. The bound
    applies only if the figure named by `when` exists and is not 0, and not at all if the one named by `unless` does."""

    figure: str
    least: float | str | None = None
    most: float | str | None = None
    when: str = ""
    unless: str = ""


class Check(msgspec.Struct, frozen=True):
    """A bound in numbers, beside the value found. `ok` is None if the figure does not exist."""

    figure: str
    least: float | None
    most: float | None
    got: float | None
    ok: bool | None

    def wanted(self) -> str:
        if self.least is not None and self.least == self.most:
            return f"{self.least:g}"
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"


def judge(bounds: Iterable[Bound], figures: Figures) -> list[Check]:
    """The bounds that apply, in their order."""
    return [_check(bound, figures) for bound in bounds if _in_force(bound, figures)]


def shortfalls(checks: Iterable[Check]) -> list[str]:
    """One line for each bound that is missed."""
    return [_line(check) for check in checks if check.ok is False]


def _in_force(bound: Bound, figures: Figures) -> bool:
    return not (bound.when and not figures.get(bound.when)) and not (bound.unless and figures.get(bound.unless))


def _check(bound: Bound, figures: Figures) -> Check:
    least, most = _number(bound.least, figures), _number(bound.most, figures)
    got = figures.get(bound.figure)
    ok = None if got is None else _reached(got, least) and _kept(got, most)
    return Check(bound.figure, least, most, got, ok)


def _number(side: float | str | None, figures: Figures) -> float | None:
    return figures.get(side, math.nan) if isinstance(side, str) else side


# Written so that NaN, which compares false with everything, misses.
def _reached(got: float, least: float | None) -> bool:
    return least is None or got >= least


def _kept(got: float, most: float | None) -> bool:
    return most is None or got <= most


def _line(check: Check) -> str:
    assert check.got is not None
    if check.least is not None and not _reached(check.got, check.least):
        return f"{check.figure} is {check.got:.4g}, wanted at least {check.least:g}"
    return f"{check.figure} is {check.got:.4g}, wanted at most {check.most:g}"
