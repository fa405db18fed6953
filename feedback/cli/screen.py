"""Display and keys of `feedback top`. Pure: statuses and keys in, lines and requests out.

Knows no terminal: the command reads keys, asks the master and draws. Invariant: every line fits the width; the selected
destination stays selected while there is one of its name, whatever the order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from feedback.web.verdict import problems

Row: TypeAlias = dict[str, Any]

SORTS: dict[str, tuple[str, Callable[[Row], Any], bool]] = {  # key -> name, what by, the largest first
    "n": ("name", lambda d: _numeric(d["address"]), False),
    "w": ("weight", lambda d: d["weight"] or 0, True),
    "l": ("load", lambda d: d["utilisation"] or 0.0, True),
    "c": ("connections", lambda d: d["active"], True),
    "a": ("age", lambda d: d["age_seconds"] or 0.0, True),
}
SPARK_WIDTH = 16  # looks that are kept of a load; shown where the terminal is wide enough
BLOCKS = "▁▂▃▄▅▆▇█"
HELP = "q quit  up/down select  sort: n w l c a  d drain  u undrain  e explain  p pause"
HEAD = f"{'destination':<24}{'weight':>7}{'share':>7}{'load':>6}{'cap/s':>8}{'act':>6}{'inact':>7}{'age':>6} state"
WIDE = len(HEAD) + 7  # with room for the longest state


class Line(msgspec.Struct, frozen=True):
    """`style` is a name of rich's, '' for plain text."""

    text: str
    style: str = ""


class Wish(msgspec.Struct, frozen=True):
    """The operator's request: `quit`, or a command for the master with its arguments."""

    command: str
    words: dict[str, Any] = {}


class Screen:
    def __init__(self) -> None:
        self._status: dict[str, Any] | None = None
        self._sort = "n"
        self._selected: tuple[str, str] | None = None
        self._explaining = False
        self._asked: Wish | None = None  # awaits a yes
        self._loads: dict[tuple[str, str], deque[float | None]] = {}  # of the last looks, the oldest first
        self.message = ""

    # --- what comes in -----------------------------------------------------------------------------------------------

    def update(self, status: dict[str, Any]) -> None:
        self._status = status
        keys = [(s["virtual"], d["address"]) for s, d in self._rows()]
        if self._selected not in keys:
            self._selected = keys[0] if keys else None
        before, self._loads = self._loads, {}
        for s, d in self._rows():
            key = s["virtual"], d["address"]
            self._loads[key] = before.get(key) or deque(maxlen=SPARK_WIDTH)
            self._loads[key].append(d["utilisation"])

    def press(self, key: str) -> Wish | None:
        """A key: a character, or `up`, `down`, `enter`, `escape`."""
        if self._asked is not None:
            wish, self._asked, self.message = self._asked, None, ""
            return wish if key in ("y", "Y") else None
        self.message = ""
        match key:
            case "q" | "Q":
                return Wish("quit")
            case "up" | "k" | "down" | "j":
                self._move(-1 if key in ("up", "k") else 1)
            case "e" | "enter":
                self._explaining = not self._explaining
            case "escape":
                self._explaining = False
            case "d" | "u" | "p":
                self._wish(key)
            case _ if key in SORTS:
                self._sort = key
        return None

    def _move(self, by: int) -> None:
        keys = [(s["virtual"], d["address"]) for s, d in self._rows()]
        if self._selected in keys:
            at = keys.index(self._selected) + by
            self._selected = keys[min(max(at, 0), len(keys) - 1)]

    def _wish(self, key: str) -> None:
        if self._selected is None or self._status is None:
            return
        service, address = self._selected
        if key == "p":
            paused = any(o["kind"] == "pause" and not o["service"] for o in self._status.get("orders", ()))
            self._asked = Wish("resume" if paused else "pause", {} if paused else {"reason": "by feedback top"})
            self.message = f"{'resume' if paused else 'pause'} all services? y/n"
            return
        command = "drain" if key == "d" else "undrain"
        self._asked = Wish(command, {"destination": address, "service": service})
        self.message = f"{command} {address} in {service}? y/n"

    # --- what is shown -----------------------------------------------------------------------------------------------

    def lines(self, width: int, height: int) -> list[Line]:
        """The screen: at most `height` lines of at most `width` characters."""
        head, foot = self._head(width), self._foot()
        body = self._explanation() if self._explaining else self._table(width)
        room = max(1, height - len(head) - len(foot))
        shown = [Line(line.text[:width], line.style) for line in [*head, *_window(body, room), *foot]]
        return shown[:height]

    def _rows(self) -> list[tuple[dict[str, Any], Row]]:
        """In the order in which they are shown."""
        _, by, descending = SORTS[self._sort]
        services = self._status["services"] if self._status else []
        return [(s, d) for s in services for d in sorted(s["destinations"], key=by, reverse=descending)]

    def _head(self, width: int) -> list[Line]:
        s = self._status or {"services": []}
        servers = sum(len(x["destinations"]) for x in s["services"])
        found = problems(s) if self._status else []
        worst = f"{found[0].where}: {found[0].text}" if found else "nothing needs attention"
        more = f"  (and {len(found) - 1} more)" if len(found) > 1 else ""
        said = f"{s.get('director', '')} {s.get('role', '')}: {len(s['services'])} services, {servers} destinations"
        return [
            Line(f"feedback  {said}, by {SORTS[self._sort][0]}", "bold"),
            Line(worst + more, "yellow" if found else "green"),
            Line(_beside(HEAD, "load of late", width), "reverse"),
        ]

    def _foot(self) -> list[Line]:
        return [Line(self.message or HELP, "bold yellow" if self.message else "dim")]

    def _table(self, width: int) -> list[Line]:
        found: list[Line] = []
        name = ""
        for service, d in self._rows():
            if service["virtual"] != name:
                name = service["virtual"]
                held = f"  [{service['held']}]" if service["held"] else ""
                rate = f"{service['connections_per_second']:.1f}/s"
                found.append(Line(f"{name} {service['scheduler']} {service['law']} {rate}{held}", "bold"))
            chosen = (name, d["address"]) == self._selected
            row = _beside(_row(d, chosen=chosen), sparkline(self._loads[name, d["address"]]), width)
            found.append(Line(row, "reverse" if chosen else _colour(d)))
        return found or [Line("no destination yet")]

    def _explanation(self) -> list[Line]:
        for service, d in self._rows():
            if (service["virtual"], d["address"]) == self._selected:
                found = [Line(f"{d['address']} in {service['virtual']}: weight {d['weight']}", "bold")]
                for r in d["reasons"]:
                    value = "" if r["value"] is None else f"{r['value']:.4g}"
                    found.append(Line(f"  {r['stage']:<8} {value:>10}  {r['text']}"))
                return found
        return [Line("it is gone")]


