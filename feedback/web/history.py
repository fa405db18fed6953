"""History on the page: a line for each figure of a service or destination, its events, and the pair. Pure.

Marks are events that change who serves, not the many new weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from math import isnan
from typing import Any

from feedback.web import lines
from feedback.web.past import FIGURES, STEP_SECONDS, STEPS, Place, Story

SECONDS = STEP_SECONDS * STEPS
MARKED = {
    *("ejected", "readmitted", "barred", "unbarred", "removed", "returned", "stands-in", "relieved", "cut", "promoted"),
    *(
        "held",
        "released",
        "agent-lost",
        "agent-back",
        "exporter-lost",
        "exporter-back",
        "foreign-edit",
        "order-given",
        "order-lifted",
        "order-expired",
    ),
    *("role", "started", "reloaded"),
}
TOLD = 5  # of what happened at a place, or between the directors
DRAWN_MAX = 100  # destinations of a page with lines: of more, only those whose reasons are open


class History:
    """The history of one page. `wall` is the time of day, which events have; `drawn`: whether there is room for every
    line."""

    def __init__(self, story: Story, wall: float, destinations: int) -> None:
        self._story, self._wall = story, wall
        self.drawn = destinations <= DRAWN_MAX
        self._happened: dict[Place, list[tuple[float, str]]] = {}  # (age, what), the oldest first
        for event in story.events:
            age = wall - _number(event.get("at"))
            if event.get("kind") in MARKED and 0 <= age <= SECONDS:
                where = event.get("destination") or event.get("address") or ""
                place = (str(event.get("service", "")), str(where))
                self._happened.setdefault(place, []).append((age, _words(event)))

    def __bool__(self) -> bool:
        return bool(self._story.steps)

    def line(self, place: Place, figure: str, unit: str, times: float = 1.0) -> str:
        """Markup, '' where nothing is known. The upper edge is 1 for shares and loads, else a little over the most."""
        at = FIGURES.index(figure)
        points = [(self._story.now - step.at, times * step.value(place, at)) for step in self._story.steps]
        known = [value for _, value in points if not isnan(value)]
        if len(known) < 2:
            return ""
        top = times if figure in ("share", "load") else 1.1 * max(known)
        said = f"{figure}, last {SECONDS / 60:.0f} min: {min(known):.4g} to {max(known):.4g}{unit}, now {known[-1]:.4g}"
        return lines.line(points, SECONDS, top, f"{said}{unit}", [age for age, _ in self._at(place)])

    def _at(self, place: Place) -> list[tuple[float, str]]:
        """The events to mark there, including those of its whole service and of the director."""
        return self._of({("", ""), (place[0], ""), *_own(place)})

    def _of(self, places: set[Place]) -> list[tuple[float, str]]:
        """The oldest first."""
        return sorted((h for p in places for h in self._happened.get(p, ())), reverse=True)

    def happened(self, place: Place) -> str:
        """The last of it in words, which a phone's finger cannot ask of a mark. `("", "")` is the director itself."""
        found = self._of(_own(place))[-TOLD:]
        items = "".join(f"<li>{self._clock(age)} {escape(what)}</li>" for age, what in reversed(found))
        return f'<ul class="past">{items}</ul>' if items else ""

    def _clock(self, age: float) -> str:
        return f"{datetime.fromtimestamp(self._wall - age, UTC):%H:%M:%S}"

    def pair(self) -> Iterator[str]:
        """The two directors, as the sync daemon tells it."""
        pair = self._story.pair
        if pair is None:
            if self._story.pair_problem:
                yield f'<section><h2>Pair</h2><p class="look">{escape(self._story.pair_problem)}</p></section>'
            return
        peer, age = pair["peer"], pair["peer"]["age_seconds"]
        yield f"<section><h2>Pair</h2><p>{_t(pair['name'])} is {_t(pair['state'])}: {_t(pair['reason'])}</p><dl>"
        heard = "never heard" if age is None else f"{peer['role']}, heard {age:.1f} s ago"
        yield f"<dt>peer</dt><dd>{_t(peer['name'])}: {_t(heard)}; replica there: {_t(peer['replica'])}</dd>"
        yield f"<dt>replica</dt><dd>{_t(pair['replica']['text'])}</dd>"
        for link in pair["links"]:
            kind = "up" if link["up"] else "down"
            yield f'<dt>link</dt><dd class="{kind}">{_t(link["local"])} to {_t(link["peer"])}: {kind}</dd>'
        yield "</dl>"
        moves = [
            f"<li>{self._clock(t['age_seconds'])} {_t(t['old'])} to {_t(t['new'])}: {_t(t['reason'])}</li>"
            for t in sorted(pair["transitions"], key=lambda t: float(t["age_seconds"]))[:TOLD]
        ]
        yield f'<ul class="past">{"".join(moves)}</ul></section>'


def _own(place: Place) -> set[Place]:
    """An agent's events are shown at its RIP."""
    virtual, address = place
    return {place, ("", address), ("", address.rpartition(":")[0].strip("[]"))} if address else {(virtual, "")}


def _words(event: dict[str, Any]) -> str:
    said = event.get("reason") or event.get("order") or event.get("role") or ""
    return f"{event['kind']}: {said}" if said else str(event["kind"])


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _t(value: Any) -> str:
    return escape(str(value))
