"""Adjustments on their way between the directors: what comes is what was sent, or is refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.conntrack import adjustments
from feedback.sync.conntrack.adjustments import Adjustment, AdjustmentError, Shift, decode, encode
from feedback.sync.replication.messages import MESSAGE_BYTES_MAX

words, ports = st.integers(0, 2**32 - 1), st.integers(0, 0xFFFF)
shifts = st.none() | st.builds(Shift, words, words, words)


@st.composite
def any_adjustment(draw: st.DrawFn) -> Adjustment:
    address = st.binary(min_size=(size := draw(st.sampled_from([4, 16]))), max_size=size)
    ends = draw(st.integers(0, 255)), draw(address), draw(ports), draw(address), draw(ports)
    helper = draw(st.sampled_from(["", "ftp", "netbios-ns", "x" * 15]))
    return Adjustment(*ends, draw(shifts), draw(shifts), helper)


@given(st.lists(any_adjustment(), unique_by=lambda each: each.key))
def test_what_was_sent_comes(found: list[Adjustment]) -> None:
    assert decode(encode(found)) == {each.key: each for each in found}
    assert encode(found) == encode(reversed(found))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x80",
        encode(()) + b"\0",
        msgspec.msgpack.encode([[6, b"1234", 1, b"1234567890123456", 80, None, None]]),
        msgspec.msgpack.encode([[6, b"12345", 1, b"12345", 80, None, None]]),
        msgspec.msgpack.encode([[6, b"1234", -1, b"1234", 80, None, None]]),
        msgspec.msgpack.encode([[6, b"1234", 1, b"1234", 80, [2**32, 0, 0], None]]),
        msgspec.msgpack.encode([[6, b"1234", 1, b"1234", 80, [0, 0, "0"], None]]),
        msgspec.msgpack.encode([[6, b"1234", 1, b"1234", 80, None, None, "f\0tp"]]),
        msgspec.msgpack.encode([[6, b"1234", 1, b"1234", 80, None, None, "x" * 16]]),
        b"\x91" * 3000,
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(AdjustmentError):
        decode(data)


def test_there_are_never_more_than_the_other_end_takes() -> None:
    shift = Shift(2**32 - 1, 2**32 - 1, 2**32 - 1)
    many = [Adjustment(6, n.to_bytes(16, "big"), 1, bytes(16), 80, shift, shift) for n in range(20_100)]
    data = encode(many)
    assert len(decode(data)) == adjustments.ADJUSTMENTS_MAX
    assert len(data) < MESSAGE_BYTES_MAX / 2
