"""The data of the pages: one moment of the master. Owned by the master; pages only read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from feedback.web.past import Story

Document: TypeAlias = dict[str, Any]  # the control socket's status; its shape is feedback/master/status.py's

SILENT_SECONDS = (
    5.0  # without a turn or a decision for so long, something is wrong: a turn takes a fraction of a second
)


@dataclass(frozen=True, slots=True)
class View:
    """`turn_age_seconds` is the time since the loop last came round, `decision_age_seconds` since it last decided
    (None: never yet). `document` makes the whole status: it costs time, so it is called only where that is shown, and
    in another thread than the loop's; it must therefore rest on frozen things. `story` is what the page
    alone shows, and is called there too."""

    turn_age_seconds: float
    decision_age_seconds: float | None
    role: str  # active or standby
    document: Callable[[], Document]
    story: Callable[[], Story] = Story
