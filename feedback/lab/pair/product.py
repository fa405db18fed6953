"""The product on the pair: a sync daemon on each director, over both heartbeat cables.

Owns its configuration and keys, in a directory that goes with the run, and all that the lab knows of its commands: this
is the one seam. Must not know what a scenario shows.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import zmq.utils.z85

from feedback.lab.error import LabError
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, FLOATING, HEARTBEATS, Node, heartbeat_address
from feedback.ops import control
from feedback.ops.control import ControlError, NotRunningError

COMMAND = [sys.executable, "-c", "from feedback.cli.main import main; main()"]
PORT = 7434
READY_SECONDS = 20.0


class Product:
    """Both daemons. The services are made by hand on the first director; the second has them from there."""

    def __init__(self, stand: PairStand) -> None:
        self.stand = stand
        self.directory = Path(tempfile.mkdtemp(prefix="pair-"))  # under TMPDIR, which goes with the run
        secret = self.directory / "pair.key"
        secret.touch(0o600)
        secret.write_bytes(zmq.utils.z85.encode(secrets.token_bytes(32)) + b"\n")
        for director in DIRECTORS:
            (self.directory / f"{director.name}.toml").write_text(self.configuration(director, secret), "utf-8")

    def configuration(self, director: Node, secret: Path) -> str:
        own = DIRECTORS.index(director)
        peer = DIRECTORS[1 - own]
        paths = {key: self.directory / f"{director.name}-{key}" for key in ("control", "role", "state", "master_state")}
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
            f"reach = [{reach}]\n" + "".join(f'{key} = "{path}"\n' for key, path in paths.items()) + links + addresses
        )

    # Daemons.

    @staticmethod
    def name(director: Node) -> str:
        return f"{director.name}-sync"

    def start(self, director: Node) -> None:
        if director == DIRECTORS[0] and not self.stand.ipvs[director.name].services():
            self.stand.make_services(director)
        command = [*COMMAND, "sync", "--config", str(self.directory / f"{director.name}.toml")]
        namespace = self.stand.pair.namespace(director.name)
        self.stand.processes.start(self.name(director), command, namespace=namespace)

    def kill(self, director: Node, how: signal.Signals = signal.SIGKILL) -> float:
        return self.stand.processes.kill(self.name(director), how)

    def freeze(self, director: Node) -> float:
        return self.stand.processes.signal(self.name(director), signal.SIGSTOP)

    def thaw(self, director: Node) -> float:
        return self.stand.processes.signal(self.name(director), signal.SIGCONT)

    # What they say.

    def status(self, director: Node) -> dict[str, Any] | None:
        """Its answer to `feedback sync status --json`, or None while it does not answer."""
        with contextlib.suppress(NotRunningError, ControlError):
            return control.ask(self.directory / f"{director.name}-control", {"command": "status"})
        return None

    def wait_until_active(self, director: Node) -> float:
        self.stand.wait_for_owner(director)
        return self.stand.wait_for_services(director)

    def wait_until_standby(self, director: Node) -> float:
        """Until it says that it is complete."""
        return self.stand.wait_for(f"{director.name} is complete", lambda: self.complete(director), READY_SECONDS)

    def complete(self, director: Node) -> bool:
        status = self.status(director)
        return bool(status and status["replica"]["state"] == "complete")

    def hand_over(self) -> float:
        raise LabError("not yet")

    def tell(self) -> None:
        pass
