"""What an agent costs: a real one, reporting by CURVE to a real receiver, five times a second without rest. Beside it,
in the same seconds, Debian's prometheus-node-exporter, scraped once a second, and the floor: a process that only wakes
up five times a second, one that also sends as many bytes by CURVE, and one that also reads the files that the agent
reads (floor.py).

    python bench/agent_cost.py [--seconds 20] [--ports 2] [--cgroup DIR] [--signals portable] [--json]

The agent has what its package has, and nothing else (packages/agent.py). CPU is the sum over the threads of what
the scheduler counted (/proc/PID/task/*/schedstat, nanoseconds), after start-up; memory is VmRSS at the end. Limits:
0.3 % of a core, 24 MB. What the same work costs depends on what else the machine does, by a factor of five, since
after 200 ms no cache holds anything of it: compare with the floor and with the exporter. Last comes how many reports a
second the receiving end takes: from the socket through decryption, admission and decoding to a callback.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import zmq

import packages.agent
from feedback import wire
from feedback.master.shell import admission
from feedback.master.shell.link import Link
from feedback.ops import keys, logs

CPU_PERCENT_MAX = 0.3
RSS_MB_MAX = 24.0
SETTLE_SECONDS = 2.0
EXPORTER = "prometheus-node-exporter"
SCRAPE_SECONDS = 1.0
REPORT = wire.Report(
    version=wire.PROTOCOL,
    agent="rs1",
    boot="bench",
    sequence=0,
    sampled_at=1.0,
    interval_seconds=0.2,
    addresses=("10.0.0.11",),
    cpu=wire.Cpu(cores=2, busy_seconds=100.0, own_seconds=50.0),
    memory=wire.Memory(total=2**33, available=2**32, swap_in_pages=0, oom_kills=0),
    pressure=wire.Pressure(1.0, 0.5, 0.1, 2.0, 1.0),
    connections=wire.Connections(opened=10, established=1),
    listeners=(wire.Listener(80, 0, 511),),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--ports", type=int, default=2, help="listening ports to watch")
    parser.add_argument("--cgroup", type=Path, help="watch this cgroup instead of the host")
    parser.add_argument("--signals", choices=["auto", "portable"], default="auto", help="as in agent.toml")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logs.setup(level="error")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for role in ("agent", "master"):
            keys.create(directory / role)
        keys.create(directory / "floor")
        keys.enroll(directory / "agents", "rs1", keys.read_public(directory / "agent.key"), ("10.0.0.11",))
        keys.enroll(directory / "agents", "floor", keys.read_public(directory / "floor.key"), ("10.0.0.12",))
        more = f'signals = "{arguments.signals}"\n' + (f'cgroup = "{arguments.cgroup}"\n' if arguments.cgroup else "")
        figures = asyncio.run(cost(directory, arguments.seconds, arguments.ports, more))
        figures |= asyncio.run(receive(directory, min(arguments.seconds, 5.0)))
    ok = figures["agent_cpu_percent"] <= CPU_PERCENT_MAX and figures["agent_rss_mb"] <= RSS_MB_MAX
    print(json.dumps({"ok": ok, "figures": figures}) if arguments.json else table(figures, ok))
    return 0 if ok else 1


async def cost(directory: Path, seconds: float, ports: int, more: str) -> dict[str, float]:
    """CPU in percent of a core, RSS in MB, and reports a second of one agent; the exporter's beside it."""
    got = 0

    def on_reports(reports: Sequence[tuple[wire.Report, float]]) -> list[None]:
        nonlocal got
        got += sum(report.agent == "rs1" for report, _ in reports)
        return [None for _ in reports]

    link = Link(
        ["tcp://127.0.0.1:0"], keys.load_secret(directory / "master.key_secret"), directory / "agents", on_reports
    )
    link.open()
    try:
        with (
            listening(ports) as numbers,
            agent(directory, link.endpoints[0], numbers, more) as pid,
            exporter(int(seconds + SETTLE_SECONDS) + 2) as beside,
            floor(directory, 0.0, "wake") as wake,
            floor(directory, 0.05, "send", *sending(directory, link.endpoints[0])) as send,
            floor(directory, 0.1, "read", *sending(directory, link.endpoints[0])) as read,
        ):
            pids = {"agent": pid, "wake": wake, "send": send, "read": read}
            pids |= {"node_exporter": beside} if beside is not None else {}
            await asyncio.sleep(SETTLE_SECONDS)
            before, began, got = {name: cpu_seconds(p) for name, p in pids.items()}, time.monotonic(), 0
            await asyncio.sleep(seconds)
            lasted = time.monotonic() - began
            used = {name: cpu_seconds(p) - before[name] for name, p in pids.items()}
            figures = {}
            for name, p in pids.items():
                figures[f"{name}_cpu_percent"] = round(100 * used[name] / lasted, 3)
                if name in ("agent", "node_exporter"):
                    figures[f"{name}_rss_mb"] = round(rss_mb(p), 1)
            figures["agent_cpu_us_per_report"] = round(1e6 * used["agent"] / max(1, got), 1)
            figures["agent_over_read"] = round(used["agent"] / used["read"], 2)
            figures["agent_reports_per_second"] = round(got / lasted, 2)
            return figures
    finally:
        link.close()


