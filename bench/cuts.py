"""What it takes to tell the clients of a server with many connections: as root, on this host, on loopback.

    python -m bench.cuts [--json] [FLOWS...]

The real cutter, raw sockets and all, with a table of connections in a file as /proc writes it. The clients are ports of
loopback addresses where nobody is connected: this host's own TCP answers each poke with a RST, as that of a client does
whose connection has gone. So every flow costs a line of the table, a segment there and one back, which is heard and
matched. Beside it a loop turns every 5 ms, with ten system calls in each turn; `turn_longest_ms` is its longest.

Not in it: the kernel's own time for /proc, which grows with the square of the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from feedback.master.cuts.course import Cut, Do, Told
from feedback.master.cuts.plan import Summary
from feedback.master.shell import cutter
from feedback.master.shell.cutter import Cutter
from feedback.model import Destination, DestinationKey, ServiceKey

VIRTUAL, SERVER = IPv4Address("127.88.0.100"), IPv4Address("127.88.0.11")
SERVICE = ServiceKey.parse(f"tcp:{VIRTUAL}:7480")
DESTINATION = Destination(DestinationKey(SERVER, 7480))
CLIENTS = IPv4Address("127.88.1.1")
PORTS = 20_000  # of one client's address; below the range of this host's own connections
TURN_SECONDS, CALLS = 0.005, 10


def table(flows: int) -> str:
    """Half of another server's, as a table is."""
    lines = ["Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData"]
    for number in range(2 * flows):
        client = int(CLIENTS) + number // 2 // PORTS
        server = int(SERVER) + number % 2
        lines.append(
            f"TCP {client:08X} {1024 + number // 2 % PORTS:04X} {int(VIRTUAL):08X} {7480:04X} {server:08X} {7480:04X} "
            f"ESTABLISHED {899 - number % 800:7}"
        )
    return "\n".join(lines) + "\n"


class Turns:
    """A loop that has something to do."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.here, self.there = socket.socketpair()

    async def run(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TURN_SECONDS)
            for _ in range(CALLS):
                self.here.send(b"x" * 2000)
                self.there.recv(4096)
            self.longest = max(self.longest, time.perf_counter() - began - TURN_SECONDS)


async def measure(flows: int, directory: Path) -> dict[str, float]:
    cutter.TABLE = directory / "ip_vs_conn"
    cutter.TABLE.write_text(table(flows), encoding="ascii")
    loop, told = asyncio.get_running_loop(), asyncio.Queue[Told]()
    turns = Turns()
    task = asyncio.create_task(turns.run())
    await asyncio.sleep(0.2)
    idle, turns.longest = turns.longest, 0.0

    def receive(said: Told) -> None:
        loop.call_soon_threadsafe(told.put_nowait, said)

    works = Cutter(None, receive)
    began = time.perf_counter()
    works.do([Cut(Do.LIST, SERVICE, DESTINATION)])
    listed = (await told.get()).flows
    listed_at = time.perf_counter()
    works.do([Cut(Do.CUT, SERVICE, DESTINATION)])
    summary = (await told.get()).summary
    ended_at = time.perf_counter()
    task.cancel()
    works.close()
    assert listed == flows and summary is not None
    return figures(summary) | {
        "list_ms": 1000 * (listed_at - began),
        "all_ms": 1000 * (ended_at - began),
        "turn_longest_ms": 1000 * turns.longest,
        "turn_longest_idle_ms": 1000 * idle,
    }


def figures(summary: Summary) -> dict[str, float]:
    return {
        "flows": summary.flows,
        "answered": summary.told + summary.gone,
        "silent": summary.silent,
        "answered_ms": 1000 * summary.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flows", nargs="*", type=int, default=[10_000, 100_000])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for flows in options.flows:
        with tempfile.TemporaryDirectory() as name:
            found[str(flows)] = asyncio.run(measure(flows, Path(name)))
    if options.json:
        print(json.dumps({"figures": found}))
        return
    for flows, row in found.items():
        print(f"{flows:>8}  " + "  ".join(f"{name} {value:,.1f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
