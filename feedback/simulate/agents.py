"""Agents: reports of the model's servers, with cumulative counters as a real agent sends them.

A CPU counter is noisy when it is read: the busy time of each window has a relative error, and the error stays in the
cumulative sum. This module does not know the weight of any destination. The agent's clock is the world's plus an offset
of its own.
"""

from __future__ import annotations

from feedback.simulate.case import Case
from feedback.simulate.draw import Draw
from feedback.simulate.servers import Server
from feedback.wire import PROTOCOL, Application, Connections, Cpu, Memory, Pressure, Report

MEMORY_TOTAL = 8 << 30
MEMORY_BASE = 1 << 30
MEMORY_PER_JOB = 1 << 20


class Agent:
    """The agent of one server."""

    def __init__(self, case: Case, server: Server, address: str, index: int) -> None:
        self._case, self._server, self._address = case, server, address
        self._name = f"rs{index}"
        self._sequence = 0
        self._boot, self._session = -1, ""
        self._clock = 1000.0 + 37.0 * index
        self._read = [0.0, 0.0]  # busy and own at the last reading, without noise
        self._told = [0.0, 0.0]  # the same as told

    def sample(self, now: float, draw: Draw) -> Report:
        server, case = self._server, self._case
        server.advance(now)
        if self._boot != server.boot:
            self._boot, self._session, self._sequence = server.boot, f"boot{server.boot}", 0
            self._read, self._told = [0.0, 0.0], [0.0, 0.0]
        self._sequence += 1
        self._noise(server, draw)
        return Report(
            version=PROTOCOL,
            agent=self._name,
            boot=self._session,
            sequence=self._sequence,
            sampled_at=now + self._clock,
            interval_seconds=case.report_seconds,
            addresses=(self._address,),
            cpu=self._cpu(server, case),
            memory=_memory(server),
            pressure=Pressure(server.waiting_seconds, 0.0, 0.0, 0.0, 0.0),
            connections=Connections(server.opened, server.open),
            applications=_applications(server) if case.application else (),
        )

    def _noise(self, server: Server, draw: Draw) -> None:
        read = [server.busy_seconds + server.stolen_seconds, server.busy_seconds]
        factor = max(0.0, 1 + draw.gauss(0.0, self._case.noise))
        self._told = [told + factor * (new - old) for told, new, old in zip(self._told, read, self._read, strict=True)]
        self._read = read

    def _cpu(self, server: Server, case: Case) -> Cpu:
        busy, own = self._told
        if not case.own_known:
            return Cpu(server.cores, busy, runnable=float(len(server.jobs)))
        return Cpu(server.cores, busy, own_seconds=own, entitled=server.available, runnable=float(len(server.jobs)))


def _memory(server: Server) -> Memory:
    used = MEMORY_BASE + MEMORY_PER_JOB * server.open
    return Memory(MEMORY_TOTAL, max(MEMORY_TOTAL // 50, MEMORY_TOTAL - used), 0, 0)


def _applications(server: Server) -> tuple[Application, ...]:
    return (Application(completions=server.finished, errors=server.errors, in_flight=server.open),)
