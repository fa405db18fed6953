"""A director on another kernel: Debian's user-mode kernel as a process of the guest, in the director's namespace.

This module owns that kernel's command line, and the line of JSON by which it is asked. Its interfaces are those of the
namespace, through raw sockets with the same MAC addresses. So it has the same cables and switches, and dies in the same
way, as any director. Its clock is the guest's, so neither runs ahead of the other, however busy the host is. Inside it,
`inside.py` answers. Source: Documentation/virt/uml/user_mode_linux_howto_v2.rst, "Vector".
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import feedback
from feedback.lab import network
from feedback.lab.error import LabError
from feedback.lab.kernel.environment import MODULES
from feedback.lab.kernel.uml import KERNEL
from feedback.lab.kernel.uml import MODULES as MODULES_DIRECTORY
from feedback.lab.pair.topology import HEARTBEATS, Node, Pair, heartbeat_interface
from feedback.lab.process import Processes

INIT = Path(__file__).with_name("foreign.sh")
MEMORY = "256M"
BOOT_SECONDS = 300.0  # seconds of the guest, whose processor may be emulated
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.05


def interfaces() -> tuple[str, ...]:
    """A director's interfaces, in the order in which its kernel gets them."""
    return ("eth0", "eth1", *(heartbeat_interface(link) for link in range(len(HEARTBEATS))))


def unaddressed(pair: Pair, director: Node) -> None:
    """Make the director's namespace carry frames and answer none. Raises LabError."""
    namespace = pair.namespace(director.name)
    up = [f"link set {name} up" for name in interfaces()]
    network.settle(namespace, {"net/ipv6/conf/all/disable_ipv6": "1"}, up)


class Foreign:
    """A director's own kernel. Raises LabError if it does not start."""

    def __init__(self, pair: Pair, director: Node, processes: Processes, output: Path) -> None:
        self.name, self.processes = f"{director.name}-machine", processes
        self.scratch = Path(tempfile.mkdtemp(prefix="machine-"))
        self.lines = b""
        # Opened for reading and writing, so that neither end waits for the other.
        self.ends = []
        for name in ("in", "out"):
            os.mkfifo(self.scratch / name)
            self.ends.append(os.open(self.scratch / name, os.O_RDWR))
        self._write_environment(pair, director, output)
        processes.start(self.name, self._command(pair, director), namespace=pair.namespace(director.name))
        self._answer(BOOT_SECONDS)

    def _write_environment(self, pair: Pair, director: Node, output: Path) -> None:
        values = {
            "PYTHON": sys.executable,
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "ROOT": Path(feedback.__file__).parents[1],
            "MODULES": " ".join(MODULES),
            "MODULES_DIRECTORY": MODULES_DIRECTORY,
            "INTERFACES": " ".join(interfaces()),
            "RUN": pair.run,
            "DIRECTOR": director.name,
            "OUTPUT": output,
        }
        text = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in values.items())
        (self.scratch / "environment").write_text(text, encoding="utf-8")

    def _command(self, pair: Pair, director: Node) -> list[str]:
        addresses = network.addresses_of(pair.namespace(director.name))
        cables = [f"vec{i}:transport=raw,ifname={name},mac={addresses[name]}" for i, name in enumerate(interfaces())]
        kernel = [
            *(KERNEL, f"mem={MEMORY}", "rootfstype=hostfs", "root=/dev/root", "rw", "quiet", "con=null"),
            *("con0=null,fd:1", "ssl0=fd:3,fd:4", f"uml_dir={self.scratch}", f"umid={director.name}", *cables),
            *(f"LAB_ENVIRONMENT={self.scratch}/environment", "init=/bin/sh", "--", str(INIT)),
        ]
        joined = " ".join(map(shlex.quote, kernel))
        return ["sh", "-c", f"exec {joined} 3<{self.scratch}/in 4>{self.scratch}/out"]

    def _call(self, do: str, **arguments: Any) -> Any:
        """Raises LabError."""
        request = json.dumps({"do": do, **arguments}, separators=(",", ":"))
        os.write(self.ends[0], request.encode() + b"\n")
        return self._answer(ANSWER_SECONDS)

    def _answer(self, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while b"\n" not in self.lines:
            if select.select([self.ends[1]], [], [], POLL_SECONDS)[0]:
                self.lines += os.read(self.ends[1], 65536)
                continue
            self.processes.check()
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} has said nothing for {seconds:.0f} s")
        line, _, self.lines = self.lines.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(f"{self.name}: {answer['error']}")
        return answer["result"]

    def table(self) -> dict[str, int]:
        found: dict[str, int] = self._call("table")
        return found

    def make_services(self) -> None:
        self._call("make_services")

    def guard(self, firewall: str) -> None:
        self._call("guard", firewall=firewall)

    def start(self, name: str, command: list[str]) -> None:
        self._call("start", name=name, command=command)

    def signal(self, name: str, how: signal.Signals) -> float:
        moment = time.monotonic()
        self._call("signal", name=name, how=int(how))
        return moment

    def ask(self, socket: Path, request: dict[str, Any]) -> dict[str, Any] | None:
        if not self._alive():
            return None
        found: dict[str, Any] | None = self._call("ask", socket=str(socket), request=request)
        return found

    def clock_ahead(self) -> float:
        """Accurate to half of a question's round trip."""
        if not self._alive():
            return 0.0
        before = time.monotonic()
        there: float = self._call("clock")
        return (before + time.monotonic()) / 2 - there

    def local(self, path: Path) -> Path:
        """A path that only this kernel has: a socket cannot be on the file system that both kernels see."""
        return Path("/run") / path.name

    def _alive(self) -> bool:
        return self.name in self.processes.running and self.processes.running[self.name].poll() is None

    def close(self) -> None:
        for end in self.ends:
            os.close(end)
