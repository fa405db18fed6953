"""The settings under net.ipv4.vs of one network namespace, typed: numbers, and the pair of sync_threshold.

Reading and writing files under /proc/sys is the only I/O. Which settings there are depends on the kernel (est_nice is
new, sync_persist_mode old): what is absent is not in `read_all`, and reading it says so. What they mean is in
Documentation/networking/ipvs-sysctl.rst. Writing needs CAP_NET_ADMIN, not root. Each namespace has its own: the files
show those of the *thread* that opens them, and `within` reads them in a thread that is there.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TypeAlias

from feedback.ipvs.errors import IpvsError, NoIpvs, NotPermitted
from feedback.ipvs.namespace import within

ROOT = Path("/proc/sys/net/ipv4/vs")

Value: TypeAlias = int | tuple[int, ...] | str


class SysctlError(IpvsError):
    """A setting that this kernel has not, or a value that it does not take."""


def read(name: str, netns: str | None = None) -> Value:
    """A number, a tuple of numbers (sync_threshold), or text (est_cpulist). Raises SysctlError, NoIpvs, NoNamespace."""
    path = _path(name)
    try:
        return _parse(name, within(netns, path.read_text))
    except OSError as error:
        raise _error(name, error) from None


def read_all(netns: str | None = None) -> dict[str, Value]:
    """Every setting that this kernel has and lets us read. Raises NoIpvs, NoNamespace."""
    return within(netns, _read_all)


def write(name: str, value: Value, netns: str | None = None) -> None:
    """Raises SysctlError, NotPermitted, NoIpvs, NoNamespace."""
    path = _path(name)
    text = " ".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
    try:
        within(netns, lambda: path.write_text(text + "\n"))
    except OSError as error:
        raise _error(name, error, text) from None


def _path(name: str) -> Path:
    if not name.replace("_", "").isalnum():
        raise SysctlError(f"{name!r} is not the name of a setting under net.ipv4.vs")
    return ROOT / name


def _read_all() -> dict[str, Value]:
    if not ROOT.is_dir():
        raise NoIpvs
    found: dict[str, Value] = {}
    for path in sorted(ROOT.iterdir()):
        try:
            found[path.name] = _parse(path.name, path.read_text())
        except PermissionError:  # some are for writing only, some for root's eyes
            continue
    return found


def _parse(name: str, text: str) -> Value:
    words = text.split()
    if name == "est_cpulist" or not all(word.lstrip("-").isdecimal() for word in words) or not words:
        return text.strip()
    numbers = tuple(int(word) for word in words)
    return numbers if len(numbers) > 1 else numbers[0]


def _error(name: str, error: OSError, value: str | None = None) -> IpvsError:
    if isinstance(error, PermissionError):
        return NotPermitted(f"net.ipv4.vs.{name} is refused ({error.strerror})")
    if isinstance(error, FileNotFoundError):
        if not ROOT.is_dir():
            return NoIpvs()
        return SysctlError(f"net.ipv4.vs.{name}: this kernel has no such setting")
    if error.errno == errno.EINVAL and value is not None:
        return SysctlError(f"net.ipv4.vs.{name}: the kernel does not take {value!r}: see ipvs-sysctl.rst for its range")
    return SysctlError(f"net.ipv4.vs.{name}: {error.strerror}")
