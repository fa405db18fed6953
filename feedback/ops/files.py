"""Files in directories of another user: `/etc/feedback/agents` belongs to the daemons, and root's commands work there.

The owner of a directory can replace a name by a link, a pipe or another file at any moment. So nothing here acts on
names: open files are checked, written and given a mode, and a link is never followed. Invariant: no file outside of the
directory is read, made or changed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

BYTES_MAX = 64 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # nor wait for the writer of a pipe
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK = "it is a link: put the file itself there"


class LinkError(OSError):
    """A link where a file of one's own is expected."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the file itself. Raises OSError; LinkError where it is a link."""
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if path.is_symlink():
            raise LinkError(error.errno, _LINK, str(path)) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "it is no file", str(path))
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: Path, bytes_max: int = BYTES_MAX) -> str:
    """Raises OSError, also where it is longer, and UnicodeDecodeError."""
    with opened(path) as descriptor, os.fdopen(descriptor, "rb", closefd=False) as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise OSError(None, f"it is longer than {bytes_max} bytes", str(path))
    return data.decode("utf-8")


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Whole or not at all, in place of what is there. Raises OSError."""
    with _directory(path) as directory:
        new = f".{path.name}.{os.urandom(8).hex()}"
        descriptor = os.open(new, _MAKE, mode, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, mode)  # whatever the umask
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.rename(new, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=directory)
            raise


def claim(path: Path) -> Path:
    """Take a file away from its name, so that nobody else finds it: where it is now. Raises OSError."""
    private = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    with _directory(path) as directory:
        os.rename(path.name, private.name, src_dir_fd=directory, dst_dir_fd=directory)
    return private


def put_back(private: Path, path: Path) -> None:
    """Undo a claim, unless the name is taken by now. Never raises."""
    with contextlib.suppress(OSError):
        os.link(private, path, follow_symlinks=False)
    discard(private)


def discard(private: Path) -> None:
    """Remove a claimed file that is no longer needed. Never raises: nobody reads a file of that name."""
    with contextlib.suppress(OSError):
        private.unlink()


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
