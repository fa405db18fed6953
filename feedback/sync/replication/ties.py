"""Ties: keep entries of the kernel's table alive as long as others depend on them. Pure.

In one kernel a template of persistence, or the control connection of an FTP transfer, does not expire while a
connection that it controls lives. The sync protocol does not carry this relation. So after a takeover a template would
expire in the middle of a call, and a control connection in the middle of a transfer that takes longer than its own
timeout. This module finds the holders that are about to expire and still hold something. Their records are then given
to the kernels again, which restarts the timers.

The whole ledger is checked part by part; findings of one round are acted upon after the next. A holder is taken to hold
whatever comes from the same client, for the same address, to the same server. That is a little more than in the kernel,
so a holder may live longer than there, and never shorter.
Source: net/netfilter/ipvs/ip_vs_conn.c (ip_vs_conn_expire), ip_vs_ftp.c, ip_vs_core.c (ip_vs_sched_persist).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from feedback.sync.replication.records import ConnectionFlag, IpProtocol

SOON_SECONDS = 90.0  # left of a holder's life, by the ledger, which may be 10 s late; two rounds of 25 s fit into it
FTP_PORT = (21).to_bytes(2, "big")
ESTABLISHED = 1
_TEMPLATE, _METHOD = ConnectionFlag.TEMPLATE >> 8, int(ConnectionFlag.FORWARD)
_UNMARKED = bytes(4)
_TCP, _IP = int(IpProtocol.TCP), int(IpProtocol.IP)

Group: TypeAlias = bytes  # client, address or mark, server


class Ties:
    """Call `note_ending` with each part of the ledger in turn, and also `note_living` while `seeks` is true. Call
    `round` after all parts."""

    def __init__(self) -> None:
        self._found: dict[Group, list[bytes]] = {}  # holders about to expire, found in this round
        self._sought: dict[Group, list[bytes]] = {}  # those found in the last round
        self._held: set[Group] = set()  # of `_sought`: those that hold something alive

    @property
    def seeks(self) -> bool:
        """Whether any record could matter. Mostly none does, and a round of a million records costs a second of CPU."""
        return bool(self._sought)

    def note_ending(self, bodies: Iterable[bytes]) -> None:
        """Note records that expire within SOON_SECONDS."""
        for body in bodies:
            if holder(body):
                self._found.setdefault(group(body), []).append(body)

    def note_living(self, bodies: Iterable[bytes]) -> None:
        """Note records that have not expired, including those about to."""
        for body in bodies:
            if (it := group(body)) in self._sought and alive(body) and not holder(body):
                self._held.add(it)

    def round(self) -> list[bytes]:
        """The records of the holders that have to live on, each with its own timeout."""
        kept = [body for each in self._held for body in self._sought[each]]
        self._found, self._sought, self._held = {}, self._found, set()
        return kept


def holder(body: bytes) -> bool:
    """Whether it is a template or a masqueraded FTP control connection."""
    if body[6] & _TEMPLATE:
        return True
    masqueraded = not body[7] & _METHOD
    return body[1] == _TCP and body[12:14] == FTP_PORT and masqueraded and body[9] == ESTABLISHED


def alive(body: bytes) -> bool:
    return body[1] != _TCP or body[9] == ESTABLISHED


def group(body: bytes) -> Group:
    """Client, address and server. In a firewall mark's template the address is the mark itself."""
    if body[1] != _IP and body[16:20] == _UNMARKED:  # nearly always; then the three stand side by side
        return body[24:72] if body[0] else body[24:36]
    size = 16 if body[0] else 4
    client, virtual, server = (body[24 + n * size : 24 + (n + 1) * size] for n in range(3))
    mark = virtual[:4] if body[1] == _IP else body[16:20]
    return client + (mark if any(mark) else virtual) + server
