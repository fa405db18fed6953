"""Attacks on what a daemon can hold: connections, descriptors, memory, turns of its loop. Each for some seconds, in a
process of its own, while somebody honest says a word five times a second. This process is the daemon's end.

`python -m bench.hostile` runs them and prints the table. Memory is this process's, above what it had before; the
longest turn is how long the loop kept everybody waiting.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import select
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psutil
import zmq

from feedback import wire
from feedback.agent.responder import Responder
from feedback.agent.uplink import Uplink
from feedback.config import MasterLink
from feedback.master.shell.link import Link
from feedback.ops import keys
from feedback.ops.keys import KeyPair, PublicKey, SecretKey
from feedback.ops.logs import Log
from feedback.ops.pair import PairSecret
from feedback.sync.replication.relay import Relay
from feedback.wire import Connections, Cpu, Memory, Report

SECONDS = 8.0
WORDS_PER_SECOND = 5
LATE_SECONDS = 2.0  # for the last word to be heard
CROWD = 2000  # connections that one key opens
STRANGERS = 60
HOSTILE_KEYS = 8
FORK = multiprocessing.get_context("fork")


@dataclass
class Told:
    """What an attacker says of itself in the end."""

    what: str
    bytes: int


@dataclass
class Row:
    attack: str
    sent: str
    memory_mb: float
    longest_turn_ms: float
    honest_sent: int
    honest_heard: int
    shut: int


def pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(PublicKey(public.decode()), SecretKey(secret))


def report(name: str, address: str, sequence: int) -> bytes:
    return wire.encode(Report(
        version=wire.PROTOCOL, agent=name, boot="b", sequence=sequence, sampled_at=1.0 + sequence / 5,
        interval_seconds=0.2, addresses=(address,), cpu=Cpu(4.0, sequence * 0.4), memory=Memory(1 << 34, 1 << 33),
        connections=Connections(sequence * 40, 7),
    ))  # fmt: skip


# --- attackers: each in its own process, until its time is over -------------------------------------------------------


def dealer(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, master: str, own: tuple[str, bytes]
) -> zmq.Socket[bytes]:
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDHWM, 1)
    made.curve_publickey, made.curve_secretkey, made.curve_serverkey = own[0].encode(), own[1], master.encode()
    made.connect(endpoint)
    return made


def endless(size: int, count: int) -> Callable[..., Told]:
    """Messages of so many parts of so many bytes: to the receiver they have no end until it comes. Each key's by one
    process after the other, as a libzmq that is cut off within a message may abort."""

    def once(endpoint: str, master: str, own: tuple[str, bytes]) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        made = dealer(context, endpoint, master, own)
        made.send_multipart([b"x" * size] * count)
        made.poll(500)
        os._exit(0)

    def attack(endpoint: str, master: str, owns: list[tuple[str, bytes]], until: float) -> Told:
        sent = [0] * len(owns)

        def again(number: int) -> None:
            while time.monotonic() < until:
                process = FORK.Process(target=once, args=(endpoint, master, owns[number]))
                process.start()
                process.join(5)
                process.kill()
                process.join()
                sent[number] += 1

        _together(again, len(owns))
        return Told(f"{sum(sent)} messages of {count:,} parts of {size:,} bytes", 0)

    return attack


def crowd(endpoint: str, master: str, owns: list[tuple[str, bytes]], until: float) -> Told:
    """Connections of one key, of which every third says something."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, CROWD + 10)
    made: list[zmq.Socket[bytes]] = []
    here = endpoint.removeprefix("tcp://")
    while time.monotonic() < until:
        if len(made) < CROWD:
            made.append(dealer(context, f"tcp://127.0.0.2:0;{here}", master, owns[0]))
            if len(made) % 3 == 0:
                with suppress(zmq.Again):
                    made[-1].send(b"a word", zmq.NOBLOCK)
        else:
            time.sleep(0.05)
    context.destroy(linger=0)
    return Told(f"{len(made)} reconnecting clients with one key", 0)


def large_frames(endpoint: str, master: str, owns: list[tuple[str, bytes]], until: float) -> Told:
    """Strangers that say CURVE, and then begin a frame of 8 MiB."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    size = 8 * 1024 * 1024
    head = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32) + b"\x06" + size.to_bytes(8)
    sent, frames = [0] * STRANGERS, [0] * STRANGERS

    def stranger(number: int) -> None:
        while time.monotonic() < until:
            with (
                suppress(OSError),
                socket.create_connection((host, int(port)), timeout=1, source_address=("127.0.0.2", 0)) as plain,
            ):
                frames[number] += 1
                for chunk in (head, *[bytes(65536)] * (size // 65536 - 1)):
                    sent[number] += plain.send(chunk)
                time.sleep(1)

    _together(stranger, STRANGERS)
    return Told(f"{sum(frames)} frames of 8 MiB begun by {STRANGERS} strangers", sum(sent))


def questions(endpoint: str, master: str, owns: list[tuple[str, bytes]], until: float) -> Told:
    """Connections to the agent-check of who is not in `allow`, 400 a second."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    began, asked = time.monotonic(), 0
    while (now := time.monotonic()) < until:
        if asked < (now - began) * 400:
            with (
                suppress(OSError),
                socket.create_connection((host, int(port)), timeout=0.2, source_address=("127.0.0.2", 0)),
            ):
                asked += 1
        else:
            time.sleep(0.001)
    return Told(f"{asked} connections from addresses not in `allow`", 0)


