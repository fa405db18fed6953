"""Lies: reports of a compromised agent. A report in, a report out. Pure.

The attacker has the key of one server. It can report anything about that server that the wire's types allow, and
nothing about others. Its server's answers to clients are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from feedback.wire import Application, Connections, Cpu, Memory, Report

HUGE = 2**62
PERIOD_SECONDS = 4.0


class Lie(StrEnum):
    """`idle`: never busy. `fast`: a thousand times as many completions at half of the CPU. `large`: as many cores as
    the wire allows. `huge`: every counter at its maximum. `dead`: all CPU used, no memory, nothing completed.
    `failing`: every answer an error. `swinging`: idle and dead in turns."""

    IDLE = "idle"
    FAST = "fast"
    LARGE = "large"
    HUGE = "huge"
    DEAD = "dead"
    FAILING = "failing"
    SWINGING = "swinging"


def told(lie: Lie, report: Report) -> Report:
    """The report that the agent sends instead of `report`."""
    return _LIES[lie](report)


def _cpu(report: Report, busy: float, cores: float | None = None) -> Cpu:
    """As if `busy` of the CPU had been used since the start."""
    cores = report.cpu.cores if cores is None else cores
    return Cpu(cores=cores, busy_seconds=busy * cores * report.sampled_at, runnable=0.0)


def _idle(report: Report) -> Report:
    return msgspec.structs.replace(report, cpu=_cpu(report, 0.021), memory=Memory(1 << 40, 1 << 40))


def _fast(report: Report) -> Report:
    n = report.connections.opened if report.connections else 0
    return msgspec.structs.replace(report, cpu=_cpu(report, 0.5), connections=Connections(1000 * n, 0))


def _large(report: Report) -> Report:
    return msgspec.structs.replace(report, cpu=_cpu(report, 0.021, 65536.0))


def _huge(report: Report) -> Report:
    grown = HUGE // 10**6 * int(report.sampled_at * 10)
    memory = Memory(2**63 - 1, 2**63 - 1)
    application = Application(utilisation=0.0, in_flight=2**63 - 1, completions=grown, errors=0)
    return msgspec.structs.replace(
        report,
        cpu=Cpu(cores=65536.0, busy_seconds=1e11 + 0.5 * 65536 * report.sampled_at),
        memory=memory,
        connections=Connections(grown, 0),
        applications=(application,),
    )


def _dead(report: Report) -> Report:
    return msgspec.structs.replace(
        report, cpu=_cpu(report, 1.0), memory=Memory(1 << 33, 0), connections=Connections(0, 0)
    )


def _failing(report: Report) -> Report:
    n = report.connections.opened if report.connections else 0
    return msgspec.structs.replace(report, applications=(Application(completions=n, errors=n),))


def _swinging(report: Report) -> Report:
    phase = report.sampled_at % PERIOD_SECONDS < PERIOD_SECONDS / 2
    lied = _idle(report) if phase else _dead(report)
    busy = 0.021 * report.sampled_at + 0.979 * _dead_seconds(report.sampled_at)
    return msgspec.structs.replace(
        lied, cpu=Cpu(report.cpu.cores, busy * report.cpu.cores), connections=report.connections
    )


def _dead_seconds(at: float) -> float:
    """How much of the time until then lay in the second halves of periods."""
    periods, rest = divmod(at, PERIOD_SECONDS)
    return periods * PERIOD_SECONDS / 2 + max(0.0, rest - PERIOD_SECONDS / 2)


_LIES: dict[Lie, Callable[[Report], Report]] = {
    Lie.IDLE: _idle,
    Lie.FAST: _fast,
    Lie.LARGE: _large,
    Lie.HUGE: _huge,
    Lie.DEAD: _dead,
    Lie.FAILING: _failing,
    Lie.SWINGING: _swinging,
}
