"""The whole pipeline on a fake clock: reports and a table in, weights out."""

from __future__ import annotations

import msgspec
import pytest

from feedback.config import ConfigError, MasterConfig, parse
from feedback.master import Controller
from feedback.master.claims.orders import Kind, Order
from feedback.master.laws import UnknownLawError
from feedback.master.state import decode, encode
from feedback.model import AddDestination, AddService, Destination, DestinationKey, Service, SetDestination
from feedback.wire import Connections
from tests.master.builders import VIRTUAL, Table, config, report, rip


class Bench:
    """A controller, a table, and servers that complete `speed[i]` connections a second at `load`."""

    def __init__(self, cfg: MasterConfig, speeds: list[float], table: Table | None = None) -> None:
        self.controller, self.table, self.speeds = Controller(cfg), table or Table(), speeds
        self.now, self.sequence = 1000.0, 0
        self.busy, self.opened = [0.0] * len(speeds), [0.0] * len(speeds)
        self.silent: set[int] = set()
        self.edits = 0

    def run(self, seconds: float, load: float = 0.5) -> list[int]:
        for _ in range(round(seconds / 0.2)):
            self.now += 0.2
            self.sequence += 1
            for i, speed in enumerate(self.speeds):
                self.busy[i] += 0.2 * load
                self.opened[i] += 0.2 * load * speed
                if i not in self.silent:
                    r = report(
                        i + 1, at=self.now, sequence=self.sequence, busy=self.busy[i], opened=int(self.opened[i])
                    )
                    assert self.controller.receive_report(r, self.now) is None
            self.turn()
        return self.table.weights()

    def turn(self) -> None:
        self.controller.receive_kernel(self.table.snapshot(), self.now)
        decision = self.controller.decide(self.now)
        self.edits += len(decision.edits)
        self.table.apply(decision.edits)

    def ratios(self) -> list[float]:
        weights = self.table.weights()
        return [w / max(weights) for w in weights]


def test_weights_come_to_the_ratios_of_what_servers_complete() -> None:
    bench = Bench(config(4), [50, 100, 200, 400])
    bench.run(10)
    assert bench.ratios() == pytest.approx([0.125, 0.25, 0.5, 1.0], rel=0.15)


def test_at_rest_hardly_anything_is_written() -> None:
    bench = Bench(config(4), [50, 100, 200, 400])
    bench.run(20)
    bench.edits = 0
    bench.run(60)
    assert bench.edits <= 4


def test_the_same_calls_give_the_same_decisions() -> None:
    one, two = Bench(config(4), [50, 100, 200, 400]), Bench(config(4), [50, 100, 200, 400])
    assert one.run(7) == two.run(7)


def test_a_decision_that_is_kept_says_the_same_after_later_turns() -> None:
    """What it says of each destination is made on demand, from rows that move on."""
    read, kept = Bench(config(3), [50, 100, 200]), Bench(config(3), [50, 100, 200])
    decisions = []
    for bench in (read, kept):
        bench.run(3, load=0.6)
        decisions.append(bench.controller.decide(bench.now))
    (at_once,) = decisions[0].services
    said = at_once.destinations, at_once.news, at_once.trusts
    for bench in (read, kept):
        bench.run(5, load=0.9)
        bench.silent = {0}
        bench.run(30, load=0.2)
    (later,) = decisions[1].services
    assert (
        (later.destinations, later.news, later.trusts) == said == (at_once.destinations, at_once.news, at_once.trusts)
    )
    assert [d.reasons for d in later.destinations] == [d.reasons for d in said[0]]


class Newsed(Bench):
    """Keeps the news of each turn, and whose weights its edits changed."""

    def __init__(self, speeds: list[float]) -> None:
        super().__init__(config(len(speeds)), speeds)
        self.news: list[set[DestinationKey]] = []
        self.changed: list[set[DestinationKey]] = []

    def turn(self) -> None:
        self.controller.receive_kernel(self.table.snapshot(), self.now)
        decision = self.controller.decide(self.now)
        self.news.append({d.key for d in decision.services[0].news})
        self.changed.append({e.destination.key for e in decision.edits if isinstance(e, SetDestination)})
        self.table.apply(decision.edits)


