"""node_exporter's page: cumulative CPU, memory, pressure and TCP counters of a Linux server.

Source: node_exporter 1.x, collectors cpu, meminfo, netstat, pressure, stat, time and vmstat. Their counters are those
of /proc/stat, /proc/net/snmp and the like: what our agent reads, with one digit less. What is busy is said in
feedback/agent/signals/cpu.py.
"""

from __future__ import annotations

from feedback.config.exporter import Exporter
from feedback.master.sources.exposition import Page, PageError
from feedback.master.sources.said import Said, count
from feedback.wire import Connections, Cpu, Memory, Pressure

CPU = "node_cpu_seconds_total"
BUSY = frozenset({"user", "nice", "system", "irq", "softirq", "steal"})
TICK_SECONDS = 0.01  # USER_HZ
TOTAL, AVAILABLE = "node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes"
SWAPPED, KILLED = "node_vmstat_pswpin", "node_vmstat_oom_kill"
OPENED, OPEN = "node_netstat_Tcp_PassiveOpens", "node_netstat_Tcp_CurrEstab"
OVERFLOWS, RESETS = "node_netstat_TcpExt_ListenOverflows", "node_netstat_Tcp_OutRsts"
WAITED = tuple(
    f"node_pressure_{name}_seconds_total"
    for name in ("cpu_waiting", "memory_waiting", "memory_stalled", "io_waiting", "io_stalled")
)
RUNNING, BOOTED, TIME = "node_procs_running", "node_boot_time_seconds", "node_time_seconds"
NAMES = frozenset(
    {CPU, TOTAL, AVAILABLE, SWAPPED, KILLED, OPENED, OPEN, OVERFLOWS, RESETS, *WAITED, RUNNING, BOOTED, TIME}
)


def read(page: bytes, of: Exporter) -> Said:
    """Raises PageError."""
    found = Page(page, NAMES)
    return Said(
        cpu=_cpu(found),
        started=f"{found.one(BOOTED) or 0:.0f}",
        at=found.one(TIME),
        memory=_memory(found),
        pressure=_pressure(found),
        connections=_connections(found),
    )


def _cpu(page: Page) -> Cpu:
    samples = page.all(CPU)
    cores = len({sample.labels.get("cpu") for sample in samples})
    if not cores:
        raise PageError(f"no {CPU} in it: is it node_exporter, with its collector cpu?")
    running = page.one(RUNNING)
    return Cpu(
        cores=cores,
        busy_seconds=sum(sample.value for sample in samples if sample.labels.get("mode") in BUSY),
        resolution_seconds=TICK_SECONDS,
        steal_seconds=sum(sample.value for sample in samples if sample.labels.get("mode") == "steal"),
        runnable=None if running is None else max(0.0, running - 1),  # less the exporter's own
    )


def _memory(page: Page) -> Memory | None:
    total, available = page.one(TOTAL), page.one(AVAILABLE)
    if total is None or available is None:
        return None
    return Memory(count(total), count(available), count(page.one(SWAPPED)), count(page.one(KILLED)))


def _pressure(page: Page) -> Pressure | None:
    """None of a kernel without PSI."""
    waited = [page.one(name) for name in WAITED]
    return None if waited[0] is None else Pressure(*[seconds or 0.0 for seconds in waited])


def _connections(page: Page) -> Connections | None:
    opened, established = page.one(OPENED), page.one(OPEN)
    if opened is None or established is None:
        return None
    return Connections(count(opened), count(established), count(page.one(OVERFLOWS)), count(page.one(RESETS)))
