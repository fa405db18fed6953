"""The relay on real sockets: order, who gets in, and that a full or vanished peer is said."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any

import pytest
import zmq

from feedback.ops.pair import PairSecret
from feedback.ops.process import die_with_parent
from feedback.sync.replication.messages import SMALL_BYTES_MAX
from feedback.sync.replication.relay import MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, Relay

SECRET = PairSecret(bytes(range(32)))
DEADLINE_SECONDS = 60.0
HELD_SECONDS = 2.5
SENT = 6000  # messages, more than a standby ever lets wait


class Director:
    def __init__(self, name: str, peer: str, secret: PairSecret = SECRET, endpoint: str = "tcp://127.0.0.1:0") -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.stream: list[bytes] = []
        self.relay = Relay(
            [endpoint],
            secret.director(name),
            SECRET.director(peer).public,
            lambda route, message: self.requests.append((route, message)),
            self.stream.append,
        )

    def __enter__(self) -> Director:
        self.relay.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.relay.close()

    def follow(self, other: Director) -> None:
        self.relay.follow(other.relay.endpoints[0])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_stream_arrives_whole_and_in_order() -> None:
    async def scenario() -> None:
        with Director("d1", "d2") as active, Director("d2", "d1") as standby:
            standby.follow(active)
            assert standby.relay.ask(b"hello")
            await until(lambda: active.requests)
            route, message = active.requests[0]
            assert message == b"hello"
            sent = [b"%d" % n for n in range(5000)]
            for chunk in (sent[:1000], sent[1000:3000], sent[3000:]):
                for message in chunk:
                    while not active.relay.answer(route, message):  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                await asyncio.sleep(0)
            await until(lambda: len(standby.stream) == len(sent))
            assert standby.stream == sent

    run(scenario())


def test_only_the_peers_key_gets_in() -> None:
    async def scenario() -> None:
        with (
            Director("d1", "d2") as active,
            Director("d2", "d1", PairSecret(bytes(32))) as forger,
            Director("d3", "d1") as third,
        ):
            for stranger in (forger, third):
                stranger.follow(active)
                stranger.relay.ask(b"let me in")
            await until(lambda: active.relay.counters["refused_unknown_key"] >= 2)
            assert active.requests == []

    run(scenario())


def test_a_peer_without_curve_is_refused_and_counted() -> None:
    async def scenario() -> None:
        with Director("d1", "d2") as active, zmq.Context() as context, context.socket(zmq.DEALER) as plain:
            plain.linger = 0
            plain.connect(active.relay.endpoints[0])
            with contextlib.suppress(zmq.Again):  # it may be refused already
                plain.send(b"hello", zmq.NOBLOCK)
            await until(lambda: active.relay.counters["refused_handshake"])
            assert active.requests == []

    run(scenario())


def test_a_vanished_follower_is_said() -> None:
    async def scenario() -> None:
        with Director("d1", "d2") as active:
            with Director("d2", "d1") as standby:
                standby.follow(active)
                standby.relay.ask(b"hello")
                await until(lambda: active.requests)
            route = active.requests[0][0]
            await until(lambda: not active.relay.answer(route, b"still there?"))
            assert active.relay.counters["unsent"] >= 1

    run(scenario())


def test_an_oversized_message_never_arrives() -> None:
    async def scenario() -> None:
        with Director("d1", "d2") as active, Director("d2", "d1") as standby:
            standby.follow(active)
            standby.relay.ask(bytes(REQUEST_BYTES_MAX + 1))
            standby.relay.ask(b"after")
            await asyncio.sleep(0.3)
            assert all(len(message) < 100 for _, message in active.requests)

    run(scenario())


def test_a_stranger_is_cut_off_at_the_head_of_a_large_frame() -> None:
    """Before it has said who it is; else each would have 8 MiB until its handshake's time is over."""

    async def scenario() -> None:
        with Director("d1", "d2") as active:
            host, port = active.relay.endpoints[0].removeprefix("tcp://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
            writer.write(greeting + b"\x06" + REQUEST_BYTES_MAX.to_bytes(8) + bytes(100))
            await reader.readexactly(64)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1000), 0.3)
            writer.close()
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(greeting + b"\x06" + (REQUEST_BYTES_MAX + 1).to_bytes(8) + bytes(100))
            async with asyncio.timeout(1.0):  # a handshake has two seconds
                with contextlib.suppress(ConnectionError):
                    await reader.read()
            writer.close()

    run(scenario())


def test_what_a_follower_says_fits_through_the_relay() -> None:
    assert SMALL_BYTES_MAX + 100 < REQUEST_BYTES_MAX

    async def scenario() -> None:
        with Director("d1", "d2") as active, Director("d2", "d1") as standby:
            standby.follow(active)
            standby.relay.ask(bytes(SMALL_BYTES_MAX))
            await until(lambda: active.requests)
            assert active.relay.answer(active.requests[0][0], bytes(MESSAGE_BYTES_MAX - 100))
            await until(lambda: standby.stream)
            assert not active.relay.counters["put_out"]

    run(scenario())


def test_following_again_begins_afresh() -> None:
    async def scenario() -> None:
        with Director("d1", "d2") as active, Director("d2", "d1") as standby:
            for word in (b"one", b"two"):
                standby.follow(active)
                standby.relay.ask(word)
                await until(lambda word=word: any(m == word for _, m in active.requests))
            routes = [route for route, _ in active.requests]
            assert routes[0] != routes[1]
            assert active.relay.answer(routes[1], b"yes")
            await until(lambda: standby.stream == [b"yes"])
            standby.relay.follow(None)
            assert not standby.relay.ask(b"nobody")

    run(scenario())


def stand_by(endpoint: str, said: Connection) -> None:
    """A standby's relay in a process of its own, which tells how much it has taken until it is killed."""
    die_with_parent()
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(HELD_SECONDS))

    async def scenario() -> None:
        with Director("d2", "d1") as standby:
            standby.relay.follow(endpoint)
            standby.relay.ask(b"hello")
            while True:
                await asyncio.sleep(0.01)
                said.send(len(standby.stream))

    run(scenario())


def test_a_standby_that_was_held_up_goes_on_where_the_active_one_has_left_meanwhile() -> None:
    """All that it was sent waits, in its queue and in the kernel's, and then the connection has ended."""
    here, there = multiprocessing.Pipe()

    async def scenario() -> None:
        with Director("d1", "d2") as active:
            standby = multiprocessing.get_context("spawn").Process(
                target=stand_by, args=(active.relay.endpoints[0], there)
            )
            standby.start()
            there.close()
            await until(lambda: active.requests)
            route = active.requests[0][0]
            active.relay.answer(route, b"first")
            while not here.recv():
                pass
            os.kill(standby.pid or 0, signal.SIGUSR1)
            for sequence in range(SENT):
                assert active.relay.answer(route, b"%d" % sequence)
                if sequence % 500 == 0:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
        heard = [0]
        while heard[-1] < SENT // 2 or len(heard) < 100:
            heard.append(here.recv())  # EOFError where it died
        standby.kill()
        standby.join()

    run(scenario())
