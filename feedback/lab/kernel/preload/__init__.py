"""The library that gives the user-mode kernel its own time and all registers: where it is, and how it is built.

Owns the cache of the compiled library. Must not know of guests. clock.c and registers.c say what it does.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from feedback.lab.error import LabError

SOURCES = tuple(Path(__file__).with_name(name) for name in ("clock.c", "image.c", "registers.c"))
HEADER = Path(__file__).with_name("preload.h")


def indispensable(cpuinfo: str | None = None) -> bool:
    """True where the guest cannot even start without it: the processor has AMX, the only extension so far whose state
    does not fit the kernel's buffer (Intel SDM volume 1, 13.5.14: 8192 bytes). Elsewhere its clock is merely coarse."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if cpuinfo is None else cpuinfo
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "amx_tile" in flags.split()


def library() -> Path | None:
    """The compiled library, built at its first use; None where there is no compiler and none is indispensable.
    Raises LabError."""
    source = b"".join(path.read_bytes() for path in (*SOURCES, HEADER))
    target = cache() / f"preload-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if target.exists():
        return target
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        if not indispensable():
            return None
        raise LabError(
            "this processor has AMX, for which the user-mode kernel needs a small C library, and there is no C "
            "compiler: apt install gcc libc6-dev"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _compile(compiler, target)
    except OSError as error:
        raise LabError(
            f"{target}: cannot be made: {error.strerror}: set XDG_CACHE_HOME to a directory of yours"
        ) from None
    return target


@functools.cache
def gives_time(kernel: str, made: Path) -> bool:
    """Whether the library can give this kernel's guests a time of their own: it knows the code that it replaces."""
    probe = {**os.environ, "LD_PRELOAD": str(made), "FEEDBACK_LAB_PROBE": "1"}
    done = subprocess.run([kernel, "--version"], env=probe, capture_output=True, check=False)
    return done.stdout == b"own time\n"


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "lvs-feedback"


def _compile(compiler: str, target: Path) -> None:
    # Two runs may compile at once: each into a file of its own, and the rename decides.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / target.name
        # General registers only: the kernel's own code does not save the others when it calls its clock.
        options = ["-O2", "-Wall", "-shared", "-fPIC", "-mgeneral-regs-only"]
        command = [compiler, *options, "-o", str(made), *map(str, SOURCES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"{SOURCES[0].parent} does not compile: {done.stderr.strip()}: apt install gcc libc6-dev")
        made.replace(target)
