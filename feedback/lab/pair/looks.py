"""Who answered for each floating address, look by look, as a file of fixed records; and figures from it.

Pure, except for reading the file. A look is one question (ARP or neighbour solicitation) and the answers to it.
`owners` is a set of directors as bits, 1 for d1 and 2 for d2; `first` is how long after the question the first answer
came.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

FILE = "watcher.looks"
FORMAT = struct.Struct("<dfBBB")
D1, D2, BOTH = 1, 2, 3


class Look(NamedTuple):
    sent: float
    first_seconds: float
    address: int  # its index in topology.FLOATING
    owners: int
    announced: int  # which directors announced themselves, unasked, since the previous look

    @property
    def answered(self) -> float:
        return self.sent + self.first_seconds


def read(path: Path) -> list[Look]:
    if not path.exists():
        return []
    data = path.read_bytes()
    return [Look(*fields) for fields in FORMAT.iter_unpack(data[: len(data) - len(data) % FORMAT.size])]


def of(looks: Iterable[Look], address: int) -> list[Look]:
    return [look for look in looks if look.address == address]


def answered_at(looks: Iterable[Look], owner: int, since: float) -> float:
    """The first moment from `since` on at which this director answered; infinity if never."""
    return next((look.answered for look in looks if look.sent >= since and look.owners & owner), math.inf)


def seconds_with(looks: Sequence[Look], owners: int, begin: float = -math.inf, end: float = math.inf) -> float:
    """How long exactly these directors answered for one address: the sum of the times from such a look to the next. One
    look without an answer between two equal ones is ignored, since one of the directors may have been busy."""
    return sum(
        after.sent - look.sent for look, after in pairwise(looks) if look.owners == owners and begin <= look.sent < end
    )


def changes(looks: Iterable[Look], begin: float = -math.inf, end: float = math.inf) -> int:
    """How often the sole owner of one address changed. Looks with both or no owners do not count."""
    owners = [look.owners for look in looks if look.owners in (D1, D2) and begin <= look.sent < end]
    return max(0, sum(1 for _ in groupby(owners)) - 1)
