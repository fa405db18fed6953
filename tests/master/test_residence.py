"""How long connections stay by the director's counts, and what becomes of weights where nobody tells anything."""

from __future__ import annotations

from math import exp
from random import Random
from typing import Any

import pytest

from feedback.config import MasterConfig, parse
from feedback.master import Controller
from feedback.master.outcome import Status
from feedback.master.servers.fleet import Source, Trust
from feedback.master.servers.residence import Residence, judge
from feedback.model import Counters, DestinationEntry, Snapshot
from tests.master.builders import VIRTUAL, Table, report, rip

LOOK, REFRESH = 0.2, 2.0


class Plant:
    """Servers behind `sed`, in mean values: connections are kept for `keep` seconds after their answer, and a server
    that gets more than `capacity` a second queues. `pace`: seconds that every answer takes there besides."""

    def __init__(self, capacity: list[float], keep: float, pace: list[float] | None = None, flow: float = 0.0) -> None:
        self.capacity, self.keep = capacity, keep
        self.pace = pace or [0.005] * len(capacity)
        self.flow = flow or 0.6 * sum(capacity)
        self.queue, self.kept = [0.0] * len(capacity), [0.0] * len(capacity)
        self.opened = [0.0] * len(capacity)
        self.noise = Random(1)

    @property
    def active(self) -> list[float]:
        return [q + k for q, k in zip(self.queue, self.kept, strict=True)]

    def run(self, weights: list[float], seconds: float = LOOK) -> None:
        for _ in range(round(seconds / 0.02)):
            for _ in range(max(0, round(self.noise.gauss(self.flow * 0.02, (self.flow * 0.02) ** 0.5)))):
                prices = [(a + 1) / w if w else float("inf") for a, w in zip(self.active, weights, strict=True)]
                least = prices.index(min(prices))
                self.queue[least] += 1
                self.opened[least] += 1
            for i, most in enumerate(self.capacity):
                done = min(most * 0.02, self.queue[i] * 0.02 / self.pace[i], self.queue[i])
                left = min(self.kept[i], self.kept[i] * 0.02 / self.keep) if self.keep else self.kept[i] + done
                self.queue[i] -= done
                self.kept[i] = max(0.0, self.kept[i] + done - left)


class Bench:
    """A controller that sees the plant and writes its weights. `told` maps a server to what its agent says it can."""

    def __init__(
        self,
        plant: Plant,
        keys: str = "passive = true\n",
        told: dict[int, float] | None = None,
        weights: list[int] | None = None,
    ) -> None:
        rows = "".join(
            f'[[service.destination]]\naddress = "{rip(i + 1).address}"\nweight = {(weights or [100] * 99)[i]}\n'
            for i in range(len(plant.capacity))
        )
        text = f'[[service]]\nvirtual = "tcp:10.0.0.100:80"\n{keys}{rows}'
        self.controller, self.table, self.plant, self.told = Controller(parse(text, MasterConfig)), Table(), plant, told
        self.now, self.shown, self.sequence = 1000.0, [0] * len(plant.capacity), 0
        self.busy = [0.0] * len(plant.capacity)

    def run(self, seconds: float) -> list[int]:
        for _ in range(round(seconds / LOOK)):
            self.now += LOOK
            if self.table.entries:
                self.plant.run([float(w) for w in self.table.weights()])
            if round(self.now / LOOK) % round(REFRESH / LOOK) == 0:
                self.shown = [int(n) for n in self.plant.opened]
            self._report()
            self.controller.receive_kernel(self._snapshot(), self.now)
            self.decision = self.controller.decide(self.now)
            self.table.apply(self.decision.edits)
        assert not self.controller.faults
        return self.table.weights()

    def _report(self) -> None:
        self.sequence += 1
        for i in self.told or {}:
            rate = self.plant.flow / len(self.plant.capacity)
            self.busy[i] += LOOK * rate / self.told[i]  # type: ignore[index]
            opened = round(rate * LOOK * self.sequence)
            said = report(i + 1, at=self.now, sequence=self.sequence, busy=self.busy[i], opened=opened)
            assert self.controller.receive_report(said, self.now) is None

    def _snapshot(self) -> Snapshot:
        if VIRTUAL not in self.table.entries:
            return self.table.snapshot()
        entries = self.table.entries[VIRTUAL]
        for i, (key, entry) in enumerate(entries.items()):
            counters = Counters(connections=self.shown[i])
            entries[key] = DestinationEntry(entry.destination, round(self.plant.active[i]), 0, 0, counters)
        return self.table.snapshot()

    def statuses(self) -> list[Status]:
        return list(self.decision.services[0].destinations)


