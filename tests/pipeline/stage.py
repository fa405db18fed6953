"""Stage: a master, its servers and a clock, turn after turn, and what was in force after each turn.

Connections go by what the servers can do, whatever the weights are, so that one weight that differs between two
checkouts makes no other one differ.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from feedback import wire
from feedback.config import MasterConfig, parse
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Service,
    ServiceKey,
    SetDestination,
)
from tests.pipeline.face import room
from tests.pipeline.master import Master
from tests.pipeline.servers import Server, Servers
from tests.pipeline.table import Table

REPORT_SECONDS = 0.2


class Turn(msgspec.Struct, frozen=True):
    """`rows` is (weight, upper, lower) of each destination after the turn's edits, by its service and key, where any
    has changed since the turn before. `held` has what each service says of why it is held."""

    at: float
    edits: int
    rows: dict[str, tuple[int, int, int]] | None
    held: tuple[str, ...]
    foreign: int
    reasons: dict[str, str]


def virtual(number: int = 0, protocol: str = "tcp") -> str:
    return f"{protocol}:192.0.2.{number + 1}:80"


def rip(i: int) -> DestinationKey:
    return DestinationKey.parse(f"10.0.{i // 250}.{i % 250 + 1}:80")


def service(
    servers: Sequence[int] | int = 4,
    *,
    number: int = 0,
    protocol: str = "tcp",
    weights: Sequence[int] = (),
    rows: Sequence[str] = (),
    extra: str = "",
    below: str = "",
) -> str:
    """TOML of one service; `servers` are the numbers of its destinations, `rows` more keys of each, `extra` more keys
    of the service and `below` its tables."""
    numbers = range(servers) if isinstance(servers, int) else servers
    text = f'[[service]]\nvirtual = "{virtual(number, protocol)}"\n{extra}\n{below}\n'
    for at, i in enumerate(numbers):
        text += f'[[service.destination]]\naddress = "{rip(i).address}"\n'
        text += f"weight = {weights[at]}\n" if weights else ""
        text += f"{rows[at]}\n" if rows else ""
    return text


class Place(NamedTuple):
    """Where a stage keeps its state file, and where its turns are noted."""

    directory: Path
    turns: list[Turn]


class Note:
    """Notes each turn of a master."""

    def __init__(self, turns: list[Turn]) -> None:
        self.turns = turns
        self.rows: dict[str, tuple[int, int, int]] = {}
        self._foreign = 0

    def __call__(self, master: Master) -> None:
        assert master.decision is not None
        rows = {
            f"{s} {k}": (e.destination.weight, e.destination.upper, e.destination.lower)
            for s, there in master.table.rows.items()
            for k, e in there.items()
        }
        edited = {
            f"{e.service} {e.destination.key}" for e in master.edits if isinstance(e, AddDestination | SetDestination)
        }
        reasons = {f"{s.service} {s.destination}": s for s in master.decision.settings} if edited else {}
        self.turns.append(
            Turn(
                master.now,
                len(master.edits),
                rows if rows != self.rows else None,
                tuple(str(s.held) for s in master.decision.services),
                len(master.foreign) - self._foreign,
                {k: "; ".join(r.text for r in reasons[k].reasons) for k in edited if k in reasons},
            )
        )
        self.rows, self._foreign = rows, len(master.foreign)


class Stage:
    """`cores` are the servers', `load` the part of what they can do that comes; `turn_seconds` between decisions.
    `adopted`: somebody else owns the services and has made them before us, with these weights."""

    def __init__(
        self,
        text: str,
        place: Place,
        *,
        cores: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
        load: float = 0.6,
        seed: int = 1,
        turn_seconds: float = 0.05,
        adopted: bool = False,
        agents: bool = True,
    ) -> None:
        self._adopted, self.turn_seconds, self.agents = adopted, turn_seconds, agents
        config = self._parsed(text)
        draw = random.Random(seed)
        table = Table()
        if adopted:
            self._adopt(config, table)
        self.verdicts: dict[DestinationKey, Any] = {}  # what checks find; good where nothing is said
        self.master = Master(config, place.directory / "state.json", table, self._answer)
        servers = [Server(rip(i), f"rs{i}", c, 100.0 * (1 + 0.1 * (i % 3)), draw) for i, c in enumerate(cores)]
        self.servers = tuple(servers)
        rate = load * sum(s.capacity for s in servers)
        keys = [ServiceKey.parse(s.virtual) for s in config.service]
        self.flows = [Servers(key, servers if key == keys[0] else [], rate, follow=False) for key in keys]
        self._note = Note(place.turns)
        self._number = 0

    def _parsed(self, text: str) -> MasterConfig:
        return parse(('ownership = "weights"\n' if self._adopted else "") + text, MasterConfig)

    @staticmethod
    def _adopt(config: MasterConfig, table: Table) -> None:
        for named in config.service:
            key = ServiceKey.parse(named.virtual)
            table.apply([AddService(Service(key, named.scheduler or "sed"))])
            for d in named.destination:
                made = Destination(DestinationKey.parse(f"{d.address}:{d.port or key.port}"), d.weight)
                table.put(key, made.key, weight=made.weight)

    @property
    def service(self) -> ServiceKey:
        return self.flows[0].service

    def _answer(self, probe: Any) -> Any:
        said = self.verdicts.get(DestinationKey(probe.target.address, probe.target.port), True)
        return room("health").Outcome(said, "answers" if said else "refused") if isinstance(said, bool) else said

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self.turn_seconds)):
            self.turn()

    def turn(self) -> None:
        master, each = self.master, max(1, round(REPORT_SECONDS / self.turn_seconds))
        master.wait(self.turn_seconds)
        self._number += 1
        for flow in self.flows:
            flow.step(master.table, master.now, self.turn_seconds)
        if self.agents:
            for i, server in enumerate(self.servers):
                if (self._number + i) % each == 0 and not server.silent:
                    master.hear(wire.encode(server.report(master.now, self.turn_seconds * each)))
        master.turn()
        self._note(master)

    def put(self, i: int, **changes: Any) -> None:
        """The other owner's edit, or a stranger's."""
        self.master.table.put(self.service, rip(i), **changes)

    def reload(self, text: str) -> None:
        self.master.reload(self._parsed(text))

    def load(self, part: float) -> None:
        self.flows[0].rate = part * sum(s.cores * s.per_core for s in self.servers)
