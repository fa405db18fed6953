"""What a master costs for a fleet: agents over real CURVE connections, each with one report a second.

    python -m bench.fleet [--agents 500 2000] [--services 1] [--seconds 10] [--checkout DIR] [--json]

The master is the real daemon in a process of its own, its I/O threads counted; agents are real uplinks, in other
processes. The kernel is a stand-in (FakeKernel): what that costs is measured and told apart. CPU is what the scheduler
counted (/proc/PID/task/*/schedstat) in percent of a core; memory is VmRSS. The last line is the slope: what a
thousand agents more cost. --checkout runs the master of another checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec
import zmq

from bench.checkout import HERE, Checkout, opened
from feedback import wire
from feedback.agent.uplink import Uplink
from feedback.config import MasterLink
from feedback.ipvs.types import EditError
from feedback.model import DestinationEntry, Edit, ServiceKey, Snapshot
from feedback.ops import descriptors, keys, logs
from feedback.ops.control import ControlError, ask
from feedback.ops.keys import KeyPair, PublicKey, SecretKey
from feedback.ops.logs import Log
from tests.pipeline.face import room
from tests.pipeline.table import Table

P = ParamSpec("P")
T = TypeVar("T")

PROCESSES, AGENTS_MOST = 2, 2500  # at least, and in one of them: an agent has four descriptors
PERIOD_SECONDS = 1.0
CONNECT_SECONDS = 180.0
SETTLE_SECONDS = 5.0


def address(i: int) -> str:
    return f"10.{i // 62500}.{i // 250 % 250}.{i % 250 + 1}"


# --- the master's process --------------------------------------------------------------------------------------------


class StandIn:
    """A kernel's table that counts the processor time that it takes itself."""

    def __init__(self) -> None:
        self._table = Table()
        self.seconds = 0.0

    def snapshot(self) -> Snapshot:
        return self._timed(self._table.snapshot)

    def destinations(self, service: ServiceKey) -> tuple[DestinationEntry, ...]:
        return self._timed(self._table.destinations, service)

    def apply(self, edits: Sequence[Edit]) -> tuple[EditError, ...]:
        return self._timed(self._table.apply, edits)

    def close(self) -> None:
        pass

    def _timed(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        began = time.thread_time()
        try:
            return work(*arguments, **named)
        finally:
            self.seconds += time.thread_time() - began


def serve(directory: Path) -> None:
    """Until it is ended. Says on each line of its input what the stand-in has taken so far."""
    logs.setup("error")
    descriptors.raise_limit()
    kernel = StandIn()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin, lambda: tell(sys.stdin.readline()))
        await room("daemon").Daemon(directory / "master.toml", lambda netns: kernel).run()

    def tell(line: str) -> None:
        print(kernel.seconds, flush=True)
        if not line:
            raise SystemExit

    asyncio.run(run())


# --- the agents' processes -------------------------------------------------------------------------------------------


class Agent:
    """One server at half of its capacity, and its uplink."""

    def __init__(self, context: zmq.Context[Any], i: int, link: MasterLink, pair: KeyPair) -> None:
        self.up = Uplink(context, link, pair, Log("bench"))
        self._i, self._sequence = i, 0

    def report(self, now: float) -> bytes:
        self._sequence += 1
        k, cores = self._sequence, 2 + 2 * (self._i % 4)
        return msgspec.msgpack.encode(
            wire.Report(
                version=wire.PROTOCOL,
                agent=f"rs{self._i}",
                boot="bench",
                sequence=k,
                sampled_at=now,
                interval_seconds=PERIOD_SECONDS,
                addresses=(address(self._i),),
                cpu=wire.Cpu(cores, now * 0.5 * cores, own_seconds=now * 0.45 * cores, steal_seconds=0.0, runnable=1.5),
                memory=wire.Memory(2**33, 2**32, 0, 0),
                pressure=wire.Pressure(now * 0.1, 0.0, 0.0, now * 0.01, 0.0),
                connections=wire.Connections(k * 50 * cores, 7),
                listeners=(wire.Listener(80, 0, 511),),
            )
        )


def agents(directory: Path, first: int, step: int, count: int) -> None:
    """Every `step`-th of `count`, from `first` on, until its input ends; their reports are spread over the second."""
    logs.setup("error")
    descriptors.raise_limit()
    context: zmq.Context[Any] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 3 * count + 100)
    told = json.loads((directory / "agents.json").read_text())
    link = MasterLink(endpoint=told["endpoint"], public_key=told["public"])
    pairs = {i: KeyPair(PublicKey(p), SecretKey(s.encode())) for i, (p, s) in enumerate(told["pairs"])}
    began = time.monotonic()
    due = deque(
        (began + PERIOD_SECONDS * i / count, Agent(context, i, link, pairs[i])) for i in range(first, count, step)
    )
    while True:
        at, agent = due.popleft()
        if (wait := at - time.monotonic()) > 0:
            time.sleep(wait)
        now = time.monotonic()
        agent.up.tick(now)
        agent.up.send(agent.report(now))
        due.append((max(at + PERIOD_SECONDS, now), agent))


# --- here ------------------------------------------------------------------------------------------------------------


