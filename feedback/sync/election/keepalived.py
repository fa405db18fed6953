"""Following keepalived: its notify FIFO's messages about one VRRP instance or group. Pure.

With this engine keepalived elects and moves the addresses; we do the rest. keepalived writes one line for each change,
`INSTANCE "VI_1" MASTER 100` or `GROUP "G1" BACKUP 50`, and one with STOP before it ends. Lines may arrive in pieces.
Any other line is counted and has no effect. Source: keepalived.conf(5), vrrp_notify_fifo; keepalived's
vrrp_notify.c.
"""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec

LINE_BYTES_MAX = 1024

_LINE = re.compile(r'(INSTANCE|GROUP) "([^"]{1,255})" ([A-Z_]{1,20})(?: (-?\d{1,10}))?')


class Vrrp(StrEnum):
    """The state of an instance, in keepalived's words."""

    MASTER = "MASTER"
    BACKUP = "BACKUP"
    FAULT = "FAULT"
    STOP = "STOP"
    DELETED = "DELETED"


class Notice(msgspec.Struct, frozen=True):
    name: str
    state: Vrrp
    priority: int | None = None

    @property
    def active(self) -> bool:
        return self.state is Vrrp.MASTER

    def __str__(self) -> str:
        priority = "" if self.priority is None else f" with priority {self.priority}"
        return f"keepalived says that {self.name} is {self.state}{priority}"


class Fifo:
    """Bytes in, notices of `instance` out. `ignored` counts lines that mean nothing to us."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._rest = b""
        self.ignored = 0

    def feed(self, data: bytes) -> list[Notice]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            self._rest, self.ignored = b"", self.ignored + 1
        found = []
        for line in lines:
            notice = parse(line.decode("ascii", "replace").strip())
            if notice is None:
                self.ignored += bool(line.strip())
            elif notice.name == self._instance:
                found.append(notice)
        return found


def parse(line: str) -> Notice | None:
    """A notice, or None for any other line, or for a state that does not matter here (MASTER_RX_LOWER_PRI)."""
    match = _LINE.fullmatch(line)
    if match is None or match[3] not in Vrrp.__members__:
        return None
    return Notice(match[2], Vrrp(match[3]), int(match[4]) if match[4] else None)