def looked(active: Any, rate: float, seconds: float) -> Residence:
    """Of one whose open connections are `active(at)`, at so many new ones a second."""
    of = Residence()
    for k in range(round(seconds / LOOK)):
        at = k * LOOK
        of.look(active(at), int(rate * (at // REFRESH) * REFRESH), at)
    return of


def test_connections_stay_as_long_as_the_open_ones_over_those_that_come() -> None:
    assert exp(looked(lambda at: 60, 30.0, 20).filter.level) == pytest.approx(2.0, rel=0.02)


def test_a_number_that_grows_does_not_look_like_a_longer_stay() -> None:
    """100 a second come and 90 end, each after 0.5 s."""
    assert exp(looked(lambda at: 50 + round(10 * at), 100.0, 12).filter.level) == pytest.approx(1.1, rel=0.15)


def test_the_first_count_of_a_new_service_is_a_sample() -> None:
    of = Residence()
    for k in range(11):
        of.look(0, 0, k * LOOK)
    for k in range(11, 20):
        of.look(50, 0, k * LOOK)
    assert of.look(50, 100, 20 * LOOK)  # 50 of 100 have ended, and half of those still there count
    assert exp(of.filter.level) == pytest.approx(50 * 1.9 / 75, rel=0.1)


def test_few_connections_are_waited_for() -> None:
    assert looked(lambda at: 1, 1.0, 8).filter.samples == 0
    assert looked(lambda at: 1, 1.0, 40).filter.samples >= 2


def test_a_kernel_that_counts_anew_makes_no_sample() -> None:
    of = Residence()
    for at, connections in ((0.0, 1000), (2.0, 1100), (4.0, 5), (6.0, 105), (8.0, 205), (10.0, 305)):
        of.look(50, connections, at)
    assert exp(of.filter.level) == pytest.approx(1.0, rel=0.05)


def test_servers_that_queue_get_what_they_complete() -> None:
    bench = Bench(Plant([20.0, 40.0, 80.0, 160.0], keep=1.0, flow=150.0))
    bench.run(60)
    waits = [q / c for q, c in zip(bench.plant.queue, bench.plant.capacity, strict=True)]
    assert max(waits) < 0.25
    static = Plant([20.0, 40.0, 80.0, 160.0], keep=1.0, flow=150.0)
    static.run([100.0] * 4, 60)
    assert max(q / c for q, c in zip(static.queue, static.capacity, strict=True)) > 1.0
    assert {status.source for status in bench.statuses()} == {Source.DIRECTOR}
    assert any("times as long as they should" in reason.text for reason in bench.statuses()[0].reasons)


def test_a_server_that_becomes_slower_is_spared_and_comes_back() -> None:
    plant = Plant([60.0] * 4, keep=1.0, flow=150.0)
    bench = Bench(plant)
    bench.run(30)
    before = [status.share for status in bench.statuses()]
    assert before == pytest.approx([0.25] * 4, rel=0.2)
    plant.capacity[0] = 20.0
    bench.run(30)
    assert bench.statuses()[0].share < 0.18
    assert plant.queue[0] / plant.capacity[0] < 0.5
    plant.capacity[0] = 60.0
    bench.run(240)
    assert bench.statuses()[0].share == pytest.approx(0.25, rel=0.25)


def test_a_pace_that_does_not_answer_to_the_weight_is_the_servers_own() -> None:
    bench = Bench(Plant([4000.0] * 4, keep=0.0, pace=[0.2, 0.2, 0.2, 0.8], flow=300.0))
    bench.run(30)
    assert bench.statuses()[3].share < 0.2  # it was tried
    bench.run(210)
    assert bench.statuses()[3].share > 0.15


@pytest.mark.parametrize("seconds", [20.0, 300.0])
def test_where_connections_last_the_static_weights_hold_and_it_is_said(seconds: float) -> None:
    plant = Plant([20.0, 40.0, 80.0, 160.0], keep=seconds, flow=30.0)
    plant.kept = [30.0 * seconds / 4] * 4
    bench = Bench(plant)
    bench.run(60)
    weights = bench.table.weights()
    assert max(weights) <= 1.06 * min(weights)
    assert any("tells nothing of its load: static weight" in r.text for r in bench.statuses()[0].reasons)


def test_without_the_key_the_files_weights_hold() -> None:
    bench = Bench(Plant([20.0, 40.0, 80.0, 160.0], keep=1.0, flow=150.0), keys="")
    assert bench.run(30) == [100] * 4
    assert {status.trust for status in bench.statuses()} == {Trust.NEVER}


def test_nobody_comes_and_nothing_changes() -> None:
    bench = Bench(Plant([20.0] * 4, keep=1.0, flow=1e-9))
    weights = bench.run(60)
    assert max(weights) == min(weights) > 0


def test_beside_agents_the_others_are_known_by_the_director() -> None:
    """Servers 3 and 4 have no agent, and the last one is slow."""
    bench = Bench(Plant([80.0, 80.0, 80.0, 20.0], keep=1.0, flow=150.0), told={0: 80.0, 1: 80.0})
    bench.run(80)
    sources = [status.source for status in bench.statuses()]
    assert sources == [Source.AGENT, Source.AGENT, Source.DIRECTOR, Source.DIRECTOR]
    shares = [status.share for status in bench.statuses()]
    assert shares[0] == pytest.approx(shares[1], rel=0.1)
    assert shares[2] == pytest.approx(shares[0], rel=0.3)
    assert shares[3] < 0.6 * shares[2]


def test_static_weights_of_any_size_go_beside_agents() -> None:
    """What is typed in counts where nobody is measured; here the others are as the measured ones, and stay so."""
    bench = Bench(Plant([80.0] * 4, keep=1.0, flow=150.0), told={0: 80.0, 1: 80.0}, weights=[100, 100, 300, 20])
    bench.run(80)
    shares = [status.share for status in bench.statuses()]
    assert max(shares[2:]) < 1.35 * min(shares[2:])


def test_udp_is_not_known_by_flows_that_are_never_open() -> None:
    text = (
        '[[service]]\nvirtual = "udp:10.0.0.100:53"\npassive = true\n[[service.destination]]\naddress = "10.0.0.11"\n'
    )
    controller, table = Controller(parse(text, MasterConfig)), Table()
    for k in range(50):
        controller.receive_kernel(table.snapshot(), k / 5)
        table.apply(controller.decide(k / 5).edits)
    assert controller.decide(10.1).services[0].destinations[0].source is None


def test_no_counts_make_a_factor_that_is_no_number() -> None:
    random = Random(3)
    all_ = [Residence() for _ in range(4)]
    connections = [0] * 4
    for k in range(3000):
        fresh = []
        for i, of in enumerate(all_):
            if random.random() < 0.1:
                connections[i] = random.choice((connections[i] + random.randrange(10**6), 0, 2**62, connections[i] + 1))
            if of.look(random.choice((0, 1, 50, 2**31)), connections[i], k * random.choice((0.2, 0.2, 5.0))):
                fresh.append(of)
        if fresh:
            judge(dict.fromkeys(all_, 0.25), fresh)
        assert all(1 / 17 < exp(of.factor) < 17 for of in all_)


def lasting(of: Residence, answers: list[float], at: float = 0.0) -> float:
    """Connections stay 60 s, and a check each 2 s is answered in these seconds. Returns the end."""
    for seconds in answers:
        at += 2.0
        of.answer(seconds, at)
        if of.look(600, int(10 * at), at):
            judge({of: 1.0}, [of])
    return at


def test_where_connections_last_the_answers_to_checks_tell() -> None:
    random, of = Random(5), Residence()
    at = lasting(of, [0.01 * random.expovariate(1.0) + 0.002 for _ in range(60)])
    assert exp(of.factor) > 0.9
    assert of.seen is not None and of.seen.factor > 0.9
    at = lasting(of, [0.2 * random.expovariate(1.0) + 0.002 for _ in range(30)], at)
    assert exp(of.factor) < 0.6
    assert "its check is answered in" in str(of.seen)
    lasting(of, [0.01 * random.expovariate(1.0) + 0.002 for _ in range(240)], at)
    assert exp(of.factor) > 0.9


def test_where_connections_tell_the_answers_to_checks_do_not_count() -> None:
    of = Residence()
    for k in range(1, 40):
        of.answer(0.01 if k < 20 else 1.0, 2.0 * k)
        if of.look(10, 20 * k, 2.0 * k):
            judge({of: 1.0}, [of])
    assert exp(of.factor) == pytest.approx(1.0, abs=0.05)
