"""A Linux kernel with IPVS as an ordinary process: User Mode Linux, from Debian's package user-mode-linux.

Owns the kernel's command line and the file that tells its first process (init.sh) where everything is. Must not know
what the job does. Source: facts measured on linux.uml 6.1.176; arch/um/kernel/um_arch.c for the command line.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import preload, speed
from feedback.lab.kernel.environment import environment
from feedback.lab.kernel.launch import Launch, Processor

WHOLE = 1024  # of the library's parts
INIT = Path(__file__).with_name("init.sh")
MODULES = Path("/usr/lib/uml/modules")

KERNEL = "linux.uml"


class Uml:
    name = "uml"
    patience = 1.0
    own_run_namespace = True  # all that a run makes dies with the guest

    def __init__(self, processor: Processor | None = None) -> None:
        self.processor = processor or Processor()

    @property
    def own_time(self) -> bool:
        library = preload.library()
        return library is not None and preload.gives_time(KERNEL, library)

    def unavailable(self) -> str | None:
        """Why this kernel cannot run here, or None."""
        if shutil.which(KERNEL) is None:
            return "there is no linux.uml on this machine: apt install user-mode-linux"
        if not MODULES.is_dir():
            return f"there is no {MODULES}: apt install --reinstall user-mode-linux"
        return None

    def launch(self, job: Path, output: Path, scratch: Path) -> Launch:
        """Raises LabError."""
        if reason := self.unavailable():
            raise LabError(reason)
        (scratch / "environment").write_text(environment(job, output, scratch, modules=MODULES), encoding="utf-8")
        shutil.copy(INIT, scratch / "init.sh")
        command = [
            KERNEL,
            f"mem={Job.read(job).memory_mb}M",
            "rootfstype=hostfs",
            "root=/dev/root",
            "rw",
            "quiet",
            "con=null",
            "con0=null,fd:1",
            f"uml_dir={scratch}",
            "umid=guest",
            f"LAB_ENVIRONMENT={scratch}/environment",
            "init=/bin/sh",
            "--",
            f"{scratch}/init.sh",
        ]
        library = preload.library()
        if not self.own_time:
            if self.processor != Processor():
                raise LabError(
                    "this guest has no time of its own, so its processor is the host's: apt install gcc libc6-dev, "
                    "and a linux.uml that feedback/lab/kernel/preload knows (6.1)"
                )
            return Launch([*_preloading(library), *command], {}, facts={"own_time": False})
        host_speed = speed.measure()
        settings = {
            "FEEDBACK_LAB_PACE": round(WHOLE * host_speed / self.processor.speed),
            "FEEDBACK_LAB_STOLEN": round(WHOLE * self.processor.stolen),
        }
        facts = {
            "own_time": True,
            "host_speed": round(host_speed, 3),
            "processor_speed": self.processor.speed,
            "processor_stolen": self.processor.stolen,
        }
        own = [f"{name}={value}" for name, value in settings.items()]
        return Launch([*_preloading(library, own), *command], {}, True, facts)


def _preloading(library: Path | None, environment: Sequence[str] = ()) -> list[str]:
    """For the kernel alone: the programs around it keep the host's time."""
    return [] if library is None else ["env", f"LD_PRELOAD={library}", *environment]
