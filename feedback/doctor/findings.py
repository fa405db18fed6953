"""All findings, the worst first."""

from __future__ import annotations

from collections.abc import Sequence

from feedback.doctor import daemons, firewall, kernel, neighbours, steering
from feedback.doctor.facts import Facts, Finding, Level

ORDER = {Level.ERROR: 0, Level.WARNING: 1, Level.ADVICE: 2}


def examine(facts: Facts) -> tuple[Finding, ...]:
    director = [*kernel.examine(facts), *firewall.examine(facts)] if facts.directs else []
    found = [*daemons.examine(facts), *director, *steering.examine(facts), *neighbours.examine(facts)]
    return tuple(sorted(found, key=lambda f: ORDER[f.level]))


def verdict(findings: Sequence[Finding]) -> str:
    """One line."""
    errors = sum(f.level is Level.ERROR for f in findings)
    if errors:
        return f"{errors} error{'s' * (errors > 1)}: fix the first one first"
    return "nothing is wrong" + (", with the remarks above" if findings else "")
