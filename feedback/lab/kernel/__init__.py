"""Kernels to run a job on: the choice between them, and the handle of a running one.

A job is a file (`feedback.lab.job`); the kernel runs `python -m feedback.lab.guest JOB` somewhere that has IPVS, and
its results are files in the job's output directory, which the host reads while they grow. Invariant: however the lab
ends, no process, namespace, cgroup or scratch file of a guest remains (`supervise`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import cores
from feedback.lab.kernel.boot import Watch, the_end_of
from feedback.lab.kernel.launch import Launch, Processor
from feedback.lab.kernel.native import Native
from feedback.lab.kernel.qemu import Qemu
from feedback.lab.kernel.start import compile_package, start, stop
from feedback.lab.kernel.uml import Uml

__all__ = ["Guest", "Kernel", "Processor", "choose"]

# The nice value of a guest that has the host's time: what is measured in milliseconds should not wait for a compiler.
# One with a time of its own lets whoever uses the machine have it.
FIRST = -15

# Files that are appended to.
GROWING = ("events.jsonl", "samples.jsonl", "client.records", "status", "environment.json")


class Kernel(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def own_run_namespace(self) -> bool: ...
    @property
    def patience(self) -> float:
        """Wall seconds that one second of a busy guest may take."""
        ...

    @property
    def own_time(self) -> bool:
        """Whether the time of its guests stands still while the host makes them wait, so that they may run beside
        others."""
        ...

    def unavailable(self) -> str | None: ...
    def launch(self, job: Path, output: Path, scratch: Path) -> Launch: ...


def choose(
    name: str | None = None,
    processor: Processor | None = None,
    *,
    processors: int | None = None,
    accelerator: str | None = None,
) -> Kernel:
    """The kernel called `native`, `uml`, `qemu` or `qemu:NAME`, with NAME as `feedback.lab.kernel.debian.unpacked` has
    it; without a name, a user-mode one, or the host's own. Only a user-mode one has the processor that is asked for.
    Raises LabError with the reason."""
    if processor is not None and processor != Processor():
        if name not in (None, "uml"):
            raise LabError(f"--kernel {name} has the host's processor: only uml can be given another speed or a theft")
        name = "uml"
    if name is not None and name.partition(":")[0] == Qemu.kind:
        return usable(Qemu(name.partition(":")[2] or "newest", processors=processors or 1, accelerator=accelerator))
    if processors or accelerator:
        raise LabError("only a kernel in QEMU has a number of processors and an accelerator: --kernel qemu:newest")
    kernels: dict[str, Kernel] = {"uml": Uml(processor), "native": Native()}
    if name is not None:
        if name not in kernels:
            raise LabError(f"no kernel {name!r}: native, uml, or qemu:NAME with a version, a suite or newest")
        return usable(kernels[name])
    reasons = []
    for kernel in kernels.values():
        reason = kernel.unavailable()
        if reason is None:
            return kernel
        reasons.append(f"{kernel.name}: {reason}")
    raise LabError("no kernel with IPVS to run on: " + "; ".join(reasons))


def usable(kernel: Kernel) -> Kernel:
    """Raises LabError if it cannot be used."""
    if reason := kernel.unavailable():
        raise LabError(reason)
    return kernel


@contextlib.contextmanager
def _core(kernel: Kernel, cpu: int | None) -> Iterator[tuple[str, Sequence[int]]]:
    """The core to stay on, "-" for any, and what holds it: the supervisor keeps that as long as anything lives."""
    if cpu is not None or kernel.name != "uml":
        yield "-" if cpu is None else str(cpu), ()
        return
    core, held = cores.take()
    try:
        yield str(core), (held,)
    finally:
        os.close(held)


class Guest:
    """A running job. Use as a context manager: leaving it stops the guest and all that belongs to it."""

    def __init__(self, kernel: Kernel, job: Job, cpu: int | None = None) -> None:
        """Raises LabError. With `cpu` the guest stays on that core; else a user-mode one is given one (cores.py)."""
        self.job = job
        self.output = Path(job.output)
        self.output.mkdir(parents=True, exist_ok=True)
        for stale in ("done", "failure", *GROWING):  # a run before this one must not be taken for part of it
            (self.output / stale).unlink(missing_ok=True)
        path = self.output / "job.json"
        path.write_bytes(job.encode())
        compile_package()
        with _core(kernel, cpu) as (core, held):
            self._start(kernel, path, core, held)

    def _start(self, kernel: Kernel, path: Path, core: str, held: Sequence[int]) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="feedback-lab-"))
        try:
            launch = kernel.launch(path, self.output, scratch)
        except LabError:
            shutil.rmtree(scratch)
            raise
        self.own_time, self.facts = launch.own_time, launch.facts
        run = "-" if kernel.own_run_namespace else self.job.run
        self.console = self.output / "console.log"
        self.process = start(
            launch.command,
            self.console,
            scratch,
            environment=launch.environment,
            run=run,
            core=core,
            nice=0 if launch.own_time else FIRST,
            held=held,
        )
        self.boot = Watch(launch.boot, self.process.pid, self.console) if launch.boot else None
        self.trouble = ""

    def running(self) -> bool:
        """A guest that does not come up is stopped here."""
        if self.process.poll() is not None:
            return False
        if self.boot and (trouble := self.boot.trouble()):
            self.trouble = trouble
            self.stop()
            return False
        return True

    def wait(self, timeout_seconds: float) -> None:
        """Raises LabError when the job has failed or has not ended in time."""
        deadline = time.monotonic() + timeout_seconds
        while self.running():
            if time.monotonic() > deadline:
                self.stop()
                raise LabError(f"the guest has not ended in {timeout_seconds:.0f} s{the_end_of(self.console)}")
            time.sleep(0.05)
        self.check()

    def check(self) -> None:
        """After its end: raises LabError unless the job said that it is done."""
        if (self.output / "done").exists():
            return
        if self.trouble:
            raise LabError(self.trouble)
        failure = self.output / "failure"
        if failure.exists():
            raise LabError(f"{self.job.variant or self.job.task}: {failure.read_text(encoding='utf-8').strip()}")
        raise LabError(f"the guest ended before its job{the_end_of(self.console)}")

    def seconds(self) -> float:
        """How long the job took, by the guest's own clock. After its end as it should."""
        return float((self.output / "done").read_text(encoding="ascii"))

    def stop(self) -> None:
        stop(self.process)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
