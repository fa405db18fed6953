"""Small makers of reports, pools and tables for the tests of the pipeline."""

from __future__ import annotations

import dataclasses
from functools import cache
from ipaddress import ip_address
from typing import Any

import msgspec

from feedback.config import MasterConfig, parse
from feedback.master.bounds.limits import NONE
from feedback.master.claims.claim import Claim
from feedback.master.outcome import By, Zero
from feedback.master.pool import Pool, Role, Row, Share, estimates, utilisation
from feedback.master.servers.capacity import Capacity, Estimate
from feedback.master.servers.fleet import Trust
from feedback.master.servers.prior import Prior
from feedback.master.servers.window import Window
from feedback.model import (
    AddDestination,
    AddService,
    Counters,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Protocol,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceEntry,
    ServiceKey,
    SetDestination,
    SetService,
    Snapshot,
)
from feedback.wire import PROTOCOL, Connections, Cpu, Memory, Report

VIRTUAL = ServiceKey.at(Protocol.TCP, "10.0.0.100", 80)


@cache  # a run of minutes asks for each a hundred thousand times
def rip(i: int) -> DestinationKey:
    return DestinationKey(ip_address(f"10.0.{(10 + i) // 256}.{(10 + i) % 256}"), 80)


def report(
    i: int = 1,
    *,
    at: float,
    sequence: int,
    busy: float = 0.0,
    opened: int = 0,
    established: int = 0,
    cores: float = 1.0,
    boot: str = "b",
    own: float | None = None,
    entitled: float | None = None,
    available: int = 80,
) -> Report:
    return Report(
        version=PROTOCOL,
        agent=f"rs{i}",
        boot=boot,
        sequence=sequence,
        sampled_at=at,
        interval_seconds=0.2,
        addresses=(str(rip(i).address),),
        cpu=Cpu(cores, busy, own_seconds=own, entitled=entitled),
        memory=Memory(100, available),
        connections=Connections(opened, established),
    )


def config(servers: int = 4, scheduler: str = "sed", extra: str = "", guards: str = "") -> MasterConfig:
    text = f'{extra}\n[[service]]\nvirtual = "{VIRTUAL}"\nscheduler = "{scheduler}"\n'
    text += "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in range(1, servers + 1))
    return parse(text + guards, MasterConfig)


def estimate(capacity: float, utilisation: float = 0.5, memory_available: float = 0.8) -> Estimate:
    return Estimate(capacity, 0.05, 1.0, utilisation, capacity * utilisation, 1.0, memory_available, 10)


def member(
    i: int,
    *,
    weight: int | None = 100,
    capacity: float | None = 100.0,
    trust: Trust = Trust.FRESH,
    active: int = 0,
    inactive: int = 0,
    utilisation: float = 0.5,
    memory_available: float = 0.8,
    quiesced: str = "",
) -> Row:
    kernel = None
    if weight is not None:
        kernel = DestinationEntry(Destination(rip(i), weight=weight), active, inactive)
    known = None if capacity is None else estimate(capacity, utilisation, memory_available)
    return row(Destination(rip(i), weight=100), kernel, trust, 0.1, known, quiesced)


def row(
    base: Destination,
    kernel: DestinationEntry | None,
    trust: Trust,
    age_seconds: float | None,
    known: Estimate | None,
    quiesced: str = "",
    window: Window | None = None,
) -> Row:
    made = Row(
        base.key,
        base,
        str(base.key.address),
        str(base.key),
        Role(),
        Capacity(Prior()),
        trust,
        claim=Claim(),
        limit=NONE,
    )
    made.age_seconds, made.estimate, made.window = age_seconds, known, window
    made.zero = Zero(By.CONFIGURATION, quiesced) if quiesced else None
    return put(made, kernel)


def put(of: Row, kernel: DestinationEntry | None) -> Row:
    """With this in the kernel."""
    of.kernel = kernel
    of.weight, of.active, of.inactive = (
        (kernel.destination.weight, kernel.active, kernel.inactive) if kernel else (0,) * 3
    )
    return of


def replace(of: Any, **changes: Any) -> Any:
    """A copy of a row, a pool or a struct, with changes."""
    if isinstance(of, Row):
        return put(copied := dataclasses.replace(of, **changes), copied.kernel)
    return dataclasses.replace(of, **changes) if isinstance(of, Pool) else msgspec.structs.replace(of, **changes)


def pool(*rows: Row, flow: float = 100.0, scheduler: str = "sed", service: Service | None = None) -> Pool:
    used = utilisation(estimates(rows))
    return Pool(service or Service(VIRTUAL, scheduler), list(rows), flow, utilisation=used, crowding=used)


def shares(*values: float) -> dict[DestinationKey, Share]:
    return {rip(i): Share(v) for i, v in enumerate(values, 1)}


class Table:
    """A table that performs edits and nothing else: what the kernel would have, without connections."""

    def __init__(self) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self.entries: dict[ServiceKey, dict[DestinationKey, DestinationEntry]] = {}

    def apply(self, edits: tuple[Edit, ...] | list[Edit]) -> None:
        for edit in edits:
            match edit:
                case AddService(service) | SetService(service):
                    self.services[service.key] = service
                    self.entries.setdefault(service.key, {})
                case RemoveService(key):
                    del self.services[key], self.entries[key]
                case AddDestination(key, destination):
                    assert destination.key not in self.entries[key]
                    self.entries[key][destination.key] = DestinationEntry(destination)
                case SetDestination(key, destination):
                    assert destination.key in self.entries[key]
                    self.entries[key][destination.key] = DestinationEntry(destination)
                case RemoveDestination(key, gone):
                    del self.entries[key][gone]

    def put(self, key: DestinationKey, weight: int, **counts: int) -> None:
        """Somebody else's write."""
        self.entries[VIRTUAL][key] = DestinationEntry(Destination(key, weight=weight), **counts)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            tuple(ServiceEntry(s, tuple(self.entries[k].values()), Counters()) for k, s in self.services.items())
        )

    def weights(self) -> list[int]:
        return [e.destination.weight for e in self.entries[VIRTUAL].values()]
