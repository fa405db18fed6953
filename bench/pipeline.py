"""What the pipeline costs on one core: reports through decode, fleet and estimate; a look at the kernel and a decision.

    python -m bench.pipeline [--old DIR] [--rounds 3] [--json] [CASE...]

Pure code on this host, no kernel; processor time, so that other work disturbs it little. Each figure is the median.
Reports are handed over as the link of a busy master does it, as many together as it takes at once; a checkout whose
master takes each alone gets each alone. With --old another checkout (a git worktree) is measured beside this one, by
turns, in the same run, and each ratio is old over new: over 1 is better.

Cases of a decision: so many destinations in so many services, every server with a fresh report, the table following the
edits; `rewritten`: somebody else has changed every weight before each look; `adopted`: somebody else owns the service,
and each edit is confirmed by a second look.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.checkout import HERE, opened
from feedback.config import MasterConfig, parse
from feedback.master import Controller
from feedback.model import AddService, Service, ServiceKey
from feedback.ops.curve import BATCH
from feedback.wire import Connections, Cpu, Memory, Pressure, Report, decode_report, encode
from tests.pipeline.table import Table

TURN_SECONDS = 0.2
WARM_TURNS = 3


class Case(msgspec.Struct, frozen=True):
    """`turns` are those of one round."""

    destinations: int
    services: int
    turns: int
    rewritten: bool = False
    adopted: bool = False


CASES = {
    "4": Case(4, 1, 300),
    "1000": Case(1000, 1, 8),
    "10000": Case(10_000, 1, 2),
    "10000_in_50": Case(10_000, 50, 2),
    "1000_rewritten": Case(1000, 1, 8, rewritten=True),
    "10000_rewritten": Case(10_000, 1, 2, rewritten=True),
    "1000_adopted": Case(1000, 1, 8, adopted=True),
}
REPORTS = "reports"
REPORT_SERVERS, REPORT_EACH = 100, 25


def address(i: int) -> str:
    return f"10.{i // 62500 % 250}.{i // 250 % 250}.{i % 250 + 1}"


def report(i: int, k: int) -> Report:
    """The k-th of a server at half of its capacity, on a wavering load."""
    cores = 2 + 2 * (i % 4)
    return Report(
        version=1,
        agent=f"rs{i}",
        boot="b",
        sequence=k,
        sampled_at=k * TURN_SECONDS,
        interval_seconds=TURN_SECONDS,
        addresses=(address(i),),
        cpu=Cpu(cores, k * 0.1 * cores + 0.01 * ((i + k) % 7), runnable=2.0),
        memory=Memory(1 << 34, 1 << 33),
        pressure=Pressure(0.01 * k, 0.0, 0.0, 0.0, 0.0),
        connections=Connections(k * 10 * cores + (i * k) % 5, 7),
    )


class Pool:
    """One controller, its table, and reports of all its servers before each turn."""

    def __init__(self, case: Case) -> None:
        self._case, self._draw = case, random.Random(1)
        self._table, self._turn = Table(), 0
        each = case.destinations // case.services
        text = 'ownership = "weights"\n' if case.adopted else ""
        for n in range(case.services):
            virtual = f"tcp:192.0.2.{n + 1}:80"
            text += f'[[service]]\nvirtual = "{virtual}"\n'
            servers = range(n * each, (n + 1) * each)
            text += "".join(f'[[service.destination]]\naddress = "{address(i)}"\n' for i in servers)
        config = parse(text, MasterConfig)
        if case.adopted:
            for service in config.service:
                key = ServiceKey.parse(service.virtual)
                self._table.apply([AddService(Service(key))])
                for d in service.destination:
                    self._table.put(key, _key(d.address), weight=100)
        self._controller = Controller(config)
        for _ in range(WARM_TURNS):
            self.turn()

    def turn(self) -> float:
        """Seconds of processor time for a look and a decision."""
        controller, table = self._controller, self._table
        self._turn += 1
        now = 1000.0 + self._turn * TURN_SECONDS
        for i in range(self._case.destinations):
            controller.receive_report(report(i, self._turn), now)
        self._count()
        snapshot = table.snapshot()
        began = time.thread_time()
        controller.receive_kernel(snapshot, now)
        edits = controller.decide(now).edits
        if self._case.adopted:
            edits = controller.confirm(edits, {s.service.key: s.destinations for s in snapshot.services})
        took = time.thread_time() - began
        table.apply(edits)
        controller.foreign_edits.clear()
        return took

    def _count(self) -> None:
        for service, rows in self._table.rows.items():
            for i, key in enumerate(rows):
                self._table.count(service, key, 3 + (i + self._turn) % 3, 50, self._turn * 10)
                if self._case.rewritten:
                    self._table.put(service, key, weight=self._draw.randrange(50, 150))


class Reports:
    """From bytes as they come off the wire to the estimate."""

    def __init__(self) -> None:
        self._controller, self._turn = Pool(Case(REPORT_SERVERS, 1, 0)), WARM_TURNS

    def round(self) -> float:
        """Reports in a second of processor time."""
        controller = self._controller._controller
        first, self._turn = self._turn + 1, self._turn + REPORT_EACH
        frames = [
            (encode(report(i, k)), 1000.0 + k * TURN_SECONDS)
            for k in range(first, self._turn + 1)
            for i in range(REPORT_SERVERS)
        ]
        began = time.thread_time()
        if hasattr(controller, "receive_reports"):
            for at in range(0, len(frames), BATCH):
                controller.receive_reports([(decode_report(frame), now) for frame, now in frames[at : at + BATCH]])
        else:
            for frame, now in frames:
                controller.receive_report(decode_report(frame), now)
        return len(frames) / (time.thread_time() - began)


def _key(text: str) -> Any:
    from feedback.model import DestinationKey

    return DestinationKey.parse(f"{text}:80")


def child() -> None:
    """A round of the case that each line of the input names; its figures on a line of the output."""
    made: dict[str, Callable[[], list[float]]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in made:
            made.clear()  # one pool at a time
            made[name] = _rounds(name)
        print(json.dumps(made[name]()), flush=True)


def _rounds(name: str) -> Callable[[], list[float]]:
    if name == REPORTS:
        reports = Reports()
        return lambda: [reports.round()]
    case = CASES[name]
    pool = Pool(case)
    return lambda: [pool.turn() for _ in range(case.turns)]


def measured(sides: Mapping[str, Path], names: list[str], rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """(case, side -> its median), the sides by turns."""
    with ExitStack() as stack:
        processes = {}
        for side, root in sides.items():
            checkout = stack.enter_context(opened(root))
            command = [sys.executable, "-P", "-m", "bench.pipeline", "--child"]
            processes[side] = subprocess.Popen(
                command, env=checkout.environment, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        for name in names:
            found: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(rounds):
                for side, process in processes.items():
                    assert process.stdin is not None and process.stdout is not None
                    process.stdin.write(f"{name}\n")
                    process.stdin.flush()
                    found[side] += json.loads(process.stdout.readline())
            yield name, {side: median(values) for side, values in found.items()}
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def title(name: str) -> str:
    if name == REPORTS:
        return "reports through decode, fleet and estimate, one core"
    case = CASES[name]
    inside = f" in {case.services} services" if case.services > 1 else ""
    more = ", every weight rewritten" if case.rewritten else ", adopted" if case.adopted else ""
    return f"look and decide, {case.destinations:,} destinations{inside}{more}"


def figure(name: str, value: float) -> tuple[str, float]:
    """(name, value) with its unit, for programs."""
    return ("reports_per_second", round(value)) if name == REPORTS else (f"decide_{name}_ms", round(1000 * value, 2))


def main() -> int:
    if sys.argv[1:] == ["--child"]:
        child()
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="a checkout to measure beside this one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {REPORTS}, {', '.join(CASES)}; default: all")
    arguments = parser.parse_args()
    names = [n for n in (REPORTS, *CASES) if not arguments.cases or n in arguments.cases]
    sides = {"new": HERE} | ({"old": arguments.old} if arguments.old else {})
    figures: dict[str, Any] = {}
    for name, found in measured(sides, names, arguments.rounds):
        values = {side: figure(name, value) for side, value in found.items()}
        key = values["new"][0]
        figures[key] = values["new"][1]
        line = f"{title(name):62} {values['new'][1]:>10,} {'/s' if name == REPORTS else 'ms'}"
        if "old" in found:
            ratio = found["new"] / found["old"] if name == REPORTS else found["old"] / found["new"]
            figures |= {f"{key}_old": values["old"][1], f"{key}_ratio": round(ratio, 2)}
            line += f"   old {values['old'][1]:>10,}   {ratio:6.2f} times"
        if not arguments.json:
            print(line, flush=True)
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
