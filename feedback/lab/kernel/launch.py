"""Everything needed to start a job on a kernel. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from feedback.lab.kernel.boot import Bound


@dataclass(frozen=True, slots=True)
class Processor:
    """The guest's processor: its speed (1.0 is the reference's, speed.py), and the part of the time in which an
    imaginary host takes it away while the guest's clock runs on. Only a guest with its own time can have one that
    differs from the host's."""

    speed: float = 1.0
    stolen: float = 0.0


@dataclass(frozen=True, slots=True)
class Launch:
    command: list[str]
    environment: dict[str, str]  # beside the host's own
    own_time: bool = False  # the guest's time stands still while the host makes it wait
    facts: Mapping[str, float | bool | str] = field(default_factory=dict)  # for the report
    boot: Bound | None = None  # for a guest that says on its console when its first process runs
