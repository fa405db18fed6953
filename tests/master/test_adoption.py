"""Beside the owner of a service: each of his edits is seen, his zeros and removals stand, and nobody fights.

The owners here write as the real ones were measured to (docs/adopt.md): keepalived when its own view changes,
ldirectord everything at each reload, others everything every few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise, product

import msgspec
import pytest

from feedback.config import MasterConfig, parse
from feedback.ipvs import FakeKernel
from feedback.master import Controller
from feedback.master.claims.owner import SIGNATURE, STANDS_SECONDS, STANDS_SECONDS_MAX, Disputes, What
from feedback.master.state import ServiceState, State, decode, encode, read
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    RemoveDestination,
    RemoveService,
    Service,
    SetDestination,
    SetService,
)
from feedback.wire import Application
from tests.master.builders import VIRTUAL, report, rip

SPEEDS = (50, 100, 200, 400)
TURN = 0.2
FIGHT_SECONDS = 5.0


class Town:
    """A controller that adopts a service of four servers on the model of the kernel, its owner, and what came of it."""

    def __init__(self, *, weight: int = 10, scheduler: str = "sed", extra: str = "", after: Town | None = None) -> None:
        self.config = parse(f'ownership = "weights"\n{extra}', MasterConfig)
        self.controller = Controller(self.config)
        self.now, self.sequence = (after.now, after.sequence) if after else (1000.0, 0)
        self.kernel = after.kernel if after else FakeKernel(now=self.now)
        self.busy, self.opened, self.errors = [0.0] * 4, [0.0] * 4, [0] * 4
        self.failing: set[int] = set()
        self.silent = False
        self.seen: list[tuple[int | None, What, int | None]] = []  # server, what, the owner's weight
        self.writes: list[tuple[float, int, int, int]] = []  # when, server, from, to
        self.theirs: set[int] = set()  # whose weight the owner wrote last
        self.onto: list[tuple[float, int]] = []  # our writes onto an edit of the owner's
        self.bases: dict[object, int] = {}
        self.held = ""
        self.scheduler, self.weight = scheduler, weight
        if after is None:
            self.make()

    # The owner.

    def make(self) -> None:
        self.kernel.apply([AddService(Service(VIRTUAL, self.scheduler))])
        for i in range(1, 5):
            self.add(i, self.weight)

    def add(self, i: int, weight: int) -> None:
        assert self.kernel.apply([AddDestination(VIRTUAL, Destination(rip(i), weight))]) == ()

    def set(self, i: int, weight: int) -> None:
        """The whole record, thresholds too, as every program does."""
        assert self.kernel.apply([SetDestination(VIRTUAL, Destination(rip(i), weight))]) == ()

    def remove(self, i: int) -> None:
        assert self.kernel.apply([RemoveDestination(VIRTUAL, rip(i))]) == ()

    def wipe(self) -> None:
        assert self.kernel.apply([RemoveService(VIRTUAL)]) == ()

    def rewrite(self, weight: int = 1) -> None:
        for i in range(1, 5):
            self.set(i, weight)

    # Time.

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TURN)):
            self.now += TURN
            self.sequence += 1
            for i, speed in enumerate(SPEEDS):
                self.busy[i] += TURN * 0.5
                self.opened[i] += TURN * 0.5 * speed
                if i + 1 in self.failing:
                    self.errors[i] += 20
                if not self.silent:
                    self._report(i)
            self.turn()

    def _report(self, i: int) -> None:
        answers = int(self.opened[i])
        word = Application(80, completions=answers + self.errors[i], errors=self.errors[i])
        made = report(i + 1, at=self.now, sequence=self.sequence, busy=self.busy[i], opened=answers)
        self.controller.receive_report(msgspec.structs.replace(made, applications=(word,)), self.now)

    def turn(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """`meanwhile`: what the owner does between our look and our writing."""
        self.controller.receive_kernel(self.kernel.snapshot(), self.now)
        for edit in self.controller.foreign_edits:
            i = self.server(edit.destination)
            self.seen.append((i, edit.what, edit.theirs))
            if i is not None and edit.theirs:
                self.theirs.add(i)
        self.controller.foreign_edits.clear()
        decision = self.controller.decide(self.now)
        self.held = decision.services[0].held if decision.services else ""
        self.bases = {d.key: d.base.weight for s in decision.services for d in s.destinations}
        meanwhile()
        edits = self.controller.confirm(decision.edits, {VIRTUAL: self.kernel.destinations(VIRTUAL)})
        before = {e.destination.key: e.destination.weight for e in self.kernel.destinations(VIRTUAL)}
        for edit in edits:
            assert isinstance(edit, SetDestination), "nothing of the owner's is made or removed"
            i = self.server(edit.destination.key)
            assert i is not None
            if i in self.theirs:
                self.onto.append((self.now, i))
                self.theirs.discard(i)
            self.writes.append((self.now, i, before[edit.destination.key], edit.destination.weight))
        assert self.kernel.apply(edits) == ()

    @staticmethod
    def server(key: object) -> int | None:
        return next((i for i in range(1, 5) if rip(i) == key), None)

    # What is there.

    def have(self, i: int) -> Destination | None:
        return next((e.destination for e in self.kernel.destinations(VIRTUAL) if e.destination.key == rip(i)), None)

    def weights(self) -> list[int | None]:
        return [d.weight if (d := self.have(i)) else None for i in range(1, 5)]

    def parts(self) -> list[float]:
        found = [w or 0 for w in self.weights()]
        return [w / sum(found) for w in found]

    def raised(self, i: int) -> list[tuple[float, int, int, int]]:
        return [w for w in self.writes if w[1] == i and w[2] == 0 and w[3] > 0]


def town(**options: object) -> Town:
    made = Town(**options)  # type: ignore[arg-type]
    made.run(15)
    assert made.seen == []
    made.writes.clear()
    return made


LEARNED = [s / sum(SPEEDS) for s in SPEEDS]

Step = tuple[float, Callable[[Town], None]]

EVENTS: list[tuple[str, list[Step], list[tuple[int | None, What, int | None]]]] = [
    ("keepalived's reload with nothing changed", [(5, lambda t: None)], []),
    ("one weight changed in keepalived's file", [(5, lambda t: t.set(3, 20))], [(3, What.WEIGHT, 20)]),
    (
        "ldirectord's reload: everything",
        [(5, lambda t: t.rewrite(11))],
        [(i, What.WEIGHT, 11) for i in range(1, 5)],
    ),
    (
        "a check fails and recovers: removed and added",
        [(5, lambda t: t.remove(2)), (20, lambda t: t.add(2, 10))],
        [(2, What.REMOVED, None), (2, What.ADDED, 10)],
    ),
    (
        "a check fails and recovers: quiesced",
        [(5, lambda t: t.set(2, 0)), (20, lambda t: t.set(2, 10))],
        [(2, What.WEIGHT, 0), (2, What.WEIGHT, 10)],
    ),
    (
        "a flapping server is no dispute",
        [(2, lambda t: t.set(2, 0)), (2, lambda t: t.set(2, 10))] * 5 + [(15, lambda t: None)],
        [(2, What.WEIGHT, 0), (2, What.WEIGHT, 10)] * 5,
    ),
    (
        "nor is one that is removed and added",
        [(2, lambda t: t.remove(2)), (2, lambda t: t.add(2, 10))] * 5 + [(15, lambda t: None)],
        [(2, What.REMOVED, None), (2, What.ADDED, 10)] * 5,
    ),
    (
        "the scheduler changed",
        [(5, lambda t: _is_none(t.kernel.apply([SetService(Service(VIRTUAL, "wrr"))])))],
        [(None, What.SERVICE, None)],
    ),
    (
        "keepalived's parent killed and started again",
        [(5, lambda t: t.wipe()), (2, lambda t: t.make())],
        [(None, What.SERVICE_REMOVED, None), (None, What.SERVICE, None), *((i, What.WEIGHT, 10) for i in range(1, 5))],
    ),
    (
        "two reloads of ldirectord, a quarter of a minute apart",
        [(5, lambda t: t.rewrite(11)), (15, lambda t: t.rewrite(11))],
        [(i, What.WEIGHT, 11) for i in range(1, 5)] * 2,
    ),
]


def _is_none(errors: Sequence[object]) -> None:
    assert errors == ()


@pytest.mark.parametrize(("steps", "expected"), [e[1:] for e in EVENTS], ids=[e[0] for e in EVENTS])
def test_each_edit_of_the_owner_is_seen_and_what_was_learned_is_in_force_again(
    steps: list[Step], expected: list[tuple[int | None, What, int | None]]
) -> None:
    t = town()
    for seconds, act in steps:
        t.run(seconds)
        act(t)
        t.run(TURN)
    t.run(20)
    assert Counter(t.seen) == Counter(expected)
    assert t.held == ""
    assert t.parts() == pytest.approx(LEARNED, rel=0.25)


def test_an_owners_zero_is_never_raised_and_a_removed_server_never_comes_back() -> None:
    t = town()
    t.set(1, 0)
    t.remove(2)
    t.run(120)
    assert t.weights()[:2] == [0, None]
    again = Town(after=t)
    again.run(60)
    assert again.weights()[:2] == [0, None], "nor by a master that knows nothing of it"


def out(t: Town, i: int) -> None:
    """Our own ejection of server i."""
    t.failing = {i}
    for _ in range(100):
        t.run(TURN)
        if t.weights()[i - 1] == 0:
            return
    raise AssertionError("not ejected")


@pytest.mark.parametrize("restart", ["no", "with its state", "without it"])
def test_a_zero_that_the_owner_writes_over_ours_is_his(restart: str) -> None:
    """keepalived's inhibit_on_failure: its check fails while the server is ejected, and it never writes that again."""
    t = town()
    out(t, 3)
    made = t.have(3)
    assert made is not None and (made.upper, made.lower) == SIGNATURE
    t.set(3, 0)
    if restart != "no":
        state = t.controller.state()
        t = Town(after=t)
        if restart == "with its state":
            t.controller.restore(decode(encode(state)))
        t.run(TURN)
    else:
        t.run(TURN)
        assert t.seen == [(3, What.WEIGHT, 0)]
    t.failing = set()
    t.run(120)
    assert (t.weights()[2], t.raised(3)) == (0, [])
    t.set(3, 10)
    t.run(30)
    assert t.parts()[2] == pytest.approx(LEARNED[2], rel=0.3)


