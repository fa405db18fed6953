"""What a master pays for reading exporters: pages of thousands of servers, each once a second over a kept connection.

    python -m bench.scrapes [--servers 500 2000] [--seconds 10] [--json]

On this host. The servers are one other process that answers at as many loopback addresses with a page of node_exporter
for 8 processors, 40 KiB long, of which a tenth is wanted. Figures: processor time of reading, decoding and taking
reports in, as a part of a core; the part of the pages that came; the age of the oldest report at the end, in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import time
from ipaddress import ip_address
from typing import Any

from feedback.config import MasterConfig, parse
from feedback.master import Controller
from feedback.master.claims.asking import Probe, Result
from feedback.master.shell.probes import Probes
from feedback.ops.descriptors import raise_limit
from feedback.wire import Report
from tests.master.builders import Table

CORES, PADDING = 8, 500  # processors of a server, and lines that nobody wants
TURN_SECONDS = 0.2
WARM_SECONDS = 3.0


def page(at: float) -> bytes:
    modes = ("idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user")
    lines = [f'node_cpu_seconds_total{{cpu="{c}",mode="{m}"}} {at / 16:.2f}' for c in range(CORES) for m in modes]
    lines += [
        f'node_filesystem_size_bytes{{device="/dev/sda{n}",fstype="ext4",mountpoint="/"}} 1' for n in range(PADDING)
    ]
    lines += [
        f"node_netstat_Tcp_PassiveOpens {at * 100:.0f}",
        "node_netstat_Tcp_CurrEstab 3",
        f"node_time_seconds {at}",
    ]
    return "\n".join(lines).encode()


def serve(ready: Any) -> None:
    """All the servers."""
    raise_limit()

    made: list[Any] = [0.0, b""]

    def current() -> bytes:
        """Made a hundred times a second at most: what servers cost is not what is measured."""
        now = time.monotonic()
        if now - made[0] > 0.01:
            body = page(now)
            made[:] = now, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        return bytes(made[1])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(current())
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "0.0.0.0", 0, backlog=4096)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def addresses(count: int) -> list[str]:
    return [str(ip_address("127.1.0.1") + n) for n in range(count)]


async def measure(port: int, count: int, seconds: float) -> dict[str, float]:
    rows = "".join(f'[[service.destination]]\naddress = "{address}"\n' for address in addresses(count))
    text = f'[[service]]\nvirtual = "tcp:10.0.0.100:80"\n{rows}[service.exporter]\nport = {port}\npath = "/metrics"\n'
    controller, table = Controller(parse(text, MasterConfig)), Table()
    came = 0

    def receive(probe: Probe, result: Result, now: float) -> None:
        nonlocal came
        came += isinstance(result, Report)
        controller.receive_probe(probe, result, now)

    probes = Probes(receive)
    used = began = 0.0
    end = time.monotonic() + WARM_SECONDS + seconds
    while (now := time.monotonic()) < end:
        if not began and now > end - seconds:
            began, used, came = now, time.process_time(), 0
        controller.receive_kernel(table.snapshot(), now)
        decision = controller.decide(now)
        table.apply(decision.edits)
        probes.start(controller.probes(now))
        await asyncio.sleep(TURN_SECONDS)
    used, took = time.process_time() - used, time.monotonic() - began
    ages = [d.age_seconds for s in controller.decide(time.monotonic()).services for d in s.destinations]
    await probes.close()
    return {
        "core_share": used / took,
        "pages_part": came / (count * took),
        "oldest_seconds": max((age if age is not None else float("inf")) for age in ages),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    raise_limit()
    ours, theirs = multiprocessing.Pipe()
    servers = multiprocessing.Process(target=serve, args=(theirs,), daemon=True)
    servers.start()
    port = int(ours.recv())
    figures = {}
    for count in arguments.servers:
        for name, value in asyncio.run(measure(port, count, arguments.seconds)).items():
            figures[f"{name}_{count}"] = round(value, 3)
    servers.terminate()
    if arguments.json:
        print(json.dumps({"figures": figures}))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
