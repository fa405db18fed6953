"""Faults stay where they are: an agent's in its server, a service's in that service."""

from __future__ import annotations

import random
from typing import Any

import pytest

from feedback.config import MasterConfig, parse
from feedback.master import Controller
from feedback.master.pipeline import Pipeline
from feedback.master.servers.capacity import Capacity
from feedback.master.servers.fleet import QUARANTINE_SECONDS, STRIKES, Fleet, Refused
from feedback.master.servers.window import Window
from feedback.model import ServiceKey
from feedback.wire import Report
from tests.master.builders import Table, config, replace, report, rip

OTHER = ServiceKey.parse("tcp:10.0.0.101:80")


def changed(made: Report, **cpu: float) -> Report:
    return replace(made, cpu=replace(made.cpu, **cpu))


@pytest.mark.parametrize(
    "second",
    [
        report(at=100.0000001, sequence=2, busy=1.0, opened=10),
        report(at=100.2, sequence=2, busy=1.0, cores=1e-300),
        report(at=100.2, sequence=2, busy=1e9),
        report(at=100.2, sequence=2, busy=1.0, opened=10**12),
        report(at=100.2, sequence=2, busy=1.0, established=2**30),
    ],
    ids=["no time between", "no cores", "busy", "opened", "open"],
)
def test_what_no_machine_does_makes_no_window(second: Report) -> None:
    fleet = Fleet(2.0, 15.0)
    fleet.receive(changed(report(at=100.0, sequence=1, busy=1.0), cores=second.cpu.cores), 1000.0)
    refused = fleet.receive(second, 1000.2)
    assert isinstance(refused, Refused)
    assert refused.kind == "impossible"


def test_a_busy_machine_with_coarse_clocks_is_possible() -> None:
    """64 cores, a report a little late, 100,000 connections a second."""
    fleet = Fleet(2.0, 15.0)
    fleet.receive(report(at=100.0, sequence=1, cores=64), 1000.0)
    window = fleet.receive(report(at=100.2, sequence=2, busy=64 * 0.25, opened=20_000, cores=64), 1000.2)
    assert isinstance(window, Window)


def test_who_goes_on_saying_the_impossible_is_not_heard_for_a_while_and_then_is() -> None:
    fleet, kinds = Fleet(2.0, 15.0), []
    for k in range(STRIKES + 3):
        said = fleet.receive(report(at=100 + k, sequence=k + 1, opened=k * 10**12), 1000.0 + k)
        kinds.append(said.kind if isinstance(said, Refused) else None)
    assert kinds == [None, *["impossible"] * STRIKES, "quarantined", "quarantined"]
    later = QUARANTINE_SECONDS + STRIKES
    fleet.receive(report(at=100 + later, sequence=90, opened=10**13), 1000.0 + later)
    found = fleet.receive(report(at=100.2 + later, sequence=91, opened=10**13 + 5), 1000.2 + later)
    assert isinstance(found, Window)


def test_a_counter_that_jumps_once_costs_one_window() -> None:
    fleet = Fleet(2.0, 15.0)
    fleet.receive(report(at=100.0, sequence=1), 1000.0)
    assert isinstance(fleet.receive(report(at=100.2, sequence=2, busy=1e9), 1000.2), Refused)
    assert isinstance(fleet.receive(report(at=100.4, sequence=3, busy=1e9 + 0.1), 1000.4), Window)


def two_services() -> Controller:
    text = "".join(
        f'[[service]]\nvirtual = "tcp:10.0.0.{n}:80"\n'
        + "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in (1, 2))
        for n in (100, 101)
    )
    return Controller(parse(text, MasterConfig))


def turn(controller: Controller, table: Table, now: float, *, busy: tuple[float, float] = (0.2, 0.8)) -> Any:
    k = round(now * 5)
    for i, used in zip((1, 2), busy, strict=True):
        controller.receive_report(report(i, at=now, sequence=k, busy=used * now, opened=20 * k), now)
    controller.receive_kernel(table.snapshot(), now)
    decision = controller.decide(now)
    table.apply(decision.edits)
    return decision


