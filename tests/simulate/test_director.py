"""The fast table, scanned and indexed, against `FakeKernel`, which the contract test holds to the real kernel."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.ipvs.fake import FakeConnection, FakeKernel
from feedback.ipvs.fake_table import Overload
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Protocol,
    RemoveDestination,
    Service,
    ServiceKey,
    SetDestination,
)
from feedback.simulate.director import Director, Slot

SCHEDULERS = ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"]
FIN, UDP = 120.0, 300.0


class Pair:
    """Both tables, driven alike; every step compares."""

    def __init__(self, scheduler: str, protocol: Protocol, overload: Overload, weights: list[int]) -> None:
        self.service = Service(ServiceKey.at(protocol, "10.0.0.100", 80), scheduler=scheduler)
        keys = [DestinationKey.parse(f"10.0.1.{i + 1}:80") for i in range(len(weights))]
        self.destinations = [Destination(k, weight=w) for k, w in zip(keys, weights, strict=True)]
        self.kernel = FakeKernel(overload=overload, now=0.0)
        self.kernel.apply([AddService(self.service), *(AddDestination(self.service.key, d) for d in self.destinations)])
        self.service = self.kernel.snapshot().services[0].service
        self.fast = Director(self.service, self.destinations, overload=overload, fin_seconds=FIN, udp_seconds=UDP)
        self.indexed = Director(
            self.service, self.destinations, overload=overload, fin_seconds=FIN, udp_seconds=UDP, scanned=0
        )
        self.open: list[tuple[FakeConnection, Slot, Slot]] = []
        self.now = 0.0

    def compare(self) -> None:
        self.kernel.advance(self.now)
        kernel = self.kernel.snapshot().services[0].destinations
        assert self.fast.snapshot(self.now).services[0].destinations == kernel
        assert self.indexed.snapshot(self.now).services[0].destinations == kernel

    def step(self, kind: str, a: int, b: int) -> None:
        match kind:
            case "open":
                self.kernel.advance(self.now)
                connection, slot = self.kernel.open(self.service.key), self.fast.open(self.now)
                other = self.indexed.open(self.now)
                assert (connection and connection.destination) == (slot and slot.config.key)
                assert (other and other.index) == (slot and slot.index)
                if connection is not None and slot is not None and other is not None:
                    self.open.append((connection, slot, other))
            case "close" if self.open:
                connection, slot, other = self.open.pop(a % len(self.open))
                self.kernel.advance(self.now)
                self.kernel.close_connection(connection)
                self.fast.close(slot, self.now)
                self.indexed.close(other, self.now)
            case "wait":
                self.now += (0.3, 1.7, 45.0, 130.0)[a % 4]
            case "set":
                i, upper = a % len(self.destinations), b % 12
                changed = msgspec.structs.replace(
                    self.destinations[i], weight=(a * 7 + b) % 9, upper=upper, lower=upper // 2 * (b % 2)
                )
                self.kernel.advance(self.now)
                assert not self.kernel.apply([SetDestination(self.service.key, changed)])
                for table in (self.fast, self.indexed):
                    table.advance(self.now)
                    table.apply([SetDestination(self.service.key, changed)])
        self.compare()


step = st.tuples(
    st.sampled_from(["open"] * 6 + ["close"] * 3 + ["wait", "set"]), st.integers(0, 1000), st.integers(0, 1000)
)


@settings(max_examples=3 * settings.default.max_examples // 2)
@given(
    st.sampled_from(SCHEDULERS),
    st.sampled_from([Protocol.TCP, Protocol.UDP]),
    st.sampled_from(list(Overload)),
    st.lists(st.integers(0, 12), min_size=1, max_size=8),
    st.lists(step, max_size=60),
)
def test_every_step_of_a_script_leaves_both_tables_alike(
    scheduler: str, protocol: Protocol, overload: Overload, weights: list[int], steps: list[tuple[str, int, int]]
) -> None:
    pair = Pair(scheduler, protocol, overload, weights)
    for kind, a, b in steps:
        pair.step(kind, a, b)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_long_script_leaves_both_tables_alike(scheduler: str) -> None:
    pair, draw = Pair(scheduler, Protocol.TCP, Overload.UNTIL_6_1_176, [7, 3, 16, 1, 0, 5]), random.Random(scheduler)
    kinds: list[str] = ["open", "open", "open", "close", "close", "wait", "set"]
    for _ in range(400):
        pair.step(draw.choice(kinds), draw.randrange(1000), draw.randrange(1000))


def test_smooth_round_robin_has_no_bursts() -> None:
    fast = Director(_service("smooth"), _destinations(5, 1, 1))
    chosen = [_index(fast.open(0.0)) for _ in range(14)]
    assert chosen.count(0) == 10
    assert max(chosen.index(i) for i in (1, 2)) < 7  # each small one within one round


def test_what_was_remembered_from_before_is_forgotten_in_time() -> None:
    fast = Director(_service("wlc"), _destinations(1, 1))
    fast.remember((moment, fast.slots[0]) for moment in (5.0, 1.0, 9.0))
    assert fast.slots[0].inactive == 3
    fast.advance(5.0)
    assert fast.slots[0].inactive == 1


def test_what_nobody_will_see_forgotten_is_counted_all_the_same() -> None:
    fast = Director(_service("wlc"), _destinations(1, 1), fin_seconds=5.0, until=8.0)
    for now in (0.0, 4.0):
        slot = fast.open(now)
        assert slot is not None
        fast.close(slot, now)
    assert [slot.inactive for slot in fast.slots] == [1, 1]
    fast.advance(8.0)
    assert sum(slot.inactive for slot in fast.slots) == 1


def test_what_closes_in_no_order_is_forgotten_in_order() -> None:
    fast = Director(_service("wlc"), _destinations(1, 1), fin_seconds=5.0)
    first, second = fast.open(0.0), fast.open(0.0)
    assert first is not None and second is not None
    fast.close(first, 2.0)
    fast.close(second, 1.0)
    fast.advance(6.0)
    assert (first.inactive, second.inactive) == (1, 0)
    fast.advance(7.0)
    assert (first.inactive, second.inactive) == (0, 0)


def test_the_model_refuses_what_is_not_the_masters() -> None:
    fast = Director(_service("sed"), _destinations(1))
    with pytest.raises(TypeError, match="not the master's"):
        fast.apply([RemoveDestination(fast.service.key, fast.slots[0].config.key)])
    with pytest.raises(ValueError, match="not modelled"):
        Director(_service("mh"), _destinations(1))


def _service(scheduler: str) -> Service:
    return Service(ServiceKey.at(Protocol.TCP, "10.0.0.100", 80), scheduler=scheduler)


def _destinations(*weights: int) -> list[Destination]:
    return [Destination(DestinationKey.parse(f"10.0.1.{i + 1}:80"), weight=w) for i, w in enumerate(weights)]


def _index(slot: Slot | None) -> Any:
    return slot.index if slot else None
