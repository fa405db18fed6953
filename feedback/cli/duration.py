"""Durations as people type them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}


if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
else:
    _Seconds = click.ParamType  # generic for types only, and before click 8.2 not even that


class Duration(_Seconds):
    """Seconds, or 90s, 10m, 1.5h, 1d."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value.strip())
        if found is None or float(found[1]) <= 0:
            self.fail(f"{value!r}: expected a duration like 90s, 10m or 1h", param, ctx)
        return float(found[1]) * UNITS[found[2]]
