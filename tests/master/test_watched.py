"""Checks and agent-check agents in the pipeline: neither masks the other, and our own fault empties no pool."""

from __future__ import annotations

import msgspec

from feedback.config import MasterConfig, parse
from feedback.config.probe import Check
from feedback.master.claims.health import Outcome
from feedback.master.controller import Controller
from feedback.model import Destination, SetDestination
from tests.master.builders import VIRTUAL, Table, config, report, rip

GOOD, BAD = Outcome(True, "status 200"), Outcome(False, "connection refused")


class Site:
    """A controller and a table at 5 turns a second, servers that report or not, and answers to what is probed."""

    def __init__(self, servers: int = 3, asks: str = "[service.check]\nrise = 1\nfall = 1\n", guards: str = "") -> None:
        self.controller, self.table = Controller(config(servers, guards=asks + guards)), Table()
        self.now, self.servers = 0.0, servers
        self.answers: dict[int, Outcome | bytes | None] = {}
        self.reporting: set[int] = set()

    def run(self, seconds: float) -> list[int]:
        """The weights after so long."""
        for _ in range(round(seconds * 5)):
            self.now = round(self.now + 0.2, 1)
            for i in self.reporting:
                given = report(
                    i, at=self.now, sequence=round(self.now * 5), busy=self.now / 2, opened=round(self.now * 50)
                )
                self.controller.receive_report(given, self.now)
            for probe in self.controller.probes(self.now):
                i = next(i for i in range(1, self.servers + 1) if rip(i).address == probe.target.address)
                self.controller.receive_probe(probe, self.answers.get(i), self.now)
            self.controller.receive_kernel(self.table.snapshot(), self.now)
            self.table.apply(self.controller.decide(self.now).edits)
        return self.table.weights()

    def reasons(self, i: int) -> str:
        decision = self.controller.decide(self.now)
        return "; ".join(r.text for s in decision.settings if s.destination == rip(i) for r in s.reasons)


def test_a_healthy_agent_does_not_mask_a_dead_service_nor_the_other_way_round() -> None:
    site = Site()
    site.reporting, site.answers = {1, 2, 3}, {1: GOOD, 2: GOOD, 3: GOOD}
    assert all(site.run(10))
    site.answers[2] = BAD
    weights = site.run(5)
    assert weights[1] == 0 and weights[0] > 0 < weights[2]
    assert "check fails: connection refused" in site.reasons(2)
    site.answers[2] = GOOD  # and now its agent dies: a service that answers does not make it fresh
    site.reporting = {1, 3}
    site.run(20)
    assert "slow start" in site.reasons(2) or "last report" in site.reasons(2)


def test_a_server_that_passes_again_comes_back_slowly() -> None:
    site = Site()
    site.reporting, site.answers = {1, 2, 3}, {1: GOOD, 2: BAD, 3: GOOD}
    assert site.run(10)[1] == 0
    site.answers[2] = GOOD
    early = site.run(3)
    assert 0 < early[1] < 0.6 * early[0]
    late = site.run(20)
    assert late[1] > 0.8 * late[0]


def test_without_any_agent_checks_work_all_the_same() -> None:
    site = Site()
    site.answers = {1: GOOD, 2: BAD, 3: GOOD}
    assert site.run(5) == [100, 0, 100]
    site.answers[2] = GOOD
    assert site.run(5) == [100, 100, 100]


def test_where_all_fail_the_fault_may_be_ours_and_nobody_is_taken_out() -> None:
    site = Site()
    site.answers = {1: GOOD, 2: GOOD, 3: GOOD}
    site.run(5)
    site.answers = {1: BAD, 2: BAD, 3: BAD}
    assert site.run(10) == [100, 100, 100]
    site.answers[3] = GOOD
    assert site.run(5) == [0, 0, 100]


def test_a_zero_of_the_operator_is_not_raised_by_a_check_that_passes() -> None:
    site = Site()
    site.answers = {1: GOOD, 2: GOOD, 3: GOOD}
    site.run(5)
    site.table.apply([SetDestination(VIRTUAL, Destination(rip(2), weight=0))])
    assert site.run(5) == [100, 0, 100]
    site.answers[2] = BAD
    site.run(5)
    site.answers[2] = GOOD
    assert site.run(5) == [100, 0, 100]


def test_a_restarted_master_keeps_out_who_failed_until_it_passes() -> None:
    site = Site()
    site.answers = {1: GOOD, 2: BAD, 3: GOOD}
    site.run(5)
    state, table = site.controller.state(), site.table
    again = Site()
    again.table = table
    again.controller.restore(state)
    assert again.run(0.2) == [100, 0, 100]
    again.answers = {1: GOOD, 2: BAD, 3: GOOD}
    assert again.run(5) == [100, 0, 100]
    again.answers[2] = GOOD
    assert again.run(5) == [100, 100, 100]


AGENTS = "[service.agent_check]\ninterval_seconds = 1.0\n"


def test_weights_follow_agent_check_agents_as_haproxys_do() -> None:
    site = Site(asks=AGENTS)
    site.answers = {1: b"up ready 100%\n", 2: b"50%\n", 3: b"25%\n"}
    weights = site.run(20)
    assert [round(w / weights[0], 1) for w in weights] == [1.0, 0.5, 0.2]
    site.answers[3] = b"drain\n"
    assert site.run(5)[2] == 0
    assert "its agent says drain" in site.reasons(3)
    site.answers[3] = b"ready 100%\n"
    weights = site.run(30)
    assert weights[2] > 0.9 * weights[0]


def test_an_agent_that_cannot_be_reached_is_stale_and_not_down() -> None:
    site = Site(asks=AGENTS)
    site.answers = {1: b"100%\n", 2: b"50%\n", 3: b"100%\n"}
    before = site.run(20)
    site.answers[2] = None
    assert site.run(10) == before  # stale: not raised, not lowered
    assert "last report" in site.reasons(2)
    site.answers = {}
    assert site.run(60) == before  # lost, all of them: held
    assert all(site.table.weights())


def test_a_zero_of_a_failing_check_is_ours_also_where_the_state_is_lost() -> None:
    site = Site()
    site.answers = {1: GOOD, 2: BAD, 3: GOOD}
    assert site.run(3) == [100, 0, 100]
    site.controller = Controller(config(3, guards="[service.check]\nrise = 1\nfall = 1\n"))
    assert site.run(3) == [100, 0, 100]
    site.answers[2] = GOOD
    assert site.run(3) == [100, 100, 100]


def test_somebodys_zero_stays_where_the_state_is_lost() -> None:
    site = Site()
    site.answers = {1: GOOD, 2: GOOD, 3: GOOD}
    assert site.run(3) == [100, 100, 100]
    site.table.put(rip(2), 0)
    site.controller = Controller(config(3, guards="[service.check]\nrise = 1\nfall = 1\n"))
    assert site.run(20) == [100, 0, 100]


def test_a_weight_that_changes_while_its_check_fails_is_the_files_when_it_passes() -> None:
    """10 -> 5 while the check failed came back as 1, and a check taken out while it failed left a zero for good."""
    site = Site()
    site.answers = {1: GOOD, 2: BAD, 3: GOOD}
    site.run(3)
    other = config(3, guards="[service.check]\nrise = 1\nfall = 1\n")
    service = other.service[0]
    second = msgspec.structs.replace(service.destination[1], weight=5)
    destinations = (service.destination[0], second, service.destination[2])
    changed = msgspec.structs.replace(service, destination=destinations)
    site.controller.reconfigure(msgspec.structs.replace(other, service=(changed,)))
    assert site.run(3) == [100, 0, 100]
    site.controller.reconfigure(msgspec.structs.replace(other, service=(msgspec.structs.replace(changed, check=None),)))
    assert site.run(3) == [100, 5, 100]


