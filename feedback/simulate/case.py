"""Case: one run as data: servers, load, changes, the timing of reports. Also the form of a user's TOML.

A case knows no law, and nothing of how a scheduler works. `part` of a load is relative to what all servers can do at
their best, so 0.7 means 70 %. Changes are absolute: a field that is not named stays as it was. Reading a file is the
only I/O here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from feedback.config import ConfigError
from feedback.config.strict import convert
from feedback.ipvs.fake_table import Overload
from feedback.model import Protocol
from feedback.simulate.lies import Lie
from feedback.wire import Name

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Part = Annotated[float, msgspec.Meta(ge=0, le=100)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Index = Annotated[int, msgspec.Meta(ge=0, le=9999)]

RATE_MAX = 20_000.0  # requests a second
SCHEDULERS = ("sed", "nq", "wlc", "wrr", "rr", "lc", "fo", "ovf")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ServerCase(_Strict, frozen=True, kw_only=True):
    """`count` servers of `cores` cores each. Each core is `speed` times as fast as the core in which costs are
    measured."""

    cores: Positive
    speed: Positive = 1.0
    count: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


class Load(_Strict, frozen=True, kw_only=True):
    """From this moment on, arrivals come at this part of the pool's capacity."""

    at_seconds: Seconds = 0.0
    part: Part


class Change(_Strict, frozen=True, kw_only=True):
    """A change of some servers at one moment. `available` is the part of the cores that neighbours leave. `starved` is
    the part of the rest that the host takes, as from a virtual machine whose host reports no steal: neither steal nor
    CPU use shows it, only waiting does. `speed` is a factor (cold caches). `io_seconds` is the mean time that each
    request waits for something other than CPU. A server that is `failing` answers every request with an error at once.
    A server that is `down` answers nothing and its agent is silent; the health check notices after one second, and
    notices the recovery after one second too. `silent` silences the agent alone. `lie` is what a compromised agent
    reports from then on."""

    at_seconds: Seconds
    servers: Annotated[tuple[Index, ...], msgspec.Meta(min_length=1)]
    available: Ratio | None = None
    starved: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    speed: Positive | None = None
    io_seconds: Seconds | None = None
    failing: bool | None = None
    down: bool | None = None
    silent: bool | None = None
    lie: Lie | None = None


class Bursts(_Strict, frozen=True, kw_only=True):
    """From `from_seconds` on, each server loses `depth` of its cores for a whole second, with this chance in each
    second."""

    from_seconds: Seconds = 0.0
    chance: Ratio
    depth: Annotated[float, msgspec.Meta(ge=0, lt=1)]


class Case(_Strict, frozen=True, kw_only=True):
    """`hold_seconds` 0: one request for each connection. Otherwise it is the mean time that a connection stays open,
    and requests come on it at `requests_per_second`. `keep_seconds`: with one request for each connection, the mean
    time that clients keep the connection open after the answer. `past`: closed connections from before the start are
    remembered, spread as equal weights would have spread them; held connections all return at the start. `own_known`:
    the agent knows the service's own cgroup. `application`: servers report completions and errors. `thresholds` are as
    in the service's configuration, and `kernel` says which kernel's rules for them apply. `law_options` are those of
    each law, by its name, as in the configuration. Convergence is measured from `event_seconds` on."""

    name: Name
    summary: str = ""
    server: Annotated[tuple[ServerCase, ...], msgspec.Meta(min_length=1)]
    load: Annotated[tuple[Load, ...], msgspec.Meta(min_length=1)]
    change: tuple[Change, ...] = ()
    bursts: Bursts | None = None
    seconds: Positive = 60.0
    measure_from_seconds: Seconds = 0.0
    event_seconds: Seconds = 0.0
    protocol: Protocol = Protocol.TCP
    schedulers: tuple[str, ...] = ("sed", "wlc", "wrr")
    cost_seconds: Positive = 0.010
    cost_cv: Annotated[float, msgspec.Meta(ge=0, le=20)] = 1.5
    hold_seconds: Seconds = 0.0
    keep_seconds: Seconds = 0.0
    requests_per_second: Positive = 5.0
    timeout_seconds: Positive = 2.0
    fin_seconds: Seconds = 120.0
    udp_seconds: Seconds = 300.0
    past: bool = False
    thresholds: Literal["static", "learned", "off"] | None = None
    kernel: Overload = Overload.UNTIL_6_1_176
    law_options: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    report_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.2
    delay_seconds: Seconds = 0.05
    noise: Ratio = 0.02
    own_known: bool = False
    application: bool = False

    @property
    def servers(self) -> tuple[ServerCase, ...]:
        """One entry a server."""
        return tuple(s for s in self.server for _ in range(s.count))

    @property
    def capacity(self) -> float:
        """Requests per second that all servers can do at their best."""
        return sum(s.cores * s.speed for s in self.servers) / self.cost_seconds


def enlarged(case: Case, count: int) -> Case:
    """The case with its servers repeated until there are `count` of them; a change of one applies to each of its
    copies. If more than RATE_MAX requests a second would come, each request costs more instead, so that a run ends
    within minutes."""
    each = len(case.servers)
    servers = tuple(msgspec.structs.replace(case.servers[i % each], count=1) for i in range(count))
    changes = tuple(
        msgspec.structs.replace(change, servers=tuple(i for i in range(count) if i % each in set(change.servers)))
        for change in case.change
        if min(change.servers) < count
    )
    made = msgspec.structs.replace(case, server=servers, change=changes)
    rate = made.capacity * max(load.part for load in case.load)
    return msgspec.structs.replace(made, cost_seconds=case.cost_seconds * max(1.0, rate / RATE_MAX))


def read(path: Path) -> Case:
    """A user's case. Raises ConfigError, one line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse(text, str(path))


def parse(text: str, source: str = "scenario") -> Case:
    """Raises ConfigError."""
    case = convert(text, Case, source)
    check(case, source)
    return case


def check(case: Case, source: str) -> None:
    """Check what types cannot express. Raises ConfigError."""
    if case.load[0].at_seconds != 0:
        raise ConfigError(f"{source}: load[0].at_seconds: the first load starts at 0")
    for i, (a, b) in enumerate(zip(case.load, case.load[1:], strict=False), 1):
        if b.at_seconds <= a.at_seconds:
            raise ConfigError(f"{source}: load[{i}].at_seconds: {b.at_seconds:g} is not after {a.at_seconds:g}")
    known = len(case.servers)
    for i, change in enumerate(case.change):
        for index in change.servers:
            if index >= known:
                raise ConfigError(f"{source}: change[{i}].servers: {index}: there are {known}, counted from 0")
    for i, scheduler in enumerate(case.schedulers):
        if scheduler not in SCHEDULERS:
            raise ConfigError(f"{source}: schedulers[{i}]: {scheduler!r}: expected one of {', '.join(SCHEDULERS)}")
    if case.measure_from_seconds >= case.seconds:
        raise ConfigError(f"{source}: measure_from_seconds: must be less than seconds, which is {case.seconds:g}")
