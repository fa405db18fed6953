"""Settings that our processes request from the kernel for themselves. Source: prctl(2); capabilities(7), ambient and
bounding sets; ptrace(2), under access mode checking; sched(7), the nice value and group scheduling.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAP_NET_RAW = 13
CAPABILITIES = 64  # more than any kernel has

_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be


def _prctl(option: int, value: int) -> None:
    _LIBC.prctl(option, value, 0, 0, 0)


def may_send_raw() -> bool:
    """Whether this process has CAP_NET_RAW."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        effective = next(line for line in lines if line.startswith("CapEff:"))
        return bool(int(effective.split()[1], 16) >> CAP_NET_RAW & 1)
    return False


def keep_private() -> None:
    """No process of this user may trace this one any more, read its memory or look through /proc/PID/root, and a crash
    leaves no core in which a secret is."""
    _prctl(PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Be killed when the parent ends, however it does."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def come_first(nice: int) -> None:
    """Have the CPU before others, by a nice value below zero. As far as this user may ask for it.

    Where the kernel groups tasks by session, it counts between the tasks of one session only, and a session has a nice
    value too: so call this at the head of one.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")


def adopt_orphans() -> None:
    """Be the parent of all below whose own parent ends (a subreaper)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def give_up_privileges() -> None:
    """Give up every capability, and every way to one, from the next execve on. A unit may forbid capset(), which would
    do it now."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    if os.geteuid() == 0:  # root has all of them anew at each execve, up to the bounding set
        for capability in range(CAPABILITIES):
            _prctl(PR_CAPBSET_DROP, capability)
