"""Who has the first place of a failover service: never two at a time, and nobody takes it back by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config import ConfigError, MasterConfig, parse
from feedback.master.claims.health import Outcome
from feedback.master.claims.orders import Kind, Order
from feedback.master.controller import Controller
from feedback.master.cuts.course import Do, Told
from feedback.master.cuts.plan import Summary
from feedback.master.state import read, sound
from feedback.model import RemoveDestination, SetDestination
from tests.master.builders import VIRTUAL, Table, rip

GOOD, BAD = Outcome(True, "synced"), Outcome(False, "not primary")
CHECK = "[service.check]\nrise = 1\nfall = 1\ninterval_seconds = 0.2\n"


def text(options: str = 'sticky = true, cut = "both"', scheduler: str = "sed", check: str = CHECK) -> str:
    made = f'[[service]]\nvirtual = "{VIRTUAL}"\nscheduler = "{scheduler}"\nlaw = "failover"\n'
    made += f"law_options = {{ {options} }}\n"
    made += "".join(
        f'[[service.destination]]\naddress = "{rip(i).address}"\npriority = {10 - i}\n' for i in range(1, 4)
    )
    return made + check


class Cluster:
    """Three servers in this order, a table, and a shell that answers `late` turns after it was asked."""

    def __init__(self, options: str = 'sticky = true, cut = "both"', scheduler: str = "sed", late: int = 0) -> None:
        self.config = parse(text(options, scheduler), MasterConfig)
        self.controller, self.table = Controller(self.config), Table()
        self.now, self.late = 100.0, late
        self.answers = dict.fromkeys(range(1, 4), GOOD)
        self.asked: list[tuple[float, Told]] = []
        self.cut: list[tuple[int, bool]] = []  # of whom, and whether both ends

    def turn(self) -> None:
        self.now = round(self.now + 0.1, 1)
        for probe in self.controller.probes(self.now):
            i = next(i for i in range(1, 4) if rip(i).address == probe.target.address)
            self.controller.receive_probe(probe, self.answers[i], self.now)
        for at, told in [a for a in self.asked if a[0] <= self.now]:
            self.controller.receive_cut(told, self.now)
            self.asked.remove((at, told))
        self.controller.receive_kernel(self.table.snapshot(), self.now)
        decision = self.controller.decide(self.now)
        self.judge(decision.edits)
        self.table.apply(decision.edits)
        for cut in decision.cuts:
            summary = Summary(2, 2, 0, 0, 0.01) if cut.do is Do.CUT else None
            self.asked.append((round(self.now + 0.1 * (1 + self.late), 1), Told(*cut.place, 2, summary)))
            if cut.do is Do.CUT:
                self.cut.append((self.number(cut.destination.key), cut.both))

    def judge(self, edits: object) -> None:
        """In a change of place the old one leaves first."""
        assert isinstance(edits, tuple)
        removed = [n for n, edit in enumerate(edits) if isinstance(edit, RemoveDestination)]
        raised = [n for n, edit in enumerate(edits) if isinstance(edit, SetDestination) and edit.destination.weight]
        assert not removed or not raised or max(removed) < min(raised)

    def number(self, key: object) -> int:
        return next(i for i in range(1, 4) if rip(i) == key)

    def run(self, seconds: float) -> int | None:
        for _ in range(round(seconds * 10)):
            self.turn()
        return self.writer()

    def writer(self) -> int | None:
        """Whom the kernel gives new connections: the largest weight."""
        entries = self.table.entries[VIRTUAL]
        weights = {self.number(key): e.destination.weight for key, e in entries.items()}
        most = max(weights.values(), default=0)
        return next((i for i, weight in weights.items() if weight == most), None) if most else None

    def there(self) -> list[int]:
        return sorted(self.number(key) for key in self.table.entries[VIRTUAL])

    def restart(self) -> None:
        kept, problem = read(sound(self.controller.state())[0])
        assert problem == ()
        self.controller, self.asked = Controller(self.config), []
        self.controller.restore(kept)


@pytest.mark.parametrize("scheduler", ["sed", "wlc", "fo", "nq"])
def test_the_first_has_it_and_after_its_failure_the_next_which_keeps_it(scheduler: str) -> None:
    of = Cluster(scheduler=scheduler)
    assert of.run(2) == 1 and of.there() == [1, 2, 3]
    of.answers[1] = BAD
    assert of.run(2) == 2 and of.there() == [2, 3]
    assert of.cut == [(1, True)]
    of.answers[1] = GOOD
    assert of.run(5) == 2 and of.there() == [1, 2, 3]
    assert of.cut == [(1, True)]


def test_without_sticky_the_first_takes_it_back_and_the_other_is_cut() -> None:
    of = Cluster('cut = "clients"')
    of.run(2)
    of.answers[1] = BAD
    assert of.run(2) == 2
    of.answers[1] = GOOD
    assert of.run(5) == 1 and of.there() == [1, 2, 3]
    assert of.cut == [(1, False), (2, False)]


def test_by_itself_sticky_cuts_nothing() -> None:
    of = Cluster("sticky = true")
    of.run(2)
    of.answers[1] = BAD
    assert of.run(2) == 2 and of.there() == [1, 2, 3]
    of.answers[1] = GOOD
    assert of.run(5) == 2 and of.cut == []


@pytest.mark.parametrize("late", [0, 2, 9])
def test_promotion_is_one_step_however_late_the_shell_is(late: int) -> None:
    of = Cluster(late=late)
    of.run(3)
    assert of.controller.promote(VIRTUAL, rip(3)) == ""
    seen = []
    for _ in range(60):
        of.turn()
        seen.append((of.writer(), 1 in of.there()))
    assert (3, True) in seen and seen[-1] == (3, True)
    change = next(n for n, (writer, _) in enumerate(seen) if writer == 3)
    assert all(s == (1, True) for s in seen[:change])  # as it was, until
    assert seen[change] == (3, False)  # the old one is out where the new one is in
    assert of.cut == [(1, True)]


def test_a_promotion_outlives_a_restart_in_its_middle() -> None:
    of = Cluster(late=2)
    of.run(3)
    of.controller.promote(VIRTUAL, rip(3))
    of.turn()
    assert of.writer() == 1
    of.restart()
    assert of.run(5) == 3 and of.cut == [(1, True)] and of.there() == [1, 2, 3]


def test_who_has_it_is_remembered_and_seen_in_the_kernel() -> None:
    of = Cluster()
    of.run(2)
    of.answers[1] = BAD
    of.run(2)
    of.answers[1] = GOOD
    of.run(2)
    of.restart()
    assert of.run(3) == 2
    of.controller = Controller(of.config)  # and with the state lost
    assert of.run(3) == 2 and of.cut == [(1, True)]


@pytest.mark.parametrize(
    ("options", "drained", "number", "why"),
    [
        ("sticky = true", 0, 2, ""),
        ('cut = "both"', 0, 2, "no sticky"),
        ("sticky = true", 3, 3, "not in service"),
    ],
)
def test_who_may_be_promoted(options: str, drained: int, number: int, why: str) -> None:
    of = Cluster(options)
    of.run(2)
    if drained:
        order = Order(kind=Kind.DRAIN, service=str(VIRTUAL), destination=str(rip(drained)), at=1.0)
        of.controller.orders.give(order)
        of.run(1)
    said = of.controller.promote(VIRTUAL, rip(number))
    assert why in said and bool(said) == bool(why)


def test_a_drained_holder_gives_its_place_and_its_connections_are_cut() -> None:
    of = Cluster()
    of.run(2)
    order = Order(kind=Kind.DRAIN, service=str(VIRTUAL), destination=str(rip(1)), at=1.0)
    of.controller.orders.give(order)
    assert of.run(3) == 2 and of.cut == [(1, True)] and of.there() == [1, 2, 3]
    of.controller.orders.lift(order)
    assert of.run(3) == 2


def test_nobody_is_left_and_everything_stays() -> None:
    of = Cluster()
    of.run(2)
    of.answers = dict.fromkeys(range(1, 4), BAD)
    of.run(3)
    assert of.writer() is not None


def test_an_evicted_server_comes_back_once_its_flows_are_forgotten() -> None:
    of = Cluster("sticky = true", late=4)
    of.run(2)
    of.controller.evict(VIRTUAL, rip(2), "cut by root")
    of.turn()
    assert 2 in of.there()
    of.run(0.6)
    assert of.there() == [1, 3] and of.cut == [(2, True)]
    of.run(1)
    assert of.there() == [1, 2, 3] and of.writer() == 1 and of.controller.foreign_edits == []


def test_one_that_somebody_else_removes_meanwhile_is_not_kept_out() -> None:
    of = Cluster("sticky = true", late=10_000)
    of.run(2)
    of.controller.evict(VIRTUAL, rip(2), "cut by root")
    of.turn()
    del of.table.entries[VIRTUAL][rip(2)]
    of.run(1)
    assert of.there() == [1, 2, 3] and of.cut == []


def test_a_shell_that_never_answers_keeps_nobody_out_for_ever() -> None:
    of = Cluster("sticky = true", late=10_000)
    of.run(2)
    of.controller.evict(VIRTUAL, rip(2), "cut by root")
    of.run(2)
    assert of.there() == [1, 3]
    of.run(15)
    assert of.there() == [1, 2, 3]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(("fail", "heal", "promote", "restart", "wait"))), max_size=25
    ),
    st.integers(0, 4),
    st.booleans(),
)
def test_never_two_writers(course: list[tuple[int, str]], late: int, sticky: bool) -> None:
    """Whoever had the place is out of the table before another has it, whatever happens, unless nobody serves."""
    of = Cluster(f'sticky = {str(sticky).lower()}, cut = "both"', late=late)
    of.run(1)
    for number, what in course:
        match what:
            case "fail":
                of.answers[number] = BAD
            case "heal":
                of.answers[number] = GOOD
            case "promote":
                of.controller.promote(VIRTUAL, rip(number))
            case "restart":
                of.restart()
        for _ in range(5):
            before = of.writer()
            of.turn()
            now = of.writer()
            if now != before and before is not None and GOOD in of.answers.values():
                assert before not in of.there() or of.answers[now or 1] == BAD


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (text().replace("priority = 8", "priority = 9"), "sticky needs a priority for each destination"),
        (text('sticky = true, cut = "some"'), "service[0].law_options.cut"),
        ('ownership = "weights"\n' + text(check=""), 'law_options.cut: with ownership "weights"'),
        (text().replace("tcp:", "udp:"), "law_options.cut: only clients of a TCP service"),
        (text("stick = true"), "unknown field"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(config: str, expected: str) -> None:
    with pytest.raises(ConfigError) as told:
        Controller(parse(config, MasterConfig))
    assert expected in str(told.value) and "\n" not in str(told.value)
