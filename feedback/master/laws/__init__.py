"""Laws: observations of a pool -> shares. One file a law; a law knows no scheduler, no weight and no clock.

A law is any class that takes no argument and has `shares(pool, now)`. Others are found by the entry point group
`feedback.laws`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol

from feedback.master.pool import Pool, Shares


class Law(Protocol):
    """One instance serves one service, so a law may keep state between calls."""

    def shares(self, pool: Pool, now: float) -> Shares:
        """A share for every member of the pool, each with at least one reason. They need not sum to 1."""
        ...


class UnknownLawError(ValueError):
    pass


def names() -> list[str]:
    return sorted({e.name for e in entry_points(group="feedback.laws")})


def load(name: str) -> Law:
    """Raises UnknownLawError."""
    for entry in entry_points(group="feedback.laws", name=name):
        law: Law = entry.load()()
        return law
    raise UnknownLawError(f"law {name!r}: expected one of {', '.join(names())}")