def _together(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _run(attack: Callable[..., Told], told: Any, *given: Any) -> None:
    told.send(attack(*given, time.monotonic() + SECONDS))


# --- the daemon's end, and somebody honest ----------------------------------------------------------------------------

Says = Callable[[int], Awaitable[None]]


async def under(name: str, attack: Callable[..., Told], given: tuple[Any, ...], says: Says, heard: set[int]) -> Row:
    """The row of an attack, without what the daemon itself counted. `says(n)` says the honest one's word number n."""
    process, turns, peak = psutil.Process(), [0.0], [0]

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.02)
            turns[0] = max(turns[0], time.monotonic() - began - 0.02)
            peak[0] = max(peak[0], process.memory_info().rss)

    ours, theirs = multiprocessing.Pipe(duplex=False)
    attacker = FORK.Process(target=_run, args=(attack, theirs, *given))
    before = process.memory_info().rss
    attacker.start()
    watching = asyncio.create_task(watch())
    count = 0
    theirs.close()
    while not ours.poll():
        count += 1
        await says(count)
        await asyncio.sleep(1 / WORDS_PER_SECOND)
    told: Told = ours.recv()
    deadline = time.monotonic() + LATE_SECONDS
    while len(heard) < count and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.to_thread(attacker.join, 10)
    sent = told.what + (f": {told.bytes / 1e6:,.0f} MB" if told.bytes else "")
    return Row(name, sent, round((peak[0] - before) / 1e6, 1), round(1000 * turns[0], 1), count, len(heard), 0)


async def on_master(name: str, attack: Callable[..., Told], attackers: int) -> Row:
    """Enrolled attackers, and an honest agent that comes when they are there."""
    with tempfile.TemporaryDirectory() as directory:
        master, own, owns = pair(), pair(), [pair() for _ in range(attackers)]
        for number, made in enumerate([own, *owns]):
            keys.enroll(Path(directory) / "agents", f"rs{number}", made.public, (f"10.0.0.{number + 1}",))
        heard: set[int] = set()

        def receive(reports: Sequence[tuple[Report, float]]) -> list[None]:
            heard.update(said.sequence for said, _ in reports if said.agent == "rs0")
            return [None for _ in reports]

        link = Link(["tcp://127.0.0.1:0"], master, Path(directory) / "agents", receive)
        link.open()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        up = Uplink(context, MasterLink(endpoint=link.endpoints[0], public_key=master.public), own, Log("bench"))

        async def says(count: int) -> None:
            """As the agent's loop does; the first one waits for the connection."""
            up.tick(time.monotonic())
            while not up.send(report("rs0", "10.0.0.1", count)):
                await asyncio.sleep(0.05)
                up.tick(time.monotonic())

        secrets = [(str(made.public), bytes(made.secret)) for made in owns]
        row = await under(name, attack, (link.endpoints[0], str(master.public), secrets), says, heard)
        row.shut = link.counters["put_out"]
        up.close()
        context.term()
        link.close()
        return row


async def on_relay(name: str, attack: Callable[..., Told]) -> Row:
    secret, heard = PairSecret(random.randbytes(32)), set[int]()
    first, second = secret.director("d1"), secret.director("d2")
    active = Relay(
        ["tcp://127.0.0.1:0"], first, second.public, lambda route, word: heard.add(int(word)), lambda word: None
    )
    standby = Relay([], second, first.public, lambda route, word: None, lambda word: None)
    active.open()
    standby.open()
    standby.follow(active.endpoints[0])

    async def says(count: int) -> None:
        standby.ask(b"%d" % count)

    row = await under(name, attack, (active.endpoints[0], "", []), says, heard)
    row.shut = active.counters["put_out"]
    standby.close()
    active.close()
    return row


async def on_agent_check(name: str, attack: Callable[..., Told]) -> Row:
    responder, heard = (
        Responder("127.0.0.1:0", (ip_network("127.0.0.1/32"),), lambda question, now: b"up\n"),
        set[int](),
    )
    poll, stop = select.poll(), threading.Event()
    responder.attach(poll)

    def serve() -> None:  # as the agent's loop does
        while not stop.is_set():
            wait = min(0.1, max(0.0, responder.due() - time.monotonic()))
            found = poll.poll(1000 * wait)
            responder.turn([descriptor for descriptor, _ in found], time.monotonic())

    def ask(count: int) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", responder.port), timeout=0.5) as client:
            client.send(b"80\n")
            if client.recv(10):
                heard.add(count)

    async def says(count: int) -> None:
        await asyncio.to_thread(ask, count)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        return await under(name, attack, (f"tcp://127.0.0.1:{responder.port}", "", []), says, heard)
    finally:
        stop.set()
        serving.join()
        responder.close()


async def table() -> list[Row]:
    return [
        await on_master("messages without end", endless(20_000, 5_000), HOSTILE_KEYS),
        await on_master("parts of one byte", endless(1, 100_000), HOSTILE_KEYS),
        await on_master("connections of one key", crowd, 1),
        await on_relay("large frames of strangers", large_frames),
        await on_agent_check("strangers at agent-check", questions),
    ]


def lines(rows: list[Row]) -> list[str]:
    head = "| attack, 8 s | sent | memory above rest | longest turn | connections shut | honest reports heard |"
    return [head, "|---|---|---|---|---|---|"] + [
        f"| {r.attack} | {r.sent} | {r.memory_mb:g} MB | {r.longest_turn_ms:.0f} ms | {r.shut:,} | "
        f"{r.honest_heard} of {r.honest_sent} |"
        for r in rows
    ]
