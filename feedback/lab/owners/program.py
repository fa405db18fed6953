"""keepalived's checkers or ldirectord on the stand's director, as operators run them: configuration, reload, crash,
log.

Owns their files and what their logs say that they wrote. Must not know what a scenario shows. Source:
keepalived.conf(5) of 2.2.7, ldirectord(8) of 4.12.0, and their sources for the words of the logs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from feedback.lab.error import LabError
from feedback.lab.stand import DIRECTOR, Stand
from feedback.lab.topology import Topology

READY_SECONDS = 60.0
PORT = r"\[?(?P<address>[0-9.]+)\]?:(?:tcp:)?\d+"


class Written(msgspec.Struct, frozen=True):
    """What an owner says that it wrote: the weight, None for a removal; -1 where its log does not tell."""

    address: str
    weight: int | None


def logged_at(line: str) -> float | None:
    """When a line of a log was written, seconds since 1970: both programs write as ctime does."""
    found = re.search(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", line)
    return time.mktime(time.strptime(found[0])) if found else None


class Program(Protocol):
    name: str

    def configuration(self, topology: Topology, weights: Sequence[int], inhibited: Sequence[str]) -> str: ...

    def command(self, directory: Path) -> list[str]: ...

    def written(self, line: str, weights: Mapping[str, int]) -> Written | None:
        """What a line of its log says; `weights` are those of its configuration."""


class Keepalived:
    """Its health checkers alone, without VRRP. One that is `inhibited` gets weight 0 when it fails, the others are
    removed: both of its ways."""

    name = "keepalived"
    _moved = re.compile(rf"(?P<verb>Add|Remov|Enabl|Disabl)ing service {PORT} (?:to|from|of) VS")
    _weight = re.compile(rf"Changing weight from \d+ to (?P<weight>\d+) for \w*active service {PORT}")

    def configuration(self, topology: Topology, weights: Sequence[int], inhibited: Sequence[str]) -> str:
        reals = "".join(
            f"    real_server {server.address} {topology.port} {{\n"
            f"        weight {weight}\n"
            + ("        inhibit_on_failure\n" if server.name in inhibited else "")
            + "        TCP_CHECK {\n            connect_timeout 1\n        }\n    }\n"
            for server, weight in zip(topology.servers, weights, strict=True)
        )
        return (
            "global_defs {\n    router_id d1\n}\n"
            f"virtual_server {topology.vip} {topology.port} {{\n    delay_loop 1\n    lb_algo wlc\n    lb_kind DR\n"
            f"    protocol TCP\n{reals}}}\n"
        )

    def command(self, directory: Path) -> list[str]:
        for name in ("k.pid", "c.pid"):
            (directory / name).unlink(missing_ok=True)
        pids = ["-p", str(directory / "k.pid"), "-c", str(directory / "c.pid")]
        return ["keepalived", "-C", "-n", "-l", "-D", "-G", *pids, "-f", str(directory / "owner.conf")]

    def written(self, line: str, weights: Mapping[str, int]) -> Written | None:
        if found := self._weight.search(line):
            return Written(found["address"], int(found["weight"]))
        if found := self._moved.search(line):
            gone: dict[str, int | None] = {"Remov": None, "Disabl": 0}
            return Written(found["address"], gone.get(found["verb"], weights[found["address"]]))
        return None


class Ldirectord:
    """With quiescent=yes, its default: a server that fails gets weight 0."""

    name = "ldirectord"
    _gone = re.compile(rf"(?P<verb>Quiescent|Deleted) real server: {PORT}")
    _there = re.compile(rf"(?:Restored|Added) real server: {PORT} .*\(Weight set to (?P<weight>\d+)\)")

    def configuration(self, topology: Topology, weights: Sequence[int], inhibited: Sequence[str]) -> str:
        reals = "".join(
            f"\treal={server.address}:{topology.port} gate {weight}\n"
            for server, weight in zip(topology.servers, weights, strict=True)
        )
        return (
            "checktimeout=2\ncheckinterval=1\nautoreload=no\nquiescent=yes\nsupervised=yes\n"
            f"virtual={topology.vip}:{topology.port}\n{reals}\tscheduler=wlc\n\tprotocol=tcp\n\tchecktype=connect\n"
        )

    def command(self, directory: Path) -> list[str]:
        program = shutil.which("ldirectord", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise LabError("there is no ldirectord on this machine: apt install ldirectord")
        # Its log is standard output, which Perl keeps back when it is a file.
        return ["perl", "-e", "$| = 1; $0 = shift; do $0", program, str(directory / "owner.conf"), "start"]

    def written(self, line: str, weights: Mapping[str, int]) -> Written | None:
        if found := self._gone.search(line):
            return Written(found["address"], 0 if found["verb"] == "Quiescent" else None)
        if found := self._there.search(line):
            return Written(found["address"], int(found["weight"]))
        return None


PROGRAMS: Mapping[str, Keepalived | Ldirectord] = {"keepalived": Keepalived(), "ldirectord": Ldirectord()}


class Owner:
    """One of the programs on the stand. Raises LabError if it does not come up."""

    def __init__(self, stand: Stand, name: str, weights: Sequence[int], inhibited: Sequence[str]) -> None:
        self.stand, self.program, self.inhibited = stand, PROGRAMS[name], inhibited
        self.directory = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.configure(weights)

    def configure(self, weights: Sequence[int]) -> None:
        """Takes effect at the next reload or start."""
        text = self.program.configuration(self.stand.topology, weights, self.inhibited)
        (self.directory / "owner.conf").write_text(text, encoding="utf-8")

    def start(self) -> None:
        namespace = self.stand.topology.namespace(DIRECTOR)
        self.stand.processes.start(self.program.name, self.program.command(self.directory), namespace=namespace)

    def wait_until_serving(self, weight: int) -> None:
        """Wait until each server is in the kernel's table with this weight, for a second: at its start ldirectord puts
        them in, takes them out and puts them in again. Raises LabError."""
        deadline, since = time.monotonic() + READY_SECONDS, time.monotonic()
        while time.monotonic() - since < 1.0:
            self.stand.processes.check()
            entries = self.stand.ipvs.destinations(self.stand.service)
            if [e.destination.weight for e in entries] != [weight] * len(self.stand.topology.servers):
                since = time.monotonic()
            if time.monotonic() > deadline:
                raise LabError(f"{self.program.name} has not made its service in {READY_SECONDS:.0f} s: {entries}")
            time.sleep(0.05)

    def reload(self) -> float:
        return self.stand.processes.signal(self.program.name, signal.SIGHUP)

    def crash(self) -> float:
        """SIGKILL to all of its processes at once: if keepalived's parent dies alone, its children clear the table."""
        parent = self.stand.processes.running[self.program.name].pid
        family = [*_children(parent), parent]
        for what in (signal.SIGSTOP, signal.SIGKILL):
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, what)
        return self.stand.processes.kill(self.program.name)


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
            if int(fields[1]) == parent:
                found.append(int(path.parent.name))
    return found