@pytest.mark.parametrize("state", [True, False])
def test_a_zero_of_ours_is_known_by_a_master_after_us_and_the_owners_thresholds_come_back(state: bool) -> None:
    t = town()
    assert t.kernel.apply([SetDestination(VIRTUAL, Destination(rip(3), 10, upper=700))]) == ()
    t.run(5)
    out(t, 3)
    again = Town(after=t)
    if state:
        again.controller.restore(decode(encode(t.controller.state())))
    again.run(60)
    assert again.seen == []
    made = again.have(3)
    assert made is not None and made.weight > 0
    assert (made.upper, made.lower) == ((700, 0) if state else (0, 0))


def test_what_the_owner_writes_between_our_look_and_our_write_is_not_lost() -> None:
    t = town()
    t.set(2, 10)  # so that there is something to write
    t.turn(meanwhile=lambda: t.set(2, 0))
    t.run(30)
    assert t.weights()[1] == 0
    assert (2, What.WEIGHT, 0) in t.seen


def fights(t: Town) -> list[tuple[float, int]]:
    """Writes of ours onto an edit of the owner's, the second and later ones within a few seconds of another."""
    each = [[w for w in t.onto if w[1] == i] for i in range(1, 5)]
    return [b for at in each for a, b in pairwise(at) if b[0] - a[0] < FIGHT_SECONDS]


