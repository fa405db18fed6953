"""Weights in each scheduler's way. The kernel's choice is written out here, as ip_vs_sed.c and ip_vs_wlc.c make it."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.master.actuate import LOOK_SECONDS
from feedback.master.actuate.wrr import Flow as Wrr
from feedback.master.pool import Pool
from feedback.master.traits import closer_look
from feedback.model import WEIGHT_MAX, Destination, DestinationEntry, Protocol, Service, ServiceKey
from tests.master.builders import member, pool, put, rip, shares
from tests.master.stages import Acting, Flow, Memory, Presence, Stock, Wanted, for_scheduler


def sed(active: list[int], inactive: list[int], weights: list[int]) -> int:
    return min((i for i, w in enumerate(weights) if w), key=lambda i: (active[i] + 1) / weights[i])


def wlc(active: list[int], inactive: list[int], weights: list[int]) -> int:
    return min((i for i, w in enumerate(weights) if w), key=lambda i: (256 * active[i] + inactive[i]) / weights[i])


def run(
    actuator: Acting,
    choose: Callable[[list[int], list[int], list[int]], int],
    parts: Callable[[float], list[float]],
    *,
    seconds: float,
    flow: float = 100.0,
    holding: float = 0.005,
    inactive: list[int] | None = None,
) -> list[tuple[float, int]]:
    """(time, server) of each connection that a scheduler with these weights places; closed ones count for 120 s."""
    n = len(parts(0.0))
    draw, now, tick = random.Random(1), 0.0, 0.0
    open_until: list[list[float]] = [[] for _ in range(n)]
    gone_at: list[list[float]] = [[draw.uniform(0, 120) for _ in range(k)] for k in inactive or [0] * n]
    weights, placed = [1] * n, []
    while now < seconds:
        now += draw.expovariate(flow)
        for i in range(n):
            gone_at[i] = [t for t in gone_at[i] if t > now] + [t + 120 for t in open_until[i] if t <= now]
            open_until[i] = [t for t in open_until[i] if t > now]
        active, closed = [len(o) for o in open_until], [len(g) for g in gone_at]
        if now >= tick:
            tick = now + 0.2
            part = parts(now)
            members = tuple(
                put(member(i + 1), DestinationEntry(Destination(rip(i + 1), weight=weights[i]), active[i], closed[i]))
                for i in range(n)
            )
            p = pool(*members, flow=flow)
            given_weights = actuator.weights(p, Wanted(shares(*part)), now)
            weights = [given_weights[rip(i + 1)].value for i in range(n)]
        chosen = choose(active, closed, weights)
        open_until[chosen].append(now + draw.expovariate(1 / holding))
        placed.append((now, chosen))
    return placed


def part_of(placed: list[tuple[float, int]], server: int, start: float, end: float) -> float:
    inside = [s for t, s in placed if start <= t < end]
    return inside.count(server) / len(inside)


def test_sed_weights_are_in_proportion_and_stay_within_the_dead_band() -> None:
    actuator = Stock(dead_band=0.05)
    four = pool(*(member(i, weight=100) for i in (1, 2, 3, 4)))
    out = actuator.weights(four, Wanted(shares(0.1, 0.2, 0.3, 0.4)), 0.0)
    first = out[rip(1)].value
    assert [w.value / first for w in out.values()] == pytest.approx([1, 2, 3, 4], rel=0.02)
    same = pool(*(member(i, weight=w) for i, w in enumerate((400, 800, 1200, 1600), 1)))
    out = actuator.weights(same, Wanted(shares(0.102, 0.198, 0.302, 0.398)), 0.2)
    assert [w.value for w in out.values()] == [400, 800, 1200, 1600]


def test_one_servers_change_is_one_write() -> None:
    actuator = Stock(dead_band=0.05)
    have = pool(*(member(i, weight=1000) for i in range(1, 9)))
    out = actuator.weights(have, Wanted(shares(*[1 / 7.5] * 7, 0.5 / 7.5)), 0.0)
    assert [w.value for w in out.values()] == [1000] * 7 + [500]


def test_wlc_gets_its_shares_although_closed_connections_count_for_two_minutes() -> None:
    placed = run(Memory(), wlc, lambda now: [1 / 15, 2 / 15, 4 / 15, 8 / 15], seconds=20)
    assert [part_of(placed, i, 5, 20) for i in range(4)] == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15], abs=0.02)


def test_wlc_follows_a_change_within_a_second_and_does_not_starve() -> None:
    def parts(now: float) -> list[float]:
        return [0.25] * 4 if now < 20 else [0.125, 0.125, 0.25, 0.5]

    placed = run(Memory(), wlc, parts, seconds=30, inactive=[3000] * 4)
    assert part_of(placed, 3, 10, 20) == pytest.approx(0.25, abs=0.05)
    assert part_of(placed, 3, 21, 24) == pytest.approx(0.5, abs=0.1)
    assert part_of(placed, 0, 21, 24) == pytest.approx(0.125, abs=0.06)
    worst = max(part_of(placed, 3, t, t + 1) for t in range(20, 29))
    assert worst < 0.7


def test_wlc_levels_open_connections_to_the_new_shares_although_closed_ones_are_in_the_old() -> None:
    def parts(now: float) -> list[float]:
        return [0.25] * 4 if now < 20 else [0.125, 0.125, 0.25, 0.5]

    placed = run(Memory(), wlc, parts, seconds=25, inactive=[3000] * 4, holding=0.3)
    assert part_of(placed, 3, 21, 25) > 0.45
    assert part_of(placed, 0, 21, 25) < 0.17


def test_plain_wlc_floods_the_server_whose_weight_rises() -> None:
    """The trap itself, so that the test above is known to test something."""

    class Written:
        def aim(self, p: Pool) -> None:
            for row in p.rows:
                row.aim = round(1000 * row.part)

    def parts(now: float) -> list[float]:
        return [0.25] * 4 if now < 20 else [0.125, 0.125, 0.25, 0.5]

    placed = run(Acting(Written()), wlc, parts, seconds=30, inactive=[3000] * 4)
    assert part_of(placed, 3, 21, 24) > 0.9


@pytest.mark.parametrize("holding", [0.005, 0.05, 10.0])
def test_a_server_without_a_past_gets_no_more_than_its_share_under_wlc(holding: float) -> None:
    settled = [3000, 3000, 3000, 0] if holding < 1 else [0, 0, 0, 0]
    placed = run(
        Memory(),
        wlc,
        lambda now: [0.25] * 4 if now > 20 else [1 / 3, 1 / 3, 1 / 3, 0.0],
        seconds=40,
        holding=holding,
        inactive=settled,
    )
    assert max(part_of(placed, 3, t, t + 3) for t in range(20, 37)) < 1.5 * 0.25
    assert part_of(placed, 3, 30, 40) > 0.15


def test_a_server_without_a_past_gets_no_more_than_its_share_under_sed_with_long_connections() -> None:
    placed = run(
        Stock(0.05), sed, lambda now: [0.25] * 4 if now > 30 else [1 / 3, 1 / 3, 1 / 3, 0.0], seconds=60, holding=10.0
    )
    assert max(part_of(placed, 3, t, t + 3) for t in range(30, 57)) < 1.6 * 0.25
    assert part_of(placed, 3, 50, 60) == pytest.approx(0.25, abs=0.06)


def test_one_that_has_far_too_many_does_not_keep_another_from_catching_up() -> None:
    """The kernel chooses between the first and the last; the second has lost its part, and gets nothing anyway."""
    first, second, last = member(1, weight=1000, active=200), member(2, weight=80, active=70), member(3, active=50)
    p = pool(first, second, last, flow=60.0)
    out = Stock(0.0).weights(p, Wanted(shares(0.48, 0.04, 0.48)), 0.0)
    weights = [out[rip(i)].value for i in (1, 2, 3)]
    assert "catching up" in out[rip(3)].text
    assert sed([200, 70, 50], [0, 0, 0], weights) == 2


@pytest.mark.parametrize(("first", "connections"), [(0.25, 5.0), (0.6875, 8.0), (0.718, 16.0)])
def test_wrr_rests_until_a_write_mends_more_than_the_reset_of_its_cursor_costs(
    first: float, connections: float
) -> None:
    actuator, flow = Flow(dead_band=0.0), 100.0
    even = pool(*(member(i, weight=16) for i in (1, 2)), flow=flow)
    assert [w.value for w in actuator.weights(even, Wanted(shares(0.75, 0.25)), 0.0).values()] == [24, 8]
    have = pool(member(1, weight=24), member(2, weight=8), flow=flow)
    wanted = Wanted(shares(first, 1 - first))
    rest = 2 * connections / flow
    assert [w.value for w in actuator.weights(have, wanted, 0.9 * rest).values()] == [24, 8]
    aims = [max(1, round(32 * first)), max(1, round(32 * (1 - first)))]
    assert [w.value for w in actuator.weights(have, wanted, 1.3 * rest).values()] == pytest.approx(aims, abs=1)


def test_wrr_takes_from_a_server_where_connections_pile_up_before_any_report_says_so() -> None:
    actuator = Flow(dead_band=0.05)
    for k in range(1, 20):
        piled = pool(member(1, weight=16, active=40), member(2, weight=16, active=5), member(3, weight=16, active=5))
        out = actuator.weights(piled, Wanted(shares(1 / 3, 1 / 3, 1 / 3)), 3.0 * k)
    assert out[rip(1)].value < 0.6 * out[rip(2)].value


def test_wrr_answers_what_piles_up_the_more_firmly_the_younger_the_news() -> None:
    def after(between: float) -> float:
        actuator, piled = Flow(dead_band=0.0), (member(1, weight=16, active=15), member(2, weight=16, active=5))
        for k in range(1, 100):
            out = actuator.weights(pool(*piled, flow=1000.0), Wanted(shares(0.5, 0.5)), between * k)
        return out[rip(2)].value / out[rip(1)].value

    close, far = after(LOOK_SECONDS), after(0.2)
    slack = 1 + Wrr.CHANCE * 10**0.5
    less = (10 + slack) / (15 + slack)
    assert far == pytest.approx(1.2 / less, rel=0.1)
    assert close == pytest.approx(1.5 / less**2, rel=0.1)


def test_wrr_takes_a_server_out_without_resting() -> None:
    actuator = Flow(dead_band=0.05)
    actuator.weights(pool(*(member(i, weight=16) for i in (1, 2))), Wanted(shares(0.75, 0.25)), 0.0)
    out = actuator.weights(pool(member(1, weight=24), member(2, weight=8)), Wanted(shares(1.0, 0.0)), 0.1)
    assert out[rip(2)].value == 0


def test_a_scheduler_that_ignores_weights_is_left_alone_but_for_zero() -> None:
    out = Presence("lc").weights(pool(member(1, weight=7), member(2, weight=9)), Wanted(shares(1.0, 0.0)), 0.0)
    assert [w.value for w in out.values()] == [7, 0]


def test_wlc_at_rest_is_not_written_more_often_than_connections_come() -> None:
    actuator, written = Memory(), []
    slow = pool(*(member(i) for i in (1, 2)), flow=1.0)
    for k in range(100):
        out = actuator.weights(slow, Wanted(shares(0.5, 0.5)), k / 5)
        if "tick" not in out[rip(1)].text:
            written.append(k / 5)
    assert min(b - a for a, b in pairwise(written)) >= 3.5


@given(
    st.sampled_from(["sed", "nq", "wlc", "wrr", "mh", "sh", "rr", "lc", "dh", "lblc", "lblcr", "twos", "fo", "ovf"]),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1
    ),
    st.floats(0, 1e6),
)
def test_weights_are_ones_the_kernel_takes_and_zero_only_for_a_share_of_zero(
    scheduler: str, situation: list[tuple[float, int, int, int]], flow: float
) -> None:
    actuator = for_scheduler(scheduler, 0.05)
    members = [member(i, weight=w, active=a, inactive=n) for i, (_, w, a, n) in enumerate(situation[:40], 1)]
    wanted = Wanted(shares(*(s for s, *_ in situation[:40])))
    for now in (0.0, 0.2, 10.0):
        out = actuator.weights(pool(*members, flow=flow), wanted, now)
        for m in members:
            assert 0 <= out[m.key].value <= WEIGHT_MAX
            resting = "tick" in out[m.key].text or "resting" in out[m.key].text
            assert resting or (out[m.key].value == 0) == (wanted.shares[m.key].value == 0)


@pytest.mark.parametrize(
    ("protocol", "scheduler", "closer"),
    [("tcp", "sed", True), ("tcp", "wlc", False), ("udp", "wrr", False)],
)
def test_where_nothing_is_seen_sooner_there_is_no_closer_look(protocol: str, scheduler: str, closer: bool) -> None:
    assert closer_look(Service(ServiceKey.at(Protocol(protocol), "10.0.0.100", 80), scheduler)) is closer