def test_news_are_of_whom_something_else_is_decided_and_of_nobody_else() -> None:
    bench = Newsed([50, 100, 200])
    bench.run(20)
    bench.news.clear()
    bench.changed.clear()
    bench.silent = {1}
    bench.run(6)
    silent = rip(2)
    assert sum(silent in news for news in bench.news) >= 1  # it is stale
    assert [news - {silent} for news in bench.news] == [changed - {silent} for changed in bench.changed]


def test_a_restarted_master_continues_from_what_the_kernel_has() -> None:
    bench = Bench(config(4), [50, 100, 200, 400])
    learned = bench.run(20)
    again = Bench(config(4), [50, 100, 200, 400], bench.table)
    again.turn()
    assert again.edits == 0
    for _ in range(50):
        weights = again.run(0.2)
        assert weights == pytest.approx(learned, rel=0.3, abs=3)


def test_what_was_learned_goes_on_where_the_kernel_cannot_tell_it() -> None:
    """A standby's master, or one whose table was made anew: equal weights in the kernel, and the state file."""
    bench = Bench(config(4), [50, 100, 200, 400])
    bench.run(20)
    state = decode(encode(bench.controller.state()))
    with_state, without = Bench(config(4), [50, 100, 200, 400]), Bench(config(4), [50, 100, 200, 400])
    with_state.controller.restore(state)
    for again in (with_state, without):
        again.run(3, load=0.01)  # too little work to learn anything from
    assert with_state.ratios() == pytest.approx([0.125, 0.25, 0.5, 1.0], rel=0.15)
    assert without.ratios() == pytest.approx([1.0] * 4, rel=0.15)


def test_what_is_kept_changes_seldom() -> None:
    bench = Bench(config(4), [50, 100, 200, 400])
    bench.run(20)
    states = set()
    for _ in range(100):
        bench.run(0.2)
        states.add(encode(bench.controller.state()))
    assert len(states) <= 5


def test_what_a_master_before_learned_stands_until_agents_would_have_been_heard_and_the_files_weights_after() -> None:
    bench = Bench(config(2), [100, 100])
    bench.silent = {0, 1}
    bench.run(1)
    bench.table.put(rip(1), 7)
    bench.edits = 0
    bench = Bench(config(2), [100, 100], bench.table)
    bench.silent = {0, 1}
    assert bench.run(14) == [7, 100]
    assert bench.edits == 0
    assert bench.run(2) == [100, 100]


def test_where_no_agent_was_ever_heard_the_files_weights_are_in_force() -> None:
    """100 -> 1 -> removed -> back with 100 stayed 1 once: in proportion to what had been in force."""
    bench = Bench(weighing({}), [100, 100])
    bench.silent = {0, 1}
    bench.run(1)
    for weights, expected in (({1: 1}, [1, 100]), ({1: 100}, [100, 100]), ({1: 5, 2: 1}, [5, 1])):
        bench.controller.reconfigure(weighing(weights))
        assert bench.run(1) == expected


def test_when_all_agents_fall_silent_the_weights_stay() -> None:
    bench = Bench(config(4), [50, 100, 200, 400])
    learned = list(bench.run(20))
    bench.silent = {0, 1, 2, 3}
    assert bench.run(120) == learned
    bench.silent = set()
    bench.run(5)
    assert bench.ratios() == pytest.approx([0.125, 0.25, 0.5, 1.0], rel=0.15)


def test_one_lost_agents_server_keeps_its_share() -> None:
    bench = Bench(config(4), [50, 100, 200, 400])
    learned = list(bench.run(20))
    bench.silent = {3}
    assert bench.run(60) == pytest.approx(learned, rel=0.1)


def test_a_foreign_zero_is_seen_and_never_raised() -> None:
    bench = Bench(config(2), [100, 100])
    bench.run(5)
    bench.table.put(rip(1), 0)
    bench.run(30)
    assert bench.table.entries[VIRTUAL][rip(1)].destination.weight == 0
    assert [(e.destination, e.theirs) for e in bench.controller.foreign_edits] == [(rip(1), 0)]
    bench.table.put(rip(1), 50)
    bench.run(20)
    assert bench.ratios() == pytest.approx([1.0, 1.0], rel=0.1)


def test_a_foreign_weight_is_seen_and_put_right() -> None:
    bench = Bench(config(2), [100, 100])
    bench.run(5)
    bench.table.put(rip(1), 77777)
    bench.run(0.4)
    assert bench.ratios() == pytest.approx([1.0, 1.0], rel=0.1)
    assert len(bench.controller.foreign_edits) == 1


