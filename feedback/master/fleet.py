"""Fleet: what is known of each real server, how old it is, and how far it can be trusted.

Owns the reports: takes differences of their cumulative counters (a `Window`), maps the agents' clocks to ours, and
tells fresh from stale from lost. It knows no service and no weight. Invariant: silence is not death; a report is never
applied twice or out of order, and counters that run backwards never make a window.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import msgspec

from feedback.wire import Application, Connections, Pressure, Report

CLOCK_MEMORY_SECONDS = 60.0
WINDOW_SECONDS_MAX = 5.0  # a gap longer than this tells an average of a time that is over


class Trust(StrEnum):
    FRESH = "fresh"
    STALE = "stale"  # what is known is frozen
    LOST = "lost"  # the policy for lost agents holds
    NEVER = "never"  # no report since this master started


class ApplicationWindow(msgspec.Struct, frozen=True):
    """What an application said of itself, as differences over a window and as levels at its end."""

    port: int
    completions: int | None
    errors: int | None
    utilisation: float | None
    in_flight: int | None
    latency_seconds: float | None
    drain: bool


class Window(msgspec.Struct, frozen=True):
    """Differences between two reports of one server. Times are the director's, in seconds.

    `busy` and `own` are fractions of the CPU that the server may use (1.0: all of it); `own` is the service's own part,
    None where the agent does not know its cgroup. `entitled` is the fraction that the service gets even if its
    neighbours want all they can have. `grain` is the relative uncertainty of the CPU counters in this window.
    `stolen` is the part of `busy` in which a hypervisor ran somebody else instead.
    `completions` are connections opened less those that are still open; None without the counters. `resets` are RSTs
    sent, as by a port where nobody listens. `pressure` are PSI's fractions of the window, `applications` what applied
    over it.
    """

    start: float
    end: float
    cores: float
    busy: float
    own: float | None
    entitled: float | None
    grain_seconds: float
    opened: float | None
    completions: float | None
    memory_available: float  # fraction of total
    swap_in_pages: int
    memory_total: int = 0  # bytes
    established: int | None = None
    overflows: int = 0
    resets: int = 0
    stolen: float = 0.0
    runnable: float | None = None  # tasks for each core
    pressure: Pressure | None = None
    applications: tuple[ApplicationWindow, ...] = ()

    @property
    def seconds(self) -> float:
        return self.end - self.start


class _Server:
    """One agent's stream: its last report, clock map and times."""

    __slots__ = ("_diffs", "last", "mapped_at", "received_at")

    def __init__(self, report: Report, now: float) -> None:
        self._diffs: deque[tuple[float, float]] = deque()
        self.last = report
        self.received_at = now
        self.mapped_at = self.to_director(report.sampled_at, now)

    def to_director(self, sampled_at: float, now: float) -> float:
        """Agent's clock -> ours: the smallest delay seen in the last minute is taken for none (monotonic deque)."""
        diffs, diff = self._diffs, now - sampled_at
        while diffs and diffs[-1][1] >= diff:
            diffs.pop()
        diffs.append((now, diff))
        while diffs[0][0] < now - CLOCK_MEMORY_SECONDS:
            diffs.popleft()
        return sampled_at + diffs[0][1]


