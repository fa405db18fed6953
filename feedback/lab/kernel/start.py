"""How a guest is started: under its supervisor, with its console in a file.

Must not know what runs in it. Invariant: closing the process's standard input ends the guest and all that is its own.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import feedback

STOP_SECONDS = 10.0


def compile_package() -> None:
    """Our modules become bytecode, like those of an installed package. A guest sees these files read-only: each of its
    processes would compile them anew, and a daemon's start take 1.7 times as long."""
    compileall.compile_dir(Path(feedback.__file__).parent, quiet=2)


def start(
    command: Sequence[str],
    console: Path,
    scratch: Path,
    *,
    environment: Mapping[str, str] | None = None,
    run: str = "-",
    core: str = "-",
    nice: int = 0,
    held: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """`scratch` goes with the guest, and so do the namespaces and cgroups of `run`; "-": none, and any core. With a
    `nice` below zero it goes before others, as far as this user may ask for that. `held` are descriptors that live as
    long as anything of it does."""
    with console.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "feedback.lab.kernel.supervise", str(scratch), run, core, str(nice), "--", *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            env={**os.environ, **(environment or {})},
            cwd=Path(feedback.__file__).parents[1],
            start_new_session=True,
            pass_fds=held,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:  # its supervisor hangs; what it held dies with it
        process.kill()
        process.wait()
