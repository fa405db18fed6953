"""Attacks on real sockets: `python -m bench.hostile [--json] [--attacks | --messages]`.

First the table of attacks.py: what a daemon can be made to hold. Then a million malformed and hostile messages. This
process is the master's end: a real link with a hundred enrolled agents. Another process has the keys of all but one,
and sends as fast as it can what no honest agent would: reports with bytes flipped, cut, spliced and nested, reports in
another's name and for other servers, messages too large, messages in parts; between them strangers with keys of their
own and plain TCP connections full of noise. The last agent is honest and reports five times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import psutil
import zmq

from bench import attacks
from feedback import wire
from feedback.agent.uplink import Uplink
from feedback.config import MasterLink
from feedback.master.shell.admission import Admission, Refused
from feedback.master.shell.link import Link
from feedback.ops import keys, logs
from feedback.ops.keys import KeyPair, PublicKey, SecretKey
from feedback.ops.logs import Log
from feedback.wire import Connections, Cpu, Memory, Report

MESSAGES = 1_000_000
AGENTS = 100
EACH = 40  # distinct hostile messages of an agent
REPORT_SECONDS = 0.2
STRANGERS = {"accepted", "handshake", "unknown_key", "mechanism"}  # counters that no enrolled attacker moves


def pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(PublicKey(public.decode()), SecretKey(secret))


def address(i: int) -> str:
    return f"10.0.{i // 250}.{i % 250 + 1}"


def report(i: int, k: int) -> Report:
    return Report(version=wire.PROTOCOL, agent=f"rs{i}", boot="b", sequence=k, sampled_at=1.0 + k / 5,
                  interval_seconds=0.2, addresses=(address(i),), cpu=Cpu(4.0, k * 0.4),
                  memory=Memory(1 << 34, 1 << 33), connections=Connections(k * 40, 7))  # fmt: skip


def hostile(i: int, draw: random.Random) -> list[list[bytes]]:
    """Messages of agent i, in parts, none of which counts: each was refused by the rules themselves, or is in parts."""
    enrolment = keys.Enrolment(f"rs{i}", PublicKey("k"), keys.rips([address(i)], ""))
    made: list[list[bytes]] = [[wire.encode(report(i, 1)), b"again"], [b"\x91" * 16000], [b"\xdd\xff\xff\xff\xff"]]
    while len(made) < EACH:
        data = changed(wire.encode(report(i, draw.randrange(1, 9))), i, draw)
        try:
            Admission({"k": enrolment}).admit("k", data, 0.0)
        except Refused:
            made.append([data])
    return made


def changed(data: bytes, i: int, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    match draw.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([data[at] ^ draw.randrange(1, 256)]) + data[at + 1 :]
        case 2:
            return data[:at] + draw.randbytes(draw.randrange(1, 40)) + data[at:]
        case 3:
            return data[:at] + b"\x91" * draw.randrange(1, 3000) + data[at:]
        case 4:
            return wire.encode(msgspec.structs.replace(report(i, 5), addresses=(address(draw.randrange(AGENTS)),)))
        case 5:
            return wire.encode(msgspec.structs.replace(report(i, 5), agent=f"rs{(i + 1) % AGENTS}"))
        case _:
            return data + bytes(draw.choice([1, wire.REPORT_BYTES_MAX, 3 * wire.REPORT_BYTES_MAX]))


def attack(endpoint: str, master: str, secrets: list[tuple[str, bytes]], told: Any) -> None:
    """In the other process. Blocks where the master does not keep up: nothing is dropped at this end."""
    draw, context, poll = random.Random(1), zmq.Context(), zmq.Poller()
    own = {}
    for i, (public, secret) in enumerate(secrets):
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 60_000)
        dealer.setsockopt(zmq.SNDHWM, 100)
        dealer.curve_publickey, dealer.curve_secretkey = public.encode(), secret
        dealer.curve_serverkey = master.encode()
        dealer.connect(endpoint)
        own[dealer] = hostile(i, draw)
        poll.register(dealer, zmq.POLLOUT)
    stop = threading.Event()
    strangers = threading.Thread(target=noise, args=(endpoint, master, stop))
    strangers.start()
    sent = 0
    while sent < MESSAGES:
        for dealer, _ in poll.poll(1000):
            for parts in draw.choices(own[dealer], k=min(20, MESSAGES - sent)):
                try:
                    dealer.send_multipart(parts, zmq.NOBLOCK)
                except zmq.Again:
                    break
                sent += 1
    told.send(sent)
    stop.set()
    strangers.join()
    for dealer in own:
        dealer.close()
    context.term()


def noise(endpoint: str, master: str, stop: threading.Event) -> None:
    """Strangers: keys that nobody enrolled, and bytes that are no ZMTP."""
    draw, context = random.Random(2), zmq.Context()
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    while not stop.is_set():
        stranger = pair()
        with context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.curve_publickey, dealer.curve_secretkey = stranger.public.encode(), stranger.secret
            dealer.curve_serverkey = master.encode()
            dealer.connect(endpoint)
            dealer.send(b"x")
            try:
                with socket.create_connection((host, int(port)), timeout=1) as plain:
                    plain.sendall(draw.randbytes(draw.randrange(1, 4000)))
            except OSError:
                pass
            stop.wait(0.02)


async def measured(directory: Path) -> dict[str, Any]:
    pairs, master = [pair() for _ in range(AGENTS)], pair()
    for i, made in enumerate(pairs):
        keys.enroll(directory, f"rs{i}", made.public, (address(i),))
    heard: list[tuple[int, float]] = []
    by_others: list[str] = []

    def receive(reports: Sequence[tuple[Report, float]]) -> list[None]:
        for said, now in reports:
            if said.agent == f"rs{AGENTS - 1}":
                heard.append((said.sequence, now))
            else:
                by_others.append(said.agent)
        return [None for _ in reports]

    link = Link(["tcp://127.0.0.1:0"], master, directory, receive)
    link.open()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    secrets = [(made.public, bytes(made.secret)) for made in pairs[:-1]]
    attacker = multiprocessing.get_context("fork").Process(
        target=attack, args=(link.endpoints[0], master.public, secrets, theirs)
    )
    attacker.start()
    figures = await honest(link, pairs[-1], master.public, ours, heard)
    await asyncio.to_thread(attacker.join, 30)
    link.close()
    refused = {kind: n for kind, n in sorted(link.counters.items()) if kind != "accepted"}
    return figures | {
        "hostile_accepted": len(by_others),
        "refused": refused,
        "attacker_ended_well": attacker.exitcode == 0,
    }


async def honest(link: Link, own: KeyPair, master: str, told: Any, heard: list[tuple[int, float]]) -> dict[str, Any]:
    """The honest agent's reports, and the memory, until all that the attacker sent has been judged."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    up = Uplink(context, MasterLink(endpoint=link.endpoints[0], public_key=master), own, Log("bench"))
    process, sent, count, early = psutil.Process(), 0, 0, 0
    sent_at: dict[int, float] = {}
    began, settled_at, judged = time.monotonic(), 0.0, -1
    try:
        while True:
            now = time.monotonic()
            up.tick(now)
            count += 1
            if up.send(wire.encode(report(AGENTS - 1, count))):
                sent_at[count] = now
            await asyncio.sleep(REPORT_SECONDS)
            sent = told.recv() if not sent and told.poll() else sent
            total = sum(n for kind, n in link.counters.items() if kind not in STRANGERS)
            early = early or (process.memory_info().rss if total > MESSAGES / 10 else 0)
            settled_at = settled_at if total == judged else now
            judged = total
            if (sent and now - settled_at > 3.0) or now - began > 300:
                break
    finally:
        up.close()
        context.term()
    await asyncio.sleep(0.2)
    arrived = dict(heard)
    waits = sorted(at - sent_at[sequence] for sequence, at in arrived.items())
    seconds = settled_at - began
    return {
        "messages": sent,
        "seconds": round(seconds, 1),
        "messages_per_second": round(sent / seconds),
        "honest_sent": len(sent_at),
        "honest_heard": len(arrived),
        "honest_wait_ms_p99": round(1000 * waits[int(0.99 * (len(waits) - 1))], 1) if waits else None,
        "memory_at_a_tenth_mb": round(early / 1e6, 1),
        "memory_at_the_end_mb": round(process.memory_info().rss / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--attacks", action="store_true", help="only the table")
    one.add_argument("--messages", action="store_true", help="only the million messages")
    given = parser.parse_args()
    logs.setup("error")
    rows = [] if given.messages else asyncio.run(attacks.table())
    figures: dict[str, Any] = {}
    if not given.attacks:
        with tempfile.TemporaryDirectory() as directory:
            figures = asyncio.run(measured(Path(directory) / "agents"))
    if given.json:
        print(json.dumps({"figures": figures | {"attacks": {row.attack: asdict(row) for row in rows}}}))
    else:
        print("\n".join([*attacks.lines(rows), json.dumps(figures, indent=2)]))
    if figures and (figures["hostile_accepted"] or not figures["attacker_ended_well"]):
        return 1
    return int(any(row.honest_heard < row.honest_sent for row in rows))


if __name__ == "__main__":
    sys.exit(main())
