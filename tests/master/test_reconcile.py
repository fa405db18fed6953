"""The smallest plan: complete records, nothing that is not ours, and none left once it is applied."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from feedback.master import reconcile
from feedback.master.pool import Row
from feedback.master.servers.fleet import Trust
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Forward,
    RemoveDestination,
    Service,
    ServiceEntry,
    ServiceFlags,
    SetDestination,
    SetService,
)
from tests.master.builders import VIRTUAL, Table, rip, row

SERVICE = Service(VIRTUAL, "sed")


Wanted = dict[DestinationKey, tuple[int, int, int]]  # weight and thresholds


def settings(*weights: int) -> Wanted:
    return {rip(i): (w, 0, 0) for i, w in enumerate(weights, 1)}


def rows(
    bases: dict[DestinationKey, Destination], wanted: Wanted, entry: ServiceEntry | None
) -> dict[DestinationKey, Row]:
    made = {}
    for key, base in bases.items():
        there = entry.entry(key) if entry is not None else None
        made[key] = row(base, there, Trust.FRESH, 0.1, None)
        made[key].aim, made[key].upper, made[key].lower = wanted[key]
    return made


def reconcile_owned(
    service: Service, bases: dict[DestinationKey, Destination], wanted: Wanted, entry: ServiceEntry | None
) -> list[Edit]:
    return reconcile.reconcile_owned(service, rows(bases, wanted, entry), entry)


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
    entry = table.snapshot().services[0]
    (edit,) = reconcile.reconcile_weights(VIRTUAL, rows({rip(1): theirs}, {rip(1): (9, 70, 7)}, entry).values())
    assert isinstance(edit, SetDestination)
    assert edit.destination == msgspec.structs.replace(theirs, weight=9)


@given(st.dictionaries(st.integers(1, 9), st.integers(0, 99)), st.dictionaries(st.integers(1, 9), st.integers(0, 99)))
def test_applying_the_plan_leaves_nothing_to_do(before: dict[int, int], after: dict[int, int]) -> None:
    table = Table()
    for state in (before, after):
        wanted = {rip(i): Destination(rip(i)) for i in state}
        chosen: Wanted = {rip(i): (w, 0, 0) for i, w in state.items()}
        entry = next(iter(table.snapshot().services), None)
        table.apply(reconcile_owned(SERVICE, wanted, chosen, entry))
        assert reconcile_owned(SERVICE, wanted, chosen, table.snapshot().services[0]) == []
