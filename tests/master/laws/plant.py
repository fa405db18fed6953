"""Four unequal servers under a real controller: a fluid model, no queue and no noise, reports of the last fifth of a
second. Connections follow the weights at once (wrr); what a server cannot complete it loses."""

from __future__ import annotations

import msgspec

from feedback.master import Controller
from tests.master.builders import Table, config, report

SPEEDS = (50.0, 100.0, 200.0, 400.0)  # connections a second
LOAD = 0.6  # of all of them
TICK = 0.2


class Plant:
    def __init__(self, law: str, scheduler: str) -> None:
        plain = config(len(SPEEDS), scheduler)
        services = tuple(msgspec.structs.replace(s, law=law) for s in plain.service)
        self.controller = Controller(msgspec.structs.replace(plain, service=services))
        self.table, self.now, self.sequence = Table(), 1000.0, 0
        self.busy, self.opened = [0.0] * len(SPEEDS), [0.0] * len(SPEEDS)
        self.used = [0.0] * len(SPEEDS)

    def tick(self) -> None:
        self.now += TICK
        self.sequence += 1
        weights = self.weights() or [1] * len(SPEEDS)
        for i, speed in enumerate(SPEEDS):
            self.used[i] = min(1.0, LOAD * sum(SPEEDS) * weights[i] / sum(weights) / speed)
            self.busy[i] += TICK * self.used[i]
            self.opened[i] += TICK * self.used[i] * speed
            said = report(i + 1, at=self.now, sequence=self.sequence, busy=self.busy[i], opened=int(self.opened[i]))
            assert self.controller.receive_report(said, self.now) is None
        self.controller.receive_kernel(self.table.snapshot(), self.now)
        self.table.apply(self.controller.decide(self.now).edits)

    def weights(self) -> list[int]:
        return self.table.weights() if self.table.entries else []