def test_a_zero_of_ours_is_raised_again_by_the_master_after_us_and_a_foreign_one_is_not() -> None:
    policy = '[guards]\nlost_policy = "quiesce"\npanic = 1.0\n'
    bench = Bench(config(4, guards=policy), [100, 100, 100, 100])
    bench.run(5)
    bench.silent = {0}
    bench.table.put(rip(2), 0)
    weights = bench.run(30)
    assert weights[0] == 0 and weights[1] == 0
    again = Bench(config(4, guards=policy), [100, 100, 100, 100], bench.table)
    again.controller.restore(decode(encode(bench.controller.state())))
    weights = again.run(30)
    assert weights[0] > 50 and weights[1] == 0


def test_a_refused_edit_is_not_somebody_elses_work() -> None:
    c = Controller(config(1))
    table = Table()
    c.receive_kernel(table.snapshot(), 0.0)
    edits = c.decide(0.0).edits
    table.apply([e for e in edits if isinstance(e, AddService)])
    table.apply([AddDestination(VIRTUAL, Destination(rip(1), weight=3))])
    c.receive_failures(edits)
    c.receive_kernel(table.snapshot(), 0.2)
    assert c.foreign_edits == []


def test_with_ownership_of_weights_the_kernels_services_are_adopted_and_only_weights_change() -> None:
    table = Table()
    table.apply([AddService(Service(VIRTUAL, "sed"))])
    table.apply([AddDestination(VIRTUAL, Destination(rip(i), weight=1, upper=500)) for i in (1, 2)])
    bench = Bench(parse('ownership = "weights"', MasterConfig), [100, 300], table)
    bench.run(10)
    assert bench.ratios() == pytest.approx([1 / 3, 1.0], rel=0.15)
    assert all(e.destination.upper == 500 for e in table.entries[VIRTUAL].values())
    del table.entries[VIRTUAL][rip(2)]
    bench.run(1)
    assert list(table.entries[VIRTUAL]) == [rip(1)]


def test_a_destination_found_at_zero_when_we_come_is_left_there() -> None:
    table = Table()
    table.apply([AddService(Service(VIRTUAL, "sed"))])
    table.apply([AddDestination(VIRTUAL, Destination(rip(i), weight=i - 1)) for i in (1, 2)])
    bench = Bench(parse('ownership = "weights"', MasterConfig), [100, 100], table)
    bench.run(10)
    assert table.entries[VIRTUAL][rip(1)].destination.weight == 0


def test_the_base_weight_of_an_adopted_destination_is_its_owners_not_ours() -> None:
    table = Table()
    table.apply([AddService(Service(VIRTUAL, "sed"))])
    table.apply([AddDestination(VIRTUAL, Destination(rip(i), weight=5)) for i in (1, 2)])
    bench = Bench(parse('ownership = "weights"', MasterConfig), [100, 300], table)
    bench.run(10)

    def base() -> list[int]:
        return [d.base.weight for d in bench.controller.decide(bench.now).services[0].destinations]

    assert base() == [5, 5]
    table.put(rip(1), 9)
    bench.run(1)
    assert base() == [9, 5]


def test_every_setting_says_why() -> None:
    bench = Bench(config(2), [100, 300])
    bench.run(5)
    decision = bench.controller.decide(bench.now)
    for setting in decision.settings:
        assert setting.reasons[0].stage == "law"
        assert setting.reasons[-1].stage == "actuate"
        assert setting.reasons[-1].value == setting.weight


def test_a_new_configuration_keeps_what_was_learned_of_services_that_stay() -> None:
    bench = Bench(config(4), [50, 100, 200, 400])
    learned = list(bench.run(20))
    extra = '[[service]]\nvirtual = "tcp:10.0.0.101:80"\n[[service.destination]]\naddress = "10.0.0.11"\n'
    bench.controller.reconfigure(config(4, guards=extra))
    bench.run(0.4)
    assert bench.table.weights() == learned
    assert len(bench.table.services) == 2


def weighing(weights: dict[int, int], servers: int = 2) -> MasterConfig:
    """Static weights of some servers; 100 of the others."""
    text = "".join(
        f'[[service.destination]]\naddress = "{rip(i).address}"\nweight = {weights.get(i, 100)}\n'
        for i in range(1, servers + 1)
    )
    return parse(f'[[service]]\nvirtual = "{VIRTUAL}"\n{text}', MasterConfig)


