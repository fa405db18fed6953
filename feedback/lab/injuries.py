"""Faults that can be injected and undone: bad links, a full disk, no descriptors, a changed clock.

Each is an object whose `close` undoes what is still in force. Must not know what a scenario expects. Source:
tc-netem(8), tc-prio(8), tc-flower(8), prlimit(2), clock_settime(2).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import resource
import subprocess
import time
from pathlib import Path

from feedback.lab import network
from feedback.lab.error import LabError


class BadLink:
    """What goes out of an interface of a namespace, hurt by netem. With a `match` (flower's, as `dst_port 7433`) only
    that TCP traffic is hurt: netem is in the third band of a prio qdisc whose own map sends everything to the first."""

    def __init__(self, namespace: str, match: str = "", interface: str = "eth0") -> None:
        self.namespace = namespace
        self._match = match
        self._interface = interface
        self._hurt = False

    def hurt(self, netem: str) -> None:
        """`netem` as tc-netem(8) has it, `loss 20%`. Raises LabError."""
        self._hurt = True
        dev = f"dev {self._interface}"
        lines = [f"qdisc add {dev} root handle 30: netem {netem}"]
        if self._match:
            flower = f"flower ip_proto tcp {self._match} classid 1:3"
            lines = [
                f"qdisc add {dev} root handle 1: prio bands 3 priomap {'0 ' * 16}",
                f"qdisc add {dev} parent 1:3 handle 30: netem {netem}",
                f"filter add {dev} parent 1: protocol ip prio 1 {flower}",
            ]
        for line in lines:
            network.run_tc(self.namespace, line)

    def packets(self) -> tuple[int, int]:
        """How many packets it has let pass, and how many it has dropped. Raises LabError."""
        command = ["tc", "-n", self.namespace, "-s", "-j", "qdisc", "show", "dev", self._interface]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        for qdisc in json.loads(done.stdout or "[]"):
            if qdisc["kind"] == "netem":
                return int(qdisc["packets"]), int(qdisc["drops"])
        raise LabError(f"{self.namespace}: {self._interface} has no netem: {done.stderr.strip()}")

    def mend(self) -> None:
        if self._hurt:
            network.run_tc(self.namespace, f"qdisc del dev {self._interface} root")
            self._hurt = False

    close = mend


class SmallDisk:
    """A file system of its own under a directory, small enough to be filled."""

    def __init__(self, directory: Path, kilobytes: int = 64) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self._filler = directory / "filler"
        _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(directory))

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.directory)], check=False, capture_output=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"mount: {done.stderr.strip()}")


class Descriptors:
    """A process that cannot open anything more. What it has open stays open."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def exhaust(self) -> None:
        """The limit is the first number that is free: what is closed below it can be used again, as in life."""
        used = {int(path.name) for path in Path(f"/proc/{self._pid}/fd").iterdir()}
        free = next(number for number in itertools.count() if number not in used)
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (free, self._before[1]))

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(self._pid, resource.RLIMIT_NOFILE, self._before)


class WallClock:
    """The clock of the whole machine, since CLOCK_REALTIME has no namespaces. So only in a guest, which is ours."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    @staticmethod
    def ours() -> bool:
        return "User Mode Linux" in Path("/proc/cpuinfo").read_text(encoding="utf-8")

    def step(self, seconds: float) -> None:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

    def close(self) -> None:
        if self.ours():
            time.clock_settime(time.CLOCK_REALTIME, time.monotonic() + self._offset)


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
