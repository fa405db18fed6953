"""For a guest whose writes to the host would take time: copies growing files in OUTPUT to the host.

    python -m feedback.lab.kernel.ship FROM TO

A guest's process that waits for the host would wait for long in the guest's time, which does not stand still for it.
So the job writes to memory, and this process, for which nobody waits, copies until it is killed. What it has not
carried by then, init.sh does.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from pathlib import Path

LOOK_SECONDS = 0.25


class Shipment:
    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        self.carried: dict[Path, tuple[int, int]] = {}  # inode and bytes

    def carry(self) -> None:
        """Copy what is new. A file that was replaced or truncated is copied again."""
        for path in sorted(self.source.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                self._carry(path)

    def _carry(self, path: Path) -> None:
        target = self.target / path.relative_to(self.source)
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return
        if path.is_dir():
            target.mkdir(exist_ok=True)
            return
        found = path.stat()
        inode, done = self.carried.get(path, (found.st_ino, 0))
        if inode != found.st_ino or done > found.st_size:
            done = 0
        if done == found.st_size and path in self.carried and inode == found.st_ino:
            return
        with path.open("rb") as source, target.open("ab" if done else "wb") as copy:
            source.seek(done)
            shutil.copyfileobj(source, copy)
            self.carried[path] = found.st_ino, source.tell()


def main(source: str, target: str) -> None:
    shipment = Shipment(Path(source), Path(target))
    while True:
        time.sleep(LOOK_SECONDS)
        shipment.carry()


if __name__ == "__main__":
    main(*sys.argv[1:])
