"""IPVS's types besides services and destinations: timeouts, sync daemons, its version; and an edit's failure.

Frozen, no I/O. Services, destinations and edits are words of the whole project and live in feedback/model.py.
Source: include/uapi/linux/ip_vs.h.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from feedback.model import Address, Edit


class Timeouts(msgspec.Struct, frozen=True):
    """How long an idle connection is kept, in seconds. When writing, 0 leaves the kernel's value as it is."""

    tcp_seconds: int = 0
    tcp_fin_seconds: int = 0
    udp_seconds: int = 0


class SyncRole(IntEnum):
    """The kernel's two sync threads (IP_VS_STATE_*); one namespace may run both at once."""

    MASTER = 1
    BACKUP = 2


class SyncDaemon(msgspec.Struct, frozen=True):
    """One kernel sync thread. Absent values (0, None) leave the choice to the kernel: maxlen from the interface's MTU,
    group 224.0.0.81, port 8848, ttl 1. A master's maxlen above 9188 loses connections silently: the count is a byte."""

    role: SyncRole
    interface: str
    sync_id: int = 0
    maxlen: int = 0
    group: Address | None = None
    port: int = 0
    ttl: int = 0


class Info(msgspec.Struct, frozen=True):
    """The IPVS version (1.2.1 since 2008) and the number of buckets of the connection table."""

    version: tuple[int, int, int]
    connection_table_size: int  # since 7.1 of this namespace: it grows, and is 0 where there is no service


class EditError(msgspec.Struct, frozen=True):
    """An edit that the kernel refused: its errno, and a line saying what and what to do."""

    edit: Edit
    errno: int
    text: str

    def __str__(self) -> str:
        return self.text
