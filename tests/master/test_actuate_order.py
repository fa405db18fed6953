"""fo, ovf, lblc, twos: ranks, counts, limits and lots."""

from __future__ import annotations

import pytest

from feedback.master.bounds.limits import Limit
from feedback.master.pool import Pool
from feedback.model import DestinationKey, Protocol, Service, ServiceKey
from tests.master.builders import member, pool, replace, rip, shares
from tests.master.stages import Wanted, Weights, for_scheduler


def values(weights: Weights) -> list[int]:
    return [w.value for w in weights.values()]


def rooms(*counts: int, upper: bool = False) -> dict[DestinationKey, Limit]:
    return {rip(i): Limit(upper=n if upper else 0, room=n) for i, n in enumerate(counts, 1)}


def having(*weights: int, **counts: int) -> Pool:
    return pool(*(member(i, weight=w, **counts) for i, w in enumerate(weights, 1)))


def test_fo_changes_its_first_only_for_one_that_is_better_for_ten_seconds() -> None:
    actuator = for_scheduler("fo", 0.05)
    assert values(actuator.weights(having(0, 0), Wanted(shares(0.6, 0.4)), 0.0)) == [2, 1]
    for now in (1.0, 5.0, 10.9):
        assert values(actuator.weights(having(2, 1), Wanted(shares(0.4, 0.6)), now)) == [2, 1]
    assert values(actuator.weights(having(2, 1), Wanted(shares(0.4, 0.6)), 11.0)) == [1, 2]


def test_fo_forgets_a_challenge_that_is_over() -> None:
    actuator = for_scheduler("fo", 0.05)
    for now, part in ((0.0, (0.6, 0.4)), (1.0, (0.4, 0.6)), (5.0, (0.5, 0.5)), (6.0, (0.4, 0.6)), (12.0, (0.4, 0.6))):
        out = values(actuator.weights(having(2, 1), Wanted(shares(*part)), now))
    assert out == [2, 1]


def test_fo_leaves_an_owners_weights_that_say_the_same() -> None:
    out = for_scheduler("fo", 0.05).weights(having(100, 50, 10), Wanted(shares(0.33, 0.34, 0.33)), 0.0)
    assert values(out) == [100, 50, 10]


def test_fo_passes_over_one_that_is_out_of_service_at_once() -> None:
    actuator = for_scheduler("fo", 0.05)
    actuator.weights(having(2, 1), Wanted(shares(0.6, 0.4)), 0.0)
    assert values(actuator.weights(having(2, 1), Wanted(shares(0.0, 1.0)), 0.2)) == [0, 1]


def test_ovf_weights_are_counts_less_one_as_the_kernel_admits_one_more() -> None:
    out = for_scheduler("ovf", 0.05).weights(having(0, 0), Wanted(shares(0.5, 0.5), limits=rooms(10, 30)), 0.0)
    assert values(out) == [9, 29]


def test_ovf_keeps_the_order_of_tiers_by_weight_and_the_capacity_by_threshold() -> None:
    tiers = {rip(1): 0, rip(2): 1}
    wanted = Wanted(shares(0.5, 0.5), tiers, rooms(10, 30, upper=True))
    assert values(for_scheduler("ovf", 0.05).weights(having(0, 0), wanted, 0.0)) == [30, 29]


def test_ovf_without_a_threshold_keeps_the_order_by_holding_those_behind() -> None:
    tiers = {rip(1): 0, rip(2): 1, rip(3): 2}
    wanted = Wanted(shares(0.3, 0.3, 0.4), tiers, rooms(10, 30, 20))
    assert values(for_scheduler("ovf", 0.05).weights(having(0, 0, 0), wanted, 0.0)) == [9, 8, 7]


def test_ovf_falls_at_once_and_rises_slowly() -> None:
    actuator = for_scheduler("ovf", 0.05)

    def at(now: float, have: int, room: int) -> int:
        return values(actuator.weights(having(have), Wanted(shares(1.0), limits=rooms(room)), now))[0]

    assert at(0.0, 1, 100) == 99
    assert at(1.0, 99, 50) == 49
    assert at(2.0, 49, 100) == 49
    assert at(5.5, 49, 100) == 99


def test_ovf_rises_at_once_where_a_server_is_nearly_full() -> None:
    """The next one would be given what this one can take."""
    actuator = for_scheduler("ovf", 0.05)

    def at(now: float, have: int, active: int) -> int:
        wanted = Wanted(shares(1.0), limits=rooms(100))
        return values(actuator.weights(having(have, active=active), wanted, now))[0]

    assert at(0.0, 1, 0) == 99
    assert at(1.0, 50, 39) == 50
    assert at(1.2, 50, 40) == 99


def test_lblc_weights_are_what_servers_can_hold() -> None:
    out = for_scheduler("lblc", 0.05).weights(having(0, 0), Wanted(shares(0.25, 0.75), limits=rooms(50, 150)), 0.0)
    assert values(out) == [50, 150]


@pytest.mark.parametrize("active", [0, 1000, 100_000, 5_000_000])
def test_twos_products_stay_within_an_int(active: int) -> None:
    out = values(for_scheduler("twos", 0.05).weights(having(64, 64, active=active), Wanted(shares(0.1, 0.9)), 0.0))
    assert max(out) * 256 * active < 2**31
    assert 1 <= min(out) <= max(out) <= 256


@pytest.mark.parametrize("scheduler", ["sed", "nq", "ovf"])
def test_udp_is_never_active_and_the_reason_says_so(scheduler: str) -> None:
    two = pool(
        member(1), member(2), flow=10.0, service=Service(ServiceKey.at(Protocol.UDP, "10.0.0.100", 53), scheduler)
    )
    out = for_scheduler(scheduler, 0.05).weights(two, Wanted(shares(0.5, 0.5)), 0.0)
    assert "UDP" in out[rip(1)].text


def test_where_the_kernel_cannot_hold_a_tier_back_it_has_no_weight_until_those_before_are_nearly_full() -> None:
    actuator = for_scheduler("wrr", 0.05)
    wanted = Wanted(shares(0.5, 0.5), {rip(1): 0, rip(2): 1})

    def second(active: int, now: float) -> int:
        first = member(1, weight=16, active=active)
        assert first.kernel is not None
        bounded = replace(first.kernel.destination, upper=50)
        full = replace(first, kernel=replace(first.kernel, destination=bounded))
        return actuator.weights(pool(full, member(2, weight=0), flow=10.0), wanted, now)[rip(2)].value

    assert second(10, 0.0) == 0
    assert second(47, 1.0) > 0
    assert second(45, 2.0) > 0
    assert second(10, 3.0) == 0
