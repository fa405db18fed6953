"""Parts of a status that need attention, worst first. Pure.

Owns what counts as a problem; the alert rules in contrib/prometheus say the same in their own language, with a delay. A
server quiesced by its operator is no problem, however silent it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import msgspec

from feedback.web.view import SILENT_SECONDS, Document


class Level(IntEnum):
    """How urgent: `BAD` costs clients something now, `LOOK` will or may."""

    FINE = 0
    LOOK = 1
    BAD = 2


class Problem(msgspec.Struct, frozen=True):
    level: Level
    where: str
    text: str


def problems(document: Document) -> list[Problem]:
    """Worst first; among equals in the order of the document."""
    found = [*_of_master(document), *(p for s in document["services"] for p in _of_service(s))]
    return sorted(found, key=lambda p: -p.level)


def _of_master(document: Document) -> Iterator[Problem]:
    age = document.get("decision_age_seconds")
    if document.get("role") == "standby":
        pass  # the active one decides
    elif age is None:
        yield Problem(Level.BAD, "master", "no decision yet: the kernel's weights are as they were")
    elif age > SILENT_SECONDS:
        yield Problem(Level.BAD, "master", f"no decision for {age:.0f} s: the kernel does not answer; weights stay")
    if lacking := document.get("connections_lacking"):
        text = f"at most {lacking} connections exceed the limit of replication: a takeover would cut them"
        yield Problem(Level.LOOK, "replication", text)
    if problem := document.get("steering", {}).get("problem"):
        yield Problem(Level.BAD, "ranges", f"their packets may not reach IPVS: {problem}")
    if document.get("reload", {}).get("good") is False:
        yield Problem(Level.LOOK, "configuration", "the last reload was refused: the old configuration is in force")


def _of_service(service: dict[str, Any]) -> Iterator[Problem]:
    destinations = service["destinations"]
    if destinations and all(d["target_weight"] == 0 for d in destinations):
        yield Problem(Level.BAD, service["virtual"], "no real server is in service")
    if service.get("held"):
        yield Problem(Level.LOOK, service["virtual"], service["held"])
    for d in destinations:
        text, level = trouble(d), Level.LOOK
        if d["weight"] is None:
            text, level = "is not in the kernel's table", Level.BAD
        if text:
            yield Problem(level, f"{d['address']} in {service['virtual']}", text)


def trouble(destination: dict[str, Any]) -> str:
    """What is wrong with a real server, or an empty string."""
    state, age = destination["state"], destination.get("age_seconds")
    if state == "quiesced":
        return ""
    if destination["target_weight"] == 0:
        return f"out of service: {_why_zero(destination)}"
    if state in {"stale", "lost"}:
        return f"{state}: the agent's last report is {age or 0:.0f} s old"
    if state == "never":
        return "its agent has not reported since the master started"
    return ""


def _why_zero(destination: dict[str, Any]) -> str:
    """The reason that made it 0: the first of the chain's last run of zeros."""
    text = "weight 0"
    for reason in reversed(destination["reasons"]):
        if reason["value"]:
            break
        if reason["stage"] != "actuate":
            text = str(reason["text"])
    return text
