"""Ties: keep entries of the kernel's table as long as others that depend on them live. Pure.

In one kernel a template of persistence, or the control connection of an FTP transfer, does not expire while a
connection that it controls lives. The sync protocol does not carry this relation. So after a takeover a template
expires in the middle of a call, and a control connection in the middle of a transfer that takes longer than its own
timeout. Here the holders that are about to expire are found, and those that still hold something; their records are
then given to the kernels anew, which restarts the timers.

The whole ledger is checked part by part, and findings of one round are acted upon after the next. A holder holds what
comes from the same client, for the same address, to the same server: that is a little more than in the kernel, so that
one may live longer than there, and never shorter.
Source: net/netfilter/ipvs/ip_vs_conn.c (ip_vs_conn_expire), ip_vs_ftp.c, ip_vs_core.c (ip_vs_sched_persist).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from feedback.sync.replication.records import ConnectionFlag, IpProtocol

SOON_SECONDS = 90.0  # of a holder's life, by the ledger, which may be 10 s late: two rounds of 25 s fit into it
FTP_PORT = (21).to_bytes(2, "big")
ESTABLISHED = 1
_TEMPLATE, _METHOD = ConnectionFlag.TEMPLATE >> 8, int(ConnectionFlag.FORWARD)
_UNMARKED = bytes(4)
_TCP, _IP = int(IpProtocol.TCP), int(IpProtocol.IP)

Group: TypeAlias = bytes  # client, address or mark, server


class Ties:
    """`note_ending` is called with each part of the ledger in turn, and `note_living` where it `seeks`; `round` when
    all were noted."""

    def __init__(self) -> None:
        self._found: dict[Group, list[bytes]] = {}  # holders that are about to expire, of this round
        self._sought: dict[Group, list[bytes]] = {}  # those of the last one
        self._held: set[Group] = set()  # of those: who holds something that lives

    @property
    def seeks(self) -> bool:
        """Whether any record could matter: mostly none does, and a round of a million costs a second of CPU."""
        return bool(self._sought)

    def note_ending(self, bodies: Iterable[bytes]) -> None:
        """Records that expire within SOON_SECONDS."""
        for body in bodies:
            if holder(body):
                self._found.setdefault(group(body), []).append(body)

    def note_living(self, bodies: Iterable[bytes]) -> None:
        """Records that have not expired, the ending ones too."""
        for body in bodies:
            if (it := group(body)) in self._sought and alive(body) and not holder(body):
                self._held.add(it)

    def round(self) -> list[bytes]:
        """The holders that have to live on, their timeout their own."""
        kept = [body for each in self._held for body in self._sought[each]]
        self._found, self._sought, self._held = {}, self._found, set()
        return kept


def holder(body: bytes) -> bool:
    """A template, or an FTP control connection that is masqueraded."""
    if body[6] & _TEMPLATE:
        return True
    masqueraded = not body[7] & _METHOD
    return body[1] == _TCP and body[12:14] == FTP_PORT and masqueraded and body[9] == ESTABLISHED


def alive(body: bytes) -> bool:
    return body[1] != _TCP or body[9] == ESTABLISHED


def group(body: bytes) -> Group:
    """Of a firewall mark's template the address is the mark itself."""
    if body[1] != _IP and body[16:20] == _UNMARKED:  # nearly always, and then the three stand side by side
        return body[24:72] if body[0] else body[24:36]
    size = 16 if body[0] else 4
    client, virtual, server = (body[24 + n * size : 24 + (n + 1) * size] for n in range(3))
    mark = virtual[:4] if body[1] == _IP else body[16:20]
    return client + (mark if any(mark) else virtual) + server