@contextmanager
def exporter(scrapes: int) -> Iterator[int | None]:
    """Debian's node_exporter, asked by a thread as Prometheus would. None where it is not installed."""
    if shutil.which(EXPORTER) is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([EXPORTER, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
    done = threading.Event()
    scraper = threading.Thread(target=scrape, args=(port, scrapes, done))
    scraper.start()
    try:
        yield process.pid
    finally:
        done.set()
        scraper.join()
        process.terminate()
        process.wait(10)


def scrape(port: int, times: int, done: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for _ in range(times):
        if done.wait(SCRAPE_SECONDS):
            break
        with suppress(OSError, http.client.HTTPException):  # it has not started yet
            connection.request("GET", "/metrics")
            connection.getresponse().read()
    connection.close()


@contextmanager
def listening(count: int) -> Iterator[list[int]]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        yield [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


@contextmanager
def agent(directory: Path, endpoint: str, ports: list[int], more: str) -> Iterator[int]:
    """A real agent as a process, which never rests: both intervals are the fast one."""
    site = directory / "site"
    packages.agent.copy(site)
    packages.agent.link_libraries(site)
    subprocess.run([sys.executable, "-m", "compileall", "-q", site / "feedback"], check=True)
    path = directory / "agent.toml"
    path.write_text(
        f'name = "rs1"\naddresses = ["10.0.0.11"]\nkey = "{directory / "agent.key_secret"}"\nports = {ports}\n'
        f'interval_seconds = 0.2\nidle_interval_seconds = 0.2\nsocket = "{directory / "application.sock"}"\n'
        f'{more}[[master]]\nendpoint = "{endpoint}"\npublic_key = "{keys.read_public(directory / "master.key")}"\n'
    )
    code = f"import sys; sys.path.insert(0, {str(site)!r}); from feedback.cli.entry import main; main()"
    command = [sys.executable, "-I", "-S", "-c", code, "agent", "--config", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def floor(directory: Path, phase_seconds: float, *arguments: str) -> Iterator[int]:
    """A process of floor.py. The agent's libraries are there already."""
    program = Path(__file__).with_name("floor.py")
    site = directory / "site"
    process = subprocess.Popen([sys.executable, "-I", "-S", program, site, str(phase_seconds), *arguments])
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait(10)


def sending(directory: Path, endpoint: str) -> list[str]:
    pair = keys.load_secret(directory / "floor.key_secret")
    server = keys.read_public(directory / "master.key")
    data = wire.encode(msgspec.structs.replace(REPORT, agent="floor", addresses=("10.0.0.12",)))
    return [endpoint, pair.public, pair.secret.decode(), server, data.hex()]


def cpu_seconds(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} is gone")


async def receive(directory: Path, seconds: float) -> dict[str, float]:
    """Reports a second through the receiving end, sent as fast as one thread can."""
    done = threading.Event()
    got = 0

    def on_reports(reports: Sequence[tuple[wire.Report, float]]) -> list[None]:
        nonlocal got
        got += len(reports)
        return [None for _ in reports]

    link = Link(
        ["tcp://127.0.0.1:0"], keys.load_secret(directory / "master.key_secret"), directory / "agents", on_reports
    )
    admission.RATE_PER_SECOND = admission.BURST = float("inf")  # one sender plays a whole fleet
    link.open()
    sender = threading.Thread(target=flood, args=(directory, link.endpoints[0], done))
    sender.start()
    try:
        await asyncio.sleep(1.0)
        got, began, used = 0, time.monotonic(), time.thread_time()
        await asyncio.sleep(seconds)
        lasted, used = time.monotonic() - began, time.thread_time() - used
        return {
            "receive_per_second": round(got / lasted),
            "receive_cpu_us": round(1e6 * used / max(1, got), 1),
            "receive_per_core_second": round(got / used),
        }
    finally:
        done.set()
        sender.join()
        link.close()


def flood(directory: Path, endpoint: str, done: threading.Event) -> None:
    pair = keys.load_secret(directory / "agent.key_secret")
    with zmq.Context() as context, context.socket(zmq.DEALER) as sender:
        sender.linger = 0
        sender.sndtimeo = 200
        sender.curve_publickey, sender.curve_secretkey = pair.public.encode(), pair.secret
        sender.curve_serverkey = keys.read_public(directory / "master.key").encode()
        sender.connect(endpoint)
        sequence = 0
        while not done.is_set():
            sequence += 1
            try:
                sender.send(wire.encode(msgspec.structs.replace(REPORT, sequence=sequence)))
            except zmq.Again:
                continue


def table(figures: dict[str, float], ok: bool) -> str:
    rows = "\n".join(f"{name:<28} {value:>12g}" for name, value in figures.items())
    limits = f"limits: {CPU_PERCENT_MAX:g} % of a core, {RSS_MB_MAX:g} MB: {'kept' if ok else 'EXCEEDED'}"
    return f"{rows}\n{limits}"


if __name__ == "__main__":
    sys.exit(main())
