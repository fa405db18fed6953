"""Bounds that no law can cross: tables of situations, and invariants under any shares."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feedback.config import Guards
from feedback.master.bounds.guard import RAMP_START
from feedback.master.servers.fleet import Trust
from feedback.model import Destination
from tests.master.builders import member, pool, replace, rip, shares
from tests.master.stages import Guard


def values(guarded: object) -> list[float]:
    return [s.value for s in guarded.shares.values()]  # type: ignore[attr-defined]


def test_it_starts_from_what_the_kernel_has_and_moves_a_bounded_factor_a_second() -> None:
    guard = Guard(Guards(change_per_second=2.0))
    two = pool(member(1), member(2))
    first = guard.apply(two, shares(0.9, 0.1), 10.0)
    assert values(first) == pytest.approx([0.5, 0.5])
    later = guard.apply(two, shares(0.9, 0.1), 10.5)
    assert later.shares[rip(2)].value >= 0.5 / 2**0.5 / 1.25
    assert "2-fold" in str(later.shares[rip(2)].reasons)


def test_it_arrives_where_the_law_wants_it() -> None:
    guard = Guard(Guards())
    two = pool(member(1), member(2))
    for k in range(20):
        out = guard.apply(two, shares(0.9, 0.1), 10 + k / 5)
    assert values(out) == pytest.approx([0.9, 0.1], abs=0.01)


def test_an_operators_zero_is_never_raised_and_its_share_goes_to_the_others() -> None:
    guard = Guard(Guards())
    three = pool(member(1, weight=0, quiesced="by hand"), member(2), member(3))
    for k in range(20):
        out = guard.apply(three, shares(0.8, 0.1, 0.1), 10 + k / 5)
    assert values(out) == pytest.approx([0.5, 0.5, 0.0], abs=0.01) or out.shares[rip(1)].value == 0
    assert out.shares[rip(2)].value == pytest.approx(0.5)


def test_a_new_server_starts_slowly_and_gets_there() -> None:
    guard = Guard(Guards(slow_start_seconds=10))
    guard.apply(pool(member(1), member(2)), shares(0.5, 0.5), 0.0)
    three = pool(member(1), member(2), member(3))
    third = 1 / 3
    seen = [guard.apply(three, shares(third, third, third), k / 5).shares[rip(3)].value for k in range(1, 80)]
    assert seen[0] == pytest.approx(RAMP_START * third, rel=0.5)
    assert all(b >= a - 1e-9 for a, b in pairwise(seen))
    assert seen[24] < 0.75 * third
    assert seen[-1] == pytest.approx(third, rel=0.01)


def test_a_slow_start_beside_one_whose_share_is_held_leaves_the_others_theirs() -> None:
    """The agent of rs1 was never heard, so that its quarter stays; rs4 returns, and the law wants nearly all for it."""
    guard = Guard(Guards(slow_start_seconds=10))
    silent = member(1, trust=Trust.NEVER, capacity=None)
    guard.apply(pool(silent, member(2), member(3)), shares(0.2, 0.4, 0.4), 0.0)
    four = pool(silent, member(2), member(3), member(4))
    before = [0.33, 0.33]
    for k in range(1, 100):
        out = guard.apply(four, shares(0.05, 0.01, 0.01, 0.93), k / 5)
        now = [out.shares[rip(i)].value for i in (2, 3)]
        for share, last in zip(now, before, strict=True):
            assert share >= 0.98 * max(0.02 / 4, last / 4**0.2)
        before = now
        assert sum(values(out)) == pytest.approx(1.0)
    assert out.shares[rip(4)].value > 0.6


def test_without_a_slow_start_too_who_returns_gets_something_beside_one_whose_share_is_held() -> None:
    guard = Guard(Guards(slow_start_seconds=0.0))
    silent, zero = member(1, trust=Trust.NEVER, capacity=None), member(2, weight=0)
    guard.apply(pool(silent, zero), shares(0.5, 0.5), 0.0)
    for k in range(1, 20):
        out = guard.apply(pool(silent, member(2)), shares(0.5, 0.5), k / 5)
        assert out.shares[rip(2)].value >= 0.009
    assert out.shares[rip(1)].value > 0.4


def test_slow_start_waits_while_the_new_server_is_hot() -> None:
    guard = Guard(Guards(slow_start_seconds=10))
    guard.apply(pool(member(1), member(2)), shares(0.5, 0.5), 0.0)
    hot = pool(member(1), member(2), member(3, utilisation=0.99))
    for k in range(1, 100):
        out = guard.apply(hot, shares(0.3, 0.3, 0.3), k / 5)
    assert out.ramp[rip(3)] == pytest.approx(RAMP_START)


def test_slow_start_is_short_where_the_others_have_no_room() -> None:
    """A server with cold caches is better than a queue: restarted, it stood idle for ten seconds beside full ones."""
    third, ends = 1 / 3, []
    for used in (0.5, 0.97):
        guard = Guard(Guards(slow_start_seconds=10))
        guard.apply(pool(member(1), member(2)), shares(0.5, 0.5), 0.0)
        three = pool(member(1, utilisation=used), member(2, utilisation=used), member(3))
        turns = 0
        while not turns or rip(3) in guard.apply(three, shares(third, third, third), turns / 5).ramp:
            turns += 1
        ends.append(turns)
    assert ends[1] == pytest.approx(ends[0] / 4, abs=2)


def test_when_most_servers_are_new_none_starts_slowly() -> None:
    guard = Guard(Guards())
    guard.apply(pool(member(1)), shares(1.0), 0.0)
    out = guard.apply(pool(member(1), member(2), member(3)), shares(0.3, 0.3, 0.3), 0.2)
    assert not out.ramp


def test_a_stale_server_is_not_raised() -> None:
    guard = Guard(Guards())
    guard.apply(pool(member(1), member(2), member(3)), shares(1, 1, 1), 0.0)
    stale = pool(member(1, trust=Trust.STALE), member(2), member(3))
    for k in range(1, 50):
        out = guard.apply(stale, shares(0.8, 0.1, 0.1), k / 5)
    assert out.shares[rip(1)].value <= 0.34


@pytest.mark.parametrize("policy, expected", [("hold", 0.6), ("static", 1 / 3), ("quiesce", 0.0)])
def test_a_lost_server_follows_the_policy(policy: str, expected: float) -> None:
    guard = Guard(Guards(lost_policy=policy))
    well = pool(member(1, weight=60), member(2, weight=20), member(3, weight=20))
    guard.apply(well, shares(0.6, 0.2, 0.2), 0.0)
    lost = pool(member(1, weight=60, trust=Trust.LOST), member(2, weight=20), member(3, weight=20))
    for k in range(1, 400):
        out = guard.apply(lost, shares(0.6, 0.2, 0.2), k / 5)
    assert out.shares[rip(1)].value == pytest.approx(expected, abs=0.1)


def test_when_most_of_the_fleet_falls_silent_everything_is_held_until_it_speaks() -> None:
    guard = Guard(Guards())
    guard.apply(pool(*(member(i) for i in (1, 2, 3, 4))), shares(1, 1, 1, 1), 0.0)
    silent = pool(*(member(i, trust=Trust.STALE if i < 3 else Trust.FRESH) for i in (1, 2, 3, 4)))
    assert "2 of 4" in guard.apply(silent, shares(1, 1, 5, 5), 5.0).held
    lost = pool(*(member(i, trust=Trust.LOST if i < 3 else Trust.FRESH) for i in (1, 2, 3, 4)))
    assert guard.apply(lost, shares(1, 1, 5, 5), 60.0).held
    assert not guard.apply(pool(*(member(i) for i in (1, 2, 3, 4))), shares(1, 1, 1, 1), 61.0).held


def test_quiescing_lost_servers_leaves_half_of_the_pool() -> None:
    guard = Guard(Guards(lost_policy="quiesce", panic=1.0))
    guard.apply(pool(*(member(i) for i in (1, 2, 3, 4))), shares(1, 1, 1, 1), 0.0)
    lost = pool(*(member(i, trust=Trust.LOST if i < 4 else Trust.FRESH) for i in (1, 2, 3, 4)))
    out = guard.apply(lost, shares(1, 1, 1, 1), 20.0)
    assert sum(1 for s in out.shares.values() if s.value == 0) == 2


@example([(0.0, Trust.STALE, False)], [1.0], "hold")
@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.sampled_from(list(Trust)), st.booleans()), min_size=1, max_size=8),
    st.lists(st.floats(0.01, 30), min_size=1, max_size=10),
    st.sampled_from(["hold", "static", "quiesce"]),
)
def test_whatever_the_law_says_shares_are_a_partition_and_never_all_zero(
    situation: list[tuple[float, Trust, bool]], steps: list[float], policy: str
) -> None:
    guard = Guard(Guards(lost_policy=policy))
    now = 0.0
    members = [
        member(i, trust=trust, quiesced="theirs" if zero else "", weight=0 if zero else 100)
        for i, (_, trust, zero) in enumerate(situation, 1)
    ]
    for step in steps:
        now += step
        out = guard.apply(pool(*members), shares(*(v for v, _, _ in situation)), now)
        if out.held:
            continue
        total = sum(values(out))
        assert all(v >= 0 for v in values(out))
        if any(not m.quiesced for m in members):
            assert total == pytest.approx(1.0)
        assert all(out.shares[m.key].value == 0 for m in members if m.quiesced)


@pytest.mark.parametrize(
    ("wanted", "weights", "expected"),
    [
        ((0.93, *[0.01] * 7), [100] * 8, 0.5),
        ((0.44, 0.44, *[0.02] * 6), [100] * 8, 0.44),
        ((0.93, *[0.01] * 7), [700, *[100] * 7], 0.93),
        ((0.93, *[0.01] * 7), [1, *[100] * 7], 0.5),
    ],
    ids=["one", "two within", "as the operator said", "an equal part is owed"],
)
def test_nobody_gets_more_than_a_multiple_of_what_the_operator_gave(
    wanted: tuple[float, ...], weights: list[int], expected: float
) -> None:
    guard = Guard(Guards())
    bases = [Destination(rip(i), weight=w) for i, w in enumerate(weights, 1)]
    eight = pool(*(replace(member(i), base=base) for i, base in enumerate(bases, 1)))
    for k in range(60):
        out = guard.apply(eight, shares(*wanted), 10 + k / 5)
    assert out.shares[rip(1)].value == pytest.approx(expected, abs=0.01)
    assert sum(values(out)) == pytest.approx(1)
    assert ("ceiling" in str(out.shares[rip(1)].reasons)) == (expected == 0.5)


@pytest.mark.parametrize("most", [1e9, 1e18, 1e30])
@pytest.mark.parametrize("servers", [3, 4, 10])
def test_a_lie_takes_the_same_part_from_all_others_also_while_some_are_pinned(servers: int, most: float) -> None:
    """The last but one was never heard: the law takes it for an average one, and it keeps its share."""
    guard, wanted = Guard(Guards()), [float(i) for i in range(1, servers - 1)]
    rows = [member(i) for i in range(1, servers - 1)]
    rows += [member(servers - 1, trust=Trust.NEVER, capacity=None), member(servers)]
    for k in range(40):
        lie = most if k > 20 else 1.0
        out = guard.apply(pool(*rows), shares(*wanted, 1.0, lie), 10 + k / 5)
        found = values(out)
        honest = found[: servers - 2]
        if k in (20, 39):
            assert [h / honest[0] for h in honest] == pytest.approx(wanted, rel=0.01)
        assert found[servers - 2] == pytest.approx(1 / servers)
    assert found[-1] <= max(4 / servers, 0.95)


@pytest.mark.parametrize("most", [1e9, 1e18, 1e30])
def test_beside_the_others_nobody_counts_more_than_in_the_least_pool_where_the_ceiling_is_a_bound(most: float) -> None:
    guard, four = Guard(Guards()), pool(*(member(i) for i in range(1, 5)))
    for k in range(40):
        out = guard.apply(four, shares(1.0, 1.0, 2.0, most), 10 + k / 5)
    assert values(out) == pytest.approx([3 / 19 / 4, 3 / 19 / 4, 3 / 19 / 2, 16 / 19], rel=0.01)


def test_who_was_held_at_nothing_serves_once_all_others_are_out() -> None:
    """As after a restart where tiers are zeros of ours: nothing is measured yet, and the one that serves is lost."""
    guard = Guard(Guards(lost_policy="quiesce", slow_start_seconds=0.0))
    first = member(1, capacity=None, trust=Trust.NEVER)
    others = member(2, capacity=None, weight=0), member(3, capacity=None, weight=0, trust=Trust.NEVER)
    for k in range(3):
        out = guard.apply(pool(first, *others), shares(1, 1, 1), k / 5)
    assert values(out) == [1.0, 0.0, 0.0]
    out = guard.apply(pool(replace(first, trust=Trust.LOST), *others), shares(1, 1, 1), 1.0)
    assert values(out) == [0.0, 0.5, 0.5]
