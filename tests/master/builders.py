"""Small makers of reports, pools and tables for the tests of the pipeline."""

from __future__ import annotations

from functools import cache
from ipaddress import ip_address

from feedback.config import MasterConfig, parse
from feedback.master.estimate import Estimate
from feedback.master.fleet import Trust
from feedback.master.pool import Member, Pool, Share
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
    return DestinationKey(ip_address(f"10.0.0.{10 + i}"), 80)


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
) -> Member:
    base = Destination(rip(i), weight=100)
    kernel = None
    if weight is not None:
        kernel = DestinationEntry(Destination(rip(i), weight=weight), active, inactive)
    known = None if capacity is None else estimate(capacity, utilisation, memory_available)
    return Member(base, kernel, trust, 0.1, known, quiesced)


def pool(*members: Member, flow: float = 100.0, scheduler: str = "sed") -> Pool:
    return Pool(Service(VIRTUAL, scheduler), members, flow)


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
