"""Priority pools on the kernel's semantics: scripts of opening and closing, on both kinds of kernel.

The whole pipeline runs against `FakeKernel`. Servers are busy in proportion to their active connections, so that what
the agents report and what the kernel counts tell one story.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from feedback.config import ConfigError, MasterConfig, parse
from feedback.ipvs.fake import FakeConnection, FakeKernel
from feedback.ipvs.fake_table import Overload
from feedback.master import Controller
from feedback.master.laws.failover import Failover
from feedback.master.pool import Role
from feedback.master.servers.window import ApplicationWindow, Window
from feedback.model import AddDestination, AddService, Destination, DestinationKey, Service, SetDestination
from tests.master.builders import VIRTUAL, member, pool, replace, report, rip

TICK = 0.2
both = pytest.mark.parametrize("overload", list(Overload), ids=["old", "new"])


class Site:
    """A director, and servers that are full with `rooms[i]` active connections of a quarter of a second each."""

    def __init__(self, text: str, rooms: list[int], overload: Overload = Overload.UNTIL_6_1_176) -> None:
        self.kernel = FakeKernel(overload=overload, now=1000.0)
        self.controller = Controller(parse(text, MasterConfig))
        self.rooms = rooms
        self.now, self.sequence = 1000.0, 0
        self.busy, self.opened = [0.0] * len(rooms), [0.0] * len(rooms)
        self.open: list[FakeConnection] = []
        self.refused = 0
        self.edits = 0
        self.turn()

    def turn(self) -> None:
        """One tick: reports, a look, a decision, edits."""
        self.now += TICK
        self.sequence += 1
        self.kernel.advance(self.now)
        for i, room in enumerate(self.rooms):
            used = min(1.0, max(0.1, self.active(i + 1) / room))
            self.busy[i] += TICK * used
            self.opened[i] += TICK * used * 4 * room
            said = report(i + 1, at=self.now, sequence=self.sequence, busy=self.busy[i], opened=int(self.opened[i]))
            assert self.controller.receive_report(said, self.now) is None
        self.controller.receive_kernel(self.kernel.snapshot(), self.now)
        edits = self.controller.decide(self.now).edits
        self.edits += len(edits)
        assert self.kernel.apply(edits) == ()

    def settle(self, seconds: float = 15.0) -> None:
        for _ in range(round(seconds / TICK)):
            self.turn()

    def connect(self, n: int = 1, *, turn: bool = True) -> list[int]:
        """Open connections, one after the other; the servers that got them, 0 where it was refused."""
        got = []
        for _ in range(n):
            connection = self.kernel.open(VIRTUAL)
            if connection is None:
                self.refused += 1
                got.append(0)
            else:
                self.open.append(connection)
                got.append(number(connection.destination))
            if turn:
                self.turn()
        return got

    def leave(self, server: int, n: int = 1) -> None:
        """Close the oldest connections of one server."""
        for c in [c for c in self.open if number(c.destination) == server][:n]:
            self.kernel.close_connection(c)
            self.open.remove(c)

    def active(self, server: int) -> int:
        return sum(number(c.destination) == server for c in self.open)

    def weights(self) -> dict[int, int]:
        entry = self.kernel.snapshot().entry(VIRTUAL)
        assert entry is not None
        return {number(e.destination.key): e.destination.weight for e in entry.destinations}

    def uppers(self) -> dict[int, int]:
        entry = self.kernel.snapshot().entry(VIRTUAL)
        assert entry is not None
        return {number(e.destination.key): e.destination.upper for e in entry.destinations}


def number(key: DestinationKey) -> int:
    return int(str(key.address).split(".")[3]) - 10


def service(law: str, scheduler: str, destinations: list[str], extra: str = "") -> str:
    text = f'[[service]]\nvirtual = "{VIRTUAL}"\nscheduler = "{scheduler}"\nlaw = "{law}"\n{extra}\n'
    for i, keys in enumerate(destinations, 1):
        text += f'[[service.destination]]\naddress = "{rip(i).address}"\n{keys}\n'
    return text


def rising(got: list[int], order: list[int]) -> bool:
    places = [order.index(g) for g in got]
    return places == sorted(places)


# --- failover --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["fo", "sed", "wlc", "wrr", "nq", "lc", "rr", "ovf"])
def test_failover_gives_everything_to_the_first_in_service(scheduler: str) -> None:
    site = Site(service("failover", scheduler, ["priority = 1", "priority = 3", "priority = 2"]), [50, 50, 50])
    site.settle(2)
    assert set(site.connect(30)) == {2}
    assert site.uppers()[2] == 0


@pytest.mark.parametrize("scheduler", ["fo", "sed"])
def test_failover_goes_on_in_the_kernel_itself_when_somebody_quiesces_the_first(scheduler: str) -> None:
    site = Site(service("failover", scheduler, ["priority = 1", "priority = 3", "priority = 2"]), [50, 50, 50])
    site.settle(2)
    entry = site.kernel.snapshot().entry(VIRTUAL)
    assert entry is not None
    first = entry.entry(rip(2))
    assert first is not None
    quiesced = msgspec.structs.replace(first.destination, weight=0)
    site.kernel.apply([SetDestination(VIRTUAL, quiesced)])
    assert site.connect(1, turn=False) == [3]
    assert set(site.connect(10)) == {3}
    site.kernel.apply([SetDestination(VIRTUAL, first.destination)])
    site.settle(20)
    assert set(site.connect(5)) == {2}


# --- overflow --------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("scheduler", ["ovf", "sed", "fo"])
def test_overflow_fills_in_order_up_to_the_learned_capacity(scheduler: str, overload: Overload) -> None:
    rooms = [10, 30, 20]  # the preferred one is the smallest: order and capacity disagree
    site = Site(service("overflow", scheduler, ["priority = 3", "priority = 2", "priority = 1"]), rooms, overload)
    site.settle(20)
    got = site.connect(55)
    assert site.refused == 0
    # What was learned of one may rise by a connection or two while the next is filled already: it gets these.
    assert sum(before > after for before, after in pairwise(got)) <= 1
    assert rising(got[:30], [1, 2, 3])
    counts = Counter(got)
    assert counts[1] <= 10 * 1.1 + 1
    assert counts[2] <= 30 * 1.1 + 1
    assert counts[1] >= 9 and counts[2] >= 26


@both
@pytest.mark.parametrize("scheduler", ["ovf", "sed", "fo"])
def test_overflow_comes_back_to_the_preferred_one_when_it_has_room(scheduler: str, overload: Overload) -> None:
    keys = ["priority = 3", "priority = 2", "priority = 1"]
    site = Site(service("overflow", scheduler, keys), [10, 30, 20], overload)
    site.settle(20)
    site.connect(30)
    site.leave(1, 6)
    site.turn()
    assert set(site.connect(3)) == {1}
    assert site.refused == 0


@both
def test_overflow_takes_typed_thresholds_for_capacities(overload: Overload) -> None:
    keys = ["priority = 3\nupper = 5", "priority = 2\nupper = 8", "priority = 1"]
    site = Site(service("overflow", "ovf", keys), [50, 50, 50], overload)
    site.settle(2)
    assert site.connect(16) == [1] * 5 + [2] * 8 + [3] * 3


# --- spillover -------------------------------------------------------------------------------------------------------

POOLS = ["", "", "", 'pool = "spill"', 'pool = "spill"']


@both
def test_the_spill_pool_gets_nothing_before_and_nobody_is_refused_at_the_switch(overload: Overload) -> None:
    site = Site(service("spillover", "sed", POOLS), [20, 20, 10, 20, 20], overload)
    assert set(site.connect(5, turn=False)) <= {1, 2, 3}  # from the first moment
    site.settle(20)
    got = site.connect(60)
    assert site.refused == 0
    first = next(i for i, g in enumerate(got) if g > 3)
    assert all(g > 3 for g in got[first:])
    for i, room in ((1, 20), (2, 20), (3, 10)):
        assert room <= site.active(i) <= 1.15 * room + 2
    assert {4, 5} <= set(got[first:])


@both
def test_the_switch_is_the_kernels_own_and_needs_no_look(overload: Overload) -> None:
    site = Site(service("spillover", "sed", POOLS), [20, 20, 10, 20, 20], overload)
    site.settle(20)
    site.connect(30)
    got = site.connect(40, turn=False)
    assert site.refused == 0
    first = next(i for i, g in enumerate(got) if g > 3)
    assert first >= 15
    assert all(g > 3 for g in got[first:])


@both
def test_the_service_pool_is_used_again_though_its_closed_connections_still_count(overload: Overload) -> None:
    site = Site(service("spillover", "sed", POOLS), [20, 20, 10, 20, 20], overload)
    site.settle(20)
    site.connect(60)
    for i in (1, 2, 3):
        site.leave(i, 5)
    site.turn()
    assert all(g <= 3 for g in site.connect(8))
    assert site.refused == 0


@both
def test_the_spill_pool_takes_over_when_the_service_pool_is_quiesced(overload: Overload) -> None:
    site = Site(service("spillover", "sed", POOLS), [20, 20, 10, 20, 20], overload)
    site.settle(10)
    entry = site.kernel.snapshot().entry(VIRTUAL)
    assert entry is not None
    for e in entry.destinations:
        if number(e.destination.key) <= 3:
            site.kernel.apply([SetDestination(VIRTUAL, msgspec.structs.replace(e.destination, weight=0))])
    assert all(g > 3 for g in site.connect(10))


@both
def test_spillover_with_typed_thresholds(overload: Overload) -> None:
    keys = ["upper = 5\nlower = 4", "upper = 5\nlower = 4", 'pool = "spill"']
    site = Site(service("spillover", "sed", keys), [50, 50, 50], overload)
    got = site.connect(14, turn=False)
    assert Counter(got[:10]) == {1: 5, 2: 5}
    assert set(got[10:]) == {3}


@pytest.mark.parametrize("scheduler", ["wlc", "wrr", "nq", "lc"])
def test_where_the_kernel_cannot_hold_the_spill_pool_back_the_master_does(scheduler: str) -> None:
    site = Site(service("spillover", scheduler, POOLS), [20, 20, 10, 20, 20])
    assert set(site.connect(5, turn=False)) <= {1, 2, 3}
    site.settle(20)
    got = site.connect(60)
    assert site.refused == 0
    assert set(got[:20]) <= {1, 2, 3}
    assert set(got) & {4, 5}


def test_churn_never_refuses_while_a_server_has_room_nor_spills_early() -> None:
    """Connections come and go for five minutes, closed ones count for two; the load is under the service pool's."""
    draw = random.Random(3)
    site = Site(service("spillover", "sed", POOLS), [20, 20, 10, 20, 20])
    site.settle(10)
    got = []
    for _ in range(900):
        while len(site.open) < 30 and draw.random() < 0.9:
            got += site.connect(1, turn=False)
        for _ in range(draw.randrange(4)):
            if site.open:
                gone = draw.choice(site.open)
                site.kernel.close_connection(gone)
                site.open.remove(gone)
        site.turn()
    assert site.refused == 0
    assert len(got) > 1000
    assert sum(g > 3 for g in got) == 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (service("spillover", "sed", ['pool = "reserve"']), r"destination\[0\]\.pool: 'reserve': expected one of"),
        (service("capacity", "sed", [""], 'thresholds = "auto"'), r"thresholds: 'auto': expected one of"),
        (service("failover", "fo", ['priority = "high"']), r"destination\[0\]\.priority: Expected `int`"),
    ],
)
def test_configuration_errors_name_the_key(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse(text, MasterConfig)


def test_priorities_of_a_service_that_somebody_else_owns_come_from_the_configuration() -> None:
    kernel = FakeKernel(now=1000.0)
    kernel.apply([AddService(Service(VIRTUAL, "sed"))])
    kernel.apply([AddDestination(VIRTUAL, Destination(rip(i), weight=100)) for i in (1, 2)])
    controller = Controller(
        parse('ownership = "weights"\n' + service("failover", "sed", ["", "priority = 1"]), MasterConfig)
    )
    controller.receive_kernel(kernel.snapshot(), 1000.0)
    kernel.apply(controller.decide(1000.0).edits)
    assert {number(c.destination) for _ in range(5) if (c := kernel.open(VIRTUAL))} == {2}


def test_a_server_that_asks_to_be_drained_goes_behind_the_others() -> None:
    drains = ApplicationWindow(80, None, None, None, None, None, drain=True)
    window = Window(0.0, 0.2, 1.0, 0.5, None, None, 0.0, 1.0, 1.0, 0.8, 0, applications=(drains,))
    first = replace(member(1), window=window, role=Role(priority=9))
    tiers = {k: s.tier for k, s in Failover().shares(pool(first, member(2)), 0.0).items()}
    assert tiers == {rip(2): 0, rip(1): 1}


@both
def test_the_last_pool_has_no_learned_threshold_as_its_refusal_would_help_nobody(overload: Overload) -> None:
    site = Site(service("spillover", "sed", POOLS), [20, 20, 10, 20, 20], overload)
    site.settle(20)
    site.connect(150)
    assert site.refused == 0
    assert all(site.uppers()[i] > 0 for i in (1, 2, 3))
    assert all(site.uppers()[i] == 0 for i in (4, 5))
