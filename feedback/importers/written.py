"""Services as TOML for master.toml."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from feedback.importers.draft import Draft

HEADER = """\
# {source}, as read by `feedback import`. Check it with: feedback master check --config FILE
# Key, enrolments and guards have their defaults: docs/configuration.md.

# "table": this master makes these services. "weights": their owner goes on making them, and weights and thresholds are
# all that the master touches; what says no more than the owner does may then go, and on_failure = "remove" must.
ownership = "table"
"""


def as_toml(services: Iterable[Draft], source: str) -> str:
    parts = [HEADER.format(source=_one_line(source))]
    for draft in services:
        plain = draft.plain()
        destinations, check = plain.pop("destination"), plain.pop("check", None)
        parts.append("[[service]]\n" + _pairs(plain))
        if check:
            parts.append("[service.check]\n" + _pairs(check))
        parts += ["[[service.destination]]\n" + _pairs(d) for d in destinations]
    return "\n".join(parts)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _pairs(table: dict[str, Any]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, str):  # JSON's strings are TOML's, but for one sign
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
