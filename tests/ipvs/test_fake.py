"""What only the fake has: connections and time. Its `Kernel` side is in test_contract.py, against the real one."""

from __future__ import annotations

import pytest

from feedback.ipvs import FakeKernel, Overload
from feedback.ipvs.fake import FakeConnection
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationEntry,
    DestinationKey,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceKey,
    SetDestination,
)

WEB, DNS = ServiceKey.parse("tcp:10.0.0.1:80"), ServiceKey.parse("udp:10.0.0.1:53")
A, B = DestinationKey.parse("10.1.0.1:80"), DestinationKey.parse("10.1.0.2:80")


def kernel(
    scheduler: str = "wlc", overload: Overload = Overload.UNTIL_6_1_176, now: float | None = None, **limits: int
) -> FakeKernel:
    made = FakeKernel(overload=overload, now=now)
    assert not made.apply([AddService(Service(WEB, scheduler)), AddDestination(WEB, Destination(A, **limits))])
    return made


def only(made: FakeKernel, service: ServiceKey = WEB) -> DestinationEntry:
    (entry,) = made.destinations(service)
    return entry


def opened(made: FakeKernel, count: int) -> list[FakeConnection]:
    connections = [made.open(WEB) for _ in range(count)]
    assert all(connections)
    return [c for c in connections if c]


@pytest.mark.parametrize("overload", Overload)
def test_a_full_destination_refuses_and_opens_again_under_three_quarters(overload: Overload) -> None:
    made = kernel(overload=overload, upper=4)
    connections = opened(made, 4)
    assert made.open(WEB) is None
    made.close_connection(connections[0])
    assert made.open(WEB) is None, "an inactive connection counts too"
    made.expire(connections.pop())
    assert made.open(WEB) is None, "3 of 4 is not under three quarters"
    made.expire(connections.pop())
    assert made.open(WEB) is not None


@pytest.mark.parametrize("overload", Overload)
def test_with_a_lower_threshold_it_opens_under_that(overload: Overload) -> None:
    made = kernel(overload=overload, upper=3, lower=1)
    connections = opened(made, 3)
    for expected in (None, None):
        made.expire(connections.pop())
        assert made.open(WEB) is expected
    made.expire(connections.pop())
    assert made.open(WEB) is not None


@pytest.mark.parametrize(
    ("overload", "before", "count", "after", "leaks"),
    [
        (Overload.UNTIL_6_1_176, 4, 4, 4, 0),  # writing the same changes nothing
        (Overload.UNTIL_6_1_176, 4, 4, 5, 1),  # a raised one opens at once
        (Overload.UNTIL_6_1_176, 50, 5, 2, 1),  # a lowered one leaks one
        (Overload.SINCE_6_1_192, 4, 4, 4, 0),
        (Overload.SINCE_6_1_192, 4, 4, 5, 0),  # 4 is not under 5 - 5/4
        (Overload.SINCE_6_1_192, 4, 4, 6, 2),
        (Overload.SINCE_6_1_192, 50, 5, 2, 0),  # a lowered one closes at once
    ],
)
def test_what_an_edit_of_the_upper_threshold_does(
    overload: Overload, before: int, count: int, after: int, leaks: int
) -> None:
    made = kernel(overload=overload, upper=before)
    opened(made, count)
    made.apply([SetDestination(WEB, Destination(A, upper=after))])
    assert [made.open(WEB) is not None for _ in range(leaks + 1)] == [True] * leaks + [False]


def test_weight_zero_lets_connections_be_and_takes_no_new_one() -> None:
    made = kernel()
    opened(made, 2)
    made.apply([SetDestination(WEB, Destination(A, weight=0))])
    assert made.open(WEB) is None
    assert only(made).active == 2


def test_a_destination_comes_back_from_the_trash_with_its_connections_and_counters() -> None:
    made = kernel()
    opened(made, 3)
    made.apply([RemoveDestination(WEB, A), AddDestination(WEB, Destination(A))])
    assert (only(made).active, only(made).counters.connections) == (3, 3)


def test_a_service_made_anew_gets_back_connections_but_not_counters() -> None:
    made = kernel()
    opened(made, 3)
    made.apply([RemoveService(WEB), AddService(Service(WEB, "wlc")), AddDestination(WEB, Destination(A))])
    assert (only(made).active, only(made).counters.connections) == (3, 0)


def test_counters_are_as_old_as_the_last_tick_and_counts_are_live() -> None:
    made = kernel(now=100.5)
    opened(made, 3)
    assert (only(made).active, only(made).counters.connections) == (3, 0)
    made.advance(101.9)
    assert only(made).counters.connections == 0
    made.advance(102.0)
    assert only(made).counters.connections == 3


def test_closed_connections_are_inactive_for_the_fin_timeout() -> None:
    made = kernel(now=0.0)
    (connection,) = opened(made, 1)
    made.close_connection(connection)
    made.close_connection(connection)
    made.advance(119.9)
    assert (only(made).active, only(made).inactive) == (0, 1)
    made.advance(120.0)
    assert (only(made).active, only(made).inactive) == (0, 0)


def test_a_udp_flow_is_never_active_and_so_sed_sends_all_to_one_server() -> None:
    made = FakeKernel(now=0.0)
    made.apply([AddService(Service(DNS, "sed"))])
    made.apply([AddDestination(DNS, Destination(key)) for key in (A, B)])
    assert {c.destination for c in (made.open(DNS) for _ in range(9)) if c} == {B}
    assert made.destinations(DNS)[0].inactive == 9
    made.advance(300.0)
    assert made.destinations(DNS)[0].inactive == 0


def test_the_trash_is_emptied_after_two_minutes() -> None:
    made = kernel(now=0.0)
    (connection,) = opened(made, 1)
    made.apply([RemoveDestination(WEB, A)])
    made.advance(500.0)
    made.expire(connection)
    made.advance(501.0)
    made.apply([AddDestination(WEB, Destination(A))])
    assert only(made).counters.connections == 0


def test_a_scheduler_that_is_not_modelled_is_said_to_be() -> None:
    with pytest.raises(NotImplementedError, match="mh"):
        kernel("mh").open(WEB)
