"""Fleet: each real server's stream of reports, how old it is, and how far it can be trusted.

Owns the reports: takes differences of their cumulative counters (window.py), maps the agents' clocks to ours, and
tells fresh from stale from lost. It knows no service and no weight. Invariants: silence is not death; a report is never
applied twice or out of order, and counters that run backwards never make a window.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from math import inf

import msgspec

from feedback.master.servers.window import Impossible, Window, difference
from feedback.wire import Report

CLOCK_MEMORY_SECONDS = 60.0  # in which one report comes without delay, and two clocks drift apart by 6 ms at most
STRIKES, QUARANTINE_SECONDS = 3, 60.0  # so many impossible reports in so long: not heard for as long


class Trust(StrEnum):
    FRESH = "fresh"
    STALE = "stale"  # what is known is frozen
    LOST = "lost"  # the policy for lost agents holds
    NEVER = "never"  # no report since this master started


class Source(StrEnum):
    """Where what is known of a server comes from, the best first."""

    AGENT = "agent"
    EXPORTER = "exporter"  # a page that the master reads itself (feedback/master/sources)
    AGENT_CHECK = "agent-check"  # what its agent-check agent asks for
    HEADER = "header"  # a weight in the answer to its health check
    DIRECTOR = "director"  # how long connections stay, by its own counts (residence.py)


class Refused(msgspec.Struct, frozen=True):
    """Why a report was not taken. `kind` is what it is counted as."""

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


def patience(interval_seconds: float, stale: float, lost: float) -> tuple[float, float]:
    """Up to which ages a word that comes so often is fresh, and stale: two may be missing, whatever is configured."""
    fresh = max(stale, 3 * interval_seconds)
    return fresh, max(lost, fresh)


class Server:
    """One stream of reports, an agent's or an exporter's: its last report, clock map and times. `patience` and `lost`
    are ages in seconds: up to the first it is fresh, up to the second stale. `least` are the least of both."""

    __slots__ = (
        "_diffs",
        "_least",
        "_strikes",
        "last",
        "lost",
        "mapped_at",
        "patience",
        "quarantined_until",
        "source",
    )

    def __init__(self, report: Report, now: float, least: tuple[float, float], source: Source = Source.AGENT) -> None:
        self.source, self._least = source, least
        self._begin(report, now)
        self.quarantined_until = -inf
        self._strikes: list[float] = []

    def _begin(self, report: Report, now: float) -> None:
        """Another boot: its counters and its clock start anew."""
        self._diffs = deque([(now, now - report.sampled_at)])
        self.last, self.mapped_at = report, now
        self._be_patient(report)

    def _be_patient(self, report: Report) -> None:
        self.patience, self.lost = patience(report.interval_seconds, *self._least)

    def follow(self, report: Report, now: float) -> Window | Refused | None:
        """Take a report. See `Fleet.receive`."""
        last, sampled_at = self.last, report.sampled_at
        if now < self.quarantined_until:
            return Refused(
                "quarantined", f"impossible reports: not heard for {self.quarantined_until - now:.0f} s more"
            )
        if report.boot != last.boot:
            self._begin(report, now)
            return None
        if report.sequence <= last.sequence or sampled_at <= last.sampled_at:
            return Refused("replayed", f"sequence {report.sequence} after {last.sequence}: replayed or out of order")
        # The agent's clock to ours: the smallest delay seen in the last minute is taken for none (monotonic deque).
        diffs, diff = self._diffs, now - sampled_at
        while diffs and diffs[-1][1] >= diff:
            diffs.pop()
        diffs.append((now, diff))
        while diffs[0][0] < now - CLOCK_MEMORY_SECONDS:
            diffs.popleft()
        end = sampled_at + diffs[0][1]
        made = difference(last, report, end - (sampled_at - last.sampled_at), end)
        self.last = report  # an impossible one, too, or a counter that jumped once would be refused for ever
        if isinstance(made, Impossible):
            self._strike(now)
            return Refused("impossible", str(made))
        self.mapped_at = end
        if report.interval_seconds != last.interval_seconds:
            self._be_patient(report)
        return made

    def _strike(self, now: float) -> None:
        """Note an impossible report. One is a fault; an agent that goes on is ignored for a while."""
        self._strikes = [*self._strikes, now][-STRIKES:]
        if len(self._strikes) == STRIKES and now - self._strikes[0] <= QUARANTINE_SECONDS:
            self.quarantined_until = now + QUARANTINE_SECONDS
            self._strikes.clear()

    def age(self, now: float) -> float:
        """Seconds since the last report's sample was taken, on our clock."""
        return max(0.0, now - self.mapped_at)

    def trust(self, age_seconds: float) -> Trust:
        if age_seconds <= self.patience:
            return Trust.FRESH
        return Trust.STALE if age_seconds <= self.lost else Trust.LOST


class Fleet:
    """Servers by agent, and which agent speaks for which RIP: `version` grows whenever that changes. And by exporter,
    of which each service has its own or none."""

    def __init__(self, stale_seconds: float, lost_seconds: float) -> None:
        self._least = stale_seconds, lost_seconds
        self._servers: dict[str, Server] = {}
        self._speaker: dict[str, Server] = {}  # by RIP
        self._exporters: dict[str, Server] = {}
        self.version = 0

    def receive(self, report: Report, now: float) -> Window | Refused | None:
        """A window if the report makes one, None if it is the first of its boot, or why it was refused."""
        server = self._servers.get(report.agent)
        if server is None:
            server = self._servers[report.agent] = Server(report, now, self._least)
            self._speak(server, report)
            return None
        last = server.last
        made = server.follow(report, now)
        another = report.addresses != last.addresses or (made is None and report.boot != last.boot)
        if another and not isinstance(made, Refused):
            self._speak(server, report)
        return made

    def receive_reading(self, report: Report, now: float) -> Window | Refused | None:
        """Likewise of an exporter."""
        server = self._exporters.get(report.agent)
        if server is None:
            self._exporters[report.agent] = Server(report, now, self._least, Source.EXPORTER)
            self.version += 1
            return None
        return server.follow(report, now)

    def _speak(self, server: Server, report: Report) -> None:
        for address in report.addresses:
            if self._speaker.get(address) is not server:
                self._speaker[address] = server
                self.version += 1

    def server(self, address: str) -> Server | None:
        """The server of the agent that reports for this RIP."""
        return self._speaker.get(address)

    def speaks(self, address: str, now: float) -> bool:
        """Whether an agent speaks for this RIP that is not lost."""
        server = self._speaker.get(address)
        return server is not None and server.trust(server.age(now)) is not Trust.LOST

    def exporter(self, name: str) -> Server | None:
        """The exporter's server, by the name in its reports."""
        return self._exporters.get(name)

    def report(self, address: str) -> Report | None:
        server = self.server(address)
        return server.last if server else None

    def age(self, address: str, now: float) -> float | None:
        server = self.server(address)
        return server.age(now) if server else None

    def trust(self, address: str, now: float) -> Trust:
        server = self.server(address)
        return Trust.NEVER if server is None else server.trust(server.age(now))
