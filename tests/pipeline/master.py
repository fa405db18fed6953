"""Master: one controller as its daemon runs it: look, orders, decision, encoded edits, state file; and its restarts.

Time stands still but for `wait`. Nothing is caught here: what leaves the controller leaves this too, and what it has
caught itself is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from feedback import wire
from feedback.config import MasterConfig
from feedback.ipvs.types import EditError
from feedback.master import Controller, Decision
from feedback.model import DestinationKey, Edit, ServiceKey
from feedback.wire import Report
from tests.pipeline.face import room
from tests.pipeline.table import Table

WALL = 1.7e9  # what the wall clock shows when the monotonic one shows 0
Answers = Callable[[Any], Any]  # a probe -> an Outcome, a line of an agent, or None for silence


class Master:
    """`answers` is what comes of a probe; without it nothing answers. `edits` and `failed` are those of the last turn,
    `foreign` all foreign edits so far, `faults` the mistakes of ours that the controller caught up to this turn."""

    def __init__(
        self, config: MasterConfig, state: Path, table: Table | None = None, answers: Answers = lambda probe: None
    ) -> None:
        self.config, self.path, self.answers = config, state, answers
        self.table = table or Table()
        self.now = 1000.0
        self.counters: Counter[str] = Counter()
        self.edits: tuple[Edit, ...] = ()
        self.failed: tuple[EditError, ...] = ()
        self.foreign: list[Any] = []
        self.faults: list[Any] = []
        self.decision: Decision | None = None
        self._begin()

    @property
    def wall(self) -> float:
        return WALL + self.now

    def _begin(self) -> None:
        self.controller = Controller(self.config)
        self.file = room("statefile").StateFile(self.path)
        found = self.file.read()
        if found is not None:
            self.controller.restore(found)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def hear(self, frame: bytes) -> None:
        """A report as it comes off the wire."""
        try:
            report = wire.decode_report(frame)
        except wire.WireError as error:
            self.counters[error.kind] += 1
            return
        self.receive(report)

    def receive(self, report: Report) -> None:
        refused = self.controller.receive_report(report, self.now)
        self.counters["refused" if refused else "taken"] += 1

    def probe(self) -> None:
        for probe in self.controller.probes(self.now):
            self.controller.receive_probe(probe, self.answers(probe), self.now)

    def turn(self) -> Decision:
        """The daemon's: a look, a decision, one send."""
        controller, table = self.controller, self.table
        controller.receive_kernel(table.snapshot(), self.now)
        controller.orders.expire(self.wall)
        decision = controller.decide(self.now)
        edits = decision.edits
        if edits and self.config.ownership == "weights":
            edits = controller.confirm(edits, {k: table.destinations(k) for k in table.services})
        self.edits, self.failed = edits, table.apply(edits)
        if self.failed:
            controller.receive_failures([f.edit for f in self.failed])
        self.foreign += controller.foreign_edits
        controller.foreign_edits.clear()
        caught = getattr(controller, "faults", [])  # an older checkout catches none
        self.faults = list(caught)
        caught.clear()
        self.decision = decision
        self.file.save(controller.state(), self.now)
        self.probe()
        return decision

    def command(self, command: str, **fields: Any) -> Any:
        """An operator's, acknowledged when it is in the file. Raises the master's CommandError."""
        assert self.decision is not None
        commands, orders = room("commands"), self.controller.orders
        request = commands.read({"command": command, **fields})
        done = commands.perform(request, orders, self.decision.services, "operator", self.wall)
        assert self.file.insist(self.controller.state(), self.now), self.file.problem
        return done

    def restart(self, *, lost: bool = False) -> None:
        """Begin anew from the state file; `lost`: there is none."""
        if lost:
            self.path.unlink(missing_ok=True)
        self._begin()

    def reload(self, config: MasterConfig) -> None:
        self.controller.reconfigure(config)
        self.config = config

    def weight(self, service: ServiceKey, key: DestinationKey) -> int:
        return self.table.weights(service).get(key, 0)