def sparkline(values: Iterable[float | None]) -> str:
    """A sign for each value of 0..1; a space where it is not known."""
    top = len(BLOCKS) - 1
    return "".join(" " if v is None else BLOCKS[round(top * min(1.0, max(0.0, v)))] for v in values)


def _beside(row: str, late: str, width: int) -> str:
    return f"{row:<{WIDE}}{late}" if width >= WIDE + SPARK_WIDTH else row


def _window(body: list[Line], room: int) -> list[Line]:
    """The part with the selected line in it."""
    at = next((i for i, line in enumerate(body) if line.style == "reverse"), 0)
    start = max(0, min(at - room // 2, len(body) - room))
    return body[start : start + room]


def _row(d: Row, *, chosen: bool) -> str:
    name = d["address"] if len(d["address"]) <= 22 else f"{d['address'][:10]}..{d['address'][-10:]}"
    weight = "-" if d["weight"] is None else _short(d["weight"])
    load = "-" if d["utilisation"] is None else f"{100 * d['utilisation']:.0f}%"
    capacity = "-" if d["capacity_per_second"] is None else f"{d['capacity_per_second']:.1f}"
    age = "-" if d["age_seconds"] is None else f"{d['age_seconds']:.1f}s"
    order = d.get("order")
    state = {"drain": "drained", "override": "by hand"}.get(order["kind"], d["state"]) if order else d["state"]
    counts = f"{_short(d['active']):>6}{_short(d['inactive']):>7}"
    mark = ">" if chosen else " "
    return f"{mark} {name:<22}{weight:>7}{100 * d['share']:>6.1f}%{load:>6}{capacity:>8}{counts}{age:>6} {state}"


def _short(number: int) -> str:
    return str(number) if number < 100_000 else f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number // 1000}k"


def _colour(d: Row) -> str:
    if d["state"] in ("lost", "barred", "removed") or d["weight"] is None:
        return "red"
    if d["state"] in ("stale", "never") or d.get("order"):
        return "yellow"
    return "dim" if d["state"] in ("quiesced", "standby") else ""


def _numeric(address: str) -> tuple[int, bytes, int]:
    from feedback.model import parse_endpoint

    found, port = parse_endpoint(address)
    return found.version, found.packed, port
