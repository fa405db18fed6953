"""What the estimator learns, how fast, and what it does not fall for."""

from __future__ import annotations

import random
from math import exp

import msgspec
import pytest

from feedback.master.servers.capacity import Capacity
from feedback.master.servers.filter import Filter
from feedback.master.servers.window import ApplicationWindow, Window
from feedback.model import Counters, Destination, DestinationEntry
from tests.master.builders import rip
from tests.master.stages import Estimator, look


def window(end: float, *, busy: float, completions: float | None, own: float | None = None, **kw: float) -> Window:
    return Window(
        start=end - 0.2,
        end=end,
        cores=kw.get("cores", 1.0),
        busy=busy,
        own=own,
        entitled=kw.get("entitled"),
        grain_seconds=0.0,
        opened=kw.get("opened", completions),
        completions=completions,
        memory_available=0.8,
        swap_in_pages=0,
    )


def feed(capacity: Capacity, true: float, load: float, seconds: float, start: float = 0.0, seed: int = 1) -> float:
    """Poisson completions at `load` of a server that completes `true` a second."""
    draw, at = random.Random(seed), start
    while at < start + seconds:
        at += 0.2
        n = sum(draw.expovariate(1) for _ in range(round(true * load * 0.2)))
        capacity.observe(window(at, busy=min(1.0, n / (true * 0.2)), completions=n))
    return at