def write(directory: Path, count: int, services: int, port: int) -> None:
    """Keys, enrolments (as `feedback keys enroll` writes them) and the configuration."""
    _, secret, public = keys.create(directory / "master")
    enrolled = directory / "agents"
    enrolled.mkdir()
    pairs = []
    for i in range(count):
        own, hidden = (key.decode() for key in zmq.curve_keypair())
        pairs.append((own, hidden))
        (enrolled / f"rs{i}.toml").write_text(
            f'name = "rs{i}"\npublic_key = "{own}"\naddresses = ["{address(i)}"]\n', encoding="utf-8"
        )
    endpoint = f"tcp://127.0.0.1:{port}"
    (directory / "agents.json").write_text(json.dumps({"endpoint": endpoint, "public": public, "pairs": pairs}))
    text = (
        f'listen = ["{endpoint}"]\nkey = "{secret}"\nenrolled = "{enrolled}"\n'
        f'control = "{directory / "s.sock"}"\nstate = "{directory / "state.json"}"\n[http]\nlisten = ""\n'
    )
    for k in range(services):
        text += f'[[service]]\nvirtual = "tcp:192.0.{k // 250}.{k % 250 + 1}:80"\n'
        text += "".join(f'[[service.destination]]\naddress = "{address(i)}"\n' for i in range(k, count, services))
    (directory / "master.toml").write_text(text, encoding="utf-8")


@contextmanager
def fleet(directory: Path, count: int, checkout: Checkout) -> Iterator[subprocess.Popen[bytes]]:
    """The master's process, with all agents around it."""
    command = [sys.executable, "-P", "-m", "bench.fleet", "--child"]
    master = subprocess.Popen(
        [*command, "master", str(directory)],
        env=checkout.environment,
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    others = []
    try:
        processes = max(PROCESSES, ceil(count / AGENTS_MOST))
        for first in range(processes):
            words = ("agents", str(directory), str(first), str(processes), str(count))
            others.append(subprocess.Popen([*command, *words], env=checkout.environment, cwd=HERE))
        yield master
    finally:
        for process in (*others, master):
            process.terminate()
            process.wait(30)


def accepted(directory: Path) -> int:
    """Reports so far; 0 before there is a master to ask."""
    try:
        counters = ask(directory / "s.sock", {"command": "status"})["counters"]
    except (ControlError, KeyError):
        return 0
    return int(counters.get("link_accepted", 0))


def wait_for_all(directory: Path, count: int) -> float:
    """Until reports come from all, as many a second as there are agents. Returns the seconds that it took."""
    began, before = time.monotonic(), 0
    while time.monotonic() - began < CONNECT_SECONDS:
        time.sleep(2.0)
        now = accepted(directory)
        if now - before >= 1.9 * count:
            return time.monotonic() - began
        before = now
    raise RuntimeError(f"after {CONNECT_SECONDS:g} s not all of {count} agents are heard")


def threads(pid: int) -> dict[int, float]:
    """CPU seconds of each thread."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(t.name): int((t / "schedstat").read_text().split()[0]) / 1e9 for t in tasks}


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def stand_in(master: subprocess.Popen[bytes]) -> float:
    assert master.stdin is not None and master.stdout is not None
    master.stdin.write(b"?\n")
    master.stdin.flush()
    return float(master.stdout.readline())


def measure(count: int, services: int, seconds: float, checkout: Checkout) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="feedback-fleet-") as name:
        directory = Path(name)
        with free_port() as port:
            write(directory, count, services, port)
        with fleet(directory, count, checkout) as master:
            connected = wait_for_all(directory, count)
            time.sleep(SETTLE_SECONDS)
            heard, asked, kernel = accepted(directory), time.monotonic(), stand_in(master)
            before, began = threads(master.pid), time.monotonic()
            time.sleep(seconds)
            after, lasted = threads(master.pid), time.monotonic() - began
            kernel = stand_in(master) - kernel
            rate = (accepted(directory) - heard) / (time.monotonic() - asked)
            used = {t: after[t] - before.get(t, 0.0) for t in after}
            main = used[master.pid] - kernel
            return {
                "agents": count,
                "reports_per_second": round(rate),
                "cpu_percent": round(100 * (sum(used.values()) - kernel) / lasted, 1),
                "main_thread_percent": round(100 * main / lasted, 1),
                "io_threads_percent": round(100 * (sum(used.values()) - used[master.pid]) / lasted, 1),
                "stand_in_percent": round(100 * kernel / lasted, 1),
                "rss_mb": round(rss_mb(master.pid), 1),
                "connected_seconds": round(connected, 1),
            }


@contextmanager
def free_port() -> Iterator[int]:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as held:
        yield held.getsockname()[1]


def slope(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """What a thousand agents more cost, between the smallest and the largest fleet."""
    first, last = figures[0], figures[-1]
    apart = (last["agents"] - first["agents"]) / 1000
    return {f"{k}_per_1000": round((last[k] - first[k]) / apart, 2) for k in ("cpu_percent", "rss_mb")}


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        directory = Path(sys.argv[3])
        serve(directory) if sys.argv[2] == "master" else agents(directory, *map(int, sys.argv[4:7]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--checkout", type=Path, default=HERE)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = []
    with opened(arguments.checkout) as checkout:
        for count in sorted(arguments.agents):
            figures.append(measure(count, arguments.services, arguments.seconds, checkout))
            if not arguments.json:
                print(", ".join(f"{k} {v:g}" for k, v in figures[-1].items()), flush=True)
    found = slope(figures) if len(figures) > 1 else {}
    if arguments.json:
        print(json.dumps({"fleets": {str(f["agents"]): f for f in figures}} | found))
    elif found:
        print(", ".join(f"{k} {v:g}" for k, v in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