def test_a_changed_static_weight_counts_at_once_while_no_agent_has_reported() -> None:
    bench = Bench(weighing({}), [100, 100])
    bench.silent = {0, 1}
    assert bench.run(1) == [100, 100]
    for weights, expected in (({1: 300}, [300, 100]), ({1: 0}, [0, 100]), ({1: 50}, [50, 100]), ({}, [100, 100])):
        bench.controller.reconfigure(weighing(weights))
        assert bench.run(1) == expected
    bench.controller.reconfigure(weighing({1: 200}))
    bench.controller.reconfigure(weighing({1: 400}))  # before anything was written
    assert bench.run(1) == [400, 100]


def test_a_changed_static_weight_scales_what_a_master_before_had_learned() -> None:
    bench = Bench(weighing({}), [100, 100])
    bench.silent = {0, 1}
    bench.run(1)
    bench.table.put(rip(1), 30)
    bench = Bench(weighing({}), [100, 100], bench.table)
    bench.silent = {0, 1}
    bench.run(1)
    bench.controller.reconfigure(weighing({1: 200}))
    assert bench.run(1) == [60, 100]


def test_who_comes_back_at_a_reload_has_its_part_of_what_the_others_come_to() -> None:
    """Not of what they had: its file's weight became a hundredth of theirs once."""
    bench = Bench(weighing({2: 0}), [100, 100])
    bench.silent = {0, 1}
    bench.run(1)
    bench.table.put(rip(1), 30)  # learned before
    bench = Bench(weighing({2: 0}), [100, 100], bench.table)
    bench.silent = {0, 1}
    bench.run(1)
    bench.controller.reconfigure(weighing({1: 200, 2: 100}))
    assert bench.run(1) == [60, 30]


def test_a_reload_before_the_first_look_does_not_make_the_files_weights_look_learned() -> None:
    bench = Bench(weighing({1: 1, 2: 0}), [100, 100])
    bench.silent = {0, 1}
    bench.run(1)
    bench = Bench(weighing({1: 1, 2: 0}), [100, 100], bench.table)  # its state is lost
    bench.silent = {0, 1}
    bench.controller.reconfigure(weighing({1: 100, 2: 10}))
    assert bench.run(0.2) == [100, 10]
    bench.controller.reconfigure(weighing({1: 3, 2: 10}))
    assert bench.run(0.2) == [3, 10]


def test_a_changed_static_weight_of_a_silent_server_counts_beside_measured_ones() -> None:
    bench = Bench(weighing({}, 3), [100, 100, 100])
    bench.silent = {0}
    bench.run(5)
    bench.controller.reconfigure(weighing({1: 300}, 3))
    weights = bench.run(5)
    assert weights[0] / weights[1] == pytest.approx(3, rel=0.1)


def test_under_a_pause_a_changed_static_weight_waits() -> None:
    bench = Bench(weighing({}), [100, 100])
    bench.silent = {0, 1}
    bench.run(1)
    bench.controller.orders.give(pause := Order(kind=Kind.PAUSE))
    bench.controller.reconfigure(weighing({1: 300}))
    assert bench.run(1) == [100, 100]
    bench.controller.orders.lift(pause)
    assert bench.run(1) == [300, 100]


def test_a_zero_of_ours_is_ours_after_the_service_was_changed() -> None:
    """An order's zero of a moment before, which a reload must not turn into somebody else's."""
    bench = Bench(weighing({}), [100, 100])
    bench.run(5)
    drain = Order(kind=Kind.DRAIN, service=str(VIRTUAL), destination=str(rip(1)))
    bench.controller.orders.give(drain)
    assert bench.run(1)[0] == 0
    bench.controller.reconfigure(weighing({2: 150}))
    bench.run(1)
    bench.controller.orders.lift(drain)
    assert bench.run(5)[0] > 0


def test_a_bad_new_configuration_changes_nothing() -> None:
    bench = Bench(config(2), [100, 300])
    learned = list(bench.run(10))
    bad = parse(f'law = "nonsense"\n[[service]]\nvirtual = "{VIRTUAL}"', MasterConfig)
    with pytest.raises(UnknownLawError, match="nonsense"):
        bench.controller.reconfigure(bad)
    assert bench.run(1) == learned


def test_the_timer_is_one_interval_ahead() -> None:
    c = Controller(config(1))
    c.decide(50.0)
    assert c.next_timer() == pytest.approx(50.2)


