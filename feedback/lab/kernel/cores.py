"""Cores of this host, assigned to guests: one each while there are enough, then in turn.

A user-mode kernel is one processor in several processes: it keeps to one core, for a system call costs 6 us where they
share it and 50 us where not. Who has which is told by locks on files, which the host drops with their holder, so that
guests of all labs of this user know of each other. Invariant: no guest shares a core while another is free.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.kernel.preload import cache

PLACES = 64  # guests of one core; beyond, something is wrong


def take(cores: Iterable[int] | None = None) -> tuple[int, int]:
    """A core and the descriptor that holds it, until its last copy is closed. Raises LabError."""
    known = sorted(os.sched_getaffinity(0) if cores is None else cores)
    directory = cache() / "cores"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for place in range(PLACES):
            for core in known:
                if (held := _lock(directory / f"{core}.{place}")) is not None:
                    return core, held
    except OSError as error:
        raise LabError(f"{directory}: cannot be used: {error.strerror}: set XDG_CACHE_HOME to another") from None
    raise LabError(f"{PLACES * len(known)} guests run already")


def _lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
