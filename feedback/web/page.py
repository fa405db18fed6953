"""The status page: one self-contained HTML text that suits a phone. Pure.

No script and no other resource: the page refreshes itself by a meta element, and what a person opened (`why`) is in the
URL, so a refresh keeps it. Trouble comes first, in words; colours only repeat them. Everything that comes from outside
goes through `_t`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import quote

import feedback
from feedback.web.history import History
from feedback.web.past import Story
from feedback.web.verdict import Level, Problem, problems, trouble
from feedback.web.view import Document

REFRESH_SECONDS = 5
PROBLEMS_SHOWN = 50

STYLE = resources.files("feedback.web").joinpath("page.css").read_text(encoding="utf-8")


def render(document: Document, now: float, why: str = "", story: Story | None = None) -> str:
    """`now` is the wall clock's; `why` is the destination whose chain of reasons is open, `VIRTUAL/ADDRESS`."""
    found = problems(document)
    history = History(story or Story(), now, sum(len(s["destinations"]) for s in document["services"]))
    return "".join(_page(document, found, now, why, history))


def _page(document: Document, found: list[Problem], now: float, why: str, history: History) -> Iterator[str]:
    level = max((p.level for p in found), default=Level.FINE)
    headline = _headline(document, found)
    director = document.get("director", "")
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="dark light">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}"><link rel="icon" href="data:,">'
        f"<title>{_t(headline)} - {_t(director)}</title><style>{STYLE}</style></head><body>"
    )
    about = _about(document, now)
    yield f'<header class="{level.name.lower()}"><h1>{_t(headline)}</h1><p>{_t(about)}</p></header><main>'
    if found:
        yield from _problems(found)
    yield history.happened(("", ""))
    for service in document["services"]:
        yield from _service(service, why, history)
    if not document["services"]:
        yield f"<p>{_t(_nothing(document))}</p>"
    yield from history.pair()
    yield (
        f"</main><footer><p>Refreshes every {REFRESH_SECONDS} s. "
        '<a href="/status.json">status.json</a> <a href="/metrics">metrics</a> '
        f"feedback {_t(feedback.__version__)}</p></footer></body></html>"
    )


def _headline(document: Document, found: list[Problem]) -> str:
    bad = [p for p in found if p.level is Level.BAD]
    if bad:
        return bad[0].text if bad[0].where == "master" else f"{bad[0].where}: {bad[0].text}"
    if found:
        return f"{len(found)} thing{'s' if len(found) > 1 else ''} to look at"
    if document.get("role") == "standby":
        return "Standby"
    servers = sum(len(s["destinations"]) for s in document["services"])
    return f"All well: {servers} real server{'s' if servers != 1 else ''}"


def _nothing(document: Document) -> str:
    if document.get("role") == "standby":
        return f"The other director is active: {document.get('role_reason') or 'no reason given'}"
    return "No virtual service yet."


def _about(document: Document, now: float) -> str:
    parts = [document.get("director", ""), document.get("role", ""), f"up {_duration(document['uptime_seconds'])}"]
    parts.append(f"{datetime.fromtimestamp(now, UTC):%H:%M:%S} UTC")
    return " · ".join(p for p in parts if p)


def _problems(found: list[Problem]) -> Iterator[str]:
    yield '<section class="problems"><h2>To look at</h2><ul>'
    for p in found[:PROBLEMS_SHOWN]:
        yield f'<li class="{p.level.name.lower()}"><b>{_t(p.where)}</b> {_t(p.text)}</li>'
    if len(found) > PROBLEMS_SHOWN:
        yield f"<li>and {len(found) - PROBLEMS_SHOWN} more</li>"
    yield "</ul></section>"


