"""The owner of a listening port: the cgroup of the process that opened it, from the kernel and not from /proc.

A socket remembers the cgroup (version 2) that its maker was in, and inet_diag tells its number without any privilege;
it is the inode of the cgroup's directory. For a socket that systemd opened for a unit (socket activation) that is
systemd's own, and for one made in a container the container's.

Source: net/ipv4/inet_diag.c inet_diag_msg_attrs_fill() (INET_DIAG_CGROUP_ID, since 5.8), kernel/cgroup/cgroup.c
cgroup_id(); on 32-bit kernels the number is not the inode, and nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from feedback.agent.signals.listeners import FAMILIES, dumped, open_diag, port_of

ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))  # the second: beside version 1
ATTRIBUTES_AT = 72  # after struct inet_diag_msg
INET_DIAG_CGROUP_ID = 21

_ATTRIBUTE = struct.Struct("=HH")  # length with this header, type
_NUMBER = struct.Struct("=Q")


def holders(ports: Iterable[int], roots: Iterable[Path] = ROOTS) -> dict[int, set[Path]]:
    """For each of the ports that somebody listens on here, the cgroups of those who opened it. Ports whose holder
    cannot be told are left out: no inet_diag, an old kernel, no cgroup v2, or the root of all cgroups."""
    wanted = frozenset(ports)
    rows = [(port, number) for port, number in _rows() if port in wanted]
    directories = _directories({number for _, number in rows}, roots)
    found: dict[int, set[Path]] = {}
    for port, number in rows:
        if number in directories:
            found.setdefault(port, set()).add(directories[number])
    return found


def _rows() -> list[tuple[int, int]]:
    """(port, number of the cgroup or 0) of every listening socket."""
    diag = open_diag()
    if diag is None:
        return []
    rows: list[tuple[int, int]] = []
    with diag:
        for family in FAMILIES:
            with contextlib.suppress(OSError):  # no such family here
                rows += dumped(diag, family, holder)
    return rows


def holder(data: bytes, body: int, end: int) -> tuple[int, int]:
    numbers = (
        _NUMBER.unpack_from(data, at)[0]
        for kind, at in _attributes(data, body + ATTRIBUTES_AT, end)
        if kind == INET_DIAG_CGROUP_ID and at + _NUMBER.size <= end
    )
    return port_of(data, body), next(numbers, 0)


def _attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """(type, where its value begins) of each attribute."""
    while at + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, at + _ATTRIBUTE.size
        at += (length + 3) & ~3


def _directories(numbers: set[int], roots: Iterable[Path]) -> dict[int, Path]:
    """The cgroups' directories by their numbers; the roots themselves are nobody's."""
    found: dict[int, Path] = {}
    for root in roots:
        if numbers and (root / "cgroup.controllers").exists():
            for directory, names, _files in os.walk(root):
                for path in (Path(directory, name) for name in names):
                    with contextlib.suppress(OSError):
                        if (inode := path.stat().st_ino) in numbers:
                            found[inode] = path
    return found
