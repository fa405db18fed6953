"""Real servers as cgroups (version 2): a CPU quota each, and inside it the service and its noisy neighbour.

    <run>/rs1        cpu.max: the real server, as a container would be
    <run>/rs1/service      the HTTP server
    <run>/rs1/neighbour    what else shares the quota
    <run>/rs1-agent  the agent, beside the container as a host's daemon is, and outside its quota

Owns the files under the run's directory. Must not know what runs there.
Source: Documentation/admin-guide/cgroup-v2.rst; kernel/sched/fair.c for cpu.max.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from feedback.lab.error import LabError

ROOT = Path("/sys/fs/cgroup")
REMOVE_SECONDS = 20.0


def run_directory(run: str) -> Path:
    return ROOT / run


def make(directory: Path, quota: float | None = None, period_us: int = 100_000) -> Path:
    """Make a cgroup (and its parents), all controllers that we use enabled on the way. Raises LabError."""
    try:
        for parent in reversed(directory.parents):
            if parent.is_relative_to(ROOT):
                parent.mkdir(exist_ok=True)
                (parent / "cgroup.subtree_control").write_text("+cpu +memory", encoding="ascii")
        directory.mkdir(exist_ok=True)
        if quota is not None:
            (directory / "cpu.max").write_text(f"{round(quota * period_us)} {period_us}", encoding="ascii")
    except OSError as error:
        raise LabError(
            f"{error.filename}: {error.strerror}: the lab needs cgroup version 2 with cpu and memory"
        ) from None
    return directory


def join(directory: Path) -> None:
    """Move this process into the cgroup."""
    (directory / "cgroup.procs").write_text("0", encoding="ascii")


def usage_seconds(directory: Path) -> float:
    """CPU time used by all processes that ever ran in the cgroup."""
    text = (directory / "cpu.stat").read_text(encoding="ascii")
    return int(text.split(None, 2)[1]) / 1e6  # "usage_usec N" is the first line


def limit_memory(directory: Path, size: int) -> None:
    """Limit memory to so many bytes, without swap: a process that needs more is killed."""
    (directory / "memory.max").write_text(str(size), encoding="ascii")
    swap = directory / "memory.swap.max"  # absent where the kernel has none
    if swap.exists():
        swap.write_text("0", encoding="ascii")


def oom_kills(directory: Path) -> int:
    lines = (directory / "memory.events").read_text(encoding="ascii").splitlines()
    return int(dict(line.split() for line in lines)["oom_kill"])


def peak_bytes(directory: Path) -> int:
    """The most that was ever used (kernels since 5.19)."""
    return int((directory / "memory.peak").read_text(encoding="ascii"))


def remove_run(run: str) -> None:
    """Remove the run's cgroups, deepest first; their processes must have been killed."""
    top = run_directory(run)
    if not top.is_dir():
        return
    deadline = time.monotonic() + REMOVE_SECONDS
    while top.is_dir() and time.monotonic() < deadline:
        for directory in sorted((p for p in top.rglob("*") if p.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                directory.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()
        time.sleep(0.02)
