"""What comes on a socket is taken whole, at once after a pause, and together where much comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from feedback.ops import curve


class Taking:
    """One end of a pair on the loop: what it took, and how often it found nothing more."""

    def __init__(self, context: curve.Context, rest_seconds: float) -> None:
        self.took: list[bytes] = []
        self.drains = 0
        self.there, self.here = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self.there.bind("inproc://edges")
        self.here.connect("inproc://edges")
        self.edges = curve.Edges()
        self.edges.watch(self.here, self._take, rest_seconds=rest_seconds)

    def _take(self, socket: curve.Socket) -> None:
        try:
            self.took.append(socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            self.drains += 1
            raise
        if self.took[-1] == b"fault":
            raise RuntimeError


@contextmanager
def taking(rest_seconds: float) -> Iterator[Taking]:
    context: curve.Context = zmq.Context()
    made = Taking(context, rest_seconds)
    try:
        yield made
    finally:
        made.edges.close()
        made.there.close(linger=0)
        made.here.close(linger=0)
        context.term()


def test_what_comes_soon_after_a_message_is_taken_together() -> None:
    async def scenario() -> tuple[list[bytes], int]:
        with taking(0.1) as end:
            for i in range(100):
                end.there.send(b"%d" % i)
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.3)
            return end.took, end.drains

    took, drains = asyncio.run(scenario())
    assert took == [b"%d" % i for i in range(100)]
    assert drains < 20


def test_the_first_after_a_pause_does_not_wait() -> None:
    async def scenario() -> None:
        with taking(0.5) as end:
            for n in (1, 2):
                await asyncio.sleep(0.6)
                end.there.send(b"one")
                await asyncio.sleep(0.1)
                assert len(end.took) == n
                await asyncio.sleep(0.5)

    asyncio.run(scenario())


@pytest.mark.parametrize("rest", [0.0, 0.05])
def test_a_fault_in_one_message_leaves_none_behind(rest: float) -> None:
    async def scenario() -> list[bytes]:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with taking(rest) as end:
            for word in (b"a", b"fault", b"b"):
                end.there.send(word)
            await asyncio.sleep(0.2)
            end.there.send(b"c")
            await asyncio.sleep(0.2)
            return end.took

    assert asyncio.run(scenario()) == [b"a", b"fault", b"b", b"c"]
