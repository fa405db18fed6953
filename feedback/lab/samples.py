"""The recorder's samples, as JSON lines in a file that grows while a scenario runs."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One moment. A weight of -1: the destination is not in the table. Usage is cumulative CPU seconds of each real
    server's cgroup, `idle` that of the whole machine. `upper` and `lower` are the thresholds in force, 0: none."""

    at: float
    weights: tuple[int, ...]
    active: tuple[int, ...]
    inactive: tuple[int, ...]
    usage: tuple[float, ...]
    service_usage: tuple[float, ...]
    idle: float
    upper: tuple[int, ...] = ()
    lower: tuple[int, ...] = ()


def read(path: Path, offset: int = 0) -> tuple[list[Sample], int]:
    """The whole lines from `offset` bytes on, and where they end."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [msgspec.json.decode(line, type=Sample) for line in whole.splitlines()], offset + len(whole)
