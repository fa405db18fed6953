"""Hostile: what an enrolled agent may say that no honest one would. Everything fits the wire's types, or nearly.

A Liar has an honest server underneath and changes what that would report: one number at its end, clocks that move by
one unit in the last place or by years, counters that run backwards or leap, boots that flap; or one of the model's lies
(feedback.simulate.lies), kept up for a while. `at` is the director's time; frames are MessagePack.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf, nan, nextafter
from typing import Any

import msgspec

from feedback.simulate.lies import Lie, told
from feedback.wire import Application, Connections, Cpu, Listener, Memory, Pressure, Report
from tests.pipeline.servers import Server

TINY = (0.0, 5e-324, 1e-300, 1e-30, 1e-12, 1e-6, 1e-3)
LARGE = (1.0, 64.0, 65536.0, 1e6, 1e9, 999_999_999_999.0)
WRONG = (nan, inf, -inf, -1.0, -5e-324, 1e12, 1e308)
COUNTS = (0, 1, 2, 1000, 10**6, 10**9, 10**12, 2**31, 2**32, 2**62, 2**63 - 2, 2**63 - 1)
WRONG_COUNTS = (-1, 2**63, 2**64 - 1)
KEPT_REPORTS = 40  # how long a lie is kept up, at most

Change = Callable[[random.Random, Report], Report]
Steady = Callable[[Report, Report], Report]  # the truth, and what was said last
replace = msgspec.structs.replace


def _number(draw: random.Random) -> Any:
    return draw.choice(draw.choice((TINY, LARGE, LARGE, TINY, WRONG)))


def _count(draw: random.Random) -> Any:
    return draw.choice(WRONG_COUNTS if draw.random() < 0.05 else COUNTS)


def _cpu(draw: random.Random, report: Report) -> Report:
    cpu = report.cpu
    match draw.randrange(8):
        case 0:
            return replace(report, cpu=replace(cpu, cores=_number(draw)))
        case 1:
            return replace(report, cpu=replace(cpu, busy_seconds=_number(draw)))
        case 2:
            return replace(report, cpu=replace(cpu, busy_seconds=cpu.busy_seconds * draw.choice((0.5, 2.0, 1e6))))
        case 3:
            return replace(report, cpu=replace(cpu, own_seconds=_number(draw), entitled=draw.choice((*TINY, 1.0))))
        case 4:
            return replace(report, cpu=replace(cpu, steal_seconds=_number(draw)))
        case 5:
            return replace(report, cpu=replace(cpu, runnable=_number(draw)))
        case 6:
            return replace(report, cpu=replace(cpu, resolution_seconds=draw.choice((*TINY, 10.0, inf, nan))))
        case _:
            return replace(report, cpu=Cpu(_number(draw), _number(draw), own_seconds=_number(draw)))


def _clock(draw: random.Random, report: Report) -> Report:
    at = report.sampled_at
    new = draw.choice((nextafter(at, inf), nextafter(at, 0.0), at, at + 1e-9, at - 1.0, at + 1e6, 0.0, 9.99e11, nan))
    return replace(report, sampled_at=new)


def _connections(draw: random.Random, report: Report) -> Report:
    have = report.connections or Connections(0, 0)
    match draw.randrange(6):
        case 0:
            return replace(report, connections=replace(have, opened=_count(draw)))
        case 1:
            return replace(report, connections=replace(have, established=_count(draw)))
        case 2:
            return replace(report, connections=replace(have, opened=have.opened + draw.choice(COUNTS)))
        case 3:
            return replace(report, connections=replace(have, resets=_count(draw), overflows=_count(draw)))
        case 4:
            return replace(report, connections=replace(have, opened=max(0, have.opened - draw.choice((1, 10**6)))))
        case _:
            return replace(report, connections=None)


def _memory(draw: random.Random, report: Report) -> Report:
    return replace(report, memory=Memory(_count(draw), _count(draw), _count(draw), _count(draw)))


def _pressure(draw: random.Random, report: Report) -> Report:
    return replace(report, pressure=Pressure(*(_number(draw) for _ in range(5))))


def _applications(draw: random.Random, report: Report) -> Report:
    said = tuple(
        Application(
            port=draw.choice((0, 80, 65535)),
            utilisation=draw.choice((None, 0.0, 5e-324, 1e-300, 0.5, 1.0, nan)),
            in_flight=draw.choice((None, *COUNTS)),
            latency_seconds=draw.choice((None, *TINY, *LARGE)),
            completions=draw.choice((None, *COUNTS)),
            errors=draw.choice((None, *COUNTS)),
            drain=draw.random() < 0.1,
        )
        for _ in range(draw.choice((1, 1, 2, 64, 65)))
    )
    return replace(report, applications=said)


def _frame(draw: random.Random, report: Report) -> Report:
    match draw.randrange(6):
        case 0:
            return replace(report, boot=f"b{draw.randrange(4)}")
        case 1:
            return replace(report, sequence=_count(draw))
        case 2:
            return replace(report, interval_seconds=draw.choice((5e-324, 1e-6, 3600.0, 0.0, nan)))
        case 3:
            return replace(report, addresses=report.addresses * draw.choice((2, 64, 65)))
        case 4:
            listener = Listener(draw.choice((1, 80, 65535)), _count(draw), _count(draw), _count(draw))
            return replace(report, listeners=(listener,) * draw.choice((1, 64, 65)))
        case _:
            return replace(report, version=draw.choice((0, 1, 2)))


def _several(draw: random.Random, report: Report) -> Report:
    for change in draw.choices(CHANGES[:-1], k=draw.randrange(2, 5)):
        report = change(draw, report)
    return report


# --- lies that stay the same from one report to the next, so that they make windows --------------------------------


def _steady_cpu(draw: random.Random) -> Steady:
    cores, grown = draw.choice((*TINY[1:], *LARGE[:3])), draw.choice((0.0, 1e-12, 1e-3, 1.0, 1e6, 1e9))
    own = draw.choice((None, 0.0, 0.5, 2.0))

    def change(report: Report, last: Report) -> Report:
        busy = last.cpu.busy_seconds + grown
        told = None if own is None else own * busy
        return replace(report, cpu=Cpu(cores, busy, own_seconds=told, entitled=None if own is None else min(1.0, own)))

    return change


def _steady_clock(draw: random.Random) -> Steady:
    step, boot = draw.choice((0.0, 1e-12, 1e-6, 1e-3, 0.2, 100.0, 1e6)), f"clock{draw.randrange(10**6)}"

    def change(report: Report, last: Report) -> Report:
        at = last.sampled_at if last.boot == boot else draw.choice((0.0, 1.0, 1e6))
        return replace(report, boot=boot, sampled_at=nextafter(at, inf) + step)

    return change


def _steady_connections(draw: random.Random) -> Steady:
    grown, there = draw.choice((0, 1, 10**3, 10**6, 10**9, 10**12)), draw.choice(COUNTS)
    resets = draw.choice((0, 0, 1, 10**6))

    def change(report: Report, last: Report) -> Report:
        before = last.connections or Connections(0, 0)
        return replace(
            report, connections=Connections(before.opened + grown, there, before.overflows, before.resets + resets)
        )

    return change


def _steady_application(draw: random.Random) -> Steady:
    grown, bad = draw.choice((0, 1, 10**3, 10**12)), draw.choice((0.0, 0.5, 1.0, 2.0))
    used, inside = draw.choice((None, 0.0, 5e-324, 1e-300, 1.0)), draw.choice((None, *COUNTS))

    def change(report: Report, last: Report) -> Report:
        before = last.applications[0].completions or 0 if last.applications else 0
        done = before + grown
        said = Application(utilisation=used, in_flight=inside, completions=done, errors=int(bad * done))
        return replace(report, applications=(said,))

    return change


def _steady_rest(draw: random.Random) -> Steady:
    memory = Memory(draw.choice(COUNTS), draw.choice(COUNTS), draw.choice(COUNTS))
    grown = draw.choice((0.0, 1e-12, 0.2, 1e6))

    def change(report: Report, last: Report) -> Report:
        before = last.pressure.cpu_some if last.pressure else 0.0
        return replace(report, memory=memory, pressure=Pressure(*(before + grown,) * 5))

    return change


def _plausible(draw: random.Random) -> Steady:
    """What a machine could be, and this one is not."""
    cores, used, rate = (
        draw.choice((0.01, 0.5, 4.0, 64.0)),
        draw.choice((0.0, 0.03, 0.5, 1.0)),
        draw.choice((0, 10, 1e4)),
    )
    there, bad, resets = draw.choice((0, 10, 10**4)), draw.choice((0.0, 0.0, 0.5, 1.0)), draw.choice((0.0, 0.0, 1.0))
    waiting, memory = draw.choice((0.0, 1.0)), Memory(1 << 33, draw.choice((0, 1 << 20, 1 << 32)))
    boot = f"plausible{draw.randrange(10**6)}"

    def change(report: Report, last: Report) -> Report:
        if last.boot != boot:
            last = replace(report, cpu=Cpu(cores, 0.0), connections=Connections(0, there), pressure=None)
        seconds = max(0.0, report.sampled_at - last.sampled_at)
        before = last.connections or Connections(0, there)
        opened = before.opened + round(rate * seconds)
        waited = (last.pressure.cpu_some if last.pressure else 0.0) + waiting * seconds
        return replace(
            report,
            boot=boot,
            cpu=Cpu(cores, last.cpu.busy_seconds + used * cores * seconds, runnable=100.0 * waiting),
            memory=memory,
            pressure=Pressure(waited, 0.0, 0.0, 0.0, 0.0),
            connections=Connections(opened, there, 0, round(resets * opened)),
            applications=(Application(completions=opened, errors=round(bad * opened), in_flight=there),),
        )

    return change


STEADY = (_steady_cpu, _steady_clock, _steady_connections, _steady_application, _steady_rest)
CHANGES: tuple[Change, ...] = (_cpu, _clock, _connections, _memory, _pressure, _applications, _frame, _several)


def framed(report: Report) -> bytes:
    try:
        return msgspec.msgpack.encode(report)
    except OverflowError:  # a number that MessagePack has no room for
        return b"\xc1"


class Liar:
    """In place of one server's agent. What it says is a frame, as on the wire. A careful one says nothing that is
    impossible, so that it goes on being heard."""

    def __init__(self, server: Server, draw: random.Random) -> None:
        self._server, self._draw = server, draw
        self._careful = draw.random() < 0.5
        self._lie: Lie | None = None
        self._left = 0
        self._burden: dict[str, float] = {}  # a leap that stays in the counters, so that it is one window's
        self._change: Change | None = None
        self._steady: list[Steady] = []
        self._last: Report | None = None

    def say(self, now: float, interval: float) -> bytes:
        return self.changed(self._server.report(now, interval))

    def changed(self, report: Report) -> bytes:
        """What it says in place of this."""
        draw = self._draw
        if not self._left:
            self._choose()
        self._left -= 1
        report = self._burdened(report)
        if self._lie is not None:
            report = told(self._lie, report)
        for steady in self._steady:
            report = steady(report, self._last or report)
        if self._change is not None and draw.random() < 0.5:
            report = self._change(draw, report)
        self._last = report
        return framed(report)

    def _choose(self) -> None:
        """What to do next: a lie kept up, single leaps, changes of one sort, or the truth for a while."""
        draw = self._draw
        self._left, self._lie, self._change, self._steady = draw.randrange(1, KEPT_REPORTS), None, None, []
        if self._careful:
            self._steady = [_plausible(draw)] if draw.random() < 0.8 else []
            return
        match draw.randrange(8):
            case 0:
                self._lie = draw.choice(list(Lie))
            case 1:
                which = draw.choice(("opened", "busy", "sequence", "pressure"))
                self._burden[which] = self._burden.get(which, 0) + draw.choice((1e3, 1e6, 1e9, 1e12, 1e-9))
            case 2:
                self._burden.clear()
            case 3 | 4 | 5:
                self._steady = [make(draw) for make in draw.sample(STEADY, draw.choice((1, 1, 2, 3)))]
            case _:
                self._change = draw.choice(CHANGES)

    def _burdened(self, report: Report) -> Report:
        if not self._burden:
            return report
        leap = self._burden
        made = replace(
            report,
            sequence=report.sequence + int(leap.get("sequence", 0)),
            cpu=replace(report.cpu, busy_seconds=report.cpu.busy_seconds + leap.get("busy", 0.0)),
        )
        if made.connections is not None and "opened" in leap:
            opened = made.connections.opened + int(leap["opened"])
            made = replace(made, connections=replace(made.connections, opened=opened))
        if made.pressure is not None and "pressure" in leap:
            made = replace(made, pressure=replace(made.pressure, cpu_some=made.pressure.cpu_some + leap["pressure"]))
        return made
