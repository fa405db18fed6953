"""Time without what the host made us wait: bounds in seconds that hold also beside other work.

A thread that could run and had no processor has waited by no fault of its own. The kernel counts that (run delay,
Documentation/scheduler/sched-stats.rst); it is 0 where it does not.
"""

from __future__ import annotations

import time
from pathlib import Path


def thread_seconds() -> float:
    """Moments of this thread: differences are the time that passed while it had a processor or did not want one."""
    return time.monotonic() - _waited(Path("/proc/thread-self"))


def process_seconds() -> float:
    """The same of all threads together, for what several of them do one after another."""
    return time.monotonic() - sum(map(_waited, Path("/proc/self/task").iterdir()))


def _waited(thread: Path) -> float:
    try:
        return int((thread / "schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0
