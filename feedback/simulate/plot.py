"""A recording as a picture: shares, loads, open and new connections of each destination over time, as SVG. Pure.

The figures are the kernel's and the agents'. A share is a weight's part of the sum of its service's weights; a load is
the busy part of a server's CPU between two reports. A line has WIDTH_STEPS points, each of them a mean, so the size of
a picture does not depend on the length of the recording.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from html import escape
from math import nan

from feedback.master.shell.recording import Entry
from feedback.model import Snapshot
from feedback.web.lines import path
from feedback.wire import Report

WIDTH_STEPS = 400
FIGURES = (("share", "%", 100.0), ("load", "%", 100.0), ("open", "", 1.0), ("new a second", "", 1.0))
COLOURS = ("#2f81f7", "#d29922", "#3fb950", "#db61a2", "#a371f7", "#f0883e", "#39c5cf", "#8b949e")
NAMED_MAX = 24  # in a legend
WIDTH, HEIGHT, LEFT, LINE = 760, 90, 60, 18

Place = tuple[str, str]  # virtual and address


class Means:
    """Means of one figure of one destination or server, one for each step."""

    __slots__ = ("_counts", "_sums")

    def __init__(self) -> None:
        self._sums, self._counts = [0.0] * WIDTH_STEPS, [0] * WIDTH_STEPS

    def take(self, step: int, value: float) -> None:
        self._sums[step] += value
        self._counts[step] += 1

    def values(self) -> list[float]:
        return [s / n if n else nan for s, n in zip(self._sums, self._counts, strict=True)]


class Plot:
    """`seconds` is the length of the part that is drawn, from the end of the recording. Raises ValueError if there is
    nothing to draw."""

    def __init__(self, entries: Callable[[], Iterable[Entry]], seconds: float) -> None:
        first, last = _span(entries())
        self._start, self._end = max(first, last - seconds), last
        self._means: dict[str, dict[Place, Means]] = {name: defaultdict(Means) for name, _, _ in FIGURES}
        self._places: dict[Place, None] = {}  # in the order in which they first appeared
        self._reports: dict[str, Report] = {}
        self._loads: dict[str, float] = {}  # of a RIP, as last told
        self._counted: dict[Place, tuple[float, int]] = {}  # when connections were counted last
        for entry in entries():
            if isinstance(entry.what, Report):
                self._report(entry.what)
            elif entry.at >= self._start:
                self._table(entry.at, entry.what)
        if not self._places:
            raise ValueError("it has no look at the kernel's table in that time")

    def _report(self, report: Report) -> None:
        for address in report.addresses:
            before, self._reports[address] = self._reports.get(address), report
            if before is None or before.boot != report.boot or report.sampled_at <= before.sampled_at:
                continue
            used = report.cpu.busy_seconds - before.cpu.busy_seconds
            self._loads[address] = used / (report.cpu.cores * (report.sampled_at - before.sampled_at))

    def _table(self, at: float, table: Snapshot) -> None:
        step = self._step(at)
        for service in table.services:
            total = sum(e.destination.weight for e in service.destinations)
            for e in service.destinations:
                key, place = e.destination.key, (str(service.service.key), str(e.destination.key))
                self._places.setdefault(place)
                self._means["share"][place].take(step, e.destination.weight / total if total else 0.0)
                self._means["open"][place].take(step, e.active)
                load = self._loads.get(str(key.address))
                if load is not None:
                    self._means["load"][place].take(step, load)
                since, counted = self._counted.get(place, (at, e.counters.connections))
                if at - since >= 2.0 or place not in self._counted:  # the kernel's own counts are as old as that
                    if at > since and e.counters.connections >= counted:
                        self._means["new a second"][place].take(step, (e.counters.connections - counted) / (at - since))
                    self._counted[place] = at, e.counters.connections

    def _step(self, at: float) -> int:
        whole = max(self._end - self._start, 1e-9)
        return min(WIDTH_STEPS - 1, int(WIDTH_STEPS * (at - self._start) / whole))

    # --- as SVG ------------------------------------------------------------------------------------------------------

    def svg(self) -> str:
        body, y = [], LINE
        for virtual in dict.fromkeys(virtual for virtual, _ in self._places):
            places = [place for place in self._places if place[0] == virtual]
            drawn, height = self._service(virtual, places, y)
            body += drawn
            y += height
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {y}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(body)}</svg>\n'
        )

    def _service(self, virtual: str, places: list[Place], top: int) -> tuple[list[str], int]:
        found = [f'<text x="{LEFT}" y="{top}" font-size="15">{escape(virtual)}</text>']
        y = top + LINE
        for row in range(0, min(len(places), NAMED_MAX), 4):
            for column, place in enumerate(places[row : row + 4]):
                found.append(_named(place[1], COLOURS[(row + column) % len(COLOURS)], LEFT + column * WIDTH // 4, y))
            y += LINE
        if len(places) > NAMED_MAX:
            found.append(f'<text x="{LEFT}" y="{y}">and {len(places) - NAMED_MAX} more</text>')
            y += LINE
        for name, unit, times in FIGURES:
            found += self._chart(name, unit, times, places, y)
            y += HEIGHT + 2 * LINE
        return found, y - top + LINE

    def _chart(self, name: str, unit: str, times: float, places: list[Place], y: int) -> Iterator[str]:
        values = [[times * v for v in self._means[name][place].values()] for place in places]
        known = [v for row in values for v in row if v == v]
        edge = max(known, default=0.0) or 1.0
        seconds = self._end - self._start
        yield f'<g transform="translate({LEFT} {y})"><rect width="{WIDTH}" height="{HEIGHT}" fill="#f4f5f7"/>'
        yield f'<text x="-6" y="10" text-anchor="end">{edge:.4g}{unit}</text>'
        yield f'<text x="-6" y="{HEIGHT}" text-anchor="end">0</text><text x="4" y="14" fill="#5a6570">{name}</text>'
        for i, row in enumerate(values):
            points = [(WIDTH_STEPS - 1 - step, value) for step, value in enumerate(row)]
            drawn = path([p for p in points if p[1] == p[1]], WIDTH_STEPS - 1, edge, WIDTH, HEIGHT)
            yield f'<path d="{drawn}" fill="none" stroke="{COLOURS[i % len(COLOURS)]}"/>'
        yield f'<text x="0" y="{HEIGHT + 13}">{_ago(seconds)} before</text>'
        yield f'<text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end">end of the recording</text></g>'


def _span(entries: Iterable[Entry]) -> tuple[float, float]:
    first = last = None
    for entry in entries:
        first, last = entry.at if first is None else first, entry.at
    if first is None or last is None:
        raise ValueError("it is empty")
    return first, last


def _named(text: str, colour: str, x: int, y: int) -> str:
    stroke = f'<path d="M{x} {y - 4}h14" stroke="{colour}" stroke-width="3"/>'
    return f'{stroke}<text x="{x + 18}" y="{y}">{escape(text)}</text>'


def _ago(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
