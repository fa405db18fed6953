"""Said: the figures of one exporter page, before they become a report."""

from __future__ import annotations

import msgspec

from feedback.wire import Application, Connections, Cpu, Memory, Pressure


class Said(msgspec.Struct, frozen=True):
    """`started` changes whenever the counters begin anew; `at` is the server's own clock when they were read, in
    seconds, None where it does not tell. `pair` are two cumulative counters of a custom page, of which only two
    readings make a part."""

    cpu: Cpu
    started: str = ""
    at: float | None = None
    memory: Memory | None = None
    pressure: Pressure | None = None
    connections: Connections | None = None
    applications: tuple[Application, ...] = ()
    pair: tuple[float, float] | None = None


def count(value: float | None) -> int:
    """The value of a counter that a page writes as a float."""
    return int(value) if value is not None and value > 0 else 0