@pytest.mark.parametrize("stage", ["_ask_law", "_bound", "_actuate", "_outcome", "look"])
def test_a_fault_in_one_services_decision_holds_that_service_and_no_other(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, table = two_services(), Table()
    for k in range(1, 20):
        turn(controller, table, k / 5)
    before = {key: {d: e.destination.weight for d, e in table.entries[key].items()} for key in table.entries}
    real = getattr(Pipeline, stage)

    def broken(self: Pipeline, *args: Any) -> Any:
        if self.service.key == OTHER:
            raise ZeroDivisionError("float division by zero")
        return real(self, *args)

    monkeypatch.setattr(Pipeline, stage, broken)
    for k in range(20, 60):
        decision = turn(controller, table, k / 5, busy=(0.8, 0.2))
    assert {d: e.destination.weight for d, e in table.entries[OTHER].items()} == before[OTHER]
    first = next(key for key in table.entries if key != OTHER)
    assert {d: e.destination.weight for d, e in table.entries[first].items()} != before[first]
    assert controller.faults[0].where == str(OTHER)
    assert "ZeroDivisionError" in controller.faults[0].text
    if stage != "look":
        assert "fault" in next(s.held for s in decision.services if s.service.key == OTHER)
    monkeypatch.setattr(Pipeline, stage, real)
    controller.foreign_edits.clear()
    turn(controller, table, 12.0)
    assert not controller.foreign_edits


def test_a_fault_in_one_report_forgets_what_was_learned_of_that_server_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller, table = Controller(config(2)), Table()
    for k in range(1, 30):
        turn(controller, table, k / 5)
    real = Capacity.observe

    def broken(self: Capacity, window: Window, page: bool = False) -> None:
        if window.busy > 0.9:
            raise OverflowError("too large")
        real(self, window, page)

    monkeypatch.setattr(Capacity, "observe", broken)
    turn(controller, table, 6.0, busy=(0.2, 0.81))
    assert [f.where for f in controller.faults] == [f"rs2 for {rip(2)}"]
    decision = turn(controller, table, 6.2)
    samples = [d.estimate.samples if d.estimate else 0 for d in decision.services[0].destinations]
    assert samples[0] > 5
    assert samples[1] == 0


def test_a_fault_in_one_of_many_reports_is_that_agents_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, real = Controller(config(3)), Fleet.receive

    def broken(self: Fleet, said: Report, now: float) -> Any:
        if said.agent == "rs2":
            raise OverflowError("too large")
        return real(self, said, now)

    monkeypatch.setattr(Fleet, "receive", broken)
    for k in (1, 2):
        came = [(report(i, at=k / 5, sequence=k, busy=k / 10, opened=20 * k), k / 5) for i in (1, 2, 3)]
        assert controller.receive_reports(came) == [None, None, None]
    assert [f.where for f in controller.faults] == ["rs2", "rs2"]
    assert [row.window is not None for pipeline in controller._pipelines.values() for row in pipeline.rows] == [
        True,
        False,
        True,
    ]


def test_reports_that_come_together_mean_what_they_mean_one_after_the_other() -> None:
    """Several of one agent among them, and such that are refused."""
    together, apart, draw = Controller(config(4)), Controller(config(4)), random.Random(1)
    refused = 0
    for turns in range(40):
        came = []
        for k in (1, 2):
            for i in (1, 2, 3, 4):
                at = turns + k / 2 - draw.choice((0.0, 0.0, 0.0, 0.7))
                busy = draw.choice((0.4, 0.4, 0.41, 50.0)) * at
                came.append(
                    (report(i, at=at, sequence=round(10 * at), busy=busy, opened=round(30 * i * at)), 1000 + at)
                )
        answers = together.receive_reports(came)
        assert [str(a) for a in answers] == [str(apart.receive_report(*one)) for one in came]
        refused += sum(a is not None for a in answers)
        decisions = [c.decide(1001.0 + turns) for c in (together, apart)]
        assert decisions[0].settings and decisions[0].settings == decisions[1].settings
        assert decisions[0].edits == decisions[1].edits
    assert 20 < refused < 300
