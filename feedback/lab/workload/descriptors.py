"""One connection for each request, and an overloaded pool keeps thousands of them: more than a shell's 1,024
descriptors."""

from __future__ import annotations

import contextlib
import resource

WANTED = 65536


def allow_descriptors() -> None:
    """As many as we want, or as we may."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((WANTED, max(WANTED, hard)), (hard, hard)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return
