"""Processes of a run: started in a namespace and a cgroup, logged to a file, all killed at the end.

Must not know what they are. They die with the job (PR_SET_PDEATHSIG), so that a failed job leaves none.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from feedback.lab import cgroup, network
from feedback.lab.error import LabError
from feedback.ops.process import die_with_parent

STOP_SECONDS = 20.0
CATCH_SECONDS = 60.0  # a server with a twentieth of a core takes seconds from its start to its handlers
UNCATCHABLE = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT)


class Processes:
    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.mortal: dict[str, Callable[[int], None]] = {}

    def start(
        self, name: str, command: list[str], *, namespace: str | None = None, group: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """The child enters its cgroup and namespace itself, between fork and exec: no wrapper process remains."""

        def enter() -> None:
            die_with_parent()
            if group is not None:
                cgroup.join(group)
            if namespace is not None:
                network.enter(namespace)

        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=enter)
        self.running[name] = process
        return process

    def may_die(self, name: str, then: Callable[[int], None]) -> None:
        """Its end is part of what is shown: `then` is called with the status, and may start it again."""
        self.mortal[name] = then

    def check(self) -> None:
        """Raises LabError if a process has ended by itself that should not have."""
        for name, process in list(self.running.items()):
            if process.poll() is None:
                continue
            if name not in self.mortal:
                raise LabError(f"{name} ended with {process.returncode}: {self._last_words(name)}")
            del self.running[name]
            self.mortal[name](process.returncode)

    def wait(self, name: str, timeout_seconds: float) -> None:
        """Wait until the named process has ended well. Raises LabError."""
        process = self.running.pop(name)
        try:
            status = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise LabError(f"{name} has not ended in {timeout_seconds:.0f} s: {self._last_words(name)}") from None
        if status:
            raise LabError(f"{name} ended with {status}: {self._last_words(name)}")

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> float:
        """Returns the moment of the signal, seconds of CLOCK_MONOTONIC."""
        process = self.running.pop(name)
        moment = time.monotonic()
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return moment

    def signal(self, name: str, what: signal.Signals) -> float:
        """Returns the moment of the signal, seconds of CLOCK_MONOTONIC. One that a process handles is sent once it
        does: before, it would end the process, or be lost. Raises LabError."""
        process = self.running[name]
        deadline = time.monotonic() + CATCH_SECONDS
        while not _handles(process.pid, what):
            self.check()
            if time.monotonic() > deadline:
                raise LabError(f"{name} does not handle {what.name} after {CATCH_SECONDS:.0f} s")
            time.sleep(0.01)
        moment = time.monotonic()
        process.send_signal(what)
        return moment

    def stop_all(self) -> None:
        for process in self.running.values():
            process.terminate()
        for name in list(self.running):
            self.kill(name, signal.SIGTERM)

    def _last_words(self, name: str) -> str:
        text = (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip()
        return "\n".join(text.splitlines()[-20:]) or "(it said nothing)"


def _handles(pid: int, what: signal.Signals) -> bool:
    """Whether the process handles the signal: by a handler, or blocked for signalfd, as keepalived does. False if it
    cannot be known."""
    if what in UNCATCHABLE:
        return True
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigBlk:"))]
    return any(mask >> (what - 1) & 1 for mask in masks)
