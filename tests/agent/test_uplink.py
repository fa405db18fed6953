"""The agent's link where nothing can be opened: it waits and tries again, and the agent lives."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import zmq

from feedback import wire
from feedback.agent.uplink import (
    REPORTS,
    RETRY_SECONDS,
    SESSIONS,
    TAKEN_AT_ONCE,
    TICK_SECONDS,
    Options,
    State,
    Uplink,
)
from feedback.config import MasterLink
from feedback.ops import keys
from feedback.ops.logs import Log
from feedback.ops.process import die_with_parent
from feedback.wire import Reply
from tests.ops.exhausted import exhausted

DEADLINE_MILLISECONDS = 60_000  # on a crowded host


def test_without_descriptors_there_is_no_link_and_with_them_there_is_one(tmp_path: Path) -> None:
    _, secret, public = keys.create(tmp_path / "agent")
    with zmq.Context() as context, context.socket(zmq.ROUTER) as master:
        port = master.bind_to_random_port("tcp://127.0.0.1")
        link = MasterLink(endpoint=f"tcp://127.0.0.1:{port}", public_key=public)
        uplink, now = Uplink(context, link, keys.load_secret(secret), Log("test")), time.monotonic()
        try:
            with exhausted():
                uplink.tick(now)
                assert not uplink.send(b"report")
            assert uplink.state is State.REFUSED
            uplink.tick(now + RETRY_SECONDS / 2)
            assert not uplink.send(b"report")  # not yet
            uplink.tick(now + RETRY_SECONDS)
            assert uplink._socket is not None
        finally:
            uplink.close()


def test_a_master_that_never_stops_talking_has_so_many_replies_a_tick_and_no_more(tmp_path: Path) -> None:
    """The agent samples and sends between them."""
    _, secret, public = keys.create(tmp_path / "agent")
    with zmq.Context() as context, context.socket(zmq.PAIR) as master:
        master.bind("inproc://master")
        link = MasterLink(endpoint="tcp://127.0.0.1:1", public_key=public)
        uplink = Uplink(context, link, keys.load_secret(secret), Log("test"))
        uplink._socket = context.socket(zmq.PAIR)
        uplink._socket.connect("inproc://master")
        for _ in range(2 * TAKEN_AT_ONCE):
            master.send(wire.encode(Reply(wire.PROTOCOL, True)))
        taken: list[bytes] = []
        uplink._on_reply = taken.append  # type: ignore[method-assign]
        try:
            for ticks in (1, 2, 3):
                uplink.tick(ticks * TICK_SECONDS)
                assert len(taken) == min(ticks, 2) * TAKEN_AT_ONCE
        finally:
            uplink.close()


def held_up(endpoint: str, master: keys.PublicKey, secret: Path, said: Connection, options: Options) -> None:
    """An agent's link that nobody looks at for a while, in a process of its own."""
    die_with_parent()
    uplink = Uplink(zmq.Context(), MasterLink(endpoint, master), keys.load_secret(secret), Log("test"), options)
    while not uplink.send(b"report"):
        uplink.tick(time.monotonic())
        time.sleep(0.01)
    time.sleep(1.0)
    uplink.tick(time.monotonic())
    said.send("lives")


@pytest.mark.parametrize("options", [(*REPORTS, (zmq.HEARTBEAT_IVL, 100)), SESSIONS], ids=["reports", "sessions"])
def test_an_agent_that_was_held_up_goes_on_where_a_master_said_much_and_has_left(
    options: Options, tmp_path: Path
) -> None:
    """libzmq aborts where a connection ends whose queue is full, and then pings: one link keeps one message, the other
    pings nobody."""
    _, secret, _ = keys.create(tmp_path / "agent")
    public, own = zmq.curve_keypair()
    here, there = multiprocessing.Pipe()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as master:
        master.curve_server, master.curve_publickey, master.curve_secretkey = True, public, own
        master.sndhwm, master.linger, master.rcvtimeo = 0, 0, DEADLINE_MILLISECONDS
        endpoint = f"tcp://127.0.0.1:{master.bind_to_random_port('tcp://127.0.0.1')}"
        agent = multiprocessing.get_context("spawn").Process(
            target=held_up, args=(endpoint, keys.PublicKey(public.decode()), secret, there, options)
        )
        agent.start()
        there.close()
        route, _ = master.recv_multipart()  # zmq.Again where it never came
        for _ in range(1000):
            master.send_multipart([route, b"much"])
        time.sleep(0.3)
        master.close(linger=0)
        assert here.recv() == "lives"  # EOFError where it died
        agent.join()
