from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.agent.signals.applications import (
    DATAGRAM_BYTES_MAX,
    EXPIRES_SECONDS,
    LISTEN_SECONDS,
    PORTS_MAX,
    ApplicationSource,
    decode,
)
from feedback.agent.signals.files import SignalError


@pytest.fixture
def source(tmp_path: Path) -> Iterator[ApplicationSource]:
    made = ApplicationSource(tmp_path / "app.sock")
    yield made
    made.close()


def say(source: ApplicationSource, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.sendto(data, str(source.path))


def test_json_and_messagepack_are_both_heard(source: ApplicationSource) -> None:
    say(source, json.dumps({"port": 80, "utilisation": 0.25, "in_flight": 3}).encode())
    say(source, msgpack.packb({"port": 443, "drain": True}))
    heard = {a.port: a for a in source.sample(0.0)}
    assert (heard[80].utilisation, heard[80].in_flight, heard[443].drain) == (0.25, 3, True)


def test_the_newest_word_counts(source: ApplicationSource) -> None:
    say(source, b'{"in_flight": 1}')
    say(source, b'{"in_flight": 2}')
    assert [a.in_flight for a in source.sample(0.0)] == [2]


def test_a_word_expires_after_silence(source: ApplicationSource) -> None:
    say(source, b'{"drain": true}')
    assert source.sample(0.0)
    assert source.sample(EXPIRES_SECONDS)
    assert source.sample(EXPIRES_SECONDS + 0.1) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"[1, 2]",
        b"{",
        b'{"utilisation": 1.5}',
        b'{"utilisation": NaN}',
        b'{"in_flight": -1}',
        b'{"port": 70000}',
        b'{"drian": true}',
        b'{"port": "80"}',
        msgpack.packb({"utilisation": float("nan")}),
        msgpack.packb({1: 2}),
        b"\x81" * 1000,
        b'{"port": 1, "x": "' + b"y" * DATAGRAM_BYTES_MAX + b'"}',
    ],
)
def test_what_does_not_fit_is_counted_and_dropped(source: ApplicationSource, data: bytes) -> None:
    say(source, data)
    assert source.sample(0.0) == ()
    assert source.refused == 1
    assert source.problem


def test_more_ports_than_a_report_takes_are_refused(source: ApplicationSource) -> None:
    heard = 0
    for port in range(PORTS_MAX + 5):  # sampled in between: the socket's own queue is short
        say(source, json.dumps({"port": port}).encode())
        heard = len(source.sample(0.0))
    assert (heard, source.refused) == (PORTS_MAX, 5)


def test_a_socket_left_by_a_killed_agent_is_taken_over_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(path))
    source = ApplicationSource(path)
    say(source, b'{"in_flight": 1}')
    assert source.sample(0.0)
    source.close()
    assert not path.exists()


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    path.write_text("precious")
    with pytest.raises(SignalError, match="not a socket"):
        ApplicationSource(path)
    assert path.read_text() == "precious"


@given(st.binary(max_size=300))
def test_no_datagram_raises_anything_but_a_refusal(data: bytes) -> None:
    try:
        decode(data)
    except ValueError as error:
        assert str(error)


def test_while_sessions_speak_the_socket_is_listened_to_often(source: ApplicationSource) -> None:
    say(source, b'{"in_flight": 1}')
    source.sample(1.0)
    assert source.due() == float("inf")  # at the next sample is soon enough
    say(source, b'{"port": 80, "session": "u7", "value": "1"}')
    source.sample(2.0)
    assert source.due() == 2.0 + LISTEN_SECONDS
    say(source, b'{"port": 80, "session": "u7", "value": "2"}')
    source.listen(source.due())
    assert source.due() == 2.0 + 2 * LISTEN_SECONDS
    assert [word.value for word in source.sessions.news(3.0)] == ["2"]
