"""Marks by nftables: a table of our own, replaced in one transaction, read back as JSON.

Owns the table's name. Its chain runs just after the chains at the priority of mangle, so marks set there by others do
not replace ours. Sources: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from feedback.config.match import Span, span_text
from feedback.model import Family, Protocol
from feedback.steer.errors import SteerError
from feedback.steer.firewall import WHOLE, WORDS, ForeignMark, Run
from feedback.steer.plan import Held, Read, Rule

TABLE = "lvs_feedback"
CHAIN = "prerouting"
PRIORITY = -140  # mangle is -150


class Nftables:
    name = "nftables"

    def __init__(self, run: Run) -> None:
        self._run = run

    def unusable(self, rules: Sequence[Rule]) -> str | None:
        for command, given in ((["nft", "-j", "list", "tables"], ""), (["nft", "-c", "-f", "-"], text(rules))):
            said = self._run(command, given)
            if said.status != 0:
                return said.reason
        return None

    def read(self, families: frozenset[Family]) -> Held:
        said = self._run(["nft", "-j", "list", "table", "inet", TABLE], "")
        if said.status == 0:
            return read(said.out)
        if said.status is None or "No such file" in said.reason:  # of the program, or of the table
            return Held()
        raise SteerError(said.reason)

    def write(self, rules: Sequence[Rule], families: frozenset[Family]) -> None:
        said = self._run(["nft", "-f", "-"], text(rules))
        if said.status != 0:
            raise SteerError(said.reason)

    def foreign(self) -> tuple[ForeignMark, ...]:
        said = self._run(["nft", "-j", "list", "ruleset"], "")
        return tuple(foreign(said.out)) if said.status == 0 else ()


def text(rules: Sequence[Rule]) -> str:
    """Input of `nft -f`: the table anew, or none. The first line makes the second one possible if the table does not
    exist."""
    lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}"]
    if rules:
        hook = f"type filter hook prerouting priority {PRIORITY}; policy accept;"
        lines += [f"table inet {TABLE} {{", f"chain {CHAIN} {{", hook, *map(_line, rules), "}", "}"]
    return "\n".join(lines) + "\n"


def _line(rule: Rule) -> str:
    ports = ", ".join(map(span_text, rule.ports))
    spared = "fib daddr type != local " if rule.spares_local else ""
    daddr = f"{WORDS[rule.family]} daddr {rule.network}"
    return f"{daddr} {rule.protocol} dport {{ {ports} }} {spared}meta mark set {rule.mark:#010x}"


def read(told: str) -> Held:
    """`nft -j list table`. Raises SteerError."""
    hooked, rules = False, list[Read]()
    for kind, item in _items(told):
        if kind == "chain":
            hooked = hooked or (item.get("hook"), item.get("prio"), item.get("name")) == ("prerouting", PRIORITY, CHAIN)
        elif kind == "rule":
            rules.append(_rule(item.get("expr")) or json.dumps(item.get("expr")))
    return Held(tuple(rules), hooked, there=True)


def _items(told: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        entries = json.loads(told)["nftables"]
        for entry in entries:
            for kind, item in entry.items():
                if isinstance(item, dict):
                    yield kind, item
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SteerError("nft: its JSON is not what libnftables-json(5) says") from None


def _rule(expressions: Any) -> Rule | None:
    """A rule of ours, or None."""
    try:
        daddr, dport, *fib, mangle = expressions
        if daddr["match"]["op"] != "==" or daddr["match"]["left"]["payload"]["field"] != "daddr":
            return None
        right = daddr["match"]["right"]
        network = ip_network(f"{right['prefix']['addr']}/{right['prefix']['len']}" if "prefix" in right else right)
        payload = dport["match"]["left"]["payload"]
        if dport["match"]["op"] != "==" or payload["field"] != "dport":
            return None
        right = dport["match"]["right"]
        ports = tuple(map(_span, right["set"] if isinstance(right, dict) and "set" in right else [right]))
        if mangle["mangle"]["key"] != {"meta": {"key": "mark"}}:
            return None
        made = Rule(network, Protocol(payload["protocol"]), tuple(sorted(ports)), int(mangle["mangle"]["value"]))
        spares = [e["match"] for e in fib]
        good = [{"op": "!=", "right": "local", "left": {"fib": {"result": "type", "flags": ["daddr"]}}}]
        return made if spares == (good if made.spares_local else []) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _span(told: Any) -> Span:
    first, last = told["range"] if isinstance(told, dict) else (told, told)
    return int(first), int(last)


def foreign(told: str) -> Iterator[ForeignMark]:
    """Rules of others that write marks. Raises SteerError."""
    for kind, item in _items(told):
        if kind == "rule" and (item.get("family"), item.get("table")) != ("inet", TABLE):
            where = f"nftables: table {item.get('family')} {item.get('table')}, chain {item.get('chain')}"
            expressions = item.get("expr")
            for expression in expressions if isinstance(expressions, list) else ():
                found = expression.get("mangle") if isinstance(expression, dict) else None
                if isinstance(found, dict) and found.get("key") == {"meta": {"key": "mark"}}:
                    value = found.get("value")
                    yield ForeignMark(where, value if isinstance(value, int) else None, WHOLE)
