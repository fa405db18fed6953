"""Connections a second into a standby's kernel, side by side in one run with what that kernel takes at most.

Run as root on a kernel with IPVS (the lab's guest does): `python bench/replication.py [--json] [--connections N]`.
It makes network namespaces of its own and removes them. Every way puts the same established connections into a fresh
namespace, and the kernel is asked afterwards how many it has: what only looks fast cannot win.

resync          records from the ledger, encoded, paced by the kernel's own queue, until its table has them
ledger          a million connections noted, sent and swept: memory, CPU, and the longest that any of it holds the loop
session         from a late standby's hello over a real relay until it is complete, both ends in one loop; how late that
                loop's timers were, which heartbeats are
kernel limit    datagrams made beforehand, sent without asking into a socket that holds them all
relay           what a datagram costs on its way from the master's socket to the standby's, without the network
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from statistics import median

from feedback.ipvs import Client, IpvsError
from feedback.model import AddDestination, AddService, Destination, DestinationKey, Edit, Service, ServiceKey
from feedback.ops.pair import PairSecret
from feedback.sync.replication import messages, records, threads
from feedback.sync.replication.carrier import TURN_SECONDS, Carrier
from feedback.sync.replication.kernel import PUSH_SECONDS, Replication
from feedback.sync.replication.ledger import PARTS, Ledger
from feedback.sync.replication.messages import Records
from feedback.sync.replication.records import Record
from feedback.sync.replication.relay import Relay
from feedback.sync.replication.replica import BACKUP_ID, BULK_BYTES, MASTER_ID, TAKE_AT_ONCE, Condition, Replica, Sender
from feedback.sync.replication.ties import SOON_SECONDS

SERVICE = ServiceKey.parse("tcp:10.0.0.100:80")
DESTINATION = DestinationKey.parse("10.0.0.11:80")
VIP, RIP = ip_address("10.0.0.100").packed, ip_address("10.0.0.11").packed
LIMIT_SOCKET_BYTES = 256 * 1024 * 1024
RMEM_MAX = Path("/proc/sys/net/core/rmem_max")
LEDGER = 1_000_000
HEARTBEAT_SECONDS = 0.02
SECRET = PairSecret(bytes(range(32)))
SMALL = 8  # connections in a datagram of a master that is pushed


def connections(count: int, start: int = 0) -> list[Record]:
    return [
        Record(6, 0x83, 1, bytes((10, 2 + (n >> 16), n >> 8 & 255, n & 255)), 1024, VIP, 80, RIP, 80, 0, 900)
        for n in range(start, start + count)
    ]


class Standby:
    def __init__(self, netns: str) -> None:
        self.kernel = Client(netns)
        edits: list[Edit] = [AddService(Service(SERVICE)), AddDestination(SERVICE, Destination(DESTINATION))]
        failures = self.kernel.apply(edits)
        assert not failures, failures[0]
        self.replication = Replication(netns)
        self.replication.open()

    def close(self) -> None:
        self.replication.close()
        self.kernel.close()

    def held(self) -> int:
        return self.kernel.destinations(SERVICE)[0].active

    def wait(self) -> None:
        while (queue := self.replication.backlog()) is not None and queue.bytes:
            time.sleep(0.0005)


@contextmanager
def standby(name: str = "standby") -> Iterator[Standby]:
    netns = f"bench-{name}-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
        made = Standby(netns)
        try:
            yield made
        finally:
            made.close()
    finally:
        subprocess.run(["ip", "netns", "del", netns], check=True)


def resync(count: int) -> dict[str, float]:
    """From the ledger of the active one into the kernel of the standby."""
    ledger = Ledger(10.0)
    ledger.note(records.encode(connections(count), BACKUP_ID), time.monotonic())
    with standby() as s:
        began, used = time.perf_counter(), time.process_time()
        bodies = [body for index in range(PARTS) for body in ledger.part(index, time.monotonic())]
        datagrams = records.packed(bodies, BACKUP_ID, BULK_BYTES)
        encoded = time.perf_counter()
        while datagrams:
            done = s.replication.inject(datagrams)
            datagrams = datagrams[done:]
            if not done:
                time.sleep(0.0005)
        s.wait()
        took, used = time.perf_counter() - began, time.process_time() - used
        assert s.held() == count, f"{s.held()} of {count} arrived"
        assert s.replication.drops() == 0
    return {"per_second": count / took, "encode_seconds": encoded - began, "cpu_us_per_connection": 1e6 * used / count}


def session(count: int) -> dict[str, float]:
    return asyncio.run(_session(count))


async def _session(count: int) -> dict[str, float]:
    gc.collect()
    gc.freeze()  # as the daemon does when it has started
    with standby("active") as active, standby("late") as late:
        rest = _resident_bytes()
        for start in range(0, count, TAKE_AT_ONCE):
            active.replication.ledger.note(
                records.encode(connections(min(TAKE_AT_ONCE, count - start), start), BACKUP_ID), time.monotonic()
            )
        size = (_resident_bytes() - rest) / count
        carriers = [Carrier(name, d.kernel, d.replication, mirror=False, master_state=None)
                    for name, d in (("d1", active), ("d2", late))]  # fmt: skip
        relays = [
            Relay(
                ["tcp://127.0.0.1:0"], SECRET.director(here), SECRET.director(there).public, c.on_request, c.on_stream
            )
            for here, there, c in (("d1", "d2", carriers[0]), ("d2", "d1", carriers[1]))
        ]
        for relay, carrier in zip(relays, carriers, strict=True):
            relay.open()
            carrier.open(relay)
        try:
            carriers[0].lead()
            began, used, turns = time.perf_counter(), time.process_time(), []
            carriers[1].follow(relays[0].endpoints[0])
            while carriers[1].replica(0)[0] is not Condition.COMPLETE:
                due = time.monotonic() + HEARTBEAT_SECONDS
                await asyncio.sleep(HEARTBEAT_SECONDS)
                turns.append(time.monotonic() - due)
                for carrier in carriers:
                    carrier.turn(time.monotonic())
            took, used = time.perf_counter() - began, time.process_time() - used
            assert late.held() == count, f"{late.held()} of {count} arrived"
        finally:
            for relay, carrier in zip(relays, carriers, strict=True):
                carrier.close()
                relay.close()
    return {"complete_seconds": took, "cpu_us_per_connection_both_ends": 1e6 * used / count,
            "timer_late_ms_max": 1e3 * max(turns), "ledger_bytes_per_connection": size}  # fmt: skip


def ledger(count: int, at_once: int = TAKE_AT_ONCE) -> dict[str, float]:
    """CPU time, not the wall's: what holds the loop is what the process does itself."""
    made, rest = Ledger(10.0), _resident_bytes()
    noted, bulk, swept, looked = [], [], [], []
    for start in range(0, count, at_once):
        datagrams = records.encode(connections(at_once, start), BACKUP_ID)
        noted.append(_cpu(partial(made.note, datagrams, 100.0)))
    size = _resident_bytes() - rest
    for index in range(PARTS):
        bulk.append(_cpu(partial(_packed_part, made, index)))
        swept.append(_cpu(partial(made.sweep, 200.0)))
        looked.append(_cpu(partial(made.lives, index, 200.0, 200.0 + SOON_SECONDS)))
    assert len(made) == count
    return {
        "connections": count,
        "bytes_per_connection": size / count,
        "note_us_per_connection": 1e6 * sum(noted) / count,
        "bulk_us_per_connection": 1e6 * sum(bulk) / count,
        "longest_note_ms": 1e3 * max(noted),
        "longest_part_ms": 1e3 * max(bulk),
        "longest_sweep_ms": 1e3 * max(swept),
        "sweep_cpu_percent": 100 * (sum(swept) + sum(looked)) / (PARTS * TURN_SECONDS),
    }


