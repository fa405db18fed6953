"""The process between the lab and a guest: it outlives the lab by a moment, to leave nothing behind.

    python -m feedback.lab.kernel.supervise SCRATCH RUN CPU NICE -- COMMAND...

Owns the guest's processes, the scratch directory and, natively, the run's namespaces and cgroups. It must know nothing
of scenarios. Invariant: when it ends, none of these is left, and it ends when the command does, on SIGTERM, or when
its standard input closes, which the kernel does for us even when the lab is killed with SIGKILL.

A user-mode kernel is several processes of the host (one for each address space, and helpers that survive its death):
hence a session of its own, killed as a group, and a subreaper that waits until the last one is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from feedback.ops.process import adopt_orphans, come_first, die_with_parent


def main(arguments: list[str]) -> int:
    scratch, run, cpu, nice, _dashes, *command = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the lab, which closes our input
    adopt_orphans()
    if cpu != "-":
        os.sched_setaffinity(0, {int(cpu)})

    def begin() -> None:
        die_with_parent()
        if int(nice):
            come_first(int(nice))

    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=begin)
    try:
        return _watch(child)
    finally:
        _kill_all(child.pid)
        _clean(Path(scratch), run)


def _watch(child: subprocess.Popen[bytes]) -> int:
    """Wait until the child ends or the parent is gone. Returns the exit status."""
    stop_reading, stop_writing = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.close(stop_writing))
    ended = os.pidfd_open(child.pid)
    poll = select.poll()
    for descriptor in (0, stop_reading, ended):
        poll.register(descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll()}
    if ended in ready:
        return child.wait()
    return 128 + signal.SIGTERM


def _kill_all(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]


def _clean(scratch: Path, run: str) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    if run == "-":
        return
    from feedback.lab import cgroup, network

    network.remove_run(run)
    cgroup.remove_run(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
