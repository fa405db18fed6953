"""Tape: the file of a recording. It has whole lines only, however it ends, and is compressed if its name ends in .gz.

Lines are gathered and written together. A batch that cannot be written whole (a full disk) is removed again, so the
file can always be read. A compressed file is a chain of whole gzip members, one for each batch, for the same reason.
Invariant: the file never has more than `bytes_max`, nor a part of a batch.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

BATCH_BYTES = 256 * 1024
LEVEL = 6


class FullError(Exception):
    """No more can be written; what exists is whole. Says why."""


class Tape:
    """A new file. Raises OSError if it cannot be made, FileExistsError if it exists."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._file = path.open("xb", buffering=0)
        self._packed = path.suffix == ".gz"
        self._bytes_max = bytes_max
        self._lines: list[bytes] = []
        self._gathered = 0
        self.written = 0  # bytes in the file

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(FullError):
            self.flush()
        self._file.close()

    def put(self, line: bytes) -> None:
        """Raises FullError."""
        self._lines.append(line)
        self._gathered += len(line)
        if self._gathered >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Raises FullError."""
        data = b"".join(self._lines)
        self._lines.clear()
        self._gathered = 0
        if not data:
            return
        whole = gzip.compress(data, LEVEL, mtime=0) if self._packed else data
        room = self._bytes_max - self.written
        if len(whole) > room:
            if not self._packed:
                self._put_down(data[: data.rfind(b"\n", 0, room) + 1])
            raise FullError(f"it would be larger than {self._bytes_max / 1e6:g} MB")
        self._put_down(whole)

    def _put_down(self, data: bytes) -> None:
        try:
            self._write(data)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self.written)
                self._file.seek(self.written)
            raise FullError(error.strerror or str(error)) from None
        self.written += len(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a recording, compressed or not, without a last line that its writer did not finish. Raises
    OSError."""
    some = False
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                some = True
                yield line
    except (EOFError, gzip.BadGzipFile):
        if not some:
            raise OSError(None, "there is no whole line in it") from None
