"""The built-in cases, as data: what a law for LVS must withstand.

The pool is that of the published figures, for comparison: 8 servers of 2, 2, 4, 4, 8, 8, 16 and 16 cores, whose cores
differ in speed by 0.8 to 1.2; lognormal costs of 10 ms with CV 1.5; clients that give up after 2 s; reports every 200
ms that take 50 ms and are 2 % off. About 4,200 requests a second at 70 %.
"""

from __future__ import annotations

from feedback.model import Protocol
from feedback.simulate.case import Bursts, Case, Change, Load, ServerCase

POOL = tuple(
    ServerCase(cores=cores, speed=speed)
    for cores, speed in ((2, 0.9), (2, 1.1), (4, 1.2), (4, 0.8), (8, 1.0), (8, 1.1), (16, 0.95), (16, 1.05))
)
ALL = tuple(range(len(POOL)))
STEADY = (Load(part=0.7),)
OVERLOAD = (Load(part=0.7), Load(at_seconds=15.0, part=1.15), Load(at_seconds=35.0, part=0.7))
LARGE = tuple(
    ServerCase(cores=cores, speed=speed, count=25)
    for cores, speed in ((1, 0.9), (1, 1.1), (1, 1.2), (1, 0.8), (2, 1.0), (2, 1.1), (4, 0.95), (4, 1.05))
)


def _antagonists(at_seconds: float) -> tuple[Change, ...]:
    return (
        Change(at_seconds=at_seconds, servers=(5,), available=0.5),
        Change(at_seconds=at_seconds, servers=(6,), available=0.6),
    )


