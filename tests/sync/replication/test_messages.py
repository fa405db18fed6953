"""What the ends of a session say: round trips, bounds, and the word about another version."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.replication.messages import (
    MESSAGE_BYTES_MAX,
    PROTOCOL,
    Ack,
    Alive,
    Hello,
    Message,
    MessageError,
    Records,
    Refused,
    Services,
    State,
    TableBegin,
    TableEnd,
    Welcome,
    decode,
    encode,
)

EVERY_KIND: list[Message] = [
    Hello(PROTOCOL, "boot-1", 3),
    Welcome(PROTOCOL, "boot-2", 3),
    Refused(3, "not now", False),
    Services(3, b"\0\1services"),
    State(3, b"{}"),
    TableBegin(3, 1, 100_000),
    Records(3, 1, True, b"\0" * 1472),
    TableEnd(3, 2500, 99_990),
    Alive(3, 2500),
    Ack(3, 2500, 99_990, 0),
]


@pytest.mark.parametrize("message", EVERY_KIND, ids=lambda m: type(m).__name__)
def test_every_message_comes_back(message: Message) -> None:
    assert decode(encode(message)) == message


def pack(*parts: object) -> bytes:
    return msgspec.msgpack.encode(parts)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (pack("nonsense", 1), "malformed"),
        (pack("ack", 1, -1, 0, 0), "malformed"),
        (pack("ack", 1, "1", 0, 0), "malformed"),
        (pack("ack", 1), "malformed"),
        (pack("hello", 1, "", 1), "malformed"),
        (pack("hello", 1, "x" * 65, 1), "malformed"),
        (pack("records", 1, 1, False, b"x" * 9189), "malformed"),
        (pack("refused", 1, "x" * 501, True), "malformed"),
        (pack("alive", 1, 1, "x" * 5000), "oversized"),
        (b"\0" * (MESSAGE_BYTES_MAX + 1), "oversized"),
        (b"\x91" * 3000, "malformed"),  # nested without end
    ],
)
def test_what_does_not_fit_is_refused_by_kind(data: bytes, kind: str) -> None:
    with pytest.raises(MessageError) as caught:
        decode(data)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "data", [pack("hello", 2, "boot", 1), pack("welcome", 2, "boot", 1), pack("hello", 2, {"other": "fields"})]
)
def test_another_version_is_named_whatever_its_greeting_holds(data: bytes) -> None:
    with pytest.raises(MessageError, match="by protocol 2, this side by 1: upgrade the older director") as caught:
        decode(data)
    assert caught.value.kind == "version"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except MessageError:
        return


@given(st.sampled_from(EVERY_KIND), st.data())
def test_a_message_with_a_changed_byte_is_a_message_or_refused(message: Message, data: st.DataObject) -> None:
    raw = encode(message)
    at = data.draw(st.integers(0, len(raw) - 1))
    try:
        decode(raw[:at] + bytes([data.draw(st.integers(0, 255))]) + raw[at + 1 :])
    except MessageError:
        return
