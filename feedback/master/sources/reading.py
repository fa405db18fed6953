"""Reading: the figures of one page, and the stream of reports from such readings. Pure.

A report of an exporter is as an agent's would be: cumulative counters, and when they were read. The moment is the
server's own where the page tells it (its wall clock, which may be set: then the stream begins anew, as after a boot),
else half way between the question and the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

import msgspec

from feedback.config.exporter import Exporter
from feedback.master.sources import custom, node, windows
from feedback.master.sources.exposition import PageError
from feedback.master.sources.said import Said
from feedback.model import Address
from feedback.wire import PROTOCOL, Memory, Report

CLOCK_SECONDS = 1.0  # between the server's clock and ours, from one reading to the next: more is a clock that was set
UNKNOWN_MEMORY = Memory(0, 0)

Read: TypeAlias = Callable[[bytes, Exporter], Said]
KINDS: dict[str, Read] = {"node": node.read, "windows": windows.read, "custom": custom.read}


@lru_cache(65_536)  # asked of each row whenever an exporter is heard for the first time
def name(exporter: Exporter, address: Address) -> str:
    """What the reports of this exporter of a server are known by: one for all services that ask the same."""
    mark = blake2b(repr(exporter).encode(), digest_size=4).hexdigest()
    return f"{exporter.kind}-{str(address).replace(':', '_')}-{exporter.asked_port}-{mark}"


class Unread(msgspec.Struct, frozen=True):
    """Why an exporter could not be read."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class Reader:
    """The stream of one server's exporter."""

    def __init__(self, exporter: Exporter, address: Address) -> None:
        self._exporter, self._name, self._address = exporter, name(exporter, address), str(address)
        self._sequence = self._begun = 0
        self._started = ""
        self._offset: float | None = None  # its clock less ours
        self._pair: tuple[float, float] | None = None

    def read(self, page: bytes, at: float) -> Report | Unread:
        """A page that was asked for `at` this moment of our clock."""
        try:
            said = KINDS[self._exporter.kind](page, self._exporter)
            report = self._reported(said, at)
        except (PageError, msgspec.ValidationError) as error:
            return Unread(str(error))
        return report

    def _reported(self, said: Said, at: float) -> Report:
        """Raises PageError, and msgspec.ValidationError for what no report may say."""
        self._follow(said, at)
        self._sequence += 1
        applications = said.applications
        if said.pair is not None:
            applications = (custom.full(self._part(said.pair)),)
        made = Report(
            version=PROTOCOL,
            agent=self._name,
            boot=f"{said.started}+{self._begun}",
            sequence=self._sequence,
            sampled_at=at if self._offset is None else max(0.0, said.at or 0.0),
            interval_seconds=self._exporter.interval_seconds,
            addresses=(self._address,),
            cpu=said.cpu,
            memory=said.memory or UNKNOWN_MEMORY,
            pressure=said.pressure,
            connections=said.connections,
            applications=applications,
        )
        return msgspec.convert(msgspec.to_builtins(made), Report)  # what bounds an agent's word bounds this one

    def _follow(self, said: Said, at: float) -> None:
        """The server's clock."""
        offset = None if said.at is None else said.at - at
        before, self._offset = self._offset, offset
        moved = (offset is None) != (before is None) or abs((offset or 0.0) - (before or 0.0)) > CLOCK_SECONDS
        if self._sequence and (moved or said.started != self._started):
            self._begun += 1
            self._pair = None
        self._started = said.started

    def _part(self, pair: tuple[float, float]) -> float:
        """The growth of one counter over that of the other. Raises PageError before there are two readings."""
        before, self._pair = self._pair, pair
        if before is None:
            raise PageError("read for the first time: the next one tells")
        busy, total = pair[0] - before[0], pair[1] - before[1]
        if busy < 0 or total <= 0:
            raise PageError("its counters have not grown: they began anew, or it is not busy and total")
        return busy / total
