"""Events are numbered without a gap, and each change between two decisions is told once."""

from __future__ import annotations

import pytest

from feedback.config import MasterConfig, parse
from feedback.master.claims.health import Outcome
from feedback.master.controller import Controller, Decision
from feedback.master.shell.events import Ring, Watcher
from tests.master.builders import rip
from tests.master.test_controller import Bench, config


def test_who_asks_since_a_number_gets_every_later_event() -> None:
    ring = Ring("a")
    for i in range(3):
        ring.add("role", 10.0 + i, {"role": str(i)})
    answer = ring.since(1, "a")
    assert [(e["number"], e["role"]) for e in answer["events"]] == [(2, "1"), (3, "2")]
    assert (answer["schema"], answer["last"], answer["gone"]) == (1, 3, 0)


def test_who_was_too_slow_is_told_how_many_are_gone() -> None:
    ring = Ring("a", kept=2)
    for i in range(5):
        ring.add("role", float(i), {})
    answer = ring.since(1, "a")
    assert (answer["gone"], [e["number"] for e in answer["events"]]) == (2, [4, 5])


@pytest.mark.parametrize(("number", "stream"), [(9, "b"), (1, "before"), (99, "a"), (-5, "a")])
def test_a_restart_begins_anew_and_nothing_of_it_is_missed(number: int, stream: str) -> None:
    ring = Ring("a")
    ring.add("started", 1.0, {})
    assert [e["number"] for e in ring.since(number, stream)["events"]] == [1]


def test_a_kind_without_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="is no kind of event"):
        Ring("a").add("surprise", 1.0, {})


class Watched(Bench):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.watcher = Watcher()
        self.told: list[tuple[str, dict[str, object]]] = []

    def turn(self) -> None:
        self.controller.receive_kernel(self.table.snapshot(), self.now)
        decision = self.controller.decide(self.now)
        self.table.apply(decision.edits)
        self.told += self.watcher.observe(decision)

    def kinds(self) -> list[str]:
        kinds, self.told = [kind for kind, _ in self.told], []
        return kinds


def test_a_lost_agent_and_its_return_are_told_once() -> None:
    bench = Watched(config(3), [100.0] * 3)
    bench.run(5)
    bench.kinds()
    bench.silent = {0}
    bench.run(40)
    told = bench.told
    assert bench.kinds() == ["agent-lost"]
    assert told[0][1]["address"] == str(rip(1).address)
    bench.silent = set()
    bench.run(5)
    assert bench.kinds() == ["agent-back"]


def test_a_fleet_that_falls_silent_is_told_as_held_and_released() -> None:
    bench = Watched(config(4), [100.0] * 4)
    bench.run(5)
    bench.kinds()
    bench.silent = {0, 1, 2, 3}
    bench.run(5)
    assert bench.kinds() == ["held"]
    bench.silent = set()
    bench.run(5)
    assert bench.kinds() == ["released"]


def test_a_warning_of_a_check_is_told_once_for_a_server_and_again_when_it_changes() -> None:
    def decided(*warnings: str) -> Decision:
        """Two services with the same servers."""
        controller = Controller(parse(TWO_SERVICES, MasterConfig))
        controller.probes(0.0)
        for probe in controller.probes(1.0):
            i = int(str(probe.target.address)[-1]) - 1
            controller.receive_probe(probe, Outcome(True, "tls: connected", warnings[i]), 1.0)
        controller.probes(1.1)
        return controller.decide(1.2)

    watcher = Watcher()
    for warnings, told in (
        (("", ""), []),
        (("in 3 days", ""), [("10.0.0.11", "in 3 days")]),
        (("in 3 days", "in 9 days"), [("10.0.0.12", "in 9 days")]),
        (("in 2 days", "in 9 days"), [("10.0.0.11", "in 2 days")]),
    ):
        found = [fields for kind, fields in watcher.observe(decided(*warnings)) if kind == "check-warning"]
        assert [(f["address"], f["reason"]) for f in found] == told


TWO_SERVICES = "".join(
    f'[[service]]\nvirtual = "tcp:10.0.0.100:{port}"\n[service.check]\ntype = "tls"\nport = 443\n'
    '[[service.destination]]\naddress = "10.0.0.11"\n[[service.destination]]\naddress = "10.0.0.12"\n'
    for port in (443, 993)
)


def test_the_first_reports_are_heard_and_rest_tells_nothing() -> None:
    bench = Watched(config(2), [100.0] * 2)
    bench.silent = {0, 1}
    bench.run(1)
    assert bench.kinds() == []
    bench.silent = set()
    bench.run(2)
    assert sorted(bench.kinds()) == ["agent-heard", "agent-heard", "released"]
    bench.run(60)
    assert bench.kinds() == []
