"""The host's own kernel, if it has IPVS and we are root: the same job directly on the host, in namespaces.

Must not touch anything outside its own namespaces and its own cgroup: the host may be somebody's director.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.kernel.launch import Launch

IPVS_TABLE = Path("/proc/net/ip_vs")


class Native:
    name = "native"
    patience = 1.0
    own_run_namespace = False
    own_time = False

    def unavailable(self) -> str | None:
        """Why this kernel cannot run here, or None."""
        if os.geteuid() != 0:
            return "the native kernel needs root: run as root, or use --kernel uml"
        if not IPVS_TABLE.exists() and not _load():
            return "this kernel has no IPVS (modprobe ip_vs fails): use --kernel uml"
        return None

    def launch(self, job: Path, output: Path, scratch: Path) -> Launch:
        """Raises LabError."""
        if reason := self.unavailable():
            raise LabError(reason)
        # What the job leaves in temporary directories goes with the scratch directory, however it ends.
        return Launch([sys.executable, "-m", "feedback.lab.guest", str(job)], {"TMPDIR": str(scratch)})


def _load() -> bool:
    if shutil.which("modprobe") is None:
        return False
    return subprocess.run(["modprobe", "ip_vs"], capture_output=True, check=False).returncode == 0
