"""The product on the stand: real agents in the real servers' namespaces, a real master in the director's, real keys.

Owns their configuration and keys, in a directory that goes with the run. Must not know what a scenario shows.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feedback.lab import cgroup, network
from feedback.lab.error import LabError
from feedback.lab.stand import DIRECTOR, Stand
from feedback.lab.topology import RealServer
from feedback.ops import control, keys
from feedback.ops.control import ControlError, NotRunningError

COMMAND = [sys.executable, "-c", "from feedback.cli.entry import main; main()"]
PORT = 7433
READY_SECONDS = 60.0
STATIC_WEIGHT = 100

Keys = Mapping[str, str | int]  # of a table in TOML


class Product:
    """`service` and `destinations` (by the server's name) are further keys of the master's tables for them,
    `master_tables` and `agent_tables` further tables, as text. The master's state is kept in `state`, a directory. With
    `adopt` somebody else owns the service, and the master adjusts what it finds. `agents`: only these servers have one.
    Raises LabError where a daemon does not come up."""

    def __init__(
        self,
        stand: Stand,
        *,
        scheduler: str | None,
        law: str,
        servers: tuple[RealServer, ...],
        service: Keys | None = None,
        destinations: Mapping[str, Keys] | None = None,
        adopt: bool = False,
        master_tables: str = "",
        agent_tables: str = "",
        state: Path | None = None,
        agents: tuple[RealServer, ...] | None = None,
    ) -> None:
        self.stand = stand
        self.service = service or {}
        self.destinations = destinations or {}
        self.adopt = adopt
        self.servers = servers
        self.agents = servers if agents is None else agents
        self.directory = Path(tempfile.mkdtemp(prefix="product-"))  # under TMPDIR, which goes with the run
        self.control = self.directory / "master.sock"
        self.state = (state or self.directory) / "master.json"
        self.master_tables, self.agent_tables = master_tables, agent_tables
        self.master_address = next(n.address for n in stand.topology.directors if n.name == DIRECTOR)
        self.scheduler = scheduler
        self.law = law
        _public, _secret, self.master_key = keys.create(self.directory / "master")
        for server in stand.topology.servers:
            self._enroll(server)
        self.write_master(servers)

    # Configuration.

    def _enroll(self, server: RealServer) -> None:
        _public, secret, key = keys.create(self.directory / server.name)
        keys.enroll(self.directory / "agents", server.name, key, (str(server.address),))
        group = self.stand.groups[server.name]
        (self.directory / f"{server.name}.toml").write_text(
            f'name = "{server.name}"\n'
            f'addresses = ["{server.address}"]\n'
            f'key = "{secret}"\n'
            f'cgroup = "{group}"\n'
            f'service_cgroup = "{group / "service"}"\n'
            f"ports = [{self.stand.topology.port}]\n"
            f'socket = "{self.stand.word_socket(server)}"\n'
            f'[[master]]\nendpoint = "tcp://{self.master_address}:{PORT}"\npublic_key = "{self.master_key}"\n'
            + self.agent_tables,
            encoding="utf-8",
        )

    def write_master(self, servers: tuple[RealServer, ...]) -> None:
        """The director's configuration with these real servers behind the service, all of the same static weight."""
        keys: dict[str, str | int] = {"virtual": str(self.stand.service), "law": self.law, **self.service}
        tables = [("service", keys)]
        if not self.adopt:
            keys |= {"scheduler": self.scheduler} if self.scheduler else {}
            tables += [("service.destination", self._destination(server)) for server in servers]
        (self.directory / "master.toml").write_text(
            f'listen = ["tcp://{self.master_address}:{PORT}"]\n'
            f'key = "{self.directory / "master.key_secret"}"\n'
            f'enrolled = "{self.directory / "agents"}"\n'
            f'control = "{self.control}"\n'
            f'state = "{self.state}"\n'
            f'ownership = "{"weights" if self.adopt else "table"}"\n'
            + "".join(_table(name, keys) for name, keys in tables)
            + self.master_tables,
            encoding="utf-8",
        )

    def _destination(self, server: RealServer) -> dict[str, str | int]:
        return {"address": str(server.address), "weight": STATIC_WEIGHT, **self.destinations.get(server.name, {})}

    # Daemons.

    def start_master(self) -> None:
        command = [*COMMAND, "master", "--config", str(self.directory / "master.toml")]
        self.stand.processes.start("master", command, namespace=self.stand.topology.namespace(DIRECTOR))

    def start_agent(self, server: RealServer) -> None:
        # The host's agent watches the container from outside: its own cost is not the container's.
        group = cgroup.make(cgroup.run_directory(self.stand.topology.run) / f"{server.name}-agent")
        command = [*COMMAND, "agent", "--config", str(self.directory / f"{server.name}.toml")]
        namespace = self.stand.topology.namespace(server.name)
        self.stand.processes.start(f"{server.name}-agent", command, namespace=namespace, group=group)

    def start(self) -> None:
        self.start_master()
        for server in self.agents:
            self.start_agent(server)
        self.wait_until_reported()

    def reload_master(self) -> float:
        """SIGHUP. Returns its moment."""
        return self.stand.processes.signal("master", signal.SIGHUP)

    # What the master says.

    def status(self) -> dict[str, Any] | None:
        """Its answer to `feedback show --json`, or None if it does not answer."""
        with contextlib.suppress(NotRunningError, ControlError):
            return control.ask(self.control, {"command": "status"})
        return None

    def say(self, command: str, **words: str | float) -> dict[str, Any]:
        """Send an operator's order. Returns the answer. Raises LabError if it is refused or nobody answers."""
        try:
            return control.ask(self.control, {"command": command, **words})
        except ControlError as error:
            raise LabError(f"{command}: {error}") from None

    def ages(self) -> dict[str, float | None]:
        """Seconds since the last report, for each destination of the master; empty if it does not answer."""
        services = (self.status() or {"services": []})["services"]
        return {d["address"]: d["age_seconds"] for service in services for d in service["destinations"]}

    def wait_until_reported(self, fresh_seconds: float = 2.0) -> float:
        """Wait until the master has a fresh report of each server. Returns that moment. Raises LabError."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.stand.processes.check()
            ages = self.ages()
            if len(ages) == len(self.servers) and all(a is not None and a < fresh_seconds for a in ages.values()):
                return time.monotonic()
            time.sleep(0.1)
        raise LabError(f"the master has no fresh report of each server in {READY_SECONDS:.0f} s: {ages}")

    def wait_until_decided(self) -> None:
        """Wait until the master has decided something. Raises LabError."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.ages():
            self.stand.processes.check()
            if time.monotonic() > deadline:
                raise LabError(f"the master has decided nothing in {READY_SECONDS:.0f} s")
            time.sleep(0.1)

    def wait_until_checked(self, seconds: float) -> None:
        """Wait until each destination has passed its health check. Raises LabError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.stand.processes.check()
            services = (self.status() or {"services": []})["services"]
            found = {d["address"]: d["check"] for service in services for d in service["destinations"]}
            if len(found) == len(self.servers) and all(check and check["up"] for check in found.values()):
                return
            time.sleep(0.1)
        raise LabError(f"not every server passes its check in {seconds:.0f} s: {found}")

    # What can happen to them.

    def cut(self, server: RealServer) -> float:
        """The agent's way to the master leads nowhere; the service's is not affected. Returns the moment."""
        namespace = self.stand.topology.namespace(server.name)
        network.run_ip(namespace, "route", "add", "blackhole", f"{self.master_address}/32")
        return time.monotonic()

    def mend(self, server: RealServer) -> float:
        namespace = self.stand.topology.namespace(server.name)
        network.run_ip(namespace, "route", "del", "blackhole", f"{self.master_address}/32")
        return time.monotonic()


def _table(name: str, keys: Keys) -> str:
    """One element of an array of tables in TOML."""
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in keys.items())  # strings, numbers, booleans: TOML's too
    return f"[[{name}]]\n{''.join(lines)}"
