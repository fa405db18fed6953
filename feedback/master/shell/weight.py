"""Weight: a server's own weight in the answer to a health check. Pure.

A header (`X-Load-Balancing-Endpoint-Weight`: 0..1000 of Google's passthrough load balancer, and of kube-proxy, Cilium
and Antrea the number of local endpoints) or a member of a JSON body. An invalid weight is a warning: a server with a
good answer stays in service.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from feedback.config.probe import Check
from feedback.master.claims.health import Outcome

WEIGHT_MAX = 1e6
NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
SHOWN_SIGNS_MAX = 40


class Said(msgspec.Struct, frozen=True):
    """A weight, or why there is none where one was to be."""

    weight: float | None = None
    problem: str = ""

    def onto(self, outcome: Outcome) -> Outcome:
        if self.problem:
            return msgspec.structs.replace(outcome, warning=self.problem)
        if self.weight is None:
            return outcome
        return msgspec.structs.replace(outcome, text=f"{outcome.text}, weight {self.weight:g}", weight=self.weight)


NOT_ASKED = Said()


def in_header(check: Check, headers: Iterable[tuple[bytes, bytes]]) -> Said:
    """`headers` with names in lower case."""
    if not check.weight_header:
        return NOT_ASKED
    name = check.weight_header.lower().encode()
    values = [value for known, value in headers if known == name]
    if not values:
        return Said(problem=f"no header {check.weight_header} in the answer")
    text = values[0].decode("latin-1").strip()
    if len(values) > 1 or not NUMBER.fullmatch(text):
        return _no_weight(check.weight_header, text)
    return _checked(float(text), check.weight_header)


def in_body(check: Check, body: bytes) -> Said:
    if not check.weight_json:
        return NOT_ASKED
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return Said(problem="the answer is not JSON")
    for step in check.weight_json.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isascii() and name.isdecimal() and len(name) < 6:
            found = found[int(name)] if int(name) < len(found) else None
        else:
            return Said(problem=f"no {check.weight_json} in the answer")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return _no_weight(check.weight_json, str(found)[:SHOWN_SIGNS_MAX])
    return _checked(found, check.weight_json)


def _checked(weight: float, where: str) -> Said:
    if 0 <= weight <= WEIGHT_MAX:
        return Said(float(weight))
    return _no_weight(where, "a larger number" if weight > 0 else "a negative number")


def _no_weight(where: str, text: str) -> Said:
    return Said(problem=f"{where}: {text[:SHOWN_SIGNS_MAX]!r} is no weight: expected 0 to {WEIGHT_MAX:g}")