def _packed_part(made: Ledger, index: int) -> list[bytes]:
    return records.packed(made.part(index, 200.0), BACKUP_ID, BULK_BYTES)


def _cpu(do: Callable[[], object]) -> float:
    began = time.thread_time()
    do()
    return time.thread_time() - began


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def kernel_limit(count: int) -> float:
    """Connections a second without any pacing: possible only with a socket that holds everything."""
    before = RMEM_MAX.read_text()
    settings, size = dict(threads.SETTINGS), threads.SOCK_BYTES
    datagrams = records.encode(connections(count), BACKUP_ID)
    RMEM_MAX.write_text(str(LIMIT_SOCKET_BYTES))
    threads.SETTINGS["sync_sock_size"] = threads.SOCK_BYTES = LIMIT_SOCKET_BYTES
    try:
        with standby() as s:
            inject = s.replication._inject
            assert inject is not None
            began = time.perf_counter()
            for datagram in datagrams:
                inject.send(datagram)
            s.wait()
            took = time.perf_counter() - began
            assert s.held() == count, f"{s.held()} of {count} arrived"
    finally:
        threads.SETTINGS.update(settings)
        threads.SOCK_BYTES = size
        RMEM_MAX.write_text(before)
    return count / took


def kernel_table_seconds(count: int) -> float:
    with standby() as s:
        datagrams = records.encode(connections(count), BACKUP_ID)
        while datagrams:
            done = s.replication.inject(datagrams)
            datagrams = datagrams[done:]
            time.sleep(0.0005)
        s.wait()
        began = time.perf_counter()
        assert len(s.replication.kernel_table().records) == count
        return time.perf_counter() - began