@pytest.mark.parametrize("n", [1, 3])
def test_a_server_that_is_one_of_two_services_moves_both(n: int) -> None:
    text = "".join(
        f'[[service]]\nvirtual = "tcp:10.0.0.{100 + k}:80"\n'
        '[[service.destination]]\naddress = "10.0.0.11"\n[[service.destination]]\naddress = "10.0.0.12"\n'
        for k in range(n)
    )
    c, table = Controller(parse(text, MasterConfig)), Table()
    for k in range(1, 60):
        for i, speed in ((1, 100), (2, 400)):
            c.receive_report(report(i, at=k / 5, sequence=k, busy=k / 10, opened=k * speed // 10), k / 5)
        c.receive_kernel(table.snapshot(), k / 5)
        table.apply(c.decide(k / 5).edits)
    for entries in table.entries.values():
        weights = [e.destination.weight for e in entries.values()]
        assert weights[0] / weights[1] == pytest.approx(0.25, rel=0.2)


def test_edits_carry_whole_records() -> None:
    bench = Bench(config(2), [100, 300])
    bench.run(1)
    bench.controller.receive_kernel(bench.table.snapshot(), bench.now)
    bench.table.put(rip(1), 9)
    bench.controller.receive_kernel(bench.table.snapshot(), bench.now)
    edits = bench.controller.decide(bench.now + 0.2).edits
    assert all(isinstance(e, SetDestination) and e.destination.forward == 3 for e in edits)


def test_configuration_errors_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"service\[0\]\.virtual"):
        parse('[[service]]\nvirtual = "tcp:10.0.0.1"', MasterConfig)


@pytest.mark.parametrize(
    ("servers", "scheduler", "load", "seconds"),
    [
        (4, "wrr", 0.5, 0.05),
        (4, "sed", 0.5, 0.05),
        (4, "wlc", 0.5, 0.2),  # each look is a write
        (4, "wrr", 0.0, 0.2),  # nothing comes
        (1000, "wrr", 0.5, 0.05),
        (1200, "wrr", 0.5, 0.06),  # a look would cost more than it is worth
    ],
)
def test_the_master_looks_more_often_where_that_is_of_use(
    servers: int, scheduler: str, load: float, seconds: float
) -> None:
    bench = Bench(config(servers, scheduler), [100.0] * servers)
    bench.run(3 if servers < 100 else 1, load)
    assert bench.controller.next_timer() - bench.now == pytest.approx(seconds)


def test_learned_thresholds_are_decided_at_the_interval_that_they_leave_room_for() -> None:
    text = f'[[service]]\nvirtual = "{VIRTUAL}"\nthresholds = "learned"\n'
    text += "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in range(1, 5))
    bench = Bench(parse(text, MasterConfig), [100.0] * 4)
    bench.run(3, 0.5)
    assert bench.controller.next_timer() - bench.now == pytest.approx(0.2)


def crowded(law: str, losing: bool) -> Controller:
    """Two agents; at each decision two windows have come, and one server refused connections in the first of them."""
    table, sequence, overflows = Table(), 0, 0
    c = Controller(parse(f'[[service]]\nvirtual = "{VIRTUAL}"\nlaw = "{law}"\n' + "".join(
        f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in (1, 2)), MasterConfig))  # fmt: skip
    for k in range(1, 60):
        for part in (0, 1):
            sequence += 1
            overflows += losing and part == 0
            now = 100 + k / 5 + part / 10
            for i in (1, 2):
                r = report(i, at=now, sequence=sequence, busy=now / 2, opened=int(50 * now))
                refused = Connections(int(50 * now), 0, overflows=overflows if i == 1 else 0)
                assert c.receive_report(msgspec.structs.replace(r, connections=refused), now) is None
        c.receive_kernel(table.snapshot(), 100 + k / 5 + 0.1)
        table.apply(c.decide(100 + k / 5 + 0.1).edits)
    return c


def test_no_window_is_lost_where_two_come_between_two_decisions() -> None:
    def shares(c: Controller) -> list[float]:
        return [s.share for s in c.decide(200.0).settings]

    assert shares(crowded("capacity", losing=False)) == pytest.approx([0.5, 0.5], rel=0.05)
    first, second = shares(crowded("capacity", losing=True))
    assert first < 0.5 * second, "its accept queue was full in every other window"
