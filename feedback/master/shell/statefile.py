"""The state on the disk: written whole or not at all. A full disk delays nothing.

state.py says what is in it. A new file takes the place of the old one in one step. Orders and our zeros must not be
lost and are written when they change; learned values every few seconds. A failed write is tried again once a second,
and at each order. Invariant: the file at `path` is one that was written to its end.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from feedback.master import state
from feedback.master.state import State

LEARNED_SECONDS = 5.0  # between writings where only what was learned has changed
RETRY_SECONDS = 1.0


class StateFile:
    """`problem` is why it could not be written last time, or ''."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self.dropped: tuple[str, ...] = ()
        self._saved: State | None = None
        self._tried_at = float("-inf")

    def read(self) -> State | None:
        """None where there is none; `dropped` names what did not fit. Raises OSError, StateError."""
        self.dropped = ()
        try:
            found, self.dropped = state.read(self.path.read_bytes())
        except FileNotFoundError:
            return None
        return found

    def put_aside(self) -> Path:
        """One that cannot be read is kept for people to look at."""
        aside = self.path.with_suffix(".bad")
        with contextlib.suppress(OSError):
            self.path.replace(aside)
        return aside

    def forget(self) -> None:
        """Somebody else wrote it meanwhile: what it holds is not known any more."""
        self._saved = None

    def holds(self, now: State) -> bool:
        """All but what was learned since."""
        return self._saved is not None and state.without_learned(self._saved) == state.without_learned(now)

    def due(self, at: float) -> bool:
        """Whether what was learned is to be written, or a writing that failed to be tried again."""
        return at - self._tried_at >= (RETRY_SECONDS if self.problem else LEARNED_SECONDS)

    def save(self, now: State, at: float) -> None:
        """If it is due; `at` in monotonic seconds."""
        if now == self._saved:
            return
        if self.due(at) or not (self.problem or self.holds(now)):
            self._write(now, at, durable=False)

    def insist(self, now: State, at: float) -> bool:
        """Now, and through to the disk, for an order that is to be acknowledged. Whether it is there."""
        if not self.holds(now):
            self._write(now, at, durable=True)
        return self.holds(now)

    def _write(self, now: State, at: float, *, durable: bool) -> None:
        self._tried_at = at
        new = self.path.with_suffix(".new")
        written, left_out = state.sound(now)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(written)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            self.problem = f"{self.path}: cannot be written: {error.strerror}"
            with contextlib.suppress(OSError):
                new.unlink()
        else:
            self.problem = f"{self.path}: left out, as it could not be read back: {left_out}" if left_out else ""
            self._saved = now
