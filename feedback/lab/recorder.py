"""Samples the kernel's table and the real servers' use, ten times a second, into a file of JSON lines.

    python -m feedback.lab.recorder SETTINGS_JSON

Runs in the director's namespace, as one more reader of the kernel's table beside the master: what it sees is what
the kernel does, not what the master says. Invariant: reads only.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from feedback.ipvs import Client
from feedback.lab import cgroup
from feedback.lab.samples import Sample
from feedback.model import DestinationKey, ServiceKey

FLUSH_SECONDS = 0.5


class Settings(msgspec.Struct, frozen=True):
    """`destinations` and `groups` are in the order of the real servers; `seconds` is between samples."""

    service: str
    destinations: tuple[str, ...]
    groups: tuple[str, ...]
    output: str
    seconds: float = 0.1


def sample(client: Client, settings: Settings) -> Sample:
    entry = client.snapshot().entry(ServiceKey.parse(settings.service))
    found = [entry.entry(DestinationKey.parse(text)) if entry else None for text in settings.destinations]
    groups = [Path(group) for group in settings.groups]
    return Sample(
        at=time.monotonic(),
        weights=tuple(each.destination.weight if each else -1 for each in found),
        active=tuple(each.active if each else 0 for each in found),
        inactive=tuple(each.inactive if each else 0 for each in found),
        usage=tuple(cgroup.usage_seconds(group) for group in groups),
        service_usage=tuple(cgroup.usage_seconds(group / "service") for group in groups),
        idle=_idle_seconds(),
        upper=tuple(each.destination.upper if each else 0 for each in found),
        lower=tuple(each.destination.lower if each else 0 for each in found),
    )


def _idle_seconds() -> float:
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[1])


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    lines: list[bytes] = []
    flushed = due = time.monotonic()
    with Client() as client:
        while True:
            lines.append(msgspec.json.encode(sample(client, settings)) + b"\n")
            if due - flushed >= FLUSH_SECONDS:
                flushed = due
                with Path(settings.output).open("ab") as file:
                    file.write(b"".join(lines))
                lines.clear()
            due = max(due + settings.seconds, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
