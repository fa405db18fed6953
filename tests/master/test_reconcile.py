"""The smallest plan: complete records, nothing that is not ours, and none left once it is applied."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from feedback.master.reconcile import reconcile_owned, reconcile_weights
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    Forward,
    RemoveDestination,
    Service,
    ServiceFlags,
    SetDestination,
    SetService,
    Setting,
)
from tests.master.builders import VIRTUAL, Table, rip

SERVICE = Service(VIRTUAL, "sed")


def settings(*weights: int) -> dict:  # type: ignore[type-arg]
    return {rip(i): Setting(VIRTUAL, rip(i), w) for i, w in enumerate(weights, 1)}


def configured(n: int, **kw: object) -> dict:  # type: ignore[type-arg]
    return {rip(i): Destination(rip(i), **kw) for i in range(1, n + 1)}  # type: ignore[arg-type]


def test_an_empty_kernel_gets_service_and_destinations() -> None:
    edits = reconcile_owned(SERVICE, configured(2), settings(10, 20), None)
    assert edits[0] == AddService(SERVICE)
    assert [e.destination.weight for e in edits[1:] if isinstance(e, AddDestination)] == [10, 20]


def test_what_is_there_already_is_not_written_again() -> None:
    table = Table()
    table.apply(reconcile_owned(SERVICE, configured(2), settings(10, 20), None))
    assert reconcile_owned(SERVICE, configured(2), settings(10, 20), table.snapshot().services[0]) == []
    edits = reconcile_owned(SERVICE, configured(2), settings(10, 21), table.snapshot().services[0])
    assert [type(e) for e in edits] == [SetDestination]


def test_a_destination_that_left_the_configuration_is_removed_and_another_scheduler_is_set() -> None:
    table = Table()
    table.apply(reconcile_owned(SERVICE, configured(2), settings(10, 20), None))
    other = Service(VIRTUAL, "wlc")
    edits = reconcile_owned(other, configured(1), settings(10), table.snapshot().services[0])
    assert edits == [SetService(other), RemoveDestination(VIRTUAL, rip(2))]


def test_the_kernels_own_flag_and_the_whole_netmask_are_no_difference() -> None:
    table = Table()
    table.apply(reconcile_owned(SERVICE, configured(1), settings(10), None))
    table.services[VIRTUAL] = msgspec.structs.replace(SERVICE, flags=ServiceFlags.HASHED, netmask=32)
    assert reconcile_owned(SERVICE, configured(1), settings(10), table.snapshot().services[0]) == []


def test_with_ownership_of_weights_everything_else_of_a_foreign_record_is_kept() -> None:
    table = Table()
    theirs = Destination(rip(1), weight=5, forward=Forward.TUNNEL, upper=70, lower=7, tunnel_port=6080)
    table.apply([AddService(SERVICE), AddDestination(VIRTUAL, theirs)])
    setting = {rip(1): Setting(VIRTUAL, rip(1), 9, upper=70, lower=7)}
    (edit,) = reconcile_weights(table.snapshot().services[0], setting)
    assert isinstance(edit, SetDestination)
    assert edit.destination == msgspec.structs.replace(theirs, weight=9)


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 99)), st.dictionaries(st.integers(1, 9), st.integers(0, 99)))
def test_applying_the_plan_leaves_nothing_to_do(before: dict[int, int], after: dict[int, int]) -> None:
    table = Table()
    for state in (before, after):
        wanted = {rip(i): Destination(rip(i)) for i in state}
        chosen = {rip(i): Setting(VIRTUAL, rip(i), w) for i, w in state.items()}
        entry = next(iter(table.snapshot().services), None)
        table.apply(reconcile_owned(SERVICE, wanted, chosen, entry))
        assert reconcile_owned(SERVICE, wanted, chosen, table.snapshot().services[0]) == []
