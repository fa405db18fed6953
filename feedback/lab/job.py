"""What a guest is to do: a file of JSON, written by the host, read by `feedback.lab.guest`.

Paths are the host's and mean the same in the guest, which sees the host's files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from feedback.lab.error import LabError


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`task` is "scenario", "pytest" or "script"; `output` the only directory that the guest may write to; `run` a
    short name that all namespaces and cgroups of this run begin with."""

    task: str
    output: str
    run: str = "lab"
    scenario: str = ""
    variant: str = ""
    options: dict[str, Any] = {}
    arguments: tuple[str, ...] = ()

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self))

    @staticmethod
    def read(path: Path) -> Job:
        """Raises LabError."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Job)
        except (OSError, msgspec.MsgspecError) as error:
            raise LabError(f"{path}: not a job: {error}") from None
