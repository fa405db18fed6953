"""Log lines for people and for the journal: events with keys, one printable line each, on standard error.

On a terminal structlog colours the lines, if it is installed. Elsewhere they are logfmt, with the journal's priority in
front where the journal reads, and structlog stays out: it imports rich, which costs an agent 10 MB and every daemon's
start a tenth of a second. A test holds that these lines are those of structlog's LogfmtRenderer. Secrets never come
here. A line that cannot be written (a full disk, a reader that has gone) is lost, and never ends a daemon.

Source: sd-daemon(3) for the priorities, structlog's LogfmtRenderer for the quoting.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from feedback.refusals import printable

_PLAIN = (bool, int, float, type(None))  # as they are: the rest is made text that neither ends the line nor colours it
Emit = Callable[[str, dict[str, Any]], None]

PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3}


class Log:
    """One component's log: `log.info("event-name", key=value)`. Event names are stable: people grep for them."""

    __slots__ = ("_component",)

    def __init__(self, component: str) -> None:
        self._component = component

    def debug(self, event: str, **fields: Any) -> None:
        self._log("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._log("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._log("error", event, fields)

    def _log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if PRIORITY[level] <= _state.threshold:
            with contextlib.suppress(OSError):
                line = {"event": event, "component": self._component} | fields
                _state.emit(level, {k: v if isinstance(v, _PLAIN) else printable(str(v)) for k, v in line.items()})


class Budget:
    """So many lines in so many seconds, for what may happen often."""

    def __init__(self, lines: int, seconds: float) -> None:
        self._lines, self._seconds = lines, seconds
        self._began, self._said, self._unsaid = float("-inf"), 0, 0

    def take(self, now: float) -> int | None:
        """How many were left out since the last one that was said; None: leave this one out too."""
        if now - self._began >= self._seconds:
            self._began, self._said = now, 0
        if self._said >= self._lines:
            self._unsaid += 1
            return None
        self._said += 1
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid


class _State:
    """What setup() chose for this process."""

    emit: Emit
    threshold: int = PRIORITY["info"]


def setup(level: str = "info") -> None:
    """Choose how this process logs. Raises KeyError for an unknown level."""
    _state.threshold = PRIORITY[level]
    _state.emit = _coloured() if sys.stderr.isatty() and find_spec("structlog") else _logfmt


def _prefix(level: str) -> str:
    return f"<{PRIORITY[level]}>" if "JOURNAL_STREAM" in os.environ else ""


def _logfmt(level: str, fields: dict[str, Any]) -> None:
    pairs = {"level": level, **fields}
    sys.stderr.write(_prefix(level) + " ".join(f"{key}={_value(value)}" for key, value in pairs.items()) + "\n")
    sys.stderr.flush()


def _value(value: Any) -> str:
    """A value as structlog's LogfmtRenderer writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{text}"' if any(c in text for c in ' ="') else text


def _coloured() -> Emit:
    import structlog

    processors: list[Any] = [structlog.processors.TimeStamper(fmt="%H:%M:%S"), structlog.dev.ConsoleRenderer()]
    logger = structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr), processors=processors, wrapper_class=structlog.BoundLogger
    )

    def emit(level: str, fields: dict[str, Any]) -> None:
        event = fields.pop("event")
        getattr(logger, level)(event, level=level, **fields)

    return emit


_state = _State()
_state.emit = _logfmt
