"""What health checks by HTTP cost the master: processor time of the process, and how late its turns are meanwhile.

    python -m bench.checks [--json] [--destinations 3000] [--interval 2] [--seconds 10]

The real prober on loopback, spread over the interval as the master spreads them; the servers are one process that
answers on all addresses of 127.99.0.0/16. `turn_late_ms` is the latest of a turn every 50 ms in the master's loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import socket
import sys
import time
from ipaddress import IPv4Address
from typing import Any

from feedback.config.probe import Check
from feedback.master.claims.asking import Probe, Target
from feedback.master.claims.health import Outcome
from feedback.master.shell.probes import Probes

FIRST = IPv4Address("127.99.0.1")
TURN_SECONDS = 0.05
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n"


def serve(listener: socket.socket) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
        writer.close()

    async def forever() -> None:
        async with await asyncio.start_server(answer, sock=listener, backlog=4096) as server:
            await server.serve_forever()

    asyncio.run(forever())


async def measure(port: int, destinations: int, interval: float, seconds: float) -> dict[str, Any]:
    check = Check(type="http", interval_seconds=interval)
    todo = [Probe(Target(FIRST + number, port), check) for number in range(destinations)]
    each = max(1, round(destinations * TURN_SECONDS / interval))
    came: list[Any] = []
    probes = Probes(lambda probe, result, now: came.append(result))
    late, number = 0.0, 0
    began, busy = time.monotonic(), time.process_time()
    due = began
    while due < began + seconds:
        probes.start([todo[(number + i) % destinations] for i in range(each)])
        number += each
        due += TURN_SECONDS
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        late = max(late, time.monotonic() - due)
    busy, passed = time.process_time() - busy, time.monotonic() - began
    await probes.close()
    good = sum(isinstance(result, Outcome) and result.good for result in came)
    return {
        "destinations": destinations,
        "checks_per_second": good / passed,
        "failed": len(came) - good,
        "cpu_percent": 100 * busy / passed,
        "turn_late_ms": 1000 * late,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--destinations", type=int, default=3000)
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two checks of a destination")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
    port = listener.getsockname()[1]
    servers = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    servers.start()
    found = asyncio.run(measure(port, options.destinations, options.interval, options.seconds))
    servers.kill()
    if options.json:
        print(json.dumps({"figures": found}))
    else:
        print("\n".join(f"{name:<20} {value:>10,.1f}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
