"""The product on the pair: a sync daemon on each director, over both heartbeat cables.

This module owns its configuration and keys, in a directory that is removed with the run, and everything that the lab
knows of its commands. It must not know what a scenario shows.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback.lab.error import LabError
from feedback.lab.pair import topology
from feedback.lab.pair.machine import Machine
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, FLOATING, HEARTBEATS, Node, heartbeat_address
from feedback.model import Protocol
from feedback.ops import keys, pair

COMMAND = [sys.executable, "-c", "from feedback.cli.entry import main; main()"]
PORT = 7434
MASTER_PORT = 7433
READY_SECONDS = 60.0


class Product:
    """The sync daemons. With `masters` each director also has a master, which adjusts the services that it finds. The
    services are made by hand on the first director, and replicated to the second. With `services`, tables of
    master.toml, the masters make and own these services. `agents` are real servers whose agents the masters accept.
    `settings` are more tables of sync.toml."""

    def __init__(
        self,
        stand: PairStand,
        *,
        masters: bool = False,
        services: str = "",
        agents: Sequence[Node] = (),
        settings: str = "",
    ) -> None:
        self.stand, self.services, self.settings = stand, services, settings
        self.daemons = ("sync", "master") if masters else ("sync",)
        self.directory = Path(tempfile.mkdtemp(prefix="pair-"))  # under TMPDIR, which is removed with the run
        secret = pair.create(self.directory / "pair.key")
        for director in DIRECTORS:
            (self.directory / f"{director.name}-sync.toml").write_text(self.sync(director, secret), "utf-8")
            if masters:
                (self.directory / f"{director.name}-master.toml").write_text(self.master(director), "utf-8")
        for server in agents:
            _, _, public = keys.create(self.directory / f"{server.name}-key")
            for director in DIRECTORS:
                enrolled = self._own(director, "agents")
                keys.enroll(enrolled, server.name, public, (str(server.front),))

    def sync(self, director: Node, secret: Path) -> str:
        own = DIRECTORS.index(director)
        peer = DIRECTORS[1 - own]
        paths = {
            "control": self.control(director),
            **{key: self._own(director, f"{key}.json") for key in ("role", "state", "master_state")},
        }
        links = "".join(
            f'[[link]]\nlocal = "{heartbeat_address(own, i)}:{PORT}"\npeer = "{heartbeat_address(1 - own, i)}:{PORT}"\n'
            for i in range(len(HEARTBEATS))
        )
        addresses = "".join(
            f'[[address]]\naddress = "{address}/{address.max_prefixlen}"\ninterface = "{interface}"\n'
            for address, interface in FLOATING
        )
        reach = ", ".join(f'"{server.front}"' for server in self.stand.pair.servers[:2])
        return (
            f'name = "{director.name}"\npeer = "{peer.name}"\nsecret = "{secret}"\npriority = {150 - 50 * own}\n'
            f"reach = [{reach}]\n"
            + "".join(f'{key} = "{path}"\n' for key, path in paths.items())
            + (links + addresses + self.settings)
        )

    def master(self, director: Node) -> str:
        """The text of a master.toml without agents: that master must change nothing, however often it starts."""
        _public, key, _text = keys.create(self._own(director, "key"))
        enrolled = self._own(director, "agents")
        enrolled.mkdir()
        tcp = [service.key for service in topology.services() if service.key.protocol is Protocol.TCP]
        return (
            f'listen = ["tcp://{director.front}:{MASTER_PORT}"]\nkey = "{key}"\nenrolled = "{enrolled}"\n'
            f'control = "{self.master_control(director)}"\nownership = "{"table" if self.services else "weights"}"\n'
            f'role = "{self._own(director, "role.json")}"\nstate = "{self._own(director, "master_state.json")}"\n'
            + (self.services or "".join(f'[[service]]\nvirtual = "{key}"\n' for key in tcp))
        )

    def control(self, director: Node) -> Path:
        return self.machine(director).local(self._own(director, "sync.sock"))

    def master_control(self, director: Node) -> Path:
        return self.machine(director).local(self._own(director, "master.sock"))

    def machine(self, director: Node) -> Machine:
        return self.stand.machines[director.name]

    def _own(self, director: Node, name: str) -> Path:
        return self.directory / f"{director.name}-{name}"

    # Daemons.

    def start(self, director: Node) -> None:
        machine = self.machine(director)
        if director == DIRECTORS[0] and not self.services and not machine.table():
            machine.make_services()
        for daemon, name in self._names(director):
            command = [*COMMAND, daemon, "--config", str(self._own(director, f"{daemon}.toml"))]
            machine.start(name, command)

    def start_agent(self, server: Node) -> tuple[Path, Path]:
        """Start the agent of a real server. Returns the socket at which applications report their sessions, and the
        directory in which they read the sessions of other servers."""
        key = self.directory / f"{server.name}-key.key_secret"
        socket, words = self.directory / f"{server.name}.sock", self.directory / f"{server.name}-words"
        masters = ""
        for director in DIRECTORS:
            public = keys.read_public(self._own(director, "key.key"))
            masters += f'[[master]]\nendpoint = "tcp://{director.front}:{MASTER_PORT}"\npublic_key = "{public}"\n'
        config = self.directory / f"{server.name}-agent.toml"
        config.write_text(
            f'name = "{server.name}"\naddresses = ["{server.front}"]\nkey = "{key}"\n'
            f'socket = "{socket}"\nsessions = "{words}"\n{masters}',
            encoding="utf-8",
        )
        command = [*COMMAND, "agent", "--config", str(config)]
        self.stand.processes.start(f"{server.name}-agent", command, namespace=self.stand.pair.namespace(server.name))
        return socket, words

    def kill(self, director: Node, how: signal.Signals = signal.SIGKILL) -> float:
        return min(self.machine(director).signal(name, how) for _daemon, name in self._names(director))

    def freeze(self, director: Node) -> float:
        return min(self.machine(director).signal(name, signal.SIGSTOP) for _daemon, name in self._names(director))

    def thaw(self, director: Node) -> float:
        return min(self.machine(director).signal(name, signal.SIGCONT) for _daemon, name in self._names(director))

    def _names(self, director: Node) -> list[tuple[str, str]]:
        return [(daemon, f"{director.name}-{daemon}") for daemon in self.daemons]

    # What the daemons say.

    def ask(self, director: Node, command: str) -> dict[str, Any] | None:
        """The daemon's answer, or None while it does not answer. Raises LabError if it refuses."""
        return self.machine(director).ask(self.control(director), {"command": command})

    def wait_until_active(self, director: Node) -> float:
        self.stand.wait_for_owner(director)
        return self.stand.wait_for_services(director)

    def wait_until_standby(self, director: Node) -> float:
        """Wait until it says that it is complete. The time that the copying took becomes an event."""
        moment = self.stand.wait_for(f"{director.name} is complete", lambda: self.complete(director), READY_SECONDS)
        replica = (self.ask(director, "status") or {})["replica"]
        self.stand.event("replica", connections=replica["connections"], took_seconds=replica["took_seconds"])
        return moment

    def complete(self, director: Node) -> bool:
        status = self.ask(director, "status")
        return bool(status and status["replica"]["state"] == "complete")

    def hand_over(self, first: Node = DIRECTORS[0]) -> float:
        """Run `feedback sync handover` on the active director. Returns the moment of the request."""
        asked = time.monotonic()
        self.ask(first, "handover")

        def done() -> bool:
            state = self.ask(first, "handover-state") or {}
            if state.get("state") == "failed":
                raise LabError(f"not handed over: {state['reason']}")
            return state.get("state") == "done"

        self.stand.wait_for("the handover is done", done, READY_SECONDS)
        return asked

    def tell(self) -> None:
        """Record every transition of the daemons that still run. Their clock counts suspension and the lab's does not;
        the lab is never suspended, so both are the same."""
        for director in DIRECTORS:
            answer = self.ask(director, "events") or {"events": []}
            ahead = self.machine(director).clock_ahead()
            for event in answer["events"]:
                told = {key: value for key, value in event.items() if key not in ("at", "monotonic", "number")}
                self.stand.event(event["kind"], event["monotonic"] + ahead, director=director.name, **told)
