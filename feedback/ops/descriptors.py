"""Descriptors: how many a daemon may have, and which errors say that none are left. Lean: the agent imports it."""

from __future__ import annotations

import contextlib
import errno
import resource

NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
REASON = "no descriptors are left, so new connections must wait: raise LimitNOFILE, or find who holds so many"


def raise_limit() -> None:
    """The soft limit becomes the hard one: the usual 1,024 are fewer than agents may be. A sandbox that forbids it is
    heeded."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
