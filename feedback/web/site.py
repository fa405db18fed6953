"""Which path answers what. Pure: a request and a view in, a response out.

`/healthz` and `/readyz` and `/active` are for probes (keepalived, HAProxy, systemd, Kubernetes): 200 is yes, 503 is no,
one line says why. They look at the view alone and cost nothing; the other paths read the whole document.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import msgspec

from feedback.web.view import SILENT_SECONDS, View

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"

TARGET_LENGTH_MAX = 1024

COMMON = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class Response(msgspec.Struct, frozen=True):
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Request(msgspec.Struct, frozen=True):
    method: str
    target: str
    accept: str = ""


def refusal(status: int, text: str, *headers: tuple[str, str]) -> Response:
    return Response(status, TEXT, f"{text}\n".encode(), headers)


def probe(request: Request, view: View) -> Response | None:
    """The answer that needs no document: probes and refusals. None where the document is wanted."""
    if request.method not in {"GET", "HEAD"}:
        return refusal(405, "read-only: GET and HEAD", ("Allow", "GET, HEAD"))
    if len(request.target) > TARGET_LENGTH_MAX:
        return refusal(414, "the address is too long")
    path = _path(request)
    if path in _PROBES:
        reason, good = _PROBES[path](view)
        return refusal(200 if good else 503, reason)
    if path not in _PAGES:
        return refusal(404, "known paths: /status /status.json /metrics /healthz /readyz /active")
    return None


def page(request: Request, view: View, now: float) -> Response:
    """The answer for a path that `probe` left. `now` is the wall clock's."""
    return _PAGES[_path(request)](request, view, now)


def _path(request: Request) -> str:
    try:
        return urlsplit(request.target).path
    except ValueError:  # what looks like an IPv6 address and is none
        return ""


def _healthz(view: View) -> tuple[str, bool]:
    if view.turn_age_seconds > SILENT_SECONDS:
        return f"the loop last ran {view.turn_age_seconds:.0f} s ago", False
    return "ok", True


def _readyz(view: View) -> tuple[str, bool]:
    if view.role != "active":
        return f"ready: {view.role}", True
    if view.decision_age_seconds is None:
        return "no decision yet", False
    if view.decision_age_seconds > SILENT_SECONDS:
        return f"no decision for {view.decision_age_seconds:.0f} s: the kernel does not answer", False
    return "ready", True


def _active(view: View) -> tuple[str, bool]:
    return view.role, view.role == "active"


def _metrics(request: Request, view: View, now: float) -> Response:
    from feedback.web import metrics  # late: prometheus_client takes 60 ms to import, and not everybody scrapes

    body, content_type = metrics.render(view.document(), now, request.accept)
    return Response(200, content_type, body)


def _json(request: Request, view: View, now: float) -> Response:
    return Response(200, JSON, msgspec.json.encode(view.document()))


def _status(request: Request, view: View, now: float) -> Response:
    from feedback.web.page import STYLE, render

    why = parse_qs(urlsplit(request.target).query).get("why", [""])[0]
    digest = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    body = render(view.document(), now, why, view.story()).encode("utf-8", "replace")
    return Response(200, HTML, body, (("Content-Security-Policy", policy),))


_PROBES: dict[str, Callable[[View], tuple[str, bool]]] = {"/healthz": _healthz, "/readyz": _readyz, "/active": _active}
_PAGES: dict[str, Callable[[Request, View, float], Response]] = {
    "/": _status,
    "/status": _status,
    "/status.json": _json,
    "/metrics": _metrics,
}
