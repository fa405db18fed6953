"""A daemon without descriptors does not spin and does not fill its log, and takes who waits as soon as it can."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from feedback.ops import curve, door
from feedback.ops.descriptors import REASON
from feedback.ops.door import Door
from tests.ops.exhausted import exhausted

STRANGERS = 5
SECONDS = 1.5


class Listening:
    """A libzmq socket that listens as the daemons' do."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.BACKLOG, door.BACKLOG)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, 300)
        self.socket.linger = 0
        self.monitor = self.socket.get_monitor_socket(zmq.EVENT_LISTENING | zmq.EVENT_ACCEPT_FAILED)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.door = Door(self.told.append)
        self.edges = curve.Edges()
        self.edges.watch(self.monitor, self._take)

    def _take(self, monitor: zmq.Socket[bytes]) -> None:
        assert self.door.hear(monitor.recv_multipart(zmq.NOBLOCK)[0])

    def close(self) -> None:
        self.edges.close()
        self.door.close()
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=0)
        self.context.term()


def test_who_cannot_be_taken_costs_nothing_and_is_taken_later() -> None:
    async def scenario() -> tuple[float, list[bool], bytes]:
        listening = Listening()
        strangers = [socket.socket() for _ in range(STRANGERS)]
        peer = listening.context.socket(zmq.DEALER)
        peer.linger = 0
        peer.setsockopt(zmq.CONNECT_TIMEOUT, 300)
        try:
            await asyncio.sleep(0.1)
            with exhausted():
                for stranger in strangers:
                    stranger.setblocking(False)
                    stranger.connect_ex(("127.0.0.1", listening.port))
                await asyncio.sleep(0.2)
                began = time.process_time()
                await asyncio.sleep(SECONDS)
                used = time.process_time() - began
                shut = listening.told.copy()
            peer.connect(f"tcp://127.0.0.1:{listening.port}")
            peer.send(b"late")
            assert await asyncio.to_thread(listening.socket.poll, 60_000)
            return used, shut, listening.socket.recv_multipart()[1]
        finally:
            for stranger in strangers:
                stranger.close()
            peer.close(linger=0)
            listening.close()

    used, shut, heard = asyncio.run(scenario())
    assert used < SECONDS / 3
    assert shut[0] is False
    assert heard == b"late"


def test_the_queue_is_never_longer_than_the_reserve() -> None:
    assert door.BACKLOG + 1 <= door.RESERVE


def test_another_reason_than_want_of_descriptors_shuts_nothing() -> None:
    async def scenario() -> list[bool]:
        listening = Listening()
        listening.door.failed(71)  # EPROTO: a peer that went before it was taken
        listening.close()
        return listening.told

    assert asyncio.run(scenario()) == []


def test_a_failed_accept_is_told_in_one_line_and_no_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, told = tmp_path / "s.sock", list[tuple[str, str]]()

    async def scenario() -> bytes:
        door.quiet(asyncio.get_running_loop(), Counter(), lambda *words: told.append(words))
        server = await asyncio.start_unix_server(_greet, str(path))
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        with exhausted():
            client.connect(str(path))
            await asyncio.sleep(0.3)
        try:
            async with asyncio.timeout(60):
                return await asyncio.get_running_loop().sock_recv(client, 10)
        finally:
            client.close()
            server.close()

    assert asyncio.run(scenario()) == b"hello"
    assert set(told) == {("accept", REASON)}
    assert not caplog.records


def test_what_else_goes_wrong_in_the_loop_is_one_printable_line(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, str]] = []
    counters = Counter[str]()

    def breaks() -> None:
        raise ValueError("no \x1b[31mway")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        door.quiet(loop, counters, lambda *words: told.append(words))
        loop.call_soon(breaks)
        await asyncio.sleep(0.01)

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    ((kind, reason),) = told
    assert kind == "callback" and "ValueError: no " in reason and " at breaks:" in reason and reason.isprintable()
    assert not caplog.records and counters["faults"] == 1


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


