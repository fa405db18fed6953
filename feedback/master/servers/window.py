"""Window: activity of one real server between two reports, as differences of their cumulative counters. Pure.

An agent's report is unverified; here it is checked against what a machine can do. Impossible figures make no window:
they are refused with a reason and change nothing.
"""

from __future__ import annotations

import msgspec

from feedback.wire import Application, Report

WINDOW_SECONDS_MAX = 5.0  # a gap longer than this tells an average of a time that is over

# Figures beyond what any machine can do. They are wide: they judge no load, but keep all quotients of a window finite.
WINDOW_SECONDS_MIN = CORES_MIN = 0.001  # the least that a quota can say
BUSY_MAX, BUSY_SECONDS_MAX = 2.0, 0.5  # times the CPU that may be used, and for each core: a burst beyond a quota
CONNECTIONS_PER_SECOND_MAX, CONNECTIONS_MAX = 1e6, 2**28  # the kernel's own tables end before
EVENTS_PER_SECOND_MAX = 1e8  # resets, overflows, pages, answers of an application
BURST_SECONDS = 1.0  # counters may be read late: so much more than the window


class ApplicationWindow(msgspec.Struct, frozen=True, gc=False):
    """What an application said of itself, as differences over a window and as levels at its end."""

    port: int
    completions: int | None
    errors: int | None
    utilisation: float | None
    in_flight: int | None
    latency_seconds: float | None
    drain: bool


class Window(msgspec.Struct, frozen=True, gc=False):
    """Differences between two reports of one server. Times are the director's, in seconds.

    `busy` and `own` are fractions of the CPU that the server may use (1.0: all of it); `own` is the service's own part,
    None where the agent does not know its cgroup. `entitled` is the fraction that the service gets even if its
    neighbours want all they can have. `grain_seconds` is the uncertainty of the CPU counters.
    `stolen` is the part of `busy` in which a hypervisor ran somebody else instead.
    `completions` are connections opened less those that are still open; None without the counters. `resets` are RSTs
    sent, as by a port where nobody listens. `cpu_pressure` is the part of the window in which some task waited for a
    CPU (PSI; None without it), `memory_pressure` that in which all waited for memory. `applications` is what applied
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
    cpu_pressure: float | None = None
    memory_pressure: float = 0.0
    applications: tuple[ApplicationWindow, ...] = ()

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Impossible(msgspec.Struct, frozen=True, gc=False):
    """No machine does what a report says."""

    what: str

    def __str__(self) -> str:
        return f"impossible: {self.what}"


def difference(a: Report, b: Report, start: float, end: float) -> Window | Impossible | None:
    """What happened from one report to the next, or None if that is unknown."""
    seconds = end - start
    cpu, earlier = b.cpu, a.cpu
    cores = cpu.cores
    if seconds < WINDOW_SECONDS_MIN or cores < CORES_MIN:
        return Impossible(f"a window of {seconds:g} s on {cores:g} cores")
    busy = cpu.busy_seconds - earlier.busy_seconds
    if seconds > WINDOW_SECONDS_MAX or busy < 0.0 or cores != earlier.cores:
        return None
    allotment = cores * seconds
    if busy > BUSY_MAX * allotment + BUSY_SECONDS_MAX * (cores if cores > 1.0 else 1.0):
        return Impossible(f"{busy:g} s of CPU used in {seconds:g} s on {cores:g} cores")
    own = None
    if earlier.own_seconds is not None and cpu.own_seconds is not None and cpu.own_seconds >= earlier.own_seconds:
        own = min(cpu.own_seconds - earlier.own_seconds, busy) / allotment
    stolen = 0.0
    if earlier.steal_seconds is not None:
        stolen = min(max(0.0, (cpu.steal_seconds or 0.0) - earlier.steal_seconds), busy) / allotment
    opened = completions = established = None
    overflows = resets = 0
    longest = seconds + BURST_SECONDS
    now, before = b.connections, a.connections
    if now is not None:
        established = now.established
        if established > CONNECTIONS_MAX:
            return Impossible(f"{established} connections open")
        if before is not None:
            overflows, resets = now.overflows - before.overflows, now.resets - before.resets
            if overflows or resets:
                overflows, resets = max(0, overflows), max(0, resets)
                if max(overflows, resets) > EVENTS_PER_SECOND_MAX * longest:
                    return Impossible(f"{max(overflows, resets)} connections refused or reset in {seconds:g} s")
            more = now.opened - before.opened
            if more >= 0:
                opened, completions = float(more), float(more + before.established - established)
                if opened > CONNECTIONS_PER_SECOND_MAX * longest:
                    return Impossible(f"{more} connections opened in {seconds:g} s")
    memory, pages = b.memory, 0
    applications: tuple[ApplicationWindow, ...] = ()
    free = memory.available / memory.total if memory.total else 1.0
    if memory.swap_in_pages:
        pages = max(0, memory.swap_in_pages - (a.memory.swap_in_pages or 0))
    if b.applications:
        applications = tuple([_application(a, said) for said in b.applications])
    if (pages or applications) and max([pages, *map(_most, applications)]) > EVENTS_PER_SECOND_MAX * longest:
        return Impossible(f"more than {EVENTS_PER_SECOND_MAX * longest:g} pages or answers in {seconds:g} s")
    pressure, until = a.pressure, b.pressure
    cpu_pressure, memory_pressure = None, 0.0
    if pressure is not None and until is not None:
        waited, stood = until.cpu_some - pressure.cpu_some, until.memory_full - pressure.memory_full
        cpu_pressure = 0.0 if waited <= 0.0 else 1.0 if waited >= seconds else waited / seconds
        memory_pressure = 0.0 if stood <= 0.0 else 1.0 if stood >= seconds else stood / seconds
    return Window(
        start,
        end,
        cores,
        busy / allotment,
        own,
        cpu.entitled,
        cpu.resolution_seconds,
        opened,
        completions,
        free if free < 1.0 else 1.0,
        pages,
        memory.total,
        established,
        overflows,
        resets,
        stolen,
        None if cpu.runnable is None else cpu.runnable / cores,
        cpu_pressure,
        memory_pressure,
        applications,
    )


def _application(before: Report, now: Application) -> ApplicationWindow:
    old = next((x for x in before.applications if x.port == now.port), None)
    return ApplicationWindow(
        port=now.port,
        completions=_grown(old.completions if old else None, now.completions),
        errors=_grown(old.errors if old else None, now.errors),
        utilisation=now.utilisation,
        in_flight=now.in_flight,
        latency_seconds=now.latency_seconds,
        drain=now.drain,
    )


def _most(said: ApplicationWindow) -> int:
    return max(said.completions or 0, said.errors or 0)


def _grown(old: int | None, new: int | None) -> int | None:
    """None without two values, or where the application's counters began anew."""
    return None if old is None or new is None or new < old else new - old
