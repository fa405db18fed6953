"""Which QEMU a guest runs on: this machine's, or Debian's later one if this machine's cannot run the guest.

QEMU before 8.1 runs the processors of a guest that counts instructions one after the other, and gives each all the time
up to the next timer. A processor that waits for another without a PAUSE instruction then uses up the time that the
other would need. Linux 6.1 waits like this for its second processor when it boots, and never gets further. Source: QEMU
8.1, accel/tcg, "ensure fairness with icount".
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess

from feedback.lab.error import LabError
from feedback.lab.kernel.debian import backported_emulator

PROGRAM = "qemu-system-x86_64"
FAIR_SINCE = (8, 1)


def unavailable() -> str | None:
    """Why there is none, or None."""
    if shutil.which(PROGRAM) is None:
        return f"there is no {PROGRAM} on this machine: apt install qemu-system-x86"
    return None


def program(accelerator: str, processors: int) -> str:
    """Raises LabError where this machine's is too old and Debian has no later one for it."""
    if accelerator == "kvm" or processors == 1 or version(PROGRAM) >= FAIR_SINCE:
        return PROGRAM
    try:
        later = str(backported_emulator())
    except LabError as error:
        raise LabError(f"{_too_old()}; Debian's backports have none for this machine: {error}") from None
    if version(later) < FAIR_SINCE:
        raise LabError(f"{_too_old()}, and so is that of Debian's backports")
    return later


def _too_old() -> str:
    shown = ".".join(map(str, version(PROGRAM)))
    return f"QEMU {shown} is too old for more than one emulated processor: 8.1 is needed, or KVM"


@functools.cache
def version(program: str) -> tuple[int, int]:
    """Raises LabError."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError(f"{program}: {error.strerror}") from None
    if found := re.search(r"version (\d+)\.(\d+)", told.stdout):
        return int(found[1]), int(found[2])
    raise LabError(f"{program} --version ended with {told.returncode}: {(told.stderr or told.stdout).strip()[-500:]}")
