"""A guest's job: a JSON file, written by the host, read by `feedback.lab.guest`.

Paths are the host's and mean the same in the guest, which sees the host's files.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from feedback.lab.error import LabError


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line chooses; None: the scenario's own. `seconds` of load is the whole run of one variant. With
    `adopt` somebody else owns the service, and the master adjusts only weights and thresholds. `foreign` names a
    director of a pair that has a kernel of its own within the guest. `firewall` is on both directors of a pair
    (pair/firewall.py). `source` is what tells the master of its servers instead of agents, where the scenario offers
    that; it is one more variant."""

    law: str | None = None
    scheduler: str | None = None
    adopt: bool = False
    seconds: float = 0.0
    seed: int = 1
    foreign: str = ""
    firewall: str = ""
    source: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """`task` is "scenario", "pytest" or "script"; `output` the only directory that the guest may write to; `run` a
    short name that all namespaces and cgroups of this run begin with. `scenario`, `variant` and `options` are for the
    first of the tasks, `arguments` for the others. `directory` is that of a project whose tests are run.
    `conn_tab_bits` is the size of the kernel's table of connections, 0 the usual one; a native kernel keeps its own.
    `memory_mb` is of a user-mode guest."""

    task: str
    output: str
    run: str = "lab"
    scenario: str = ""
    variant: str = ""
    options: Options = Options()
    arguments: tuple[str, ...] = ()
    directory: str = ""
    conn_tab_bits: int = 0
    memory_mb: int = 1024

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self))

    @staticmethod
    def read(path: Path) -> Job:
        """Raises LabError."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Job)
        except (OSError, msgspec.MsgspecError) as error:
            raise LabError(f"{path}: not a job: {error}") from None
