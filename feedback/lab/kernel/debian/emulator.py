"""The QEMU of Debian's backports for the release that this machine runs, unpacked in the cache.

Only what a PC needs whose devices are virtio's and a serial line. Its libraries are those of the release, which the
release's own QEMU has brought. Invariant: as of the kernels, a directory in the cache is whole.
"""

from __future__ import annotations

import contextlib
import platform
import tempfile
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.kernel.debian.archive import Archive
from feedback.lab.kernel.debian.cached import files_of
from feedback.lab.kernel.preload import cache

PACKAGE, DATA = "qemu-system-x86", "qemu-system-data"
PROGRAM = "usr/bin/qemu-system-x86_64"
FIRMWARE = "usr/share/qemu/"


def backported_emulator() -> Path:
    """Its program. Raises LabError."""
    try:
        release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        release = ""
    if not release:
        raise LabError("/etc/os-release has no VERSION_CODENAME: is this Debian?")
    home = cache() / "emulators"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (found := sorted(home.glob(f"{release}-*/{PROGRAM}"))):
            _bring(home, release)
            found = sorted(home.glob(f"{release}-*/{PROGRAM}"))
    except OSError as error:
        raise LabError(f"{home}: {error.strerror}: set XDG_CACHE_HOME to a directory of yours") from None
    return found[-1]


def _bring(home: Path, release: str) -> None:
    archive = Archive(cache() / "kernels" / "apt")
    package = archive.package(PACKAGE, f"{release}-backports", DATA)
    with tempfile.TemporaryDirectory(dir=home, prefix="unpack-") as scratch:
        made = Path(scratch) / "made"
        for deb in archive.download(package, Path(scratch)):
            for name, content, executable in files_of(deb):
                if name == PROGRAM or name.startswith(FIRMWARE):
                    (made / name).parent.mkdir(parents=True, exist_ok=True)
                    (made / name).write_bytes(content)
                    (made / name).chmod(0o755 if executable else 0o644)
        if not (made / PROGRAM).exists():
            raise LabError(f"{package.name} {package.version}: there is no {PROGRAM} in it")
        with contextlib.suppress(OSError):  # another run was quicker
            made.rename(home / f"{release}-{package.version.replace(':', '.')}")
