"""Helpers of this director's connections and their changes in sequence numbers, read from the kernel.

This is the shell of adjustments.py and uses pyroute2. Few entries have a helper or an adjustment, and the kernel is
asked for those alone. Everything runs in one separate thread, which owns the socket. A fault there affects only this
reading.
Source: net/netfilter/nf_conntrack_netlink.c (ctnetlink_alloc_filter, ctnetlink_dump_ct_seq_adj).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from feedback.sync.conntrack.adjustments import Adjustment, Shift
from feedback.sync.conntrack.entries import IPS_HELPER, IPS_SEQ_ADJUST

MODULES = Path("/sys/module")
BOTH_FAMILIES = 0  # AF_UNSPEC
HELPERS = ("ip_vs_ftp", "nf_nat_*")  # modules that change what packets contain; nf_nat itself changes only addresses


def needed() -> bool:
    """Whether anything on this host may change the length of what clients receive."""
    return any(MODULES.glob(pattern) for pattern in HELPERS)


class Reader:
    """Reads in the process's own network namespace: pyroute2 opens its socket in the namespace of its first use. `read`
    raises OSError if the kernel refuses."""

    def __init__(self) -> None:
        self.took_seconds = 0.0  # for the last reading; the import of pyroute2, seconds on a slow host, is not included
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tracking")
        self._socket: Any = None

    def close(self) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def read(self) -> list[Adjustment]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.read_here)

    def read_here(self) -> list[Adjustment]:
        """Read in the calling thread, which must always be the same one."""
        from pyroute2.netlink.exceptions import NetlinkError
        from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

        if self._socket is None:
            self._socket = NFCTSocket(nfgen_family=BOTH_FAMILIES)
        began = time.monotonic()
        try:
            found = [a for bit in (IPS_HELPER, IPS_SEQ_ADJUST) for a in _adjustments(_shown(self._socket, bit))]
            return list({each.key: each for each in found}.values())
        except NetlinkError as error:
            raise OSError(error.code, str(error)) from None
        finally:
            self.took_seconds = time.monotonic() - began

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _shown(sock: Any, status: int) -> Iterable[Any]:
    """Entries with this status. All entries where pyroute2 (before 0.8) or the kernel (before 5.15) has no filter."""
    try:
        found: Iterable[Any] = sock.dump(status=status, status_mask=status)
    except TypeError:
        found = sock.dump()
    return found


def _adjustments(answers: Iterable[Any]) -> Iterable[Adjustment]:
    for answer in answers:
        sent, received = (_shift(answer.get_attr(name)) for name in ("CTA_SEQ_ADJ_ORIG", "CTA_SEQ_ADJ_REPLY"))
        found, helper = answer.get_attr("CTA_TUPLE_ORIG"), _helper(answer.get_attr("CTA_HELP"))
        if found is None or (sent is None and received is None and not helper):
            continue
        addresses, ports = found.get_attr("CTA_TUPLE_IP"), found.get_attr("CTA_TUPLE_PROTO")
        family = "V4" if addresses.get_attr("CTA_IP_V4_SRC") else "V6"
        yield Adjustment(
            protocol=ports.get_attr("CTA_PROTO_NUM"),
            client=ip_address(addresses.get_attr(f"CTA_IP_{family}_SRC")).packed,
            client_port=ports.get_attr("CTA_PROTO_SRC_PORT"),
            virtual=ip_address(addresses.get_attr(f"CTA_IP_{family}_DST")).packed,
            virtual_port=ports.get_attr("CTA_PROTO_DST_PORT"),
            sent=sent,
            received=received,
            helper=helper,
        )


def _helper(attribute: Any) -> str:
    """The helper's name. pyroute2 decodes the attribute as text, but the name is a nested attribute with a header."""
    text = attribute.decode("ascii", "replace") if isinstance(attribute, bytes) else attribute or ""
    names = re.findall(r"[A-Za-z0-9_.-]{2,15}", text)
    return names[0] if names else ""


def _shift(attribute: Any) -> Shift | None:
    """None for zeros: where one direction has a shift, the kernel shows both."""
    if attribute is None:
        return None
    names = ("CORRECTION_POS", "OFFSET_BEFORE", "OFFSET_AFTER")
    position, before, after = (attribute.get_attr(f"CTA_NAT_SEQ_{name}") or 0 for name in names)
    return Shift(position, before, after) if before or after else None