def test_capacity_is_completions_over_utilisation() -> None:
    c = Estimator().capacity(rip(1))
    feed(c, true=200, load=0.5, seconds=5)
    found = c.estimate()
    assert found is not None
    assert found.capacity == pytest.approx(200, rel=0.1)
    assert found.utilisation == pytest.approx(0.5, rel=0.3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_connections_that_clients_keep_from_the_start_of_a_load_on_are_not_work_that_was_not_done(seed: int) -> None:
    """They stay open and idle for a second on the mean. A small server, with one sample in two seconds, is as well
    known after a few of them as a large one."""
    estimator, draw = Estimator(), random.Random(seed)
    estimator.residence(1.0)
    for key, rate in ((rip(1), 8), (rip(2), 76)):
        came = [draw.uniform(0, 10) for _ in range(rate * 10)]
        went = [at + draw.uniform(0, 2) for at in came]
        for k in range(1, 51):
            opened, ended = (float(sum(k - 1 <= 5 * at < k for at in moments)) for moments in (came, went))
            used = opened / (2 * rate * 0.2)
            seen = window(k / 5, busy=used, completions=ended, own=used, cores=rate / 100)
            estimator.capacity(key).observe(msgspec.structs.replace(seen, opened=opened))
    found = [estimator.capacity(key).estimate() for key in (rip(1), rip(2))]
    assert [e and e.capacity for e in found] == pytest.approx([16, 152], rel=0.1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_where_clients_keep_connections_their_ends_are_no_neighbours(seed: int) -> None:
    """A connection ends a second after its work: what ended in a window is not what the CPU was used for."""
    estimator, draw = Estimator(), random.Random(seed)
    estimator.residence(1.0)
    capacity = estimator.capacity(rip(1))
    came = sorted(draw.uniform(0, 60) for _ in range(100 * 60))
    went = [at + draw.uniform(0, 2) for at in came]
    costs = [draw.expovariate(200) for _ in came]
    lowest = 200.0
    for k in range(1, 301):
        here = [i for i, at in enumerate(came) if k - 1 <= 5 * at < k]
        ended = float(sum(k - 1 <= 5 * at < k for at in went))
        seen = window(k / 5, busy=min(1.0, sum(costs[i] for i in here) / 0.2), completions=ended)
        capacity.observe(msgspec.structs.replace(seen, opened=float(len(here))))
        found = capacity.estimate()
        if k > 50 and found is not None:
            lowest = min(lowest, found.capacity)
    assert lowest > 150


def test_two_servers_share_what_a_connection_costs() -> None:
    estimator = Estimator()
    busy, idle = estimator.capacity(rip(1)), estimator.capacity(rip(2))
    feed(busy, true=100, load=0.5, seconds=5)
    idle.observe(window(5.0, busy=0.0, completions=0.0, cores=3.0))
    a, b = busy.estimate(), idle.estimate()
    assert a is not None and b is not None
    assert b.capacity == pytest.approx(3 * a.capacity, rel=0.1)


def test_a_neighbour_is_told_from_a_slow_server_by_what_a_connection_costs() -> None:
    """Nobody says whose the CPU is. 80 of 200 a second use 0.4; with 0.4 more in use, 0.6 is left."""
    c = Estimator().capacity(rip(1))
    at = feed(c, true=200, load=0.4, seconds=10)
    for k in range(1, 4):
        c.observe(window(at + k / 5, busy=0.8, completions=16))
    during = c.estimate()
    for k in range(4, 7):
        c.observe(window(at + k / 5, busy=0.4, completions=16))
    after = c.estimate()
    assert during is not None and after is not None
    assert during.capacity == pytest.approx(120, rel=0.1)
    assert during.utilisation == pytest.approx(0.4 / 0.6, abs=0.1)
    assert after.capacity == pytest.approx(200, rel=0.1)


def test_a_neighbour_that_leaves_while_nobody_asks_for_anything_is_forgotten_too() -> None:
    c = Estimator().capacity(rip(1))
    at = feed(c, true=200, load=0.4, seconds=10)
    for k in range(1, 4):
        c.observe(window(at + k / 5, busy=0.8, completions=16))
    for k in range(4, 24):
        c.observe(window(at + k / 5, busy=0.01, completions=0))
    found = c.estimate()
    assert found is not None
    assert found.available == 1.0
    assert found.capacity == pytest.approx(200, rel=0.15)


def test_what_lasts_is_taken_for_the_servers_own_pace() -> None:
    c = Estimator().capacity(rip(1))
    at = feed(c, true=200, load=0.4, seconds=10)
    found = []
    for _ in range(12):
        at = feed(c, true=100, load=0.8, seconds=10, start=at)
        estimate = c.estimate()
        assert estimate is not None
        found.append(estimate.capacity)
    assert found[0] == pytest.approx(130, rel=0.2)
    assert found[-1] == pytest.approx(100, rel=0.12)


def test_stolen_time_is_not_to_be_had_and_not_the_services_work() -> None:
    """A hypervisor that gives half of what is asked for: 50 connections in 0.25 of the server, and half is left."""
    c = Estimator().capacity(rip(1))
    for k in range(1, 26):
        c.observe(msgspec.structs.replace(window(k / 5, busy=0.5, completions=10), stolen=0.25))
    found = c.estimate()
    assert found is not None
    assert found.available == pytest.approx(0.5, abs=0.02)
    assert found.capacity == pytest.approx(100, rel=0.1)


def test_a_neighbour_that_takes_all_it_can_leaves_what_the_service_is_entitled_to() -> None:
    c = Estimator().capacity(rip(1))
    for k in range(1, 26):
        c.observe(window(k / 5, busy=0.4, own=0.4, completions=16))
    before = c.estimate()
    for k in range(26, 36):
        c.observe(window(k / 5, busy=1.0, own=0.4, completions=16, entitled=0.5))
    after = c.estimate()
    assert before is not None and after is not None
    assert before.available == pytest.approx(1.0)
    assert after.available == pytest.approx(0.5, abs=0.02)  # the neighbour took 0.6, but would yield 0.1 of it
    assert after.capacity / before.capacity == pytest.approx(0.5, abs=0.05)


def test_what_a_service_has_for_a_moment_beyond_its_part_is_not_what_it_can_have() -> None:
    """Beside a neighbour that takes all it can, a window in which the service got more is followed by one with less."""
    c = Estimator().capacity(rip(1))
    found = []
    for k in range(1, 101):
        c.observe(window(k / 5, busy=1.0, own=0.65 if k % 2 else 0.25, completions=16, entitled=0.5))
        estimate = c.estimate()
        found += [estimate.available] if estimate and k > 50 else []
    assert sum(found) / len(found) == pytest.approx(0.5, abs=0.01)


def test_without_the_agents_counters_the_kernels_are_aligned_to_its_cpu() -> None:
    c, count = Estimator().capacity(rip(1)), 0
    for k in range(1, 101):
        at = k / 5
        c.observe(window(at, busy=0.5, completions=None))
        if k % 10 == 0:  # the kernel refreshes its counters every 2 s
            count += 100
        entry = DestinationEntry(Destination(rip(1)), 0, 0, 0, Counters(connections=count))
        look(c, entry, at)
    found = c.estimate()
    assert found is not None
    assert found.capacity == pytest.approx(100, rel=0.1)  # 50 a second at a utilisation of 0.5
    assert found.rate == pytest.approx(50, rel=0.1)


def test_reports_that_come_two_seconds_late_are_still_aligned_to_the_kernels_counters() -> None:
    c, count, late = Estimator().capacity(rip(1)), 0, []
    for k in range(1, 151):
        at, busy = k / 5, 0.5 if (k // 10) % 2 else 0.1  # the load steps at each refresh
        late.append(window(at, busy=busy, completions=None))
        if k > 10:
            c.observe(late[k - 11])
        if k % 10 == 9:
            count += 100 if (k // 10) % 2 else 20
        look(c, DestinationEntry(Destination(rip(1)), 0, 0, 0, Counters(connections=count)), at)
    found = c.estimate()
    assert found is not None
    assert found.capacity == pytest.approx(100, rel=0.1)


def test_where_connections_last_capacity_is_open_ones_over_utilisation() -> None:
    estimator = Estimator()
    estimator.residence(10.0)
    for i, (active, busy) in enumerate(((100, 0.5), (100, 0.25)), 1):
        c = estimator.capacity(rip(i))
        for k in range(1, 60):
            look(c, DestinationEntry(Destination(rip(i)), active), k / 5)
            c.observe(window(k / 5, busy=busy, completions=0.0))
    a, b = (estimator.capacity(rip(i)).estimate() for i in (1, 2))
    assert a is not None and b is not None
    assert a.held and a.capacity == pytest.approx(200, rel=0.1)
    assert b.capacity == pytest.approx(400, rel=0.1)
    estimator.residence(2.0)  # within the hysteresis
    assert estimator.capacity(rip(1)).held
    estimator.residence(1.0)
    assert not estimator.capacity(rip(1)).held


def test_a_queue_in_a_saturated_pool_is_no_sign_that_connections_last() -> None:
    estimator = Estimator()
    for k in range(1, 10):
        estimator.capacity(rip(1)).observe(window(k / 5, busy=1.0, completions=10.0))
    estimator.residence(10.0)
    assert not (estimator.capacity(rip(1)).held or estimator.prior.kept)
    for k in range(10, 20):
        estimator.capacity(rip(1)).observe(window(k / 5, busy=0.5, completions=10.0))
    estimator.residence(10.0)
    assert estimator.capacity(rip(1)).held


def test_how_connections_are_counted_is_not_changed_for_every_wavering_of_how_long_they_last() -> None:
    estimator = Estimator()
    modes = []
    for seconds in (1.0, 3.5, 2.0, 1.6, 1.0, 2.0, 3.5, 0.0):
        estimator.residence(seconds)
        modes.append(estimator.capacity(rip(1)).held)
    assert modes == [False, True, True, True, False, False, True, False]


def test_the_longer_clients_keep_connections_the_more_those_count_that_are_still_open() -> None:
    """A hundred come in a sample, and 80 of them end in it: so many were worked for, or 90."""
    levels = []
    for seconds in (0.02, 0.15, 0.2, 0.25, 0.3, 1.0):
        estimator = Estimator()
        estimator.residence(seconds)
        c = estimator.capacity(rip(1))
        c.observe(window(0.2, busy=0.5, completions=80.0, opened=100.0))
        levels.append(exp(c.filter.level) * 0.5 * 0.2)
    assert levels == pytest.approx([80, 80, 80 + 10 / 3, 80 + 20 / 3, 90, 90])


def test_open_connections_of_a_saturated_server_say_at_most_what_it_can_hold() -> None:
    estimator = Estimator()
    estimator.residence(10.0)
    c = estimator.capacity(rip(1))

    def capacity(start: float, active: int, busy: float) -> float:
        for k in range(1, 60):
            look(c, DestinationEntry(Destination(rip(1)), active), start + k / 5)
            c.observe(window(start + k / 5, busy=busy, completions=0.0))
        found = c.estimate()
        assert found is not None
        return found.capacity

    assert capacity(0.0, 100, 0.5) == pytest.approx(200, rel=0.05)
    assert capacity(12.0, 600, 1.0) == pytest.approx(200, rel=0.05)  # a queue
    assert capacity(24.0, 100, 1.0) < 150


def test_open_connections_that_still_build_up_teach_little() -> None:
    """They come at a steady rate and last three seconds: what they use is there at once, their number is not."""
    estimator = Estimator()
    estimator.residence(10.0)
    c = estimator.capacity(rip(1))
    for k in range(1, 60):
        look(c, DestinationEntry(Destination(rip(1)), round(100 * (1 - exp(-k / 15)))), k / 5)
        c.observe(window(k / 5, busy=0.5, completions=0.0))
    found = c.estimate()
    assert found is not None
    assert found.capacity > 160


def test_an_application_that_says_it_is_full_is_full_however_idle_its_cpu() -> None:
    c = Estimator().capacity(rip(1))
    word = ApplicationWindow(80, None, None, 0.8, None, None, False)
    for k in range(1, 40):
        seen = msgspec.structs.replace(window(k / 5, busy=0.1, completions=16), applications=(word,))
        c.observe(seen)
    found = c.estimate()
    assert found is not None
    assert found.utilisation == pytest.approx(0.8, abs=0.02)
    assert found.capacity == pytest.approx(100, rel=0.1)


def test_what_is_known_of_an_idle_server_fades() -> None:
    f = Filter()
    f.start(1.0, 0.01)
    f.forget(0.0, 60.0)
    assert f.level == pytest.approx(exp(-1))


def test_no_estimate_before_the_first_window() -> None:
    assert Estimator().capacity(rip(1)).estimate() is None


def test_a_seed_from_the_kernels_weights_holds_until_there_are_samples() -> None:
    estimator = Estimator()
    estimator.seed({rip(1): 10.0, rip(2): 40.0})
    for i in (1, 2):
        estimator.capacity(rip(i)).observe(window(1.0, busy=0.0, completions=0.0))
    a, b = (estimator.capacity(rip(i)).estimate() for i in (1, 2))
    assert a is not None and b is not None
    assert b.capacity / a.capacity == pytest.approx(4.0)


def test_what_was_learned_is_known_to_the_next_estimator() -> None:
    first = Estimator()
    true = {rip(1): 50.0, rip(2): 400.0}
    for key, speed in true.items():
        feed(first.capacity(key), speed, 0.5, 20.0)
    second = Estimator()
    second.resume(first.learned())
    for key, speed in true.items():
        second.capacity(key).observe(window(1.0, busy=0.0, completions=0.0))
        known = second.capacity(key).estimate()
        assert known is not None and known.capacity == pytest.approx(speed, rel=0.15)
    assert second.learned() == {}  # of its own it has seen nothing yet


def test_a_server_that_was_never_busy_is_taken_for_what_the_others_are_now() -> None:
    estimator = Estimator()
    idle, *others = (estimator.capacity(rip(i)) for i in (1, 2, 3))
    idle.observe(window(0.2, busy=0.0, completions=0.0))
    for true in (100.0, 150.0, 60.0):
        for seed, other in enumerate(others):
            feed(other, true, 0.5, 10.0, seed=seed)
        found = idle.estimate()
        assert found is not None
        assert found.capacity == pytest.approx(exp(sum(other.filter.level for other in others) / 2), rel=1e-9)


@pytest.mark.parametrize("lie", [1000.0, 0.001])
def test_one_agent_moves_what_a_server_like_the_others_is_taken_for_by_a_factor_of_two_over_their_number(
    lie: float,
) -> None:
    estimator = Estimator()
    for i in range(1, 5):
        feed(estimator.capacity(rip(i)), 100.0 * (lie if i == 4 else 1.0), 0.5, 4.0, seed=i)
    estimator.capacity(rip(5)).observe(window(1.0, busy=0.0, completions=0.0))
    found = estimator.capacity(rip(5)).estimate()
    assert found is not None
    assert 100 / 2 ** (1 / 4) / 1.1 < found.capacity < 100 * 2 ** (1 / 4) * 1.1


def test_a_first_sample_far_from_the_others_level_is_believed() -> None:
    """They may all be one that lies."""
    estimator = Estimator()
    feed(estimator.capacity(rip(1)), 1e6, 0.5, 2.0)
    feed(estimator.capacity(rip(2)), 100.0, 0.5, 0.5)
    found = estimator.capacity(rip(2)).estimate()
    assert found is not None and found.capacity == pytest.approx(100, rel=0.3)


@pytest.mark.parametrize("lie", [2.0, 0.5])
def test_one_agent_that_is_known_first_is_outweighed_by_a_slow_servers_samples_of_12_s(lie: float) -> None:
    """Its word alone is worth no more than that of one server. Nine connections in two seconds say little at a time."""
    estimator = Estimator()
    feed(estimator.capacity(rip(1)), 100.0 * lie, 0.5, 4.0)
    slow = estimator.capacity(rip(2))
    for k in range(1, 61):
        slow.observe(window(k / 5, busy=0.9, completions=0.9, cores=0.05))
    found = slow.estimate()
    assert found is not None and found.samples == 5
    assert found.capacity == pytest.approx(5, rel=0.15)


@pytest.mark.parametrize("cost", [0.15, 6.0])
def test_three_connections_do_not_outweigh_what_the_others_say(cost: float) -> None:
    """They cost a sixth of the usual, or six times as much: a small server's first sample has no more to tell."""
    estimator = Estimator()
    for i in range(1, 4):
        feed(estimator.capacity(rip(i)), 100.0, 0.5, 4.0, seed=i)
    small = estimator.capacity(rip(4))
    for k in range(1, 12):
        small.observe(window(k / 5, busy=3 * cost * 0.01 / (0.1 * 2.0), completions=3.0 * (k == 1), cores=0.1))
    found = small.estimate()
    assert found is not None and found.samples == 1
    assert found.capacity == pytest.approx(10, rel=0.3)
