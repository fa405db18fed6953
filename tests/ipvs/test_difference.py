"""A table is turned into another by the smallest set of edits, never by a flush."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs import FakeKernel, text
from feedback.ipvs.difference import applied, difference, of_edits, of_snapshot
from feedback.model import RemoveService, SetDestination

WEB = "-A -t 10.0.0.100:80 -s sed\n-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 5\n"
DNS = "-A -u 10.0.0.100:53 -s wrr\n"


def table(rules: str):
    return of_edits(text.parse(rules))


def kernel(rules: str) -> FakeKernel:
    made = FakeKernel()
    assert made.apply(text.parse(rules)) == ()
    return made


def test_the_same_table_needs_no_edit():
    assert difference(table(WEB + DNS), of_snapshot(kernel(WEB + DNS).snapshot())) == ()


def test_a_weight_alone_is_one_edit():
    (edit,) = difference(table(WEB.replace("-w 5", "-w 6")), of_snapshot(kernel(WEB).snapshot()))
    assert isinstance(edit, SetDestination) and edit.destination.weight == 6


def test_what_is_not_wanted_is_removed_and_on_demand_left():
    have = of_snapshot(kernel(WEB + DNS).snapshot())
    (edit,) = difference(table(WEB), have)
    assert isinstance(edit, RemoveService)
    assert difference(table(WEB), have, remove_services=False) == ()


def test_a_copy_has_the_order_of_the_original():
    rules = WEB + "".join(f"-a -t 10.0.0.100:80 -r 10.0.0.{n}:80 -g -w {n}\n" for n in (12, 13, 14))
    original = of_snapshot(kernel(rules).snapshot())
    copy = FakeKernel()
    assert copy.apply(difference(original, {})) == ()
    assert of_snapshot(copy.snapshot()) == original


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("-a -t 10.0.0.100:80 -r 10.0.0.11:80\n", "comes before its service"),
        (WEB + "-D -t 10.0.0.100:80\n", "only services"),
    ],
)
def test_rules_that_are_no_saved_table_are_refused(rules: str, said: str):
    with pytest.raises(ValueError, match=said):
        table(rules)


destinations = st.dictionaries(st.integers(1, 6), st.tuples(st.integers(0, 9), st.sampled_from(["-g", "-m"])))
tables = st.dictionaries(st.sampled_from([80, 81, 443]), st.tuples(st.sampled_from(["sed", "wlc"]), destinations))


def written(services: dict) -> str:
    lines = []
    for port, (scheduler, servers) in services.items():
        lines.append(f"-A -t 10.0.0.100:{port} -s {scheduler}\n")
        for n, (weight, forward) in servers.items():
            lines.append(f"-a -t 10.0.0.100:{port} -r 10.0.0.{n}:80 {forward} -w {weight}\n")
    return "".join(lines)


@given(have=tables, wanted=tables)
def test_any_table_becomes_any_other_and_then_rests(have: dict, wanted: dict):
    made, target = kernel(written(have)), of_snapshot(kernel(written(wanted)).snapshot())
    assert made.apply(difference(target, of_snapshot(made.snapshot()))) == ()
    result = of_snapshot(made.snapshot())
    assert difference(target, result) == ()
    assert {k: (r.service, set(r.destinations)) for k, r in result.items()} == {
        k: (r.service, set(r.destinations)) for k, r in target.items()
    }


@given(have=tables, wanted=tables)
def test_edits_say_what_the_table_becomes(have: dict, wanted: dict):
    before = of_snapshot(kernel(written(have)).snapshot())
    edits = difference(of_snapshot(kernel(written(wanted)).snapshot()), before)
    made = kernel(written(have))
    assert made.apply(edits) == ()
    assert applied(before, edits) == of_snapshot(made.snapshot())
