"""How long a guest may take until its first process runs, and whether it took longer.

Owns the bound, which is processor time and not time on the wall: beside other work a guest that is well may wait for
minutes, and one that hangs may be seen at once. Must not know the emulator's options.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

UP = "the-guest-is-up"  # boot.sh says it
STIR_SECONDS = 0.05  # less processor time than that is no work
CONSOLE_LINES = 15
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Bound:
    """The limits until UP is on its console: how much processor time it may use, and how long it may do nothing."""

    busy_seconds: float
    idle_seconds: float = 15.0


class Watch:
    """Over the guest that process `pid` and its children are."""

    def __init__(self, bound: Bound, pid: int, console: Path) -> None:
        self.bound, self.pid, self.console = bound, pid, console
        self.up = False
        self.began = time.monotonic()
        self.stirred, self.used_then = self.began, 0.0

    def trouble(self) -> str | None:
        """Why it will not come up any more, and what was seen; None while it may, and once it has."""
        self.up = self.up or UP.encode() in self.console.read_bytes()
        if self.up:
            return None
        now, used = time.monotonic(), used_seconds(self.pid)
        if used - self.used_then > STIR_SECONDS:
            self.stirred, self.used_then = now, used
        if used > self.bound.busy_seconds:
            seen = f"and a boot may use {self.bound.busy_seconds:.0f} s"
        elif now - self.stirred > self.bound.idle_seconds:
            seen = f"and none in the last {self.bound.idle_seconds:.0f} s"
        else:
            return None
        took = f"in {now - self.began:.0f} s it has used {used:.1f} s of processor time"
        return f"the guest has not reached its first process: {took}, {seen}{the_end_of(self.console)}"


def used_seconds(pid: int) -> float:
    """Processor time of the process and all below it, those that have ended included; 0 of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS_PER_SECOND + sum(used_seconds(int(child)) for child in children)


def the_end_of(console: Path) -> str:
    text = console.read_text(encoding="utf-8", errors="replace")
    tail = "\n".join(text.splitlines()[-CONSOLE_LINES:])
    return f"; the end of {console}:\n{tail}" if tail else f"; {console} is empty"
