"""Thresholds: typed in, learned, off; the kernel's two ways with a full destination."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs.fake import FakeKernel
from feedback.ipvs.fake_table import Overload
from feedback.master.pool import Row
from feedback.master.servers.fleet import Trust
from feedback.master.servers.window import Window
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Protocol,
    Service,
    ServiceFlags,
    ServiceKey,
    SetDestination,
)
from tests.master.builders import VIRTUAL, member, pool, replace, rip
from tests.master.stages import Bound, Limits, Sizing

both = pytest.mark.parametrize("overload", list(Overload), ids=["old", "new"])


def learned(latency: float = 0.25) -> Limits:
    return Limits("learned", latency)


def having(m: Row, upper: int, lower: int) -> Row:
    assert m.kernel is not None
    there = replace(m.kernel.destination, upper=upper, lower=lower)
    return replace(m, kernel=replace(m.kernel, destination=there))


def typed(m: Row, upper: int, lower: int = 0) -> Row:
    return replace(m, base=replace(m.base, upper=upper, lower=lower))


def only(limits: Limits, m: Row, now: float = 0.0, *, exact: bool = False, flow: float = 100.0) -> Bound:
    return limits.limits(pool(m, flow=flow), now, exact=exact)[m.key]


def uncertain(m: Row, deviation: float) -> Row:
    assert m.estimate is not None
    return replace(m, estimate=replace(m.estimate, deviation=deviation))


def window(end: float, established: int, used: int, total: int = 10**9) -> Window:
    return Window(
        start=end - 0.2,
        end=end,
        cores=1.0,
        busy=0.5,
        own=None,
        entitled=None,
        grain_seconds=0.0,
        opened=1.0,
        completions=1.0,
        memory_available=1 - used / total,
        swap_in_pages=0,
        memory_total=total,
        established=established,
    )


def test_static_carries_what_is_typed_and_never_learns() -> None:
    limits = Limits("static", 0.25)
    out = only(limits, typed(member(1), 500, 400))
    assert (out.upper, out.lower, out.room) == (500, 400, 500)
    out = only(limits, member(1, capacity=400))
    assert (out.upper, out.lower, out.room) == (0, 0, 100)


def test_off_takes_thresholds_away() -> None:
    out = only(Limits("off", 0.25), typed(member(1), 500))
    assert (out.upper, out.lower) == (0, 0)


def test_what_is_typed_wins_over_what_is_learned() -> None:
    out = only(learned(), typed(member(1, capacity=400), 70, 60))
    assert (out.upper, out.lower) == (70, 60)


def test_a_learned_one_is_capacity_times_latency_with_a_margin_and_the_closed_ones() -> None:
    out = only(learned(), member(1, capacity=400))
    assert (out.upper, out.lower) == (110, 95)
    out = only(learned(), member(1, capacity=400, inactive=50))
    assert 160 < out.upper < 160 + 250  # and those that will be closed until the next look


def test_connections_that_last_longer_than_the_latency_need_more_room() -> None:
    limits = learned()
    for k in range(3):
        out = only(limits, member(1, capacity=100, active=100), k / 5, flow=50.0)
    assert out.room == 200


def test_a_pool_that_is_never_calm_learns_all_the_same_what_connections_last() -> None:
    """Bounded by the latency alone it would refuse, and never be seen calm or full."""
    limits = learned()
    for k in range(10):
        out = only(limits, member(1, capacity=100, active=100, utilisation=0.8), k / 5, flow=50.0)
    assert out.room == 200
    for k in range(10, 300):
        out = only(limits, member(1, capacity=100, active=50, utilisation=0.5), k / 5, flow=50.0)
    assert out.room == pytest.approx(100, abs=2)
    for k in range(300, 320):
        out = only(limits, member(1, capacity=100, active=100, utilisation=0.8), k / 5, flow=50.0)
    assert out.room < 115  # what was seen in a calm pool says more


def test_what_connections_last_in_a_busy_pool_is_not_learned() -> None:
    out = only(learned(), member(1, capacity=100, active=500, utilisation=0.99), flow=50.0)
    assert out.room == 25


@pytest.mark.parametrize(
    ("service", "m", "word"),
    [
        (Service(VIRTUAL, "sed", ServiceFlags.PERSISTENT), member(1), "persistent"),
        (Service(ServiceKey.at(Protocol.UDP, "10.0.0.100", 53), "wrr"), member(1), "UDP"),
        (Service(VIRTUAL, "sed"), member(1, inactive=10_000), "closed"),
        (Service(VIRTUAL, "sed"), uncertain(member(1), 0.4), "40 %"),
        (Service(VIRTUAL, "sed"), member(1, capacity=None), "nothing measured"),
    ],
)
def test_there_is_none_where_it_cannot_help_and_the_reason_says_why(service: Service, m: Row, word: str) -> None:
    out = learned().limits(pool(m, service=service), 0.0)[m.key]
    assert out.upper == 0
    assert word in out.text


def test_with_many_closed_connections_a_busy_server_has_one_and_a_calm_one_none() -> None:
    limits = learned()
    room = 100
    seen = [
        only(limits, member(1, capacity=4 * room, active=active, inactive=5000)).upper
        for active in (20, 60, 40, 20, 40)
    ]
    assert [u > 0 for u in seen] == [False, True, True, False, False]
    assert 5000 + room < seen[1] < 5000 + 2 * room


@both
def test_a_busy_server_is_bounded_although_closed_connections_are_many(overload: Overload) -> None:
    """More come than it completes: open ones stay near the room, whatever has been closed in two minutes."""
    server = Server(overload, 400)
    server.exact = False
    opened = []
    for k in range(750):  # those that were closed leave the table after 600
        opened += [c for _ in range(100) if (c := server.kernel.open(VIRTUAL))]
        done = 80 if k > 5 else 20
        for c in opened[:done]:
            server.kernel.close_connection(c)
        del opened[:done]
        server.look()
        if k > 20:
            assert 60 < len(opened) + done < 300


def test_near_the_room_a_threshold_follows_the_closed_ones_instead_of_guessing_them() -> None:
    calm = only(learned(), member(1, capacity=400, active=60, inactive=50))
    busy = only(learned(), member(1, capacity=400, active=90, inactive=50))
    assert busy.upper == 100 + 10 + 50 + 40  # room, margin, closed, and a fifth of a second of 200 a second
    assert calm.upper > busy.upper + 100


def test_there_is_none_in_slow_start() -> None:
    assert learned().limits(pool(member(1)), 0.0, ramping={rip(1)})[rip(1)].upper == 0


@pytest.mark.parametrize("ramping", [False, True])
@pytest.mark.parametrize(("samples", "deviation"), [(0, 0.3), (5, 0.3), (5, 0.18)])
def test_one_of_uncertain_capacity_is_not_given_all_that_those_with_a_threshold_refuse(
    samples: int, deviation: float, ramping: bool
) -> None:
    limits, sure = learned(), member(1, capacity=400)
    unsure = uncertain(member(2, capacity=400, active=300, utilisation=1.0), deviation)
    assert unsure.estimate is not None
    unsure = replace(unsure, estimate=replace(unsure.estimate, samples=samples))
    for _ in range(2):
        out = limits.limits(pool(sure, unsure), 0.0, ramping={rip(2)} if ramping else ())
    assert out[rip(1)].upper == 110
    assert 100 * (1 + deviation) < out[rip(2)].upper < 100 * (1 + 4 * deviation)
    assert f"±{100 * deviation:.0f} %" in out[rip(2)].text


def test_certainty_has_a_hysteresis() -> None:
    limits = learned()
    seen = [only(limits, uncertain(member(1), d)).upper > 0 for d in (0.2, 0.1, 0.29, 0.31, 0.2)]
    assert seen == [False, True, True, False, False]


def test_a_threshold_is_rewritten_only_if_it_is_off_by_a_tenth() -> None:
    limits = learned()
    assert only(limits, having(member(1, capacity=400), 115, 100)).upper == 115
    assert only(learned(), having(member(1, capacity=800), 115, 100)).upper > 200


def test_what_we_wrote_into_somebody_elses_service_is_not_taken_for_typed() -> None:
    limits = learned()
    wrote = only(limits, member(1, capacity=400))
    later = typed(having(member(1, capacity=800), wrote.upper, wrote.lower), wrote.upper, wrote.lower)
    assert only(limits, later, 10.0).upper > 200
    theirs = typed(having(member(1, capacity=800), 77, 7), 77, 7)
    assert only(limits, theirs, 20.0).upper == 77


def test_a_silent_agents_server_keeps_its_threshold() -> None:
    out = only(learned(), having(member(1, capacity=800, trust=Trust.STALE), 50, 40))
    assert (out.upper, out.lower) == (50, 40)


def test_a_restarted_master_leaves_the_threshold_until_it_has_measured() -> None:
    assert only(learned(), having(member(1, capacity=None), 50, 40)).upper == 50


def test_a_pool_that_is_not_saturated_is_opened_further() -> None:
    full = [having(member(i, capacity=100, active=40, utilisation=0.8), 35, 30) for i in (1, 2)]
    uppers = [v.upper for v in learned().limits(pool(*full, flow=1000.0), 0.0).values()]
    assert sum(uppers) >= 1.3 * 80 - 2


def test_a_saturated_pool_sheds() -> None:
    full = [having(member(i, capacity=100, active=40, utilisation=0.99), 30, 27) for i in (1, 2)]
    assert [v.upper for v in learned().limits(pool(*full, flow=1000.0), 0.0).values()] == [30, 30]


def test_one_look_that_shows_no_queue_neither_opens_a_saturated_pool_nor_teaches_what_connections_last() -> None:
    """One agent's word may be all that makes it look so. A queue that is over for some seconds is over."""
    limits = learned()

    def uppers(utilisation: float, now: float) -> list[int]:
        full = [having(member(i, capacity=100, active=400, utilisation=utilisation), 30, 27) for i in (1, 2)]
        return [v.upper for v in limits.limits(pool(*full, flow=50.0), now).values()]

    for k in range(50):
        assert uppers(0.87 if k == 25 else 0.89, k / 5) == [30, 30]
    assert limits.sizing.room(member(1, capacity=100)).connections == 25  # type: ignore[union-attr]
    assert uppers(0.6, 10.0) == [30, 30]
    assert min(uppers(0.6, 9.8 + 5.0)) >= 400  # not saturated, and full


