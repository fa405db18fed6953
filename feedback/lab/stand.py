"""A running cluster in the guest: namespaces, cgroups, HTTP servers, a service, a recorder; and the handles on it.

Owns what is common to the scenarios. Must not know what they show. Events are moments of CLOCK_MONOTONIC, which is one
for all namespaces, written to events.jsonl in the output directory for the host to follow.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from feedback.ipvs import Client, Timeouts
from feedback.lab import cgroup, network, recorder
from feedback.lab.error import LabError
from feedback.lab.process import Processes
from feedback.lab.topology import RealServer, Topology
from feedback.lab.workload.burn import calibrate
from feedback.lab.workload.load import Load
from feedback.lab.workload.server import Settings
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Protocol,
    Service,
    ServiceKey,
    SetDestination,
)

PYTHON = [sys.executable, "-m"]
DIRECTOR = "d1"
READY_SECONDS = 60.0
LEAD_SECONDS = 0.5  # from the client's start to its first request


class Scene:
    """What all stands share: processes, and a file of events. Use as a context manager."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.processes = Processes(output / "logs")

    def __exit__(self, *_: object) -> None:
        self.processes.stop_all()

    def sleep_until(self, moment: float) -> None:
        """Watches the processes meanwhile. Raises LabError if one has ended."""
        while (left := moment - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            self.processes.check()

    def event(self, what: str, at: float | None = None, **details: Any) -> None:
        line = json.dumps({"what": what, "at": time.monotonic() if at is None else at, **details})
        with (self.output / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def wait_until_listening(self, name: str, namespace: str, port: int) -> None:
        """Raises LabError."""
        deadline = time.monotonic() + READY_SECONDS
        with network.entered(namespace):
            while not _listening(port):
                self.processes.check()
                if time.monotonic() > deadline:
                    raise LabError(f"{name} does not listen after {READY_SECONDS:.0f} s")
                time.sleep(0.02)


class Stand(Scene):
    """Raises LabError where something does not come up."""

    def __init__(
        self,
        topology: Topology,
        output: Path,
        *,
        period_us: int = 50_000,
        turns_per_ms: float = 0.0,
        connection_bytes: int = 0,
        metered: bool = False,
    ) -> None:
        super().__init__(output)
        self.topology = topology
        self.connection_bytes = connection_bytes
        self.metered = metered
        self.words = Path(tempfile.mkdtemp(prefix="words-"))  # under TMPDIR, which goes with the run
        self.turns_per_ms = turns_per_ms or calibrate()
        network.build(topology)
        self.groups = {server.name: self._make_group(server, period_us) for server in topology.servers}
        for server in topology.servers:
            self.start_server(server)
        with network.entered(topology.namespace(DIRECTOR)):
            self.ipvs = Client()

    def _make_group(self, server: RealServer, period_us: int) -> Path:
        top = cgroup.run_directory(self.topology.run) / server.name
        cgroup.make(top, server.quota, period_us)
        cgroup.make(top / "service")
        cgroup.make(top / "neighbour")
        return top

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.ipvs.close()

    # The service and its destinations.

    @property
    def service(self) -> ServiceKey:
        return ServiceKey.at(Protocol.TCP, self.topology.vip, self.topology.port)

    def destination(self, server: RealServer, weight: int) -> Destination:
        key = DestinationKey(server.address, self.topology.port)
        return Destination(key, weight, self.topology.forward)

    def make_service(self, scheduler: str, weights: Sequence[int]) -> None:
        """With the first servers as destinations, one for each weight."""
        edits: list[Edit] = [AddService(Service(self.service, scheduler))]
        for server, weight in zip(self.topology.servers, weights, strict=False):
            edits.append(AddDestination(self.service, self.destination(server, weight)))
        self._apply(edits)

    def set_weights(self, weights: Sequence[int]) -> None:
        self._apply(
            [
                SetDestination(self.service, self.destination(server, weight))
                for server, weight in zip(self.topology.servers, weights, strict=True)
            ]
        )

    def add_destination(self, server: RealServer, weight: int) -> None:
        self._apply([AddDestination(self.service, self.destination(server, weight))])

    def set_fin_seconds(self, seconds: int) -> None:
        """How long a closed connection counts as inactive under direct routing: `ipvsadm --set 0 SECONDS 0`."""
        self.ipvs.set_timeouts(Timeouts(tcp_fin_seconds=seconds))

    def _apply(self, edits: list[Edit]) -> None:
        for error in self.ipvs.apply(edits):
            raise RuntimeError(f"the kernel refused: {error}")

    # Processes.

    def start_server(self, server: RealServer, *, prompt: bool = False) -> None:
        """With `prompt` it enters its quota once it listens: a small server's start takes seconds of its quota, a slow
        processor's twice as many, and an outage should last as long as the scenario says."""
        group = self.groups[server.name] / "service"
        settings = Settings(
            name=server.name,
            port=self.topology.port,
            turns_per_ms=self.turns_per_ms,
            quota=server.quota,
            word=str(self.word_socket(server)),
            connection_bytes=self.connection_bytes,
            metered=self.metered,
            group=str(group) if prompt else "",
        )
        command = [*PYTHON, "feedback.lab.workload.server", settings.encode()]
        namespace = self.topology.namespace(server.name)
        self.processes.start(server.name, command, namespace=namespace, group=None if prompt else group)

    def word_socket(self, server: RealServer) -> Path:
        """The socket on which the server reports about itself and its agent listens, if the agent is configured so."""
        return self.words / f"{server.name}.sock"

    def break_server(self, server: RealServer) -> float:
        """Make the server answer every request with 500 at once. Returns the moment."""
        return self.processes.signal(server.name, signal.SIGUSR1)

    def mend_server(self, server: RealServer) -> float:
        return self.processes.signal(server.name, signal.SIGUSR2)

    def close_server(self, server: RealServer) -> float:
        """Nobody listens any more; `start_server` undoes it. Returns the moment."""
        return self.processes.kill(server.name)

    def start_hog(self, server: RealServer) -> str:
        """Start a hog beside the server, inside its quota; it is stopped until `release`. Returns its name."""
        name = f"{server.name}-hog"
        group = self.groups[server.name] / "neighbour"
        process = self.processes.start(name, [*PYTHON, "feedback.lab.workload.hog"], group=group)
        while Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "T":
            time.sleep(0.01)
        return name

    def start_recorder(self) -> None:
        service = self.service
        settings = recorder.Settings(
            service=str(service),
            destinations=tuple(str(self.destination(server, 0).key) for server in self.topology.servers),
            groups=tuple(str(group) for group in self.groups.values()),
            output=str(self.output / "samples.jsonl"),
        )
        command = [*PYTHON, "feedback.lab.recorder", msgspec.json.encode(settings).decode()]
        self.processes.start("recorder", command, namespace=self.topology.namespace(DIRECTOR))

    def start_client(self, load: Load, start: float, name: str = "client") -> None:
        records = self.output / f"{name}.records"
        command = [*PYTHON, "feedback.lab.workload.client", load.encode(), str(start), str(records)]
        self.processes.start(name, command, namespace=self.topology.namespace("client"))

    def begin(self, load: Load) -> float:
        """The recorder, the client, and the moment of its first request."""
        self.start_recorder()
        start = time.monotonic() + LEAD_SECONDS
        self.start_client(load, start)
        self.event("start", start)
        return start

    def finish(self, end: float, patience_seconds: float = 60.0) -> None:
        """Sleeps until the last request is sent, and waits for the answers."""
        self.sleep_until(end)
        self.event("end", end)
        self.processes.wait("client", patience_seconds)

    def wait_for_servers(self) -> None:
        """Wait until each HTTP server listens. Raises LabError."""
        for server in self.topology.servers:
            self.wait_until_listening(server.name, self.topology.namespace(server.name), self.topology.port)

    def release(self, name: str) -> float:
        return self.processes.signal(name, signal.SIGCONT)


def _listening(port: int) -> bool:
    """State 0A is LISTEN; of this thread's namespace (/proc/net would be the thread leader's)."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in _rows(Path("/proc/thread-self/net", table))]
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in lines)


def _rows(table: Path) -> list[str]:
    return table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []
