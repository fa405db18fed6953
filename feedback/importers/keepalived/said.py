"""Remarks on a line: it is not carried over, or not unchanged."""

from __future__ import annotations

from typing import TypeVar

from feedback.importers.draft import Remark
from feedback.importers.keepalived.blocks import Node
from feedback.importers.keepalived.words import Number, timer

TIMERS = {"connect_timeout", "delay_loop", "delay_before_retry", "warmup"}
INSTEAD = {
    "sorry_server": 'similar: a destination with pool = "spill", and law = "spillover"',
    "quorum": "we never set a whole pool to zero",
    "quorum_up": "feedback events --follow",
    "quorum_down": "feedback events --follow",
    "notify_up": "feedback events --follow",
    "notify_down": "feedback events --follow",
    "smtp_alert": "the alerts of contrib/prometheus",
    "alpha": "a server that is not in service waits for its first good check anyway",
    "omega": "stopping the master leaves the table as it is",
}

Before = TypeVar("Before", int, int | None)


def not_carried(node: Node) -> Remark:
    hint = f"; instead: {INSTEAD[node.name]}" if node.name in INSTEAD else ""
    return node.remark(f"{node.text}: not carried over{hint}")


def taken(n: Node, found: Number, before: Before, remarks: list[Remark]) -> int | Before:
    """The number, or where keepalived ignores the line, what was there before."""
    if len(n.words) < 2:
        remarks.append(n.remark(f"{n.text}: ignored: it has no value, and keepalived does not start with it"))
        return before
    if found.value is None:
        remarks.append(n.remark(f"{n.text}: ignored, as keepalived does: it is not a valid number there", note=True))
        return before
    if not found.exact:
        remarks.append(n.remark(f"{n.text}: read as {found.value}, as keepalived does", note=True))
    return found.value


def take_timer(n: Node, timers: dict[str, float], remarks: list[Remark]) -> None:
    """Put a timer into `timers`, in seconds."""
    found = timer(n.word(1), zero=n.name in ("delay_before_retry", "warmup"))
    if found.seconds is None:
        remarks.append(n.remark(f"{n.text}: ignored, as keepalived does: it is not a number of seconds", note=True))
    elif not found.exact:
        text = f"{n.text}: ignored: keepalived takes it for {found.seconds:.6f} s, which is not meant"
        remarks.append(n.remark(text))
    else:
        timers[n.name] = found.seconds