def _service(service: dict[str, Any], why: str, history: History) -> Iterator[str]:
    flow = f"{service['connections_per_second']:.1f} connections/s"
    parts = [service["scheduler"], f"law {service['law']}", flow]
    if service["persistence_seconds"]:
        parts.append(f"persistent {service['persistence_seconds']} s")
    yield f"<section><h2>{_t(service['virtual'])}</h2><p>{_t(' · '.join(parts))}</p>"
    if service["held"]:
        yield f'<p class="look">Held: {_t(service["held"])}</p>'
    whole = (service["virtual"], "")
    of_all = [("flow", "/s"), ("open", "")] if history else []
    drawn = [(figure, history.line(whole, figure, unit)) for figure, unit in of_all]
    yield "".join(f'<p class="of-all">{figure} {line}</p>' for figure, line in drawn if line)
    yield history.happened(whole)
    yield '<div class="servers">'
    for d in service["destinations"]:
        yield from _server(service["virtual"], d, why, history)
    yield "</div></section>"


def _server(virtual: str, d: dict[str, Any], why: str, history: History) -> Iterator[str]:
    name = f"{virtual}/{d['address']}"
    anchor = quote(name, safe="")
    wrong = d["weight"] is None or bool(trouble(d))
    kind = "look" if wrong else "quiet" if d["state"] == "quiesced" else "fine"
    yield f'<article id="{anchor}" class="{kind}">'
    yield f'<h3>{_t(d["address"])} <span class="state">{_t(d["state"])}</span></h3><dl>'
    place, wanted = (virtual, d["address"]), history.drawn or name == why

    def drawn(figure: str, unit: str = "", times: float = 1.0) -> str:
        return history.line(place, figure, unit, times) if wanted else ""

    yield _meter(
        "share", d["share"], f"{100 * d['share']:.1f} %, weight {_or_dash(d['weight'])}", drawn("share", " %", 100)
    )
    if d.get("utilisation") is not None:
        yield _meter("load", d["utilisation"], f"{100 * d['utilisation']:.0f} %", drawn("load", " %", 100))
    if d.get("memory_available") is not None:
        used = 1 - d["memory_available"]
        yield _meter("memory", used, f"{100 * used:.0f} %")
    counts = f"{_t(d['active'])} active, {_t(d['inactive'])} inactive{_threshold(d)}"
    yield _entry("open", counts, drawn("open"))
    if d.get("rate_per_second") is not None:
        yield _entry("flow", f"{d['rate_per_second']:.1f}/s", drawn("flow", "/s"))
    if d.get("check"):
        yield _entry("check", _t(d["check"]["text"]), drawn("latency", " ms", 1000))
        if d["check"].get("warning"):
            yield f"<dt>warning</dt><dd>{_t(d['check']['warning'])}</dd>"
    yield "</dl>"
    yield history.happened(place)
    yield from _reasons(d, name, anchor, name == why)
    yield "</article>"


def _meter(label: str, value: float, text: str, line: str = "") -> str:
    """With the line of its past in place of a bar, where there is one."""
    bar = "" if line else f'<progress max="1" value="{min(1.0, max(0.0, value)):.3f}"></progress> '
    return _entry(label, f"{bar}{_t(text)}", line)


def _entry(label: str, markup: str, line: str = "") -> str:
    if not line:
        return f"<dt>{label}</dt><dd>{markup}</dd>"
    return f'<dt>{label}</dt><dd class="lined">{markup}</dd><dd class="line">{line}</dd>'


def _threshold(d: dict[str, Any]) -> str:
    return f", at most {_t(d['upper'])}" if d["upper"] else ""


def _reasons(d: dict[str, Any], name: str, anchor: str, is_open: bool) -> Iterator[str]:
    if not is_open:
        yield f'<p><a href="/status?why={anchor}#{quote(anchor)}">explain</a></p>'
        return
    yield "<ol>"
    for reason in d["reasons"]:
        value = "" if reason["value"] is None else f" <b>{reason['value']:.4g}</b>"
        yield f"<li><i>{_t(reason['stage'])}</i> {_t(reason['text'])}{value}</li>"
    yield f'</ol><p><a href="/status#{quote(anchor)}">close</a></p>'


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _or_dash(value: Any) -> Any:
    return "-" if value is None else value


def _t(value: Any) -> str:
    return escape(str(value))
