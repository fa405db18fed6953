"""What a machine can do, and the usual one: a namespace."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Protocol

from feedback.ipvs import Client
from feedback.lab import network
from feedback.lab.error import LabError
from feedback.lab.pair import topology
from feedback.lab.pair.firewall import load
from feedback.lab.pair.topology import Node, Pair
from feedback.lab.process import Processes
from feedback.ops import control
from feedback.ops.control import ControlError, NotRunningError


class Machine(Protocol):
    def table(self) -> dict[str, int]:
        """Its services, each with the number of its destinations."""
        ...

    def make_services(self) -> None:
        """Make all services of the pair. Raises LabError."""
        ...

    def guard(self, firewall: str) -> None:
        """Load its firewall rules, before anything runs. Raises LabError."""
        ...

    def start(self, name: str, command: list[str]) -> None: ...

    def signal(self, name: str, how: signal.Signals) -> float:
        """Returns the moment on the guest's CLOCK_MONOTONIC. After SIGKILL and SIGTERM the process is gone."""
        ...

    def ask(self, socket: Path, request: dict[str, Any]) -> dict[str, Any] | None:
        """A daemon's answer, or None while it does not answer. Raises LabError if it refuses."""
        ...

    def clock_ahead(self) -> float:
        """How many seconds the guest's CLOCK_MONOTONIC is ahead of this machine's."""
        ...

    def local(self, path: Path) -> Path:
        """The path on this machine for a socket named `path`."""
        ...

    def close(self) -> None: ...


class Namespaced:
    def __init__(self, pair: Pair, director: Node, processes: Processes) -> None:
        self.pair, self.namespace, self.processes = pair, pair.namespace(director.name), processes
        with network.entered(self.namespace):
            self.ipvs = Client()

    def table(self) -> dict[str, int]:
        return table(self.ipvs)

    def make_services(self) -> None:
        make_services(self.ipvs, self.pair)

    def guard(self, firewall: str) -> None:
        with network.entered(self.namespace):
            load(firewall)

    def start(self, name: str, command: list[str]) -> None:
        self.processes.start(name, command, namespace=self.namespace)

    def signal(self, name: str, how: signal.Signals) -> float:
        return send(self.processes, name, how)

    def ask(self, socket: Path, request: dict[str, Any]) -> dict[str, Any] | None:
        return ask(socket, request)

    def clock_ahead(self) -> float:
        return 0.0

    def local(self, path: Path) -> Path:
        return path

    def close(self) -> None:
        self.ipvs.close()


def table(ipvs: Client) -> dict[str, int]:
    return {str(entry.service.key): len(entry.destinations) for entry in ipvs.snapshot().services}


def make_services(ipvs: Client, pair: Pair) -> None:
    """Raises LabError."""
    for error in ipvs.apply(topology.edits(pair)):
        raise LabError(f"the kernel refused: {error}")


def send(processes: Processes, name: str, how: signal.Signals) -> float:
    ends = how in (signal.SIGKILL, signal.SIGTERM)
    return processes.kill(name, how) if ends else processes.signal(name, how)


def ask(socket: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return control.ask(socket, request)
    except NotRunningError:
        return None
    except ControlError as error:
        raise LabError(f"{socket.name}: {request.get('command')}: {error}") from None
