"""The role file: the sync daemon writes there whether this director is active, and why.

A file, not a question to a daemon: it stays while either daemon restarts or hangs, and the role stays with it, as does
the data path. Written atomically by `feedback sync`, read by the master at each turn.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from feedback.refusals import printable


class Role(StrEnum):
    ACTIVE = "active"
    STANDBY = "standby"


class RoleSaid(msgspec.Struct, frozen=True):
    """`peer` is the name of the other director, `term` the number of takeovers that led here. At most `lacking`
    connections are above the limit of what is replicated: for the master's metric."""

    role: Role
    reason: str = ""
    peer: str = ""
    term: int = 0
    lacking: int = 0


UNSAID = RoleSaid(Role.STANDBY, "the sync daemon has not declared this director active: is `feedback sync` running?")


class RoleFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._said = UNSAID

    def write(self, said: RoleSaid) -> None:
        """Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(said) + b"\n")
        new.replace(self._path)

    def read(self) -> RoleSaid:
        """The last role in the file; standby if there is none, or none that can be read. Cheap if nothing changed."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                told = msgspec.json.decode(self._path.read_bytes(), type=RoleSaid)
                self._said = msgspec.structs.replace(told, reason=printable(told.reason), peer=printable(told.peer))
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._said = None, UNSAID
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._seen, self._said = None, RoleSaid(Role.STANDBY, printable(f"{self._path}: cannot be read: {error}"))
        return self._said
