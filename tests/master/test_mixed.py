"""One service whose servers are known by an agent, an exporter's page, a weight in a check's answer, and by nothing."""

from __future__ import annotations

import pytest

from feedback.config import Exporter
from feedback.config.probe import Check
from feedback.master.claims.asking import Probe
from feedback.master.claims.health import Outcome
from feedback.master.servers.fleet import Source, Trust
from feedback.master.sources.reading import Unread
from feedback.model import Counters, DestinationEntry
from tests.master.builders import VIRTUAL
from tests.master.test_exporters import NODE, Bench

HEADER = '[service.check]\ntype = "http"\nweight_header = "W"\n'
AGENT, PAGE, WEIGHED, NOTHING = range(4)


class Mixed(Bench):
    """The servers complete 50, 100, 200 and 400 a second; the third says weight 7. Of each 50 connections are open, by
    the director's count, and stay so many seconds."""

    def __init__(self, law: str = "capacity") -> None:
        super().__init__(HEADER + NODE, {AGENT}, {PAGE}, keys=f'passive = true\nlaw = "{law}"\n')
        self.says: dict[int, float] = {WEIGHED: 7.0}
        self.stays, self.came, self.shown = [1.0] * 4, [0.0] * 4, [0] * 4

    def answer(self, probe: Probe) -> None:
        if isinstance(probe.what, Check):
            index = int(str(probe.target.address).rsplit(".", 1)[1]) - 11
            self.controller.receive_probe(probe, Outcome(True, "", weight=self.says.get(index)), self.now)
        else:
            super().answer(probe)

    def run(self, seconds: float, load: float = 0.5) -> list[int]:
        for _ in range(round(seconds / 0.2)):
            super().run(0.2, load)
            entries = self.table.entries[VIRTUAL]
            for i, (key, entry) in enumerate(entries.items()):
                self.came[i] += 0.2 * 50 / self.stays[i]
                if round(self.now * 5) % 10 == 0:
                    self.shown[i] = int(self.came[i])
                entries[key] = DestinationEntry(entry.destination, 50, 0, 0, Counters(connections=self.shown[i]))
        return self.table.weights()

    def sources(self) -> list[Source | None]:
        return [status.source for status in self.statuses()]


def test_each_is_known_by_the_best_that_it_has() -> None:
    bench = Mixed()
    bench.run(40)
    assert bench.sources() == [Source.AGENT, Source.EXPORTER, Source.HEADER, Source.DIRECTOR]
    assert {status.trust for status in bench.statuses()} == {Trust.FRESH}
    shares = [status.share for status in bench.statuses()]
    assert shares == pytest.approx([0.2, 0.4, 0.2, 0.2], rel=0.05)  # the last two: as the smaller of two measured ones
    said = ["; ".join(reason.text for reason in status.reasons) for status in bench.statuses()]
    assert "capacity" in said[AGENT] and "capacity" in said[PAGE]
    assert "says weight 7 in answer to its check" in said[WEIGHED]
    assert "connections stay 1 s by the director's counts" in said[NOTHING]


def test_what_the_director_sees_of_one_that_queues_takes_from_it_alone() -> None:
    bench = Mixed()
    bench.run(40)
    bench.stays[NOTHING] = 2.0
    bench.run(10)
    shares = [status.share for status in bench.statuses()]
    assert shares[NOTHING] < 0.15
    assert [share / shares[AGENT] for share in shares[:NOTHING]] == pytest.approx([1.0, 2.0, 1.0], rel=0.05)


def test_whoever_falls_silent_is_held_or_falls_back_to_the_next_source() -> None:
    bench = Mixed()
    bench.run(40)
    before = [status.share for status in bench.statuses()]
    bench.agents, bench.pages = set(), {AGENT, PAGE}  # the agent's server has an exporter as well
    bench.run(30)
    assert bench.sources()[AGENT] is Source.EXPORTER
    bench.pages = {AGENT}
    bench.run(40)
    assert bench.statuses()[PAGE].trust is Trust.LOST
    assert bench.statuses()[PAGE].share == pytest.approx(before[PAGE], rel=0.2)
    assert min(bench.table.weights()) > 0


@pytest.mark.parametrize("law", ["static", "linear", "pid", "orca", "cuberoot", "proportions", "topsis"])
def test_every_law_takes_such_a_pool_and_weight_0(law: str) -> None:
    bench = Mixed(law)
    bench.run(30)
    assert min(bench.table.weights()) > 0
    bench.says[WEIGHED] = 0.0
    assert bench.run(5)[WEIGHED] == 0
    assert min(w for i, w in enumerate(bench.table.weights()) if i != WEIGHED) > 0


def test_a_page_that_cannot_be_read_is_said_beside_the_source_that_counts() -> None:
    bench = Mixed()
    bench.run(20)
    status = bench.statuses()[NOTHING]
    assert (status.source, str(status.unread)) == (Source.DIRECTOR, str(Unread("connection refused")))
    assert any(isinstance(probe.what, Exporter) for probe in bench.asked)
