"""A kernel's files in the cache: found by name, or fetched.

A name is a version or the beginning of one (`6.1`, `6.1.192`), a suite (`trixie`, `trixie-backports`), or `newest`.
Invariant: a directory in the cache is whole; it is made under another name and renamed.
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.kernel.debian.archive import Archive, Package, numbers
from feedback.lab.kernel.preload import cache

# What a guest can use: the rest of a package, drivers and file systems, is nine tenths of its 400 MB.
KEPT = ("kernel/net/", "kernel/lib/", "kernel/crypto/", "kernel/fs/9p/", "kernel/fs/netfs/", "kernel/fs/fscache/")
KEPT_DRIVERS = (
    "kernel/drivers/net/veth",
    "kernel/drivers/net/dummy",
    "kernel/drivers/net/tun",
    "kernel/drivers/net/tap",
)
KEPT_TOO = ("kernel/drivers/virtio/", "kernel/arch/x86/crypto/", "modules.")
NAME_FRESH_SECONDS = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Unpacked:
    """`directory` holds `vmlinuz` and `lib/modules/RELEASE`."""

    directory: Path
    release: str

    @property
    def vmlinuz(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def modules(self) -> Path:
        return self.directory / "lib" / "modules"

    @property
    def version(self) -> str:
        """Debian's, such as `6.1.192-3`."""
        return (self.directory / "version").read_text(encoding="utf-8").strip()


def unpacked(name: str) -> Unpacked:
    """The kernel called so: from the cache if the name was resolved this week, else from Debian's archive, and from the
    cache again where that cannot be reached. Raises LabError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+~-]*", name):
        raise LabError(f"{name!r} is no kernel's name: a version (6.1, 6.12.117), a suite (trixie) or newest")
    home = cache() / "kernels"
    known = home / "names" / name
    if known.exists() and time.time() - known.lstat().st_mtime < NAME_FRESH_SECONDS:
        return _at(known.resolve())
    try:
        home.mkdir(parents=True, exist_ok=True)
        suite = "" if name == "newest" or name[:1].isdigit() else name
        archive = Archive(home / ("apt-" + suite if suite else "apt"), suite)
        package = _chosen(archive, name)
        directory = home / package.release
        if not directory.exists():
            _bring(archive, package, directory)
        _remember(known, directory)
    except LabError:
        if known.exists():
            return _at(known.resolve())
        raise
    except OSError as error:
        raise LabError(f"{home}: {error.strerror}: set XDG_CACHE_HOME to a directory of yours") from None
    return _at(directory)


def _at(directory: Path) -> Unpacked:
    return Unpacked(directory, directory.name)


def _chosen(archive: Archive, name: str) -> Package:
    if name == "newest":
        found = archive.kernels()
    elif name[:1].isdigit():
        wanted = numbers(name)
        found = [package for package in archive.kernels() if package.upstream[: len(wanted)] == wanted]
    else:
        found = archive.kernels(name)
    if not found:
        there = ", ".join(dict.fromkeys(".".join(map(str, package.upstream)) for package in archive.kernels()))
        raise LabError(f"the Debian mirror has no kernel {name}; it has {there}")
    return found[-1]


def _bring(archive: Archive, package: Package, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="unpack-") as scratch:
        made = Path(scratch) / package.release
        for deb in archive.download(package, Path(scratch)):
            _unpack(deb, package.release, made)
        if not (made / "vmlinuz").exists():
            raise LabError(f"{package.name}: there is no kernel in it")
        (made / "version").write_text(f"{package.version}\n", encoding="utf-8")
        _run(["depmod", "-b", str(made), package.release])
        with contextlib.suppress(OSError):  # another run was quicker
            made.rename(directory)


def _unpack(deb: Path, release: str, target: Path) -> None:
    """The kernel and the modules in KEPT; older packages have them in /boot and /lib, newer ones in /usr/lib."""
    for path, content, _executable in files_of(deb):
        inside = path.partition(f"lib/modules/{release}/")[2]
        if path.endswith((f"boot/vmlinuz-{release}", f"modules/{release}/vmlinuz")):
            name = "vmlinuz"
        elif inside.startswith((*KEPT, *KEPT_DRIVERS, *KEPT_TOO)):
            name = f"lib/modules/{release}/{inside}"
        else:
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)


def files_of(deb: Path) -> Iterator[tuple[str, bytes, bool]]:
    """Path below the root, content, and whether it may be executed, of each regular file. Raises LabError."""
    # By hand: Debian 12's tarfile has no filters yet (3.11.4).
    with tarfile.open(fileobj=io.BytesIO(_run(["dpkg-deb", "--fsys-tarfile", str(deb)]))) as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and not path.startswith("/") and ".." not in Path(path).parts:
                yield path, content.read(), bool(member.mode & 0o100)


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise LabError(f"there is no {command[0]} on this machine: apt install kmod dpkg") from None
    except subprocess.CalledProcessError as error:
        raise LabError(f"{' '.join(command[:2])}: {error.stderr.decode(errors='replace').strip()[-500:]}") from None


def _remember(known: Path, directory: Path) -> None:
    known.parent.mkdir(exist_ok=True)
    known.unlink(missing_ok=True)
    known.symlink_to(directory)
