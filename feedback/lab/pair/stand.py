"""A pair of directors in the guest, with real servers, a client of open connections, and the watcher.

This module owns what the pair's scenarios have in common. It must not know what they show, nor which program decides
which director is active.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from feedback.ipvs import SyncDaemon, SyncRole
from feedback.lab import network
from feedback.lab.error import LabError
from feedback.lab.job import Options
from feedback.lab.pair import frames, looks, topology
from feedback.lab.pair.injury import Death
from feedback.lab.pair.machine import Foreign, Machine, Namespaced
from feedback.lab.pair.machine.foreign import unaddressed
from feedback.lab.pair.topology import CLIENT, DIRECTORS, FLOATING, PERSISTENT_PORT, VIP, WATCHER, Node, Pair
from feedback.lab.stand import Scene
from feedback.lab.workload import streams
from feedback.lab.workload.streams import Plan, Target
from feedback.model import Forward

PYTHON = [sys.executable, "-m"]
READY_SECONDS = 60.0
FOREIGN_PATIENCE = 8.0  # a daemon takes so many times longer to start on a kernel within an emulated machine
LOOK_SECONDS = 0.005
VISIT_SECONDS = 2.0
PORTS = (topology.ROUTE_PORT, topology.MASQUERADE_PORT, topology.PERSISTENT_PORT)
PLAIN = Options()
HERTZ = os.sysconf("SC_CLK_TCK")
# What a run before this one may have left in the directory.
STALE = (looks.FILE, streams.FILE, "client.ready", "client.woken", "client.progress")


class PairStand(Scene):
    """Raises LabError if something does not start."""

    def __init__(self, pair: Pair, output: Path, options: Options = PLAIN) -> None:
        """`options` say which director has a kernel of its own, and which firewall both have."""
        super().__init__(output)
        self.pair, foreign = pair, options.foreign
        self.patience = FOREIGN_PATIENCE if foreign else 1.0
        for name in STALE:
            (output / name).unlink(missing_ok=True)
        network.batch(topology.wiring(pair))
        network.batch(topology.switching(pair), pair.switch)
        for node in pair.nodes:
            namespace = pair.namespace(node.name)
            if node.name == foreign:
                unaddressed(pair, node)
            else:
                network.settle(namespace, topology.settings(pair, node), topology.addressing(pair, node))
            if foreign:
                network.batch(topology.short_segments(node), namespace)
        self.machines: dict[str, Machine] = {}
        for director in DIRECTORS:
            if director.name == foreign:
                self.machines[director.name] = Foreign(pair, director, self.processes, output)
            else:
                self.machines[director.name] = Namespaced(pair, director, self.processes)
            if options.firewall:
                self.machines[director.name].guard(options.firewall)
        for server in pair.servers:
            command = [*PYTHON, "feedback.lab.workload.echo", server.name, *map(str, PORTS)]
            self.processes.start(server.name, command, namespace=pair.namespace(server.name))
        for server in pair.servers:
            self.wait_until_listening(server.name, pair.namespace(server.name), PORTS[-1])
        watch = [*PYTHON, "feedback.lab.pair.watcher", str(output / looks.FILE), str(LOOK_SECONDS)]
        self.processes.start("watcher", watch, namespace=pair.namespace(WATCHER.name))

    def __enter__(self) -> PairStand:
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for machine in self.machines.values():
            machine.close()

    # What the lab does itself where no daemons run: services, addresses, the kernel's synchronisation.

    def start_kernel_sync(self, director: Node, role: SyncRole) -> None:
        """The kernel's own threads, by multicast on the service network: the peer without any daemon."""
        machine = self.machines[director.name]
        assert isinstance(machine, Namespaced)
        machine.ipvs.start_daemon(SyncDaemon(role, "eth0", sync_id=51))

    def take_addresses(self, director: Node) -> None:
        """Take all floating addresses at once and announce them: a takeover as good as it can be by hand."""
        namespace = self.pair.namespace(director.name)
        network.batch(topology.floating("add"), namespace)
        with network.entered(namespace):
            for address, interface in FLOATING:
                mac = director.mac if interface == "eth0" else director.back_mac
                with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
                    sock.bind((interface, 0))
                    for frame in frames.announcements(mac, address):
                        sock.send(frame)

    # Waiting.

    def wait_for(self, what: str, done: Callable[[], bool], seconds: float = READY_SECONDS) -> float:
        """Wait until `done()` is true. Returns that moment. Raises LabError."""
        deadline = time.monotonic() + seconds * self.patience
        while not done():
            self.processes.check()
            if time.monotonic() > deadline:
                raise LabError(f"not in {seconds:.0f} s: {what}")
            time.sleep(0.02)
        return time.monotonic()

    def wait_for_owner(self, director: Node, seconds: float = READY_SECONDS) -> float:
        """Wait until this director alone answers for every floating address."""
        bit = 1 << DIRECTORS.index(director)
        return self.wait_for(
            f"{director.name} alone answers for every address", lambda: self.owners() == {bit}, seconds
        )

    def owners(self) -> set[int]:
        """Who owned each address at the last look."""
        last = {look.address: look.owners for look in looks.read(self.output / looks.FILE)}
        return set(last.values()) if len(last) == len(FLOATING) else {0}

    def wait_for_services(self, director: Node) -> float:
        """Wait until its table has every service with every real server."""

        def complete() -> bool:
            counts = self.machines[director.name].table().values()
            return sum(count == len(self.pair.servers) for count in counts) == len(topology.services())

        return self.wait_for(f"{director.name} has every service with every real server", complete)

    # The client.

    def start_client(self, plan: Plan) -> None:
        command = [*PYTHON, "feedback.lab.workload.talker", plan.encode(), str(self.output)]
        self.event("connecting")
        self.processes.start("client", command, namespace=self.pair.namespace(CLIENT.name))

    def start_waiting(self, plan: Plan) -> None:
        """Start clients that wait (waiting.py) instead of those that send records."""
        command = [*PYTHON, "feedback.lab.workload.waiting", plan.encode(), str(self.output)]
        self.processes.start("client", command, namespace=self.pair.namespace(CLIENT.name))

    @staticmethod
    def now() -> float:
        return time.monotonic()

    def wait_until_established(self, seconds: float = READY_SECONDS) -> float:
        ready = self.output / "client.ready"
        deadline, told = time.monotonic() + seconds, ""
        while not ready.exists():
            self.processes.check()
            if (progress := self._progress()) not in ("", told):  # empty: just being written
                told = progress
                self.event(progress)
            if time.monotonic() > deadline:
                raise LabError(f"not all connections are established in {seconds:.0f} s: {told}")
            time.sleep(0.05)
        now = time.monotonic()
        self.event("established", now)
        self.mark_cpu("busy from")
        return now

    def _progress(self) -> str:
        path = self.output / "client.progress"
        with contextlib.suppress(OSError):
            return path.read_text(encoding="utf-8").strip()
        return ""

    def wake(self) -> None:
        self.event("wake", self.processes.signal("client", signal.SIGUSR1))

    def wait_until_woken(self, seconds: float = READY_SECONDS) -> None:
        self.wait_for("every idle connection is woken", (self.output / "client.woken").exists, seconds)

    def finish(self, patience_seconds: float = 60.0) -> None:
        """Let the client stop sending, and wait until outstanding answers came back or are lost."""
        self.event("end", self.processes.signal("client", signal.SIGUSR2))
        self.processes.wait("client", patience_seconds)
        self.processes.kill("watcher", signal.SIGTERM)

    def visit(self) -> dict[str, str]:
        """Which real server the persistent service gives to each client address: a new connection from each."""
        found = {}
        with network.entered(self.pair.namespace(CLIENT.name)):
            for address in topology.sources(Forward.ROUTE)[0]:
                with socket.socket() as sock:
                    sock.settimeout(VISIT_SECONDS)
                    try:
                        sock.bind((str(address), 0))
                        sock.connect((str(VIP), PERSISTENT_PORT))
                        sock.send(streams.record(streams.WHO, 0, 0))
                        found[str(address)] = sock.recv(64).decode()
                    except OSError as error:
                        found[str(address)] = f"nobody: {error}"
        return found

    # Injuries.

    def strike(self, death: Death, director: Node) -> float:
        """Carry out the death. Returns its moment."""
        for name in list(self.processes.running):
            if name.startswith(f"{director.name}-"):
                self.processes.may_die(name, lambda status: None)
        self.mark_cpu("busy to")
        died, took = death.strike()
        self.event("death", died, took_seconds=took, victims=len(death.victims))
        return died

    # What the lab itself costs.

    def mark_cpu(self, what: str) -> None:
        """Record an event with the machine's idle seconds so far, and the CPU seconds of each process."""
        idle = int(Path("/proc/stat").read_text(encoding="ascii").split(None, 5)[4]) / HERTZ
        used = {name: _cpu_seconds(process.pid) for name, process in self.processes.running.items()}
        self.event(what, idle_seconds=idle, used_seconds=used)


def _cpu_seconds(pid: int) -> float:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    fields = re.sub(r"^.*\) ", "", text).split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def targets() -> tuple[Target, ...]:
    """The four ways to the real servers, in turn."""
    ways = []
    for forward, port in ((Forward.ROUTE, topology.ROUTE_PORT), (Forward.MASQUERADE, topology.MASQUERADE_PORT)):
        for vip, source in zip((topology.VIP, topology.VIP6), topology.sources(forward), strict=True):
            name = f"{forward.name.lower()}{vip.version}"
            ways.append(Target(name, str(vip), port, tuple(map(str, source))))
    return tuple(ways)


def udp_target() -> Target:
    return Target("udp", str(VIP), topology.ROUTE_PORT, tuple(map(str, topology.sources(Forward.ROUTE)[0])))
