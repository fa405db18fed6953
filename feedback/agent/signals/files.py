"""Kernel files, kept open and read from the beginning, and parsers of their few formats.

Opening costs several times what reading does, and an agent reads fifty files a second: a file is opened once. The
descriptor of a cgroup that was removed reads ENODEV for ever, so a failed read opens the path once more: the unit
behind it may have been restarted.

Source: Linux fs/seq_file.c (a read at offset 0 makes the text anew), kernel/cgroup/cgroup.c.
"""

from __future__ import annotations

import os
from pathlib import Path

_CHUNK = 16 * 1024


class SignalError(RuntimeError):
    """A source that must be there cannot be read: the path and why."""


class SourceFile:
    """A file read again and again. Raises SignalError where it cannot be."""

    __slots__ = ("_descriptor", "_size", "path", "reopened")

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self.path = path
        self.reopened = 0  # how often the file behind the path was replaced: counters began anew
        self._size = _CHUNK
        self._descriptor = self._open()

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SignalError(f"{self.path}: {error.strerror}") from None

    def read(self) -> bytes:
        try:
            return self._pread()
        except OSError:  # also where there is no descriptor
            self.close()
            self._descriptor = self._open()
            self.reopened += 1
        try:
            return self._pread()
        except OSError as error:
            self.close()
            raise SignalError(f"{self.path}: {error.strerror}") from None

    def _pread(self) -> bytes:
        # One read tells a consistent state; a second one at an offset may tell another. So: one, large enough.
        while len(data := os.pread(self._descriptor, self._size, 0)) == self._size:
            self._size *= 4
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def open_if_present(path: Path) -> SourceFile | None:
    """None where this kernel has no such file, or none that can be read."""
    try:
        file = SourceFile(path)
        file.read()
    except SignalError:
        return None
    return file


def keyed(data: bytes, key: bytes) -> int | None:
    """`key value` at the beginning of a line, as in cpu.stat, memory.stat and vmstat. None if absent."""
    if data.startswith(key + b" "):
        start = len(key) + 1
    else:
        found = data.find(b"\n" + key + b" ")
        if found < 0:
            return None
        start = found + len(key) + 2
    end = data.find(b"\n", start)
    return int(data[start : end if end >= 0 else None])


def limit(data: bytes) -> int | None:
    """A cgroup limit: a number, or `max` for none."""
    text = data.strip()
    return None if text == b"max" else int(text)


def count_of_ranges(data: bytes) -> int:
    """How many are in `0-3,8`: a cpuset."""
    total = 0
    for part in filter(None, data.strip().split(b",")):
        first, _, last = part.partition(b"-")
        total += int(last or first) - int(first) + 1
    return total


def levels(cgroup: Path) -> list[Path]:
    """The cgroup and all above it. In a container's namespace the topmost is the container, with its limits."""
    here = cgroup.resolve()
    found = [here]
    while (here.parent / "cgroup.procs").exists():
        here = here.parent
        found.append(here)
    return found


def topmost(path: Path) -> Path:
    """The root of the cgroups above a path that may not be there yet. Raises SignalError where there is none."""
    nearest = next((parent for parent in path.resolve().parents if (parent / "cgroup.procs").exists()), None)
    if nearest is None:
        raise SignalError(f"{path}: no cgroup v2 directory lies above it")
    return levels(nearest)[-1]
