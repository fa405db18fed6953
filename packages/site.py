"""A directory with everything that Python must import: ours, and the libraries from PyPI. What a package carries.

    python -m packages.site agent DIRECTORY [--python 3.9]
    python -m packages.site whole DIRECTORY [--python 3.11]

Without --python for the interpreter that runs this. For another one pip takes wheels that fit Linux on this processor
and a glibc that is old enough for every distribution with that Python.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packages import agent

# Newest first: what a wheel may ask of glibc (2.28 is Debian 10's and RHEL 8's).
GLIBC = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
QUIET = ("--quiet", "--disable-pip-version-check")


def make(which: str, target: Path, python: str | None = None) -> None:
    """`which`: agent or whole. Raises CalledProcessError, with pip's own words on standard error."""
    target.mkdir(parents=True, exist_ok=True)
    if which == "agent":
        agent.copy(target)
        install(agent.requirements(python), target, foreign(python))
    else:
        with tempfile.TemporaryDirectory() as wheels:
            pip("wheel", *QUIET, "--no-deps", "--wheel-dir", wheels, str(agent.ROOT))
            (wheel,) = Path(wheels).glob("*.whl")
            install([f"{wheel}[director]"], target, foreign(python))
    tidy(target)


def install(requirements: list[str], target: Path, options: Iterable[str]) -> None:
    chosen = (*QUIET, "--no-compile", "--only-binary", ":all:", "--target", str(target), *options)
    pip("install", *chosen, *requirements)


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)


def foreign(python: str | None) -> list[str]:
    """pip's options for an interpreter that is not here."""
    if python is None or tuple(map(int, python.split("."))) == sys.version_info[:2]:
        return []
    abi = "cp" + python.replace(".", "")
    platforms = [f"--platform={glibc}_{platform.machine()}" for glibc in GLIBC]
    return [f"--python-version={python}", "--implementation=cp", f"--abi={abi}", "--abi=abi3", "--abi=none", *platforms]


def tidy(target: Path) -> None:
    """No commands of the libraries, nothing that was compiled here, and not where all this was made."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    for path in [*target.rglob("__pycache__"), *target.glob("*.dist-info/direct_url.json")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["agent", "whole"])
    parser.add_argument("target", type=Path, metavar="DIRECTORY")
    parser.add_argument("--python", metavar="X.Y")
    arguments = parser.parse_args()
    make(arguments.which, arguments.target, arguments.python)
