"""A real server's cgroup shown as a whole machine, for programs that know only machines: a directory like /proc.

    python -m feedback.lab.procfs SETTINGS_JSON

One processor, as fast as the cgroup's quota: `stat` says which part of the quota was used, whoever used it, as a
machine's own /proc/stat does of its processor. Pressure is the cgroup's, the network that of whoever reads it, and all
else the guest's. Written anew twenty times a second, since a file that others read can be no pipe.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from feedback.lab import cgroup

SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
OTHERS = ("meminfo", "vmstat", "loadavg", "uptime", "version", "mounts", "self")


class Machine(msgspec.Struct, frozen=True):
    directory: str
    group: str
    quota: float


class Settings(msgspec.Struct, frozen=True):
    machines: tuple[Machine, ...]


def prepare(machine: Machine) -> None:
    """Make the links."""
    directory, group = Path(machine.directory), Path(machine.group)
    directory.mkdir(parents=True, exist_ok=True)
    for name in OTHERS:
        (directory / name).symlink_to(f"/proc/{name}")
    (directory / "net").symlink_to("/proc/self/net")
    if (group / "cpu.pressure").exists():
        (directory / "pressure").mkdir()
        for name in ("cpu", "memory", "io"):
            if (group / f"{name}.pressure").exists():
                (directory / "pressure" / name).symlink_to(group / f"{name}.pressure")


def stat(usage_seconds: float, up_seconds: float, quota: float, booted: int) -> str:
    """The text of /proc/stat on a machine with one processor."""
    used = min(usage_seconds / quota, up_seconds)
    busy, idle = int(used * TICKS), int((up_seconds - used) * TICKS)
    columns = f"{busy} 0 0 {idle} 0 0 0 0 0 0"
    return f"cpu  {columns}\ncpu0 {columns}\nbtime {booted}\nprocs_running 1\nprocs_blocked 0\n"


def show(machine: Machine, booted: int) -> None:
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    text = stat(cgroup.usage_seconds(Path(machine.group)), up, machine.quota, booted)
    new = Path(machine.directory) / "stat.new"
    new.write_text(text, encoding="ascii")
    new.replace(Path(machine.directory) / "stat")


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    booted = int(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
    for machine in settings.machines:
        prepare(machine)
    due = time.monotonic()
    while True:
        for machine in settings.machines:
            show(machine, booted)
        due = max(due + SECONDS, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