def test_memory_bounds_the_room_by_what_a_connection_costs() -> None:
    sizing = Sizing(0.25)
    m = member(1, capacity=4000)
    for k in range(200):
        n = 50 + 50 * (k // 25 % 2)
        w = window(k / 5, established=n, used=800_000_000 + n * 1_000_000)
        m = replace(member(1, capacity=4000, active=n), window=w)
        sizing.observe(pool(m), k / 5)
    room = sizing.room(m)
    assert room is not None
    free = (0.2 - 0.1 - 0.05) * 1000  # connections of a megabyte each; a reserve of 5 % stays
    assert room.connections == pytest.approx(100 + free, rel=0.1)
    assert "memory" in str(room.why)


def filling(sizing: Sizing, *, capacity: float = 4000, inactive: int = 0) -> Row:
    """A server with room for fifty connections of a megabyte more, beside the hundred that it has."""
    m = member(1, capacity=capacity)
    for k in range(200):
        n = 50 + 50 * (k // 25 % 2)
        w = window(k / 5, established=n, used=800_000_000 + n * 1_000_000)
        m = replace(member(1, capacity=capacity, active=n, inactive=inactive), window=w)
        sizing.observe(pool(m), k / 5)
    return m


def test_connections_that_are_newer_than_the_report_do_not_raise_what_memory_allows() -> None:
    sizing = Sizing(0.25)
    m = filling(sizing)
    assert m.kernel is not None
    more = replace(m, kernel=replace(m.kernel, active=140))
    before, after = sizing.room(m), sizing.room(more)
    assert before is not None and after is not None
    assert after.memory_bound == before.memory_bound


@pytest.mark.parametrize("deviation", [0.05, 0.4])
@pytest.mark.parametrize("ramping", [False, True])
@pytest.mark.parametrize("inactive", [0, 20, 5000])
def test_what_memory_allows_is_a_bound_without_a_margin_and_is_never_withdrawn(
    inactive: int, ramping: bool, deviation: float
) -> None:
    limits = learned()
    m = uncertain(filling(limits.sizing, inactive=inactive), deviation)
    out = limits.limits(pool(m), 40.0, ramping={m.key} if ramping else ())[m.key]
    closing = 400 if inactive else 0  # 2,000 a second, a fifth of a second
    assert out.upper == pytest.approx(150 + inactive + closing, abs=6)
    assert "memory" in out.text


def test_memory_that_is_far_away_costs_no_threshold_where_none_is_needed_by_load() -> None:
    limits = learned()
    m = uncertain(filling(limits.sizing, capacity=20), 0.4)
    assert m.kernel is not None
    calm = replace(m, kernel=replace(m.kernel, active=10))
    assert limits.limits(pool(calm), 40.0)[m.key].upper == 0


def test_memory_that_does_not_follow_connections_bounds_nothing() -> None:
    draw = random.Random(1)
    sizing = Sizing(0.25)
    m = member(1, capacity=4000)
    for k in range(200):
        w = window(k / 5, established=draw.randrange(50, 100), used=800_000_000 + draw.randrange(97) * 1_000_000)
        m = replace(member(1, capacity=4000, active=50), window=w)
        sizing.observe(pool(m), k / 5)
    room = sizing.room(m)
    assert room is not None
    assert room.memory_bound is None


def counting(limits: Limits, *members: Row) -> dict[DestinationKey, Bound]:
    """Behind a scheduler whose weights are counts, one tier a member."""
    tiers = {m.key: n for n, m in enumerate(members)}
    return limits.limits(pool(*members), 0.0, exact=True, counted=tiers)


def test_a_scheduler_that_counts_needs_a_threshold_only_in_front_of_a_larger_server() -> None:
    out = counting(learned(), member(1, capacity=400), member(2, capacity=800), member(3, capacity=700))
    assert {k for k, limit in out.items() if limit.upper} == {rip(1)}
    assert [out[rip(i)].room for i in (1, 2, 3)] == [100, 200, 175]


@pytest.mark.parametrize("upper", [0, 100])
def test_whether_one_is_needed_there_has_a_hysteresis(upper: int) -> None:
    first = having(member(1, capacity=400), upper, upper)
    out = counting(learned(), first, member(2, capacity=500))
    assert (out[rip(1)].upper > 0) is (upper > 0)


def test_a_server_behind_that_was_never_busy_is_not_taken_to_be_larger() -> None:
    out = counting(learned(), member(1, capacity=400), unmeasured(member(2, capacity=800)))
    assert not any(limit.upper for limit in out.values())


def unmeasured(m: Row) -> Row:
    assert m.estimate is not None
    return replace(m, estimate=replace(m.estimate, samples=0))


def test_before_anything_is_measured_in_a_pool_the_first_is_not_held_back() -> None:
    first, second = unmeasured(member(1, capacity=20)), member(2, capacity=20)
    assert counting(learned(), first, unmeasured(second))[rip(1)].room >= 1000
    assert counting(learned(), first, second)[rip(1)].room == 5


@pytest.mark.parametrize(
    ("active", "utilisation", "room"),
    [(50, 0.5, 100), (50, 0.1, 200), (50, 0.91, 31), (50, 0.97, 25), (0, 0.0, 25), (5, 0.8, 25)],
)
def test_a_server_that_is_not_saturated_can_hold_what_its_use_says(active: int, utilisation: float, room: int) -> None:
    """The estimate says 25: learned while connections were still building up, say."""
    sizing = Sizing(1.0)
    m = member(1, capacity=25, active=active, utilisation=utilisation)
    for k in range(100):
        sizing.observe(pool(m, flow=50), k / 5)
    known, plain = sizing.room(m, exact=True), sizing.room(m)
    assert known is not None and plain is not None
    assert known.connections == pytest.approx(room, abs=1)
    assert plain.connections == 25


def test_a_calm_server_is_not_full_before_the_next_look() -> None:
    """A burst has just come: nothing of it is to be seen in the utilisation of the last seconds."""
    sizing = Sizing(0.25)
    calm, burst = (member(1, capacity=100, active=n, utilisation=0.2) for n in (2, 60))
    for k in range(20):
        sizing.observe(pool(calm, flow=50), k / 5)
    sizing.observe(pool(burst, flow=50), 4.0)
    room = sizing.room(burst, exact=True, alone=True)
    hot = sizing.room(member(1, capacity=100, active=60, utilisation=0.9), exact=True, alone=True)
    assert room is not None and hot is not None
    assert room.connections >= 60 + 2 * 50 * 0.2
    assert hot.connections < 60


class Server:
    """One destination on a kernel's semantics, its limit rewritten at each look."""

    def __init__(self, overload: Overload, capacity: float) -> None:
        self.kernel = FakeKernel(overload=overload, now=0.0)
        self.kernel.apply([AddService(Service(VIRTUAL, "sed")), AddDestination(VIRTUAL, Destination(rip(1), 1))])
        self.limits, self.capacity, self.now, self.exact = learned(), capacity, 0.0, True

    def look(self, utilisation: float = 0.99) -> Bound:
        self.now += 0.2
        self.kernel.advance(self.now)
        entry = self.kernel.snapshot().services[0].destinations[0]
        m = replace(member(1, capacity=self.capacity, utilisation=utilisation), kernel=entry)
        out = only(self.limits, m, self.now, exact=self.exact, flow=4 * self.capacity)
        wanted = replace(entry.destination, upper=out.upper, lower=out.lower)
        if wanted != entry.destination:
            assert self.kernel.apply([SetDestination(VIRTUAL, wanted)]) == ()
        return out


@both
def test_looks_at_a_full_server_let_nobody_in(overload: Overload) -> None:
    """A threshold that moved up by one at each look would let one in each time, on an old kernel."""
    server = Server(overload, 40)
    server.look()
    opened = [c for _ in range(30) if (c := server.kernel.open(VIRTUAL))]
    assert len(opened) == 10
    for k in range(50):
        server.look()
        server.capacity = 40 if k % 2 else 36
        assert server.kernel.open(VIRTUAL) is None


@both
def test_it_opens_again_when_connections_close_though_they_still_count(overload: Overload) -> None:
    server = Server(overload, 40)
    server.look()
    opened = [c for _ in range(30) if (c := server.kernel.open(VIRTUAL))]
    for c in opened[:4]:
        server.kernel.close_connection(c)
    assert server.kernel.open(VIRTUAL) is None
    server.look()
    assert sum(server.kernel.open(VIRTUAL) is not None for _ in range(10)) == 4


@both
@given(steps=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=5, max_size=60))
def test_active_connections_never_pass_the_room_by_more_than_one_nor_is_it_shut_for_ever(
    overload: Overload, steps: list[tuple[int, int]]
) -> None:
    server = Server(overload, 40)
    server.look()
    opened = []
    for come, go in steps:
        opened += [c for _ in range(come) if (c := server.kernel.open(VIRTUAL))]
        assert len(opened) <= 11
        for c in opened[:go]:
            server.kernel.close_connection(c)
        del opened[:go]
        out = server.look()
        assert 0 < out.lower <= out.upper
    for c in opened:
        server.kernel.close_connection(c)
    server.look()
    assert server.kernel.open(VIRTUAL) is not None
