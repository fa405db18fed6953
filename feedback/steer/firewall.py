"""What both firewall programs have in common: their interface, and how a system program is run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from feedback.model import Family
from feedback.refusals import printable
from feedback.steer.errors import SteerError
from feedback.steer.plan import Held, Rule

PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
LOCK = Path("/run/xtables.lock")  # of iptables, for the kernel's older tables
OWN_LOCK = "/run/feedback/xtables.lock"
WORDS = {Family.IPV4: "ip", Family.IPV6: "ip6"}  # of the families, in both
WHOLE = 0xFFFF_FFFF  # a mask: all of a mark
PATIENCE_SECONDS = 10.0  # the program may have to wait for the firewall's lock
REASON_MAX = 300


class Said(msgspec.Struct, frozen=True):
    """What a program said. `status` is None where there is no such program."""

    status: int | None
    out: str
    reason: str


class ForeignMark(msgspec.Struct, frozen=True):
    """A rule of somebody else that writes marks: the bits of `mask` become those of `value`. None: it depends."""

    where: str
    value: int | None
    mask: int

    def gives(self, mark: int) -> bool:
        """Whether a packet without a mark gets exactly this one."""
        return self.value is not None and self.value & self.mask == mark


Run: TypeAlias = Callable[[Sequence[str], str], Said]


class Firewall(Protocol):
    name: str

    def unusable(self, rules: Sequence[Rule]) -> str | None:
        """Why these rules cannot be made here, or None. Changes nothing."""

    def read(self, families: frozenset[Family]) -> Held:
        """Raises SteerError."""

    def write(self, rules: Sequence[Rule], families: frozenset[Family]) -> None:
        """Replace all of ours at once; `families` without a rule get none. Raises SteerError."""

    def foreign(self) -> tuple[ForeignMark, ...]:
        """Raises SteerError."""


def run(command: Sequence[str], given: str) -> Said:
    """Run a program in the namespace of the calling thread and in the C locale. Raises SteerError."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE_SECONDS,
            env={"PATH": PATH, "LC_ALL": "C", **_lock()},
        )
    except (FileNotFoundError, PermissionError) as error:
        return Said(None, "", f"{command[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        late = f"{command[0]} has not ended in {PATIENCE_SECONDS:.0f} s"
        raise SteerError(f"{late}: does another program hold the lock?") from None
    return Said(done.returncode, done.stdout, reason(command[0], done.stderr))


def reason(program: str, text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(f"{program}: {lines[0].removeprefix(f'{program}: ') if lines else 'no reason given'}"[:REASON_MAX])


def _lock() -> dict[str, str]:
    """A lock of our own where we may not open the one that all use. Then only the kernel separates two who write at
    once: it refuses the later one, but only if the number of rules has changed."""
    try:
        if not LOCK.exists():
            LOCK.touch(mode=0o600)
        LOCK.open("rb").close()
    except OSError:
        return {"XTABLES_LOCKFILE": OWN_LOCK}
    return {}
