"""How full the kernel's table of connections is, and how large it can get.

Reading files under /proc and /sys is the only I/O. Three generations of kernels tell different things: until 7.0 the
table has a fixed size and is shared by all network namespaces; since 7.1 each namespace has one that grows up to
conn_tab_bits, and says so in /proc/net/ip_vs_status; since 7.2 conn_max limits the connections of a namespace.
Source: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_status_show; Documentation/networking/ipvs-sysctl.rst.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from feedback.ipvs.namespace import within

STATUS = Path("/proc/thread-self/net/ip_vs_status")
TABLE_BITS = Path("/sys/module/ip_vs/parameters/conn_tab_bits")


class TableSize(msgspec.Struct, frozen=True):
    """`connections` counts this namespace's, templates too; None on a kernel that does not tell. `most_buckets` is what
    the table is, or can grow to; None where the parameter cannot be read."""

    connections: int | None = None
    most_buckets: int | None = None
    grows: bool = False


def read_size(netns: str | None = None) -> TableSize:
    """Raises NoNamespace. What cannot be read is None."""
    return parse(within(netns, lambda: _text(STATUS)), _text(TABLE_BITS))


def parse(status: str, bits: str) -> TableSize:
    """Parse the text of the two files; empty for a missing one."""
    told = re.search(r"^Conns:\s*(\d+)", status, re.MULTILINE)
    return TableSize(
        connections=int(told[1]) if told else None,
        most_buckets=1 << int(bits) if bits.strip().isdecimal() else None,
        grows=bool(status),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
