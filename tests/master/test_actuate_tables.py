"""mh and sh: places in a table of hashes. The kernel's filling of buckets is written out here, as ip_vs_sh.c has it."""

from __future__ import annotations

from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.master.actuate.hashed import apportion
from feedback.master.pool import Pool
from feedback.model import ServiceFlags
from tests.master.builders import member, pool, replace, rip, shares
from tests.master.stages import Acting, Buckets, Permuted, Wanted, Weights

positive = st.floats(1e-4, 1.0)


def values(weights: Weights) -> list[int]:
    return [w.value for w in weights.values()]


def having(weights: list[int], scheduler: str = "sh") -> Pool:
    return pool(*(member(i, weight=w) for i, w in enumerate(weights, 1)), scheduler=scheduler)


def buckets(weights: list[int]) -> list[int]:
    """How many of the 256 buckets each gets: `if (++d_count >= weight) next`, so at least one."""
    owners = [0] * len(weights)
    at = count = 0
    for _ in range(256):
        owners[at] += 1
        count += 1
        if count >= weights[at]:
            at, count = (at + 1) % len(weights), 0
    return owners


@given(st.lists(st.one_of(st.just(0.0), positive), min_size=2, max_size=40))
def test_sh_buckets_are_the_shares_and_nobody_gets_none(part: list[float]) -> None:
    if not any(part):
        part[0] = 1.0
    weights = values(Buckets().weights(having([0] * len(part)), Wanted(shares(*part)), 0.0))
    assert buckets(weights) == [max(1, w) for w in weights]
    assert [w > 0 for w in weights] == [p > 0 for p in part]


@given(st.lists(positive, min_size=1, max_size=50), st.integers(50, 256))
def test_apportioned_numbers_have_the_sum_and_are_the_nearest(part: list[float], places: int) -> None:
    dealt = apportion(part, places)
    assert sum(dealt) == places
    assert min(dealt) >= 1
    if all(places * p / sum(part) >= 1 for p in part):
        assert all(abs(d - places * p / sum(part)) < 1 for d, p in zip(dealt, part, strict=True))


def test_sh_rests_a_minute_but_not_when_a_server_fails() -> None:
    actuator = Buckets()
    assert values(actuator.weights(having([100, 100]), Wanted(shares(0.5, 0.5)), 0.0)) == [128, 128]
    there = having([128, 128])
    assert values(actuator.weights(there, Wanted(shares(0.25, 0.75)), 30.0)) == [128, 128]
    assert values(actuator.weights(there, Wanted(shares(0.25, 0.75)), 61.0)) == [64, 192]
    assert values(actuator.weights(having([64, 192]), Wanted(shares(0.0, 1.0)), 62.0)) == [0, 255]


def test_sh_does_not_move_clients_for_a_few_per_cent() -> None:
    out = Buckets().weights(having([128, 128]), Wanted(shares(0.52, 0.48)), 0.0)
    assert values(out) == [128, 128]


@given(st.lists(positive, min_size=2, max_size=20))
def test_mh_weights_keep_within_six_bits_and_have_no_common_divisor(part: list[float]) -> None:
    weights = values(Permuted().weights(having([0] * len(part), "mh"), Wanted(shares(*part)), 0.0))
    assert 1 <= min(weights) <= max(weights) <= 63
    assert gcd(*weights) == 1


def test_mh_is_in_proportion() -> None:
    out = values(Permuted().weights(having([0, 0, 0], "mh"), Wanted(shares(0.2, 0.3, 0.5)), 0.0))
    assert [w / sum(out) for w in out] == pytest.approx([0.2, 0.3, 0.5], rel=0.05)


def test_mh_is_written_for_a_tenth_and_every_ten_seconds() -> None:
    actuator = Permuted()
    there = having([62, 63], "mh")
    assert values(actuator.weights(there, Wanted(shares(0.49, 0.51)), 0.0)) == [62, 63]
    assert values(actuator.weights(there, Wanted(shares(0.25, 0.75)), 1.0)) == [21, 62]
    assert values(actuator.weights(having([21, 62], "mh"), Wanted(shares(0.75, 0.25)), 5.0)) == [21, 62]
    assert values(actuator.weights(having([21, 62], "mh"), Wanted(shares(0.75, 0.25)), 11.0)) == [62, 21]


@pytest.mark.parametrize("actuator", [Permuted(), Buckets()])
def test_a_zero_without_fallback_says_that_clients_are_refused(actuator: Acting) -> None:
    two = having([30, 31])
    assert "refused" in actuator.weights(two, Wanted(shares(1.0, 0.0)), 0.0)[rip(2)].text
    service = replace(two.service, flags=ServiceFlags.SCHED1)
    fallback = replace(two, service=service)
    assert "refused" not in actuator.weights(fallback, Wanted(shares(1.0, 0.0)), 0.0)[rip(2)].text
