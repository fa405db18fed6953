"""Lines of keepalived's notify FIFO, whole, in pieces, and malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.election.keepalived import Fifo, Notice, Vrrp, parse


@pytest.mark.parametrize(
    ("line", "notice"),
    [
        ('INSTANCE "VI_1" MASTER 150', Notice("VI_1", Vrrp.MASTER, 150)),
        ('INSTANCE "VI_1" FAULT 0', Notice("VI_1", Vrrp.FAULT, 0)),
        ('GROUP "G 1" BACKUP 100', Notice("G 1", Vrrp.BACKUP, 100)),
        ('INSTANCE "VI_1" STOP', Notice("VI_1", Vrrp.STOP, None)),
        ('INSTANCE "VI_1" MASTER_RX_LOWER_PRI 150', None),
        ("INSTANCE VI_1 MASTER 150", None),
        ("", None),
    ],
)
def test_a_line(line: str, notice: Notice | None) -> None:
    assert parse(line) == notice


def test_only_the_named_instance_is_heard() -> None:
    fifo = Fifo("VI_1")
    text = b'INSTANCE "VI_2" MASTER 1\nINSTANCE "VI_1" BACKUP 1\nnonsense\n'
    assert fifo.feed(text) == [Notice("VI_1", Vrrp.BACKUP, 1)]
    assert fifo.ignored == 1


@given(st.lists(st.integers(1, 9)))
def test_lines_in_any_pieces_say_the_same(cuts: list[int]) -> None:
    text = b'INSTANCE "VI_1" BACKUP 1\nINSTANCE "VI_1" MASTER 2\n'
    fifo, found = Fifo("VI_1"), []
    for cut in cuts:
        found += fifo.feed(text[:cut])
        text = text[cut:]
    found += fifo.feed(text)
    assert [n.state for n in found] == [Vrrp.BACKUP, Vrrp.MASTER]


@given(st.binary(max_size=3000))
def test_no_bytes_raise(data: bytes) -> None:
    assert all(n.name == "VI_1" for n in Fifo("VI_1").feed(data))
