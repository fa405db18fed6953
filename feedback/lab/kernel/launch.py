"""What it takes to start a job on a kernel. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    command: list[str]
    environment: dict[str, str]  # beside the host's own
