"""Small SVG lines: figures over time, with events marked on them. Pure.

Knows numbers and moments only. An unknown value is a gap. Each drawing has a title in words, for screen readers and for
a resting pointer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite

WIDTH, HEIGHT = 90, 16


def line(
    points: Sequence[tuple[float, float]], seconds: float, top: float, title: str, marks: Iterable[float] = ()
) -> str:
    """`points` are (age in seconds, value), from the oldest on; `top` is what the upper edge stands for; `marks` are
    the ages of what happened. Ages beyond `seconds` are left out."""
    drawn = path(points, seconds, top, WIDTH, HEIGHT)
    at = "".join(f"M{_x(age, seconds, WIDTH):g} 0v{HEIGHT}" for age in marks if 0 <= age <= seconds)
    marked = f'<path class="mark" d="{at}"/>' if at else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img"><title>{escape(title)}</title>'
        f'{marked}<path d="{drawn}"/></svg>'
    )


def path(points: Sequence[tuple[float, float]], seconds: float, top: float, width: float, height: float) -> str:
    """The `d` of an SVG path. A single known value between gaps is a short stroke, so that it can be seen."""
    found: list[str] = []
    pen = False  # whether the last value was known
    room = height - 1  # half a stroke at both edges
    for age, value in points:
        if not isfinite(value) or not 0 <= age <= seconds:
            pen = False
            continue
        x = _x(age, seconds, width)
        y = round(height - 0.5 - room * min(1.0, max(0.0, value / top if top > 0 else 0.0)), 1)
        found.append(f"L{x:g} {y:g}" if pen else f"M{x:g} {y:g}h.5")
        pen = True
    return "".join(found)


def _x(age: float, seconds: float, width: float) -> float:
    return round(width * (1 - age / seconds), 1)