class Fleet:
    """Reports by agent, and which agent speaks for which RIP."""

    def __init__(self, stale_seconds: float, lost_seconds: float) -> None:
        self._stale, self._lost = stale_seconds, lost_seconds
        self._servers: dict[str, _Server] = {}
        self._speaker: dict[str, str] = {}  # RIP -> agent

    def receive(self, report: Report, now: float) -> Window | str | None:
        """A window if the report makes one, None if it is the first of its boot, or why it was refused."""
        server = self._servers.get(report.agent)
        if server is None or server.last.boot != report.boot:
            self._servers[report.agent] = _Server(report, now)
            self._speaker.update(dict.fromkeys(report.addresses, report.agent))
            return None
        last = server.last
        if report.sequence <= last.sequence or report.sampled_at <= last.sampled_at:
            return f"sequence {report.sequence} after {last.sequence}: replayed or out of order"
        end = server.to_director(report.sampled_at, now)
        start = end - (report.sampled_at - last.sampled_at)
        server.last, server.received_at, server.mapped_at = report, now, end
        if report.addresses != last.addresses:
            self._speaker.update(dict.fromkeys(report.addresses, report.agent))
        return _window(last, report, start, end)

    def speaker(self, address: str) -> str | None:
        """The agent that speaks for this RIP."""
        return self._speaker.get(address)

    def report(self, address: str) -> Report | None:
        server = self._server(address)
        return server.last if server else None

    def age(self, address: str, now: float) -> float | None:
        """Seconds since the last report's sample was taken, on our clock."""
        server = self._server(address)
        return max(0.0, now - server.mapped_at) if server else None

    def trust(self, address: str, now: float) -> Trust:
        age = self.age(address, now)
        if age is None:
            return Trust.NEVER
        report = self.report(address)
        patience = max(self._stale, 3 * report.interval_seconds) if report else self._stale
        if age <= patience:
            return Trust.FRESH
        return Trust.STALE if age <= max(self._lost, patience) else Trust.LOST

    def _server(self, address: str) -> _Server | None:
        agent = self._speaker.get(address)
        return self._servers.get(agent) if agent else None


def _window(a: Report, b: Report, start: float, end: float) -> Window | None:
    seconds = end - start
    busy = b.cpu.busy_seconds - a.cpu.busy_seconds
    if seconds > WINDOW_SECONDS_MAX or busy < 0 or b.cpu.cores != a.cpu.cores:
        return None
    allotment = b.cpu.cores * seconds
    own = None
    if a.cpu.own_seconds is not None and b.cpu.own_seconds is not None and b.cpu.own_seconds >= a.cpu.own_seconds:
        own = (b.cpu.own_seconds - a.cpu.own_seconds) / allotment
    stolen = max(0.0, (b.cpu.steal_seconds or 0.0) - (a.cpu.steal_seconds or 0.0))
    opened = completions = None
    if a.connections and b.connections and b.connections.opened >= a.connections.opened:
        opened = float(b.connections.opened - a.connections.opened)
        completions = opened - (b.connections.established - a.connections.established)
    return Window(
        start=start,
        end=end,
        cores=b.cpu.cores,
        busy=busy / allotment,
        own=own,
        entitled=b.cpu.entitled,
        grain_seconds=b.cpu.resolution_seconds,
        opened=opened,
        completions=completions,
        memory_available=b.memory.available / b.memory.total if b.memory.total else 1.0,
        swap_in_pages=max(0, (b.memory.swap_in_pages or 0) - (a.memory.swap_in_pages or 0)),
        memory_total=b.memory.total,
        established=b.connections.established if b.connections else None,
        overflows=_grown(a.connections, b.connections, "overflows"),
        resets=_grown(a.connections, b.connections, "resets"),
        stolen=min(stolen, busy) / allotment if a.cpu.steal_seconds is not None else 0.0,
        runnable=None if b.cpu.runnable is None else b.cpu.runnable / b.cpu.cores,
        pressure=_pressure(a.pressure, b.pressure, seconds),
        applications=tuple(_application(a, now) for now in b.applications),
    )


def _grown(a: Connections | None, b: Connections | None, name: str) -> int:
    return max(0, getattr(b, name) - getattr(a, name)) if a and b else 0


def _pressure(a: Pressure | None, b: Pressure | None, seconds: float) -> Pressure | None:
    """The part of the window that somebody waited, for each resource."""
    if a is None or b is None:
        return None
    names = Pressure.__struct_fields__
    return Pressure(**{n: max(0.0, min(1.0, (getattr(b, n) - getattr(a, n)) / seconds)) for n in names})


def _application(before: Report, now: Application) -> ApplicationWindow:
    old = next((x for x in before.applications if x.port == now.port), None)
    return ApplicationWindow(
        port=now.port,
        completions=_difference(old.completions if old else None, now.completions),
        errors=_difference(old.errors if old else None, now.errors),
        utilisation=now.utilisation,
        in_flight=now.in_flight,
        latency_seconds=now.latency_seconds,
        drain=now.drain,
    )


def _difference(old: int | None, new: int | None) -> int | None:
    """None without two values, or where the application's counters began anew."""
    return None if old is None or new is None or new < old else new - old
