"""What the pipeline costs on one core: reports through decode, fleet and estimate; a decision for 1,000 destinations.

Pure code on this host, no kernel: `python bench/pipeline.py [--json]`. Each figure is the median of several rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from feedback.config import MasterConfig, parse
from feedback.master import Controller
from feedback.model import AddDestination, AddService, DestinationEntry, ServiceEntry, Snapshot
from feedback.wire import Connections, Cpu, Memory, Report, decode_report, encode

ROUNDS = 5


def address(i: int) -> str:
    return f"10.{i // 62500 % 250}.{i // 250 % 250}.{i % 250 + 1}"


def controller(servers: int, services: int = 1) -> Controller:
    text = "".join(
        f'[[service]]\nvirtual = "tcp:192.0.2.{k + 1}:80"\n'
        + "".join(f'[[service.destination]]\naddress = "{address(i)}"\n' for i in range(servers))
        for k in range(services)
    )
    return Controller(parse(text, MasterConfig))


def report(i: int, k: int) -> Report:
    return Report(
        version=1,
        agent=f"rs{i}",
        boot="b",
        sequence=k,
        sampled_at=k / 5,
        interval_seconds=0.2,
        addresses=(address(i),),
        cpu=Cpu(4.0, k * 0.4, runnable=2.0),
        memory=Memory(1 << 34, 1 << 33),
        connections=Connections(k * 40, 7),
    )


def snapshot(first: Controller) -> Snapshot:
    """The table that the first decision makes."""
    edits = first.decide(0.0).edits
    services = [e.service for e in edits if isinstance(e, AddService)]
    return Snapshot(
        tuple(
            ServiceEntry(
                s,
                tuple(
                    DestinationEntry(e.destination, 3, 5)
                    for e in edits
                    if isinstance(e, AddDestination) and e.service == s.key
                ),
            )
            for s in services
        )
    )


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def reports_per_second(servers: int = 100) -> float:
    """From bytes as they come off the wire to the estimate."""
    c = controller(servers)
    rates, k = [], 0
    for _ in range(ROUNDS):
        frames = [(encode(report(i, k + j)), (k + j) / 5) for j in range(1, 51) for i in range(servers)]
        k += 50

        def take(frames: list[tuple[bytes, float]] = frames) -> None:
            for frame, now in frames:
                c.receive_report(decode_report(frame), now)

        rates.append(len(frames) / seconds(take))
    return median(rates)


def decide_milliseconds(servers: int = 1000) -> float:
    """A look at the kernel and a decision, while every server has fresh reports."""
    c = controller(servers)
    table = snapshot(c)
    times = []
    for k in range(1, 4 + ROUNDS):
        for i in range(servers):
            c.receive_report(report(i, k), k / 5)

        def turn(now: float = k / 5) -> None:
            c.receive_kernel(table, now)
            c.decide(now)

        times.append(seconds(turn))
    return 1000 * median(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = {
        "reports_per_second": round(reports_per_second()),
        "decide_1000_destinations_ms": round(decide_milliseconds(), 1),
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"reports through decode, fleet and estimate, one core  {figures['reports_per_second']:>10,} /s")
    print(f"look and decide, 1,000 destinations                   {figures['decide_1000_destinations_ms']:>10} ms")


if __name__ == "__main__":
    main()
