"""The few files from which a guest in QEMU reaches the host's file system: a shell, mount, modules for virtio and 9p.

Owns the archive's format. Must not know the emulator's options. The programs are the host's own, with their libraries.
Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel ("newc").
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import subprocess
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.kernel.debian import Unpacked

BOOT = Path(__file__).with_name("boot.sh")
PROGRAMS = ("sh", "mount", "insmod", "switch_root")
NEEDED_MODULES = ("virtio_pci", "9pnet_virtio", "9p")
DIRECTORIES = ("bin", "dev", "proc", "sys", "root", "modules")


def initramfs(kernel: Unpacked) -> bytes:
    """Raises LabError."""
    files: dict[str, bytes] = {"init": BOOT.read_bytes()}
    for program in PROGRAMS:
        found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if found is None:
            raise LabError(f"there is no {program} on this machine: apt install util-linux kmod")
        files[f"bin/{program}"] = Path(found).read_bytes()
        for library in _libraries(found):
            files[library.lstrip("/")] = Path(library).read_bytes()
    modules = _load_order(kernel)
    for number, module in enumerate(modules):
        data = module.read_bytes()
        files[f"modules/{number:02}.ko"] = lzma.decompress(data) if module.suffix == ".xz" else data
    return _archive(files)


def _libraries(program: str) -> list[str]:
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(?:=>|^)\s*(/\S+)", told, re.MULTILINE)


def _load_order(kernel: Unpacked) -> list[Path]:
    """NEEDED_MODULES and what they need, each after what it needs; what is built in is left out."""
    base = kernel.modules / kernel.release
    needs = {}
    for line in (base / "modules.dep").read_text(encoding="ascii").splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    order: list[str] = []
    for name in NEEDED_MODULES:
        for path in (path for path in needs if Path(path).name.partition(".")[0] == name):
            order += [*reversed(needs[path]), path]
    return [base / path for path in dict.fromkeys(order)]


def _archive(files: dict[str, bytes]) -> bytes:
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in _directories(files)]
    entries += [(name, stat.S_IFREG | 0o755, data) for name, data in files.items()]
    packed = [_entry(number, *entry) for number, entry in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1)]
    return b"".join(packed)


def _directories(files: dict[str, bytes]) -> list[str]:
    parents = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    return sorted({*parents, *DIRECTORIES})


def _entry(inode: int, name: str, mode: int, data: bytes) -> bytes:
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
