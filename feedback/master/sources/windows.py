"""windows_exporter's page: cumulative CPU and TCP counters of a Windows server.

Source: windows_exporter 0.16 to 0.31, collectors cpu, memory, system and tcp (the last is not among its default ones),
and cs, where older ones have the size of memory. `privileged` contains `dpc` and `interrupt`, so these are not added.
Without the collector tcp the director's own counters serve.
"""

from __future__ import annotations

from feedback.config.exporter import Exporter
from feedback.master.sources.exposition import Page, PageError
from feedback.master.sources.said import Said, count
from feedback.wire import Connections, Cpu, Memory

CPU = "windows_cpu_time_total"
BUSY = frozenset({"user", "privileged"})
TICK_SECONDS = 0.015625  # 64 a second
TOTALS = ("windows_memory_physical_total_bytes", "windows_cs_physical_memory_bytes")
AVAILABLE = "windows_memory_available_bytes"
OPENED, OPEN = "windows_tcp_connections_passive_total", "windows_tcp_connections_established"
QUEUED = "windows_system_processor_queue_length"
BOOTED = (
    "windows_system_boot_time_timestamp_seconds",
    "windows_system_boot_time_timestamp",
    "windows_system_system_up_time",  # a moment too, for all its name
    "process_start_time_seconds",
)
NAMES = frozenset({CPU, *TOTALS, AVAILABLE, OPENED, OPEN, QUEUED, *BOOTED})


def read(page: bytes, of: Exporter) -> Said:
    """Raises PageError."""
    found = Page(page, NAMES)
    total, available = found.one(*TOTALS), found.one(AVAILABLE)
    opened, established = found.one(OPENED), found.one(OPEN)  # of both families
    memory = None if total is None or available is None else Memory(count(total), count(available))
    tcp = None if opened is None or established is None else Connections(count(opened), count(established))
    return Said(cpu=_cpu(found), started=f"{found.one(*BOOTED) or 0:.0f}", memory=memory, connections=tcp)


def _cpu(page: Page) -> Cpu:
    samples = page.all(CPU)
    cores = len({sample.labels.get("core") for sample in samples})
    if not cores:
        raise PageError(f"no {CPU} in it: is it windows_exporter, with its collector cpu?")
    busy = sum(sample.value for sample in samples if sample.labels.get("mode") in BUSY)
    queued = page.one(QUEUED)
    return Cpu(cores, busy, TICK_SECONDS, runnable=None if queued is None else max(0.0, queued))
