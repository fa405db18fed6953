"""The standby's table is the active one's, whatever changes there or here."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs import FakeKernel, text
from feedback.ipvs.difference import of_snapshot
from feedback.model import CHECK_MARKS
from feedback.sync.replication.mirror import Copy, MirrorError, Original

WEB = "-A -t 10.0.0.100:80 -s sed\n"
RULES = (
    WEB + "-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 5 -x 100 -y 80\n-a -t 10.0.0.100:80 -r 10.0.0.12:80 -m -w 7\n"
    "-A -f 7 -6 -s wlc -p 300 -M 64\n-a -f 7 -6 -r [2001:db8::11]:0 -i -w 3\n"
    "-A -u 10.0.0.100:53 -s mh -b mh-fallback\n"
)


def kernel(rules: str = "") -> FakeKernel:
    made = FakeKernel()
    assert made.apply(text.parse(rules)) == ()
    return made


def follow(copy: Copy, standby: FakeKernel) -> None:
    assert standby.apply(copy.edits(standby.snapshot())) == ()


def test_a_whole_table_is_copied_in_its_order() -> None:
    active, standby, copy = kernel(RULES), kernel(), Copy()
    copy.take_table(Original().start(active.snapshot()))
    follow(copy, standby)
    assert of_snapshot(standby.snapshot()) == of_snapshot(active.snapshot())


def test_services_of_a_masters_own_checks_stay_where_they_are() -> None:
    def checks(i: int) -> str:
        mark = CHECK_MARKS[i]
        return f"-A -f {mark} -s rr -o\n-a -f {mark} -r 10.0.0.11:0 -g -w 1\n"

    original, copy = Original(), Copy()
    active, standby = kernel(RULES + checks(0)), kernel(checks(1))
    copy.take_table(original.start(active.snapshot()))
    follow(copy, standby)
    active.apply(text.parse(checks(2)))
    assert original.changes(active.snapshot()) == ""
    assert of_snapshot(standby.snapshot()) == of_snapshot(kernel(checks(1) + RULES).snapshot())


@pytest.mark.parametrize(
    "change",
    [
        "-e -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 9 -x 50 -y 40\n",
        "-d -t 10.0.0.100:80 -r 10.0.0.12:80\n",
        "-a -t 10.0.0.100:80 -r 10.0.0.13:80 -g -w 1\n",
        "-D -u 10.0.0.100:53\n",
        "-E -t 10.0.0.100:80 -s wlc\n",
        "-A -t 10.0.0.101:80 -s rr\n-a -t 10.0.0.101:80 -r 10.0.0.11:80 -w 1\n",
    ],
)
def test_changes_follow(change: str) -> None:
    active, standby, copy, original = kernel(RULES), kernel(), Copy(), Original()
    copy.take_table(original.start(active.snapshot()))
    assert original.changes(active.snapshot()) == ""
    assert active.apply(text.parse(change)) == ()
    copy.take_changes(original.changes(active.snapshot()))
    follow(copy, standby)
    assert of_snapshot(standby.snapshot()) == of_snapshot(active.snapshot())


def test_an_edit_on_the_standby_does_not_last() -> None:
    copy, standby = Copy(), kernel()
    copy.take_table(RULES)
    follow(copy, standby)
    assert standby.apply(text.parse("-e -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 1\n-D -u 10.0.0.100:53\n")) == ()
    follow(copy, standby)
    assert of_snapshot(standby.snapshot()) == of_snapshot(kernel(RULES).snapshot())


def test_nothing_is_removed_before_a_table_came() -> None:
    assert Copy().edits(kernel(RULES).snapshot()) == ()


@pytest.mark.parametrize("rules", ["nonsense", "-C", "-D -t 10.0.0.100:80", "-a -t 10.0.0.9:80 -r 10.0.0.11:80"])
def test_what_is_no_table_is_refused_and_changes_nothing(rules: str) -> None:
    copy = Copy()
    copy.take_table(RULES)
    with pytest.raises(MirrorError):
        copy.take_table(rules)
    assert copy.edits(kernel(RULES).snapshot()) == ()


def test_changes_that_do_not_fit_are_refused() -> None:
    copy = Copy()
    with pytest.raises(MirrorError, match="before a table"):
        copy.take_changes(WEB)
    copy.take_table(WEB)
    with pytest.raises(MirrorError, match="no destination"):
        copy.take_changes("-e -t 10.0.0.100:80 -r 10.0.0.11:80 -w 1")


@given(st.text(max_size=80))
def test_no_text_raises_anything_else(rules: str) -> None:
    with contextlib.suppress(MirrorError):
        Copy().take_table(rules)