CASES = (
    Case(
        name="cold-start",
        summary="unequal servers, nothing known, 70 % load",
        server=POOL, load=STEADY, seconds=50.0,
    ),
    Case(
        name="step",
        summary="load rises from 40 to 85 %",
        server=POOL, load=(Load(part=0.4), Load(at_seconds=25.0, part=0.85)),
        seconds=50.0, measure_from_seconds=25.0,
    ),
    Case(
        name="antagonists",
        summary="two servers lose 40 and 50 % of their CPU to neighbours",
        server=POOL, load=(Load(part=0.6),),
        change=_antagonists(25.0),
        seconds=50.0, measure_from_seconds=25.0, event_seconds=25.0,
    ),
    Case(
        name="antagonists-known",
        summary="the same where agents know the service's own cgroup",
        server=POOL, load=(Load(part=0.6),), change=_antagonists(25.0), own_known=True,
        seconds=50.0, measure_from_seconds=25.0, event_seconds=25.0,
    ),
    Case(
        name="bursts",
        summary="neighbours take half of a server for a second, everywhere, all the time",
        server=POOL, load=(Load(part=0.6),), bursts=Bursts(from_seconds=10.0, chance=0.25, depth=0.5),
        seconds=40.0, measure_from_seconds=10.0, event_seconds=10.0,
    ),
    Case(
        name="bursts-known",
        summary="the same where agents know the service's own cgroup",
        server=POOL, load=(Load(part=0.6),), bursts=Bursts(from_seconds=10.0, chance=0.25, depth=0.5), own_known=True,
        seconds=40.0, measure_from_seconds=10.0, event_seconds=10.0,
    ),
    Case(
        name="starved",
        summary="the host takes 40 and 50 % from two servers, and neither steal nor their use of CPU shows it",
        server=POOL, load=(Load(part=0.6),),
        change=(
            Change(at_seconds=25.0, servers=(7,), starved=0.5),
            Change(at_seconds=25.0, servers=(6,), starved=0.4),
        ),
        seconds=50.0, measure_from_seconds=25.0, event_seconds=25.0,
    ),
    Case(
        name="fail-recover",
        summary="a large server dies and comes back with cold caches",
        server=POOL, load=(Load(part=0.6),),
        change=(
            Change(at_seconds=15.0, servers=(5,), down=True),
            Change(at_seconds=25.0, servers=(5,), down=False, speed=0.5),
            Change(at_seconds=35.0, servers=(5,), speed=1.0),
        ),
        seconds=60.0, measure_from_seconds=25.0, event_seconds=35.0,
    ),
    Case(
        name="late-reports",
        summary="reports once a second and 2 s late; two servers lose 40 and 50 % of their CPU",
        server=POOL, load=(Load(part=0.6),), report_seconds=1.0, delay_seconds=2.0,
        change=_antagonists(30.0),
        seconds=60.0, measure_from_seconds=30.0, event_seconds=30.0,
    ),
    Case(
        name="overload",
        summary="115 % load for 20 s; learned thresholds, which count two minutes of closed connections",
        server=POOL, load=OVERLOAD, thresholds="learned",
        seconds=50.0, measure_from_seconds=15.0,
    ),
    Case(
        name="overload-forgetful",
        summary="the same where closed connections are forgotten at once",
        server=POOL, load=OVERLOAD, thresholds="learned", fin_seconds=0.0,
        seconds=50.0, measure_from_seconds=15.0,
    ),
    Case(
        name="held",
        summary="connections stay open for 20 s",
        server=POOL, load=STEADY, hold_seconds=20.0, requests_per_second=5.0,
        seconds=90.0, measure_from_seconds=50.0,
    ),
    Case(
        name="kept",
        summary="clients keep each connection for 1 s after the answer; nothing known at first, 70 % load",
        server=POOL, load=STEADY, keep_seconds=1.0, seconds=50.0, measure_from_seconds=10.0,
    ),
    Case(
        name="kept-antagonists",
        summary="the same at 60 %; two servers lose 40 and 50 % of their CPU to neighbours",
        server=POOL, load=(Load(part=0.6),), keep_seconds=1.0,
        change=_antagonists(25.0),
        seconds=50.0, measure_from_seconds=25.0, event_seconds=25.0,
    ),
    Case(
        name="agents-lost",
        summary="three agents fall silent for 20 s while another server loses half of its CPU",
        server=POOL, load=(Load(part=0.6),),
        change=(
            Change(at_seconds=15.0, servers=(0, 3, 6), silent=True),
            Change(at_seconds=20.0, servers=(5,), available=0.5),
            Change(at_seconds=35.0, servers=(0, 3, 6), silent=False),
        ),
        seconds=50.0, measure_from_seconds=15.0, event_seconds=20.0,
    ),
    Case(
        name="blackhole",
        summary="a server answers everything at once with an error; its application says so",
        server=POOL, load=(Load(part=0.6),), application=True,
        change=(
            Change(at_seconds=15.0, servers=(2,), failing=True),
            Change(at_seconds=60.0, servers=(2,), failing=False),
        ),
        seconds=75.0, measure_from_seconds=15.0, event_seconds=60.0,
    ),
    Case(
        name="slow-io",
        summary="a server's requests wait 50 ms for something that is not CPU",
        server=POOL, load=STEADY, change=(Change(at_seconds=20.0, servers=(5,), io_seconds=0.05),),
        seconds=45.0, measure_from_seconds=20.0,
    ),
    Case(
        name="wlc-memory",
        summary="wlc with two minutes of closed connections; two servers lose 40 and 50 % of their CPU",
        server=POOL, load=(Load(part=0.6),), schedulers=("wlc",), past=True,
        change=_antagonists(30.0),
        seconds=60.0, measure_from_seconds=30.0, event_seconds=30.0,
    ),
    Case(
        name="udp",
        summary="UDP, which the kernel never counts as active; two servers lose 40 and 50 % of their CPU",
        server=POOL, load=(Load(part=0.6),), schedulers=("wrr",), protocol=Protocol.UDP,
        change=_antagonists(40.0),
        seconds=80.0, measure_from_seconds=40.0, event_seconds=40.0,
    ),
    Case(
        name="many",
        summary="200 servers, cold start at 70 %",
        server=LARGE, load=STEADY, cost_seconds=0.05, seconds=30.0,
    ),
)  # fmt: skip
NAMES = tuple(case.name for case in CASES)


def named(name: str) -> Case:
    """Raises KeyError."""
    return next(case for case in CASES if case.name == name) if name in NAMES else _unknown(name)


def _unknown(name: str) -> Case:
    raise KeyError(f"case {name!r}: expected one of {', '.join(NAMES)}")