def test_a_daemon_takes_the_whole_limit_that_it_may_have() -> None:
    program = """
import resource
from feedback.ops.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 200))
raise_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(200, 200)\n"


def test_who_comes_new_to_a_shut_door_is_not_let_into_the_queue() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            shut = Door(lambda opened: None)
            shut.listens(server.fileno())
            socket.create_connection(server.getsockname(), timeout=60).close()
            shut.failed(errno.EMFILE)
            with pytest.raises(TimeoutError):
                socket.create_connection(server.getsockname(), timeout=0.2)
            shut.close()

    asyncio.run(scenario())


def test_what_the_door_has_not_asked_to_hear_is_not_its_own() -> None:
    async def scenario() -> None:
        ajar = Door(lambda opened: None)
        assert not ajar.hear(struct.pack("=HI", zmq.EVENT_CLOSED, 7))
        ajar.close()

    asyncio.run(scenario())


class Memory:
    """As Resident, of a size that the test sets; `trim` gives back what is `free`."""

    def __init__(self) -> None:
        self.size, self.free = 10 * door.GROWN_BYTES, 0

    def __call__(self) -> int:
        return self.size

    def trim(self) -> None:
        self.size, self.free = self.size - self.free, 0

    def close(self) -> None:
        pass


@contextmanager
def weighed(over: Callable[[], list[int]]) -> Iterator[tuple[Memory, list[float]]]:
    """A door without connections, which shuts what `over` says; its memory, and when connections were asked."""
    ajar, memory, asked = Door(lambda opened: None), Memory(), list[float]()
    ajar._resident = memory  # type: ignore[assignment]
    ajar._size = memory.size

    def answer(received: object, seconds: float, unread: object) -> list[int]:
        asked.append(seconds)
        return over()

    ajar.sessions.over = answer  # type: ignore[method-assign]
    try:
        yield memory, asked
    finally:
        ajar.close()


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.01)


def test_connections_are_asked_once_a_second_and_more_often_while_the_process_grows() -> None:
    async def scenario() -> None:
        with weighed(list) as (memory, asked):
            await asyncio.sleep(1.5 * door.CALM_SECONDS)
            assert len(asked) == 1
            for _ in range(4):
                memory.size += 2 * door.GROWN_BYTES
                await asyncio.sleep(2.5 * door.WEIGH_SECONDS)
            assert len(asked) >= 5

    asyncio.run(scenario())


def test_growth_counts_from_the_smallest_size_since_the_last_look() -> None:
    async def scenario() -> None:
        with weighed(list) as (memory, asked):
            memory.size += 20 * door.GROWN_BYTES
            await asyncio.sleep(2.5 * door.WEIGH_SECONDS)
            memory.size -= 20 * door.GROWN_BYTES
            await asyncio.sleep(2.5 * door.WEIGH_SECONDS)
            before = len(asked)
            memory.size += 2 * door.GROWN_BYTES
            await asyncio.sleep(2.5 * door.WEIGH_SECONDS)
            assert (before, len(asked)) == (1, 2)

    asyncio.run(scenario())


def test_after_a_connection_was_shut_all_are_asked_until_none_was_for_a_second() -> None:
    """What is freed of it hides what comes, and what malloc keeps of it another one would fill unseen."""
    shut = [[-1], [], [-1]]

    async def scenario() -> None:
        with weighed(lambda: shut.pop(0) if shut else []) as (memory, asked):
            memory.size += 2 * door.GROWN_BYTES
            memory.free = door.GROWN_BYTES
            await until(lambda: len(asked) > 1.5 * door.CALM_SECONDS / door.WEIGH_SECONDS, "many looks")
            assert memory.free
            await until(lambda: not memory.free, "the end of the alarm")
            many = len(asked)
            await asyncio.sleep(0.5 * door.CALM_SECONDS)
            assert len(asked) <= many + 1

    asyncio.run(scenario())


def test_a_fault_while_connections_are_asked_is_not_the_last_look() -> None:
    def breaks() -> list[int]:
        raise ValueError

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with weighed(breaks) as (memory, asked):
            memory.size += 2 * door.GROWN_BYTES
            await asyncio.sleep(1.5 * door.CALM_SECONDS)
            assert len(asked) == 2

    asyncio.run(scenario())


def test_the_memory_that_is_looked_at_is_that_of_this_process() -> None:
    resident = door.Resident()
    before = resident()
    held = b"x" * (8 * door.GROWN_BYTES)
    assert resident() - before > len(held) / 2
    resident.close()


def test_a_number_that_is_something_else_by_now_is_no_connection() -> None:
    async def scenario() -> int:
        ajar, pair = Door(lambda opened: None), socket.socketpair()
        ajar.hear(struct.pack("=HI", zmq.EVENT_ACCEPTED, pair[0].fileno()))
        ajar.close()
        for end in pair:
            end.close()
        return len(ajar.sessions)

    assert asyncio.run(scenario()) == 0


def test_as_many_strangers_may_stay_as_peers_are_expected_within_the_descriptors() -> None:
    async def scenario() -> list[int]:
        ajar, found = Door(lambda opened: None), []
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (8000, before[1]))
        try:
            for peers in (0, 600, 10_000):
                ajar.expect(peers)
                found.append(ajar.sessions.strangers)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            ajar.close()
        return found

    assert asyncio.run(scenario()) == [512, 600, 2000]


def test_as_much_may_wait_as_a_fleet_says_while_its_daemon_stands_still() -> None:
    waits = 6 * 1024  # ten reports

    async def shut(expected: int, peers: int) -> int:
        ajar = Door(lambda opened: None)
        ajar.expect(expected)
        for descriptor in range(peers):
            ajar.sessions.came(descriptor, "a")
            ajar.sessions.spoke(descriptor, f"key{descriptor}", 0)
        found = ajar.sessions.over(lambda _: waits, 0.0)
        ajar.close()
        return len(found)

    assert asyncio.run(shut(0, 2000)) == 0
    assert asyncio.run(shut(0, 10_000)) > 7000
    assert asyncio.run(shut(10_000, 10_000)) == 0
    assert asyncio.run(shut(10_000, 14_000)) > 500


def test_what_nobody_has_read_is_told_of_a_connection_and_of_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        here, _ = server.accept()
        with here:
            client.send(bytes(1234))
            here.recv(34)
            number = here.fileno()
            assert door._unread(number) == 1200
        assert door._unread(number) == 0
