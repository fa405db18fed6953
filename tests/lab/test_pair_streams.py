"""What open connections say and hear: plans, bytes, and that client and server of the lab agree on them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.lab.workload import streams
from feedback.lab.workload.streams import RECORD, Plan, Stream, Target, expected, openings, portion
from feedback.lab.workload.talker import BURST, Pace
from tests.ports import free_port

TARGETS = (Target("a", "10.0.0.1", 80, ("10.1.0.1", "10.1.0.2")), Target("b", "fd00::1", 81, ("fd01::1",)))


def test_a_plan_survives_its_way_to_the_client() -> None:
    plan = Plan(TARGETS, 100, 7, idle=0.5, udp=TARGETS[0], udp_flows=3)
    assert Plan.decode(plan.encode()) == plan
    assert Plan.decode(Plan(TARGETS, 100, 7).encode()).udp is None


def test_connections_are_of_the_kinds_asked_for_and_spread_over_targets_and_sources() -> None:
    made = list(openings(Plan(TARGETS, 400, 7, idle=0.5, mute=0.1, downloads=4)))
    assert Counter(opening.kind for opening in made) == {"idle": 200, "mute": 40, "talk": 160, "download": 4}
    assert Counter(opening.target.name for opening in made) == {"a": 202, "b": 202}
    assert Counter(o.source for o in made if o.target.name == "a") == {"10.1.0.1": 101, "10.1.0.2": 101}
    assert [opening.number for opening in made] == list(range(404))


@pytest.mark.parametrize(
    ("ahead", "moments", "due"),
    [
        (0, (10.0, 10.0625, 10.125, 10.5), [0, 0, 1, 3]),
        (1, (10.0, 10.0625, 10.125), [1, 0, 1]),
        (0, (10.0, 30.0, 30.125), [0, BURST, 1]),  # it stalled for 20 s: the other 140 are not made good
    ],
)
def test_a_pace_gives_what_is_due_and_no_flood_after_a_stall(
    ahead: int, moments: tuple[float, ...], due: list[int]
) -> None:
    pace = Pace(8.0, 10.0, ahead)
    assert [pace.due(moment) for moment in moments] == due


def test_one_seed_gives_one_order_of_kinds() -> None:
    one, same, other = (
        [o.kind for o in openings(Plan(TARGETS, 100, seed, idle=0.5))] for seed in (7, 7, 8)
    )  # fmt: skip
    assert one == same != other


@given(offset=st.integers(0, 2000), length=st.integers(1, 2000), stream=st.integers(0, 2**32 - 1))
def test_the_expected_bytes_are_those_of_the_records_in_order(offset: int, length: int, stream: int) -> None:
    whole = b"".join(streams.record(streams.ECHO, stream, number) for number in range(300))
    assert expected(stream, offset, length) == whole[offset : offset + length]


@given(offset=st.integers(0, 2**40), length=st.integers(1, 20_000), shift=st.integers(1, streams.BLOCK_BYTES - 1))
def test_a_portion_of_a_download_shifted_by_anything_is_seen(offset: int, length: int, shift: int) -> None:
    assert len(portion(3, offset, length)) == length
    if length >= 16:
        assert portion(3, offset, length) != portion(3, offset + shift, length)


def test_portions_follow_on_each_other() -> None:
    size = streams.BLOCK_BYTES
    assert portion(3, size - 10, 30) == portion(3, size - 10, 10) + portion(3, size, 20)
    assert portion(3, 0, 100) != portion(4, 0, 100)


def test_what_became_of_streams_survives_the_file(tmp_path: Path) -> None:
    results = [Stream(1, "talk", "a", 160, 160, 0.2), Stream(2, "idle", "b", 16, 0, 1.0, "ECONNRESET", 12.5)]
    streams.write(tmp_path / "streams", results)
    assert streams.read(tmp_path / "streams") == results
    assert [stream.survived for stream in results] == [True, False]


# Client and server, the real processes, over this machine's own loopback.


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", "feedback.lab.workload.echo", "r1", str(port)])
    deadline = time.monotonic() + 60
    while not listens(port):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Client:
    def __init__(self, plan: Plan, output: Path) -> None:
        self.output = output
        command = [sys.executable, "-m", "feedback.lab.workload.talker", plan.encode(), str(output)]
        self.process = subprocess.Popen(command)

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 60
        while not (self.output / f"client.{name}").exists():
            assert time.monotonic() < deadline
            assert self.process.poll() is None
            time.sleep(0.02)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGUSR1)
        self.wait_for("woken")

    def finish(self) -> list[Stream]:
        self.process.send_signal(signal.SIGUSR2)
        assert self.process.wait(60) == 0
        return streams.read(self.output / streams.FILE)

    def __enter__(self) -> "Client":
        self.wait_for("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def crowd(port: int) -> Plan:
    target = Target("loop", "127.0.0.1", port, ("127.0.0.1", "127.0.0.2"))
    return Plan(
        (target,),
        40,
        1,
        idle=0.25,
        mute=0.25,
        rate=400,
        downloads=2,
        download_rate=400_000,
        download_seconds=0.5,
        udp=target,
        udp_flows=2,
        patience_seconds=60,
    )


def test_every_byte_of_every_stream_comes_back(port: int, server: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with Client(crowd(port), tmp_path) as client:
        time.sleep(0.6)
        client.wake()
        found = client.finish()
    assert Counter(s.kind for s in found) == {"talk": 20, "idle": 10, "mute": 10, "download": 2, "udp": 2}
    assert all(s.survived for s in found)
    for stream in found:
        if stream.kind in ("talk", "idle", "mute"):
            assert stream.sent == stream.received >= RECORD.size * {"talk": 3, "idle": 2, "mute": 1}[stream.kind]
        if stream.kind == "download":
            assert stream.received == 200_000
        if stream.kind == "udp":
            assert stream.sent >= stream.received > 5


def test_a_dead_server_is_seen_by_every_stream_that_says_something(
    port: int, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with Client(crowd(port), tmp_path) as client:
        server.kill()
        time.sleep(0.5)
        client.wake()
        found = client.finish()
    assert not [s for s in found if s.survived and s.kind != "udp"]
    assert {s.error for s in found if s.kind == "talk"} <= {"closed", "ECONNRESET", "EPIPE"}


def test_a_stalled_server_is_seen_as_the_gap_of_those_that_talked(
    port: int, server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    began = time.monotonic()
    with Client(crowd(port), tmp_path) as client:
        time.sleep(0.3)
        os.kill(server.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGCONT)
        found = client.finish()
    whole = time.monotonic() - began
    gaps = sorted(s.gap_seconds for s in found if s.kind == "talk")
    assert all(s.survived for s in found if s.kind == "talk")
    assert 0.3 < gaps[len(gaps) // 2] < whole
    assert max(s.gap_seconds for s in found if s.kind == "download") > 0.3


FAKE = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
held = []
while True:
    held.append(listener.accept()[0])
    data = held[-1].recv(4096)
    held[-1].send(data[:8] + b"x" + data[9:])
"""


def test_a_changed_byte_does_not_count_as_survival(port: int, tmp_path: Path) -> None:
    script = tmp_path / "fake.py"
    script.write_text(FAKE, encoding="utf-8")
    liar = subprocess.Popen([sys.executable, str(script), str(port)])
    try:
        deadline = time.monotonic() + 60
        while not listens(port):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        target = Target("loop", "127.0.0.1", port, ("127.0.0.1",))
        with Client(Plan((target,), 1, 1, patience_seconds=60), tmp_path) as client:
            [stream] = client.finish()
    finally:
        liar.kill()
        liar.wait()
    assert stream.error == "corrupt"