def rewritten(t: Town) -> None:
    t.rewrite(1)


def made_anew(t: Town) -> None:
    t.wipe()
    t.make()


def made_anew_slowly(t: Town) -> None:
    t.wipe()
    t.run(TURN)
    t.make()


def emptied_and_filled(t: Town) -> None:
    for i in range(1, 5):
        t.remove(i)
    t.run(TURN)
    for i in range(1, 5):
        t.add(i, 10)


def one_weight(t: Town) -> None:
    t.set(2, 1)


SCHEDULERS, EVERY = ("sed", "wlc", "wrr"), (0.4, 2.0, 5.0)
OWNERS = (rewritten, made_anew, made_anew_slowly, emptied_and_filled, one_weight)
# Each owner once, and each pace and scheduler. The rest of the cube is left to `make test-all`.
SOME = {(owner, EVERY[i % 3], SCHEDULERS[(i + i // 3) % 3]) for i, owner in enumerate(OWNERS)}


@pytest.mark.parametrize(
    ("owner", "every", "scheduler"),
    [
        pytest.param(
            *case, marks=() if case in SOME else pytest.mark.long, id=f"{case[0].__name__}-{case[1]}-{case[2]}"
        )
        for case in product(OWNERS, EVERY, SCHEDULERS)
    ],
)
def test_an_owner_who_rewrites_every_few_seconds_is_let_be_for_longer_each_time(
    owner: Callable[[Town], None], every: float, scheduler: str
) -> None:
    t = town(scheduler=scheduler)
    stands = []
    for _ in range(round(600 / every)):
        before = t.held
        owner(t)
        t.run(every)
        if t.held and t.held != before:
            stands.append(t.held)
    assert fights(t) == []
    assert 3 <= len(stands) <= 6
    assert "the owner's weights stand for 30 s" in stands[0]
    assert "stand for 60 s" in stands[1]
    assert len({at for at, _ in t.onto if at > t.now - 120}) <= 2


def test_while_the_owners_weights_stand_all_are_his_and_then_ours_again() -> None:
    t = town()
    for _ in range(3):
        t.set(2, 7)
        t.run(2)
    assert t.weights() == [10, 7, 10, 10]
    assert "10.0.0.12:80" in t.held
    t.run(STANDS_SECONDS + 15)
    assert t.held == ""
    assert t.parts() == pytest.approx(LEARNED, rel=0.25)


def test_an_ejection_is_lifted_while_the_owners_weights_stand() -> None:
    t = town()
    out(t, 3)
    for _ in range(3):
        t.set(3, 10)
        t.run(1)
    assert t.weights() == [10, 10, 10, 10]


def held(t: Town) -> Town:
    t.silent = True
    t.run(60)
    assert "silent" in t.held
    t.writes.clear()
    return t


def test_while_all_is_held_a_weight_of_ours_comes_back_when_it_is_overwritten() -> None:
    t = held(town())
    before = t.weights()
    t.rewrite(11)
    t.run(1)
    assert t.weights() == before
    t.run(60)
    assert len(t.writes) == 4


@pytest.mark.parametrize("how", ["added", "raised"])
def test_while_all_is_held_a_server_that_comes_back_gets_its_part_and_not_the_owners_number(how: str) -> None:
    t = town()
    if how == "added":
        t.remove(2)
    else:
        t.set(2, 0)
    t = held(t)
    if how == "added":
        t.add(2, 10)
    else:
        t.set(2, 10)
    t.run(10)
    assert t.parts()[1] == pytest.approx(0.25, rel=0.02)
    assert len(t.writes) == 1


def test_before_any_report_nothing_is_put_right() -> None:
    t = Town()
    t.silent = True
    t.run(5)
    t.set(1, 40)
    t.remove(2)
    t.run(5)
    t.add(2, 30)
    t.run(5)
    assert (t.weights(), t.writes) == ([40, 30, 10, 10], [])


def test_times_grow_to_an_hour_and_start_anew_after_a_calm() -> None:
    now, found = 0.0, []
    disputes = Disputes()
    for _ in range(12):
        while not disputes.standing(now):
            now += 1
            disputes.rewritten([rip(1)], whole=False, now=now)
        start = now
        while disputes.standing(now):
            now += 1
        found.append(now - start)
    assert found[:3] == [STANDS_SECONDS, 2 * STANDS_SECONDS, 4 * STANDS_SECONDS]
    assert found[-1] == STANDS_SECONDS_MAX
    now += 3 * STANDS_SECONDS_MAX
    disputes.rewritten([rip(1)], whole=False, now=now)
    assert disputes.standing(now) == ""


@pytest.mark.parametrize(
    ("at", "stands"),
    [
        ([0.0], False),
        ([0.0, 4.0], True),
        ([0.0, 6.0], False),
        ([0.0, 14.0, 28.0, 42.0], False),
        ([0.0, 14.0, 28.0, 42.0, 56.0], True),
        ([20.0 * n for n in range(9)], False),
        ([20.0 * n for n in range(10)], True),
        ([100.0 * n for n in range(20)], False),
    ],
)
def test_what_is_a_dispute(at: list[float], stands: bool) -> None:
    disputes = Disputes()
    for now in at:
        disputes.rewritten([rip(1)], whole=False, now=now)
    assert bool(disputes.standing(at[-1])) is stands


def test_rewrites_of_different_servers_are_not_added_up() -> None:
    disputes = Disputes()
    for i in range(1, 5):
        disputes.rewritten([rip(i)], whole=False, now=float(i))
    assert disputes.standing(4.0) == ""


def test_a_service_that_is_made_again_goes_on_with_what_was_learned() -> None:
    t = town()
    t.wipe()
    t.run(60)
    t.make()
    t.silent = True
    t.run(TURN * 2)
    t.silent = False
    t.run(1)
    assert t.parts() == pytest.approx(LEARNED, rel=0.25)


@pytest.mark.parametrize("extra", ["[guards]\nfloor = 0.03\n", ""])
def test_a_reload_of_our_own_knows_the_owners_weights_and_our_zeros(extra: str) -> None:
    t = town()
    out(t, 3)
    t.controller.reconfigure(parse(f'ownership = "weights"\n{extra}', MasterConfig))
    t.run(TURN)
    assert list(t.bases.values()) == [10] * 4
    t.failing = set()
    t.run(60)
    assert t.seen == []
    assert t.parts() == pytest.approx(LEARNED, rel=0.3)


def test_the_owners_weight_after_a_restart_is_his_newest() -> None:
    t = town()
    t.set(2, 0)
    t.run(1)
    again = Town(after=t)
    again.controller.restore(decode(encode(t.controller.state())))
    again.run(1)
    again.set(2, 30)
    again.run(1)
    again.remove(4)
    again.run(1)
    again.add(4, 40)
    again.run(1)
    assert again.bases == {rip(1): 10, rip(2): 30, rip(3): 10, rip(4): 40}


LEARNED_THRESHOLDS = f'[[service]]\nvirtual = "{VIRTUAL}"\nthresholds = "learned"\n'


def uppers(t: Town) -> list[int]:
    return [e.destination.upper for e in t.kernel.snapshot().services[0].destinations]


def test_learned_thresholds_are_known_for_ours_after_a_restart() -> None:
    before = Town(extra=LEARNED_THRESHOLDS)
    before.run(10)
    first = uppers(before)
    assert all(first)
    kept, lost = decode(encode(before.controller.state())), decode(encode(before.controller.state()))
    lost = msgspec.structs.replace(
        lost, services={k: msgspec.structs.replace(s, limited=()) for k, s in lost.services.items()}
    )
    assert set(kept.services[str(VIRTUAL)].limited) == {str(rip(i)) for i in range(1, 5)}
    followed = []
    for state in (kept, lost):
        for i in range(1, 5):
            before.kernel.apply([SetDestination(VIRTUAL, Destination(rip(i), 10, upper=7, lower=6))])
        after = Town(extra=LEARNED_THRESHOLDS, after=before)
        after.controller.restore(state)
        after.run(10)
        followed.append(uppers(after))
    assert all(upper != 7 for upper in followed[0]), "ours: learned anew"
    assert followed[1] == [7] * 4, "taken for the owner's"


def test_a_threshold_that_the_owner_typed_is_not_kept_for_ours() -> None:
    t = Town(extra=LEARNED_THRESHOLDS)
    t.run(10)
    t.kernel.apply([SetDestination(VIRTUAL, Destination(rip(1), 10, upper=50, lower=40))])
    t.run(2)
    assert 50 in uppers(t)
    assert str(rip(1)) not in t.controller.state().services[str(VIRTUAL)].limited


@pytest.mark.parametrize("field", ['"limited": ["nonsense"]', '"zeros": ["10.0.0.1"]', '"limited": 7'])
def test_a_state_that_names_what_is_no_destination_is_read_without_it_and_says_so(field: str) -> None:
    data = f'{{"version": 1, "services": {{"{VIRTUAL}": {{{field}, "owners": {{"{rip(1)}": 7}}}}}}}}'.encode()
    found, dropped = read(data)
    assert found == State(services={str(VIRTUAL): ServiceState(owners={str(rip(1)): 7})})
    assert len(dropped) == 1
    assert field.partition(":")[0].strip('"') in dropped[0]
