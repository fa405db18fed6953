"""Run one call inside another network namespace, without the caller ever leaving its own.

setns() moves one thread. The work is done in a thread made for it, which ends afterwards: there is nothing to restore,
so no failure can leave a caller's thread in the wrong namespace, and threads may do this at the same time. A socket
stays in the namespace in which it was opened. Trap: /proc/net is that of the process's first thread, which did not
come along: inside `within` read /proc/thread-self/net. (/proc/sys/net is that of the thread which opens it.)
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from feedback.ipvs.errors import NoNamespace, NotPermitted

CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def namespace_path(netns: str) -> Path:
    """A name under /run/netns (as `ip netns` makes them), or a path if there is a slash in it."""
    return Path(netns) if "/" in netns else Path("/run/netns") / netns


def within(netns: str | None, work: Callable[[], T]) -> T:
    """The result of `work()` done inside the namespace; None is our own. Raises NoNamespace, NotPermitted, and whatever
    `work` raises."""
    if netns is None:
        return work()
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            _enter(namespace_path(netns))
            results.append(work())
        except BaseException as error:  # carried over to the caller, nothing is swallowed
            failures.append(error)

    thread = threading.Thread(target=body, name=f"netns {netns}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _enter(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoNamespace(f"network namespace {path}: {error.strerror}: see `ip netns list`") from None
    try:
        _setns(fd)
    except PermissionError:
        raise NotPermitted(f"entering network namespace {path} is refused (it needs CAP_SYS_ADMIN too)") from None
    except OSError as error:
        raise NoNamespace(f"{path} is not a network namespace ({error.strerror})") from None
    finally:
        os.close(fd)


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns() is of Python 3.12
    if libc.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, errno.errorcode.get(code, str(code)))