def relay(count: int) -> dict[str, float]:
    """CPU of both ends for datagrams as small as a pushed master sends them, joined on the way."""
    made = connections(count)
    small = [d for start in range(0, count, SMALL) for d in records.encode(made[start : start + SMALL], MASTER_ID)]
    now = 0.0
    ledger, follower = Ledger(10.0), Replica("standby", now)
    sender = Sender(follower.begin(now), "active", now)
    follower.receive(sender.greeting(), now)
    carried = 0
    began = time.process_time()
    for start in range(0, len(small), 64):
        found = [records.readdressed(d, BACKUP_ID) for d in small[start : start + 64]]
        ledger.note(found, now)
        sender.live(records.joined(found, BACKUP_ID))
        for message in sender.outgoing(now):
            follower.receive(messages.decode(messages.encode(message)), now)
            carried += isinstance(message, Records)
        follower.injected(len(follower.take(1000)))
        if (ack := follower.acknowledgement()) is not None:
            sender.receive(ack, now)
    used = time.process_time() - began
    assert follower.status(now).connections == count
    return {"us_per_captured_datagram": 1e6 * used / len(small), "connections_per_core_second": count / used}


def push_cpu_percent(seconds: float = 2.0) -> float:
    """Of a core, for a master that says everything within PUSH_SECONDS: our own time and the kernel's in our calls."""
    with standby() as s:
        used, pushes = time.process_time(), 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            s.replication.push()
            s.replication.read_captured()
            pushes += 1
            time.sleep(PUSH_SECONDS)
        return 100 * (time.process_time() - used) / (time.perf_counter() - began)


def run_session(count: int) -> dict[str, float]:
    """Nothing beside it: a user-mode guest's memory is limited by how scattered it is (vm.max_map_count)."""
    return {"connections": count, **session(count)}


def run(count: int) -> dict[str, float]:
    kept = ledger(LEDGER)
    joined = session(count)
    rounds = [resync(count) for _ in range(3)]
    limit = median(kernel_limit(count) for _ in range(3))
    per_second = median(r["per_second"] for r in rounds)
    carried = relay(min(count, 20_000))
    return {
        "connections": count,
        "resync_connections_per_second": per_second,
        "kernel_limit_connections_per_second": limit,
        "resync_over_limit": per_second / limit,
        "resync_encode_seconds": median(r["encode_seconds"] for r in rounds),
        "resync_cpu_us_per_connection": median(r["cpu_us_per_connection"] for r in rounds),
        "kernel_table_20000_seconds": kernel_table_seconds(20_000),
        "relay_connections_per_core_second": carried["connections_per_core_second"],
        "relay_us_per_captured_datagram": carried["us_per_captured_datagram"],
        "push_cpu_percent": push_cpu_percent(),
        **{f"session_{name}": value for name, value in joined.items()},
        **{f"ledger_{name}": value for name, value in kept.items()},
    }


def show(figures: dict[str, float]) -> None:
    print(f"replication of {figures['connections']:,.0f} connections")
    for name, value in figures.items():
        print(f"  {name:40} {value:>14,.3f}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object of numbers")
    parser.add_argument("--connections", type=int, help="100,000; of a session alone a million")
    parser.add_argument("--session", action="store_true", help="a late standby's session alone")
    options = parser.parse_args(arguments)
    try:
        figures = run_session(options.connections or LEDGER) if options.session else run(options.connections or 100_000)
    except IpvsError as error:
        print(f"replication: {error}", file=sys.stderr)
        return 1
    print(json.dumps({name: round(value, 3) for name, value in figures.items()})) if options.json else show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
