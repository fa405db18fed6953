"""Debian's prometheus-node-exporter beside real servers of the stand, as operators without our agents run it.

Each sees its server's cgroup as a machine (procfs.py), in the server's network namespace, and runs beside the container
as the agent does. Must not know what a scenario shows.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from feedback.lab import cgroup
from feedback.lab.error import LabError
from feedback.lab.procfs import Machine, Settings
from feedback.lab.stand import Stand
from feedback.lab.topology import RealServer

PROGRAM = "prometheus-node-exporter"
PORT = 9100
READY_SECONDS = 60.0
TABLE = '[service.exporter]\nkind = "node"\n'


def start(stand: Stand, servers: Sequence[RealServer]) -> None:
    """Returns when each listens. Raises LabError."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise LabError(f"{PROGRAM} is not installed: apt-get install {PROGRAM}")
    directory = Path(tempfile.mkdtemp(prefix="machines-"))  # under TMPDIR, which goes with the run
    machines = [Machine(str(directory / s.name), str(stand.groups[s.name]), s.quota) for s in servers]
    settings = msgspec.json.encode(Settings(tuple(machines))).decode()
    stand.processes.start("machines", [sys.executable, "-m", "feedback.lab.procfs", settings])
    _wait(stand, [Path(machine.directory) / "stat" for machine in machines])
    for server, machine in zip(servers, machines, strict=True):
        command = [program, f"--path.procfs={machine.directory}", f"--web.listen-address={server.address}:{PORT}"]
        group = cgroup.make(cgroup.run_directory(stand.topology.run) / f"{server.name}-exporter")
        namespace = stand.topology.namespace(server.name)
        stand.processes.start(f"{server.name}-exporter", command, namespace=namespace, group=group)
    for server in servers:
        stand.wait_until_listening(f"{server.name}-exporter", stand.topology.namespace(server.name), PORT)


def _wait(stand: Stand, files: Sequence[Path]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not all(file.exists() for file in files):
        stand.processes.check()
        if time.monotonic() > deadline:
            raise LabError(f"no machine is shown after {READY_SECONDS:.0f} s")
        time.sleep(0.02)