SHARED = """
[check.alive]
port = 8080
rise = 1
fall = 1
{}
[[service]]
virtual = "tcp:10.0.0.100:80"
check = "alive"
[[service.destination]]
address = "10.0.0.11"
[[service.destination]]
address = "10.0.0.12"
[[service]]
virtual = "udp:10.0.0.100:53"
check = "alive"
[[service.destination]]
address = "10.0.0.11"
[[service.destination]]
address = "10.0.0.12"
"""


def down(controller: Controller, now: float) -> list[str]:
    return [
        f"{service.service.key.port} {d.key.address}"
        for service in controller.decide(now).services
        for d in service.destinations
        if d.checked is not None and d.checked.up is False
    ]


def test_one_probe_of_a_shared_check_counts_for_every_service_that_names_it_and_outlives_a_reload() -> None:
    controller = Controller(parse(SHARED.format(""), MasterConfig))
    controller.probes(0.0)
    probes = controller.probes(1.0)
    assert sorted(str(p.target) for p in probes) == ["10.0.0.11:8080", "10.0.0.12:8080"]
    for probe in probes:
        controller.receive_probe(probe, BAD if str(probe.target).startswith("10.0.0.12") else GOOD, 1.1)
    assert down(controller, 1.2) == ["80 10.0.0.12", "53 10.0.0.12"]
    moved = SHARED.format("").replace("udp:10.0.0.100:53", "udp:10.0.0.100:5353")
    controller.reconfigure(parse(moved, MasterConfig))
    controller.probes(1.3)
    assert down(controller, 1.4) == ["80 10.0.0.12", "5353 10.0.0.12"]


def test_a_shared_check_that_changes_at_a_reload_changes_for_all_that_name_it() -> None:
    controller = Controller(parse(SHARED.format(""), MasterConfig))
    controller.probes(0.0)
    for probe in controller.probes(1.0):
        controller.receive_probe(probe, BAD, 1.1)
    controller.reconfigure(parse(SHARED.format('type = "http"'), MasterConfig))
    controller.probes(2.0)
    probes = controller.probes(3.0)
    assert [p.what.type for p in probes if isinstance(p.what, Check)] == ["http", "http"]
    assert down(controller, 3.1) == []


def test_a_destination_is_asked_at_its_check_port_by_its_check_and_by_no_agent_check() -> None:
    text = SHARED.format("").replace('address = "10.0.0.11"', 'address = "10.0.0.11"\ncheck_port = 9000', 1)
    text = text.replace('check = "alive"', 'check = "alive"\nagent_check = { port = 3333 }', 1)
    controller = Controller(parse(text, MasterConfig))
    controller.probes(0.0)
    targets = sorted(str(p.target) for p in controller.probes(1.0) if isinstance(p.what, Check))
    assert targets == ["10.0.0.11:8080", "10.0.0.11:9000", "10.0.0.12:8080"]  # the other service asks at 8080
    agents = sorted(str(p.target) for p in controller.probes(2.0) if not isinstance(p.what, Check))
    assert all(target.endswith(":3333") for target in agents)
    bare = text.replace("check_port = 9000", "check_port = 9001")
    controller.reconfigure(parse(bare, MasterConfig))
    controller.probes(3.0)
    assert "10.0.0.11:9001" in [str(p.target) for p in controller.probes(4.0)]


def test_a_verdict_that_changes_asks_for_a_decision_at_once() -> None:
    controller = Controller(config(2, guards="[service.check]\nrise = 1\nfall = 2\n"))
    controller.probes(0.0)
    first, second = controller.probes(1.0)
    for probe, outcome, now, at_once in (
        (first, GOOD, 1.1, True),
        (second, GOOD, 1.2, True),
        (first, BAD, 1.3, False),
        (first, BAD, 1.4, True),
        (first, BAD, 1.5, False),
    ):
        controller.decide(now)
        controller.receive_probe(probe, outcome, now)
        assert (controller.next_timer() <= now) is at_once
