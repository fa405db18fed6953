"""Exporters in the whole pipeline on a fake clock: pages in, weights out, beside agents and instead of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from feedback.config import ConfigError, Exporter, MasterConfig, parse
from feedback.master import Controller
from feedback.master.claims.asking import Probe
from feedback.master.outcome import Status
from feedback.master.servers.fleet import Source, Trust
from feedback.master.shell.status import of_decision
from feedback.master.sources.reading import Reader, Unread
from tests.master.builders import Table, report, rip

SPEEDS = [50.0, 100.0, 200.0, 400.0]
NODE = '[service.exporter]\nkind = "node"\n'


def page(busy: float, opened: float, at: float) -> bytes:
    """Of node_exporter, on a server with one processor."""
    return (
        f'node_cpu_seconds_total{{cpu="0",mode="user"}} {busy:.2f}\n'
        f'node_cpu_seconds_total{{cpu="0",mode="idle"}} {at - busy:.2f}\n'
        f"node_netstat_Tcp_PassiveOpens {opened:.0f}\nnode_netstat_Tcp_CurrEstab 0\n"
        f"node_time_seconds {at + 5e8}\nnode_boot_time_seconds 1\n"
    ).encode()


class Bench:
    """A controller, a table, and servers that complete so many connections a second at `load`. `agents` and `pages`
    say who tells."""

    def __init__(self, text: str, agents: set[int], pages: set[int], servers: int = 4, keys: str = "") -> None:
        destinations = "".join(
            f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in range(1, servers + 1)
        )
        head = f'[[service]]\nvirtual = "tcp:10.0.0.100:80"\n{keys}'
        self.config = parse(head + destinations + text, MasterConfig)
        self.controller, self.table = Controller(self.config), Table()
        self.agents, self.pages = agents, pages
        self.now, self.sequence = 1000.0, 0
        self.busy, self.opened = [0.0] * servers, [0.0] * servers
        self.readers: dict[Any, Reader] = {}
        self.asked: list[Probe] = []
        self.lie = 1.0  # what pages multiply completions by

    def run(self, seconds: float, load: float = 0.5) -> list[int]:
        for _ in range(round(seconds / 0.2)):
            self.now += 0.2
            self.sequence += 1
            for i, speed in enumerate(SPEEDS[: len(self.busy)]):
                self.busy[i] += 0.2 * load
                self.opened[i] += 0.2 * load * speed
                if i in self.agents:
                    said = report(
                        i + 1, at=self.now, sequence=self.sequence, busy=self.busy[i], opened=int(self.opened[i])
                    )
                    assert self.controller.receive_report(said, self.now) is None
            for probe in self.controller.probes(self.now):
                self.answer(probe)
            self.controller.receive_kernel(self.table.snapshot(), self.now)
            self.decision = self.controller.decide(self.now)
            self.table.apply(self.decision.edits)
        assert not self.controller.faults
        return self.table.weights()

    def answer(self, probe: Probe) -> None:
        assert isinstance(probe.what, Exporter)
        self.asked.append(probe)
        index = next(i for i in range(len(self.busy)) if rip(i + 1).address == probe.target.address)
        made: Any = Unread("connection refused")
        if index in self.pages:
            reader = self.readers.setdefault((probe.what, probe.target), Reader(probe.what, probe.target.address))
            made = reader.read(page(self.busy[index], self.lie * self.opened[index], self.now), self.now)
        self.controller.receive_probe(probe, made, self.now + 0.01)

    def statuses(self) -> list[Status]:
        return list(self.decision.services[0].destinations)

    def ratios(self) -> list[float]:
        weights = self.table.weights()
        return [w / max(weights) for w in weights]


TRUE = pytest.approx([0.125, 0.25, 0.5, 1.0], rel=0.15)


@pytest.mark.parametrize("agents", [set(), {0, 2}, {3}])
def test_weights_come_to_what_servers_complete_whoever_tells(agents: set[int]) -> None:
    bench = Bench(NODE, agents, {0, 1, 2, 3} - agents)
    bench.run(20)
    assert bench.ratios() == TRUE
    sources = [status.source for status in bench.statuses()]
    assert sources == [Source.AGENT if i in agents else Source.EXPORTER for i in range(4)]
    told = of_decision(bench.decision)["services"][0]["destinations"]
    assert [d["source"] for d in told] == [str(source) for source in sources]


def test_each_is_asked_once_a_second_at_most() -> None:
    bench = Bench(NODE, set(), {0, 1, 2, 3})
    bench.run(30)
    for i in range(1, 5):
        asked = [probe for probe in bench.asked if probe.target.address == rip(i).address]
        assert 28 <= len(asked) <= 30


def test_an_agents_word_comes_before_a_page_until_it_is_lost() -> None:
    bench = Bench(NODE, {0, 1, 2, 3}, {0, 1, 2, 3})
    bench.lie = 0.1
    bench.run(20)
    assert bench.ratios() == TRUE
    bench.lie = 1.0
    bench.agents = {1, 2, 3}
    bench.run(14)
    assert bench.statuses()[0].source is Source.AGENT and bench.statuses()[0].trust is Trust.STALE
    bench.run(10)
    assert bench.statuses()[0].source is Source.EXPORTER and bench.statuses()[0].trust is Trust.FRESH
    bench.agents = {0, 1, 2, 3}
    bench.run(1)
    assert bench.statuses()[0].source is Source.AGENT
    assert bench.ratios() == TRUE


@pytest.mark.parametrize("policy", ["hold", "static", "quiesce"])
def test_a_silent_exporter_is_stale_then_lost_and_never_down(policy: str) -> None:
    bench = Bench(NODE + f'[guards]\nlost_policy = "{policy}"\npanic = 0.9\n', set(), {0, 1, 2, 3})
    bench.run(20)
    bench.pages = {1, 2, 3}
    bench.run(5)
    assert bench.statuses()[0].trust is Trust.STALE
    bench.run(60)
    status = bench.statuses()[0]
    assert status.trust is Trust.LOST and status.out is None
    assert min(bench.table.weights()) > 0
    assert str(status.unread) == "connection refused"


def test_when_all_pages_stop_at_once_everything_is_held() -> None:
    bench = Bench(NODE, set(), {0, 1, 2, 3})
    before = bench.run(20)
    bench.pages = set()
    assert bench.run(30) == before
    assert "fell silent" in bench.decision.services[0].held


def test_pages_that_were_never_read_leave_the_files_weights() -> None:
    bench = Bench(NODE, set(), set())
    assert bench.run(30) == [100] * 4


def test_services_that_name_one_exporter_ask_once_and_all_learn() -> None:
    text = 'exporter = "shared"\n[[service.destination]]\naddress = "{a}"\n[[service.destination]]\naddress = "{b}"\n'
    text = text.format(a=rip(1).address, b=rip(2).address)
    whole = "".join(f'[[service]]\nvirtual = "tcp:10.0.0.100:{port}"\n{text}' for port in (80, 81))
    config = parse(whole + '[exporter.shared]\nkind = "node"\n', MasterConfig)
    bench = Bench("", set(), {0, 1}, servers=2)
    bench.config, bench.controller = config, Controller(config)
    bench.run(20)
    assert len(bench.asked) <= 40
    for service in bench.decision.services:
        assert [d.source for d in service.destinations] == [Source.EXPORTER] * 2
        small, large = (d.weight for d in service.destinations)
        assert small / large == pytest.approx(0.5, rel=0.15)


def test_services_with_exporters_of_their_own_learn_from_these_alone() -> None:
    """On one server: one service's page lies, the other's does not."""
    rows = "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in (1, 2))
    text = f'[[service]]\nvirtual = "tcp:10.0.0.100:80"\n{rows}{NODE}'
    text += f'[[service]]\nvirtual = "tcp:10.0.0.100:81"\n{rows}[service.exporter]\nport = 9101\n'
    bench = Bench("", set(), {0, 1}, servers=2)
    bench.controller = Controller(parse(text, MasterConfig))
    true = bench.answer

    def answer(probe: Probe) -> None:
        bench.lie = 3.0 if probe.target.port == 9101 and probe.target.address == rip(1).address else 1.0
        true(probe)

    bench.answer = answer  # type: ignore[method-assign]
    bench.run(20)
    ratios = [s.destinations[0].weight / s.destinations[1].weight for s in bench.decision.services]
    assert ratios == [pytest.approx(0.5, rel=0.15), pytest.approx(1.5, rel=0.15)]


def test_a_reload_that_changes_the_exporter_asks_the_new_one_and_keeps_what_was_learned() -> None:
    bench = Bench(NODE, set(), {0, 1, 2, 3})
    bench.run(20)
    service = msgspec.structs.replace(bench.config.service[0], exporter=Exporter(port=9999))
    bench.controller.reconfigure(msgspec.structs.replace(bench.config, service=(service,)))
    bench.asked.clear()
    bench.run(3)
    assert {probe.target.port for probe in bench.asked} == {9999}
    assert bench.ratios() == TRUE


def test_a_page_that_says_the_impossible_is_refused_with_a_reason() -> None:
    bench = Bench(NODE, set(), {0, 1, 2, 3})
    bench.run(5)
    probe = bench.asked[-1]
    after = bench.readers[probe.what, probe.target].read(page(5000, 0, bench.now + 1), bench.now + 1)
    assert "s of CPU used in 1 s on 1 cores" in bench.controller.receive_probe(probe, after, bench.now + 1)


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"service\[0\].exporter: 'x': no such \[exporter.NAME\]: there is none"):
        parse('[[service]]\nvirtual = "tcp:10.0.0.100:80"\nexporter = "x"\n', MasterConfig)
    with pytest.raises(ConfigError, match=r"exporter.x.port: custom needs one"):
        parse('[[service]]\nvirtual = "tcp:10.0.0.1:80"\n[exporter.x]\nkind = "custom"\n', MasterConfig)


def test_a_neighbour_that_takes_all_idle_cpu_does_not_take_the_share_with_it() -> None:
    """It has half of the largest server from then on, and the service half: for a minute that looks the same."""
    bench = Bench(NODE, set(), {0, 1, 2, 3})
    bench.run(30)
    speeds = list(SPEEDS)
    for _ in range(300):
        share = bench.statuses()[3].share
        bench.busy[3] += 0.2 * 0.5  # beside what `run` adds: all of it is in use
        bench.opened[3] -= 0.2 * 0.5 * speeds[3] * (1 - min(1.0, share / 0.53))
        bench.run(0.2)
    assert bench.statuses()[3].share == pytest.approx(200 / 550, rel=0.2)
