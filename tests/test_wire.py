"""The wire refuses whatever does not fit, by kind, and never raises anything else."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.wire import (
    PROTOCOL,
    REPORT_BYTES_MAX,
    Application,
    Connections,
    Cpu,
    Listener,
    Memory,
    Pressure,
    Reply,
    Report,
    WireError,
    decode_reply,
    decode_report,
    encode,
)

FULL = Report(
    version=PROTOCOL,
    agent="rs1",
    boot="b",
    sequence=3,
    sampled_at=12.5,
    interval_seconds=0.2,
    addresses=("10.0.0.11", "2001:db8::11"),
    cpu=Cpu(3.5, 100.25, 0.01, 50.0, 0.5, 1.5, 2.0, 3.0),
    memory=Memory(1 << 34, 1 << 33, 5, 0),
    pressure=Pressure(1.0, 2.0, 3.0, 4.0, 5.0),
    connections=Connections(1000, 10, 0),
    listeners=(Listener(80, 0, 4096, 10),),
    applications=(Application(80, 0.5, 3, 0.01, 1000, 1),),
)


def packed(**changes: object) -> bytes:
    data: bytes = msgpack.packb(msgspec.to_builtins(FULL) | changes)
    return data


def test_what_is_sent_arrives() -> None:
    assert decode_report(encode(FULL)) == FULL
    assert decode_reply(encode(Reply(PROTOCOL, False, "why"))) == Reply(PROTOCOL, False, "why")


def test_a_full_report_is_small() -> None:
    assert len(encode(FULL)) < 1024


def test_fields_of_a_later_minor_version_are_passed_over() -> None:
    assert decode_report(packed(weather="fine")) == FULL


BAD = [
    (b"", "malformed"),
    (b"\xc1", "malformed"),
    (msgpack.packb([1, 2]), "malformed"),
    (msgpack.packb({"version": "1"}), "malformed"),
    (packed(version=2), "version"),
    (packed(agent=""), "malformed"),
    (packed(agent="x" * 65), "malformed"),
    (packed(agent="a b"), "malformed"),
    (packed(sequence=-1), "malformed"),
    (packed(sequence=2**63), "malformed"),
    (packed(sampled_at=float("nan")), "malformed"),
    (packed(sampled_at=float("inf")), "malformed"),
    (packed(addresses=[]), "malformed"),
    (packed(addresses=["x"] * 65), "malformed"),
    (packed(cpu={"cores": 0, "busy_seconds": 1}), "malformed"),
    (packed(cpu={"cores": float("nan"), "busy_seconds": 1}), "malformed"),
    (packed(cpu={"cores": 1, "busy_seconds": float("nan")}), "malformed"),
    (packed(memory={"total": 1, "available": -1}), "malformed"),
    (packed(memory=None), "malformed"),
    (packed(listeners=[{"port": 0, "backlog": 0, "backlog_limit": 0, "established": 0}]), "malformed"),
    (packed(agent="x" * REPORT_BYTES_MAX), "oversized"),
    (b"\x91" * 1000, "malformed"),
]


@pytest.mark.parametrize("data, kind", BAD)
def test_what_does_not_fit_is_refused_by_kind(data: bytes, kind: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_report(data)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_another_version_is_told_which_to_upgrade() -> None:
    with pytest.raises(WireError, match="protocol 2, this side 1"):
        decode_report(packed(version=2))


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_report(data)


@given(st.integers(0, len(encode(FULL)) - 1), st.integers(0, 255))
def test_one_changed_byte_is_refused_or_a_valid_report(position: int, value: int) -> None:
    data = bytearray(encode(FULL))
    data[position] = value
    try:
        report = decode_report(bytes(data))
    except WireError:
        return
    assert report.cpu.busy_seconds == report.cpu.busy_seconds  # not NaN
    assert 0 < report.cpu.cores <= 65536
