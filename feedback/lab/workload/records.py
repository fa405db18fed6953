"""The outcome of each request, as a file of fixed records that grows while the client runs.

A record: the intended moment (seconds of CLOCK_MONOTONIC), the latency from that moment, the HTTP status or minus the
errno of what went wrong, and the number of the real server that answered (0: none; 3 for "rs3").
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

FORMAT = struct.Struct("<ddhB")


class Record(NamedTuple):
    intended: float
    latency_seconds: float
    status: int
    server: int

    @property
    def ok(self) -> bool:
        return self.status == 200


def pack(intended: float, latency_seconds: float, status: int, server: int) -> bytes:
    return FORMAT.pack(intended, latency_seconds, status, server)


def read(path: Path, offset: int = 0) -> list[Record]:
    """The complete records from `offset` bytes on. A half-written one at the end is left for the next call."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = len(data) - len(data) % FORMAT.size
    return [Record(*fields) for fields in FORMAT.iter_unpack(data[:whole])]
