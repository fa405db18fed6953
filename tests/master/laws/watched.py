"""Members that an agent watches: one window each, with what a test wants to say of it and quiet defaults elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec

from feedback.master.laws import Law
from feedback.master.pool import Pool, Row
from feedback.master.servers.fleet import Trust
from feedback.master.servers.window import ApplicationWindow, Window
from feedback.model import Destination, DestinationEntry, Service
from tests.master.builders import VIRTUAL, replace, rip, row


def window(at: float, *, seconds: float = 0.2, rate: float | None = None, **more: Any) -> Window:
    """`rate` is connections opened and completed per second."""
    count = None if rate is None else rate * seconds
    known: dict[str, Any] = {
        "cores": 1.0,
        "busy": 0.0,
        "own": None,
        "entitled": None,
        "grain_seconds": 0.0,
        "opened": count,
        "completions": count,
        "memory_available": 0.8,
        "swap_in_pages": 0,
    }
    return Window(start=at - seconds, end=at, **(known | more))


def application(port: int = 0, **said: Any) -> ApplicationWindow:
    known = dict.fromkeys(("completions", "errors", "utilisation", "in_flight", "latency_seconds"))
    return ApplicationWindow(**({"port": port, "drain": False} | known | said))


def watched(
    i: int,
    seen: Window | None = None,
    *,
    static: int = 100,
    weight: int | None = 100,
    active: int = 0,
    trust: Trust = Trust.FRESH,
    quiesced: str = "",
) -> Row:
    kernel = None if weight is None else DestinationEntry(Destination(rip(i), weight=weight), active)
    return row(Destination(rip(i), weight=static), kernel, trust, 0.1, None, quiesced, seen)


def pool(*members: Row) -> Pool:
    return Pool(Service(VIRTUAL), list(members), 100.0)


def values(law: Law, pool: Pool, now: float) -> list[float]:
    """The shares in the pool's order."""
    shares = law.shares(pool, now)
    return [shares[m.key].value for m in pool.rows]


def later(pool: Pool, now: float) -> Pool:
    """The same pool with new windows that say the same."""
    return Pool(pool.service, [_later(m, now) for m in pool.rows], pool.flow)


def _later(member: Row, now: float) -> Row:
    if member.window is None:
        return member
    moved = msgspec.structs.replace(member.window, start=now - member.window.seconds, end=now)
    return replace(member, window=moved)
