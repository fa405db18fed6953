"""Checkout: run a script of this repository on the `feedback` package of another checkout (a git worktree of it).

The script and what it imports of bench and tests are this checkout's; `feedback`, and the laws that its pyproject.toml
registers, are the other one's. Libraries are those of this interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


class Checkout:
    """See `opened`."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root = root
        (directory / "feedback").symlink_to(root / "feedback", target_is_directory=True)
        with (root / "pyproject.toml").open("rb") as file:
            points = tomllib.load(file)["project"]["entry-points"]
        metadata = directory / "lvs_feedback-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lvs-feedback\nVersion: 0\n")
        (metadata / "entry_points.txt").write_text(
            "".join(
                f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()
            )
        )
        self.environment = os.environ | {"PYTHONPATH": f"{directory}{os.pathsep}{HERE}"}

    def start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """`python -m module`, its standard output to be read."""
        command = [sys.executable, "-P", "-m", module, *arguments]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, cwd=HERE)

    def run(self, module: str, *arguments: str) -> bytes:
        """Raises CalledProcessError."""
        process = self.start(module, *arguments)
        output, _ = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, module, output)
        return output


@contextmanager
def opened(root: Path) -> Iterator[Checkout]:
    """The checkout at `root`. Raises OSError where there is none."""
    with tempfile.TemporaryDirectory(prefix="feedback-checkout-") as directory:
        yield Checkout(root.resolve(strict=True), Path(directory))
