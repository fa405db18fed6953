"""Raises the limit on descriptors. Each request has a connection, and an overloaded pool keeps thousands of them; a
shell allows 1,024."""

from __future__ import annotations

import contextlib
import resource

WANTED = 65536


def allow_descriptors() -> None:
    """Allow as many descriptors as wanted, or as many as permitted."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((WANTED, max(WANTED, hard)), (hard, hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return
