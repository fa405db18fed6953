"""systemd's side of a daemon: readiness, watchdog, reload, credentials.

Owns the notify protocol and nothing of what it reports. Written by hand because the libraries are either unmaintained
or need libsystemd to build. Outside systemd every call is a quiet no-op. Inside it a failed send is an error while the
unit starts, since a unit that never becomes ready is worse than one that says why; later it does not justify ending the
daemon. The socket stays open, so the watchdog is fed even without descriptors.

Source: sd_notify(3), sd_watchdog_enabled(3), systemd.exec(5) under CREDENTIALS.
"""

from __future__ import annotations

import os
import socket
import time
from functools import cache
from pathlib import Path


def notify(*assignments: str, flags: int = 0) -> bool:
    """Send `READY=1`, `STATUS=...` and the like as one datagram. False where nobody listens. Raises OSError."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address[0] not in "/@":
        raise OSError(f"NOTIFY_SOCKET: {address!r}: expected a path or an abstract socket")
    if address[0] == "@":
        address = "\0" + address[1:]
    _socket().sendto("\n".join(assignments).encode(), flags, address)
    return True


@cache
def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _try(assignment: str) -> bool:
    """Send without waiting for a busy systemd. False if it was not told."""
    try:
        return notify(assignment, flags=socket.MSG_DONTWAIT)
    except OSError:
        return False


def ready(status: str) -> bool:
    return notify("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")


def reloading() -> bool:
    """Tell that a reload began; ready() ends it. systemd 253 and later insist on the time in the same datagram."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(status: str) -> bool:
    return notify("STOPPING=1", f"STATUS={status}")


def status(text: str) -> bool:
    return _try(f"STATUS={text}")


def watchdog() -> bool:
    """Feed the watchdog. Only the loop that does the work may call this."""
    return _try("WATCHDOG=1")


def watchdog_interval_seconds() -> float | None:
    """How often to feed the watchdog: half of what the unit allows. None if it does not watch this process."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    watched = os.environ.get("WATCHDOG_PID")
    if not allowed.isdecimal() or int(allowed) == 0 or (watched is not None and watched != str(os.getpid())):
        return None
    return int(allowed) / 2 / 1e6


def credential(name: str) -> Path | None:
    """The file of a credential passed by LoadCredential=, or None where there is none of this name."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory or "/" in name or name in {"", ".", ".."}:
        return None
    path = Path(directory) / name
    try:
        return path if path.exists() else None
    except PermissionError:
        return path  # who reads it says what is wrong
