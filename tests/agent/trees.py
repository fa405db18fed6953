"""Fake /proc and cgroup trees for the signals: real files, with the text that kernels write."""

from __future__ import annotations

from pathlib import Path

STAT = """cpu  100 10 50 1000 400 5 15 20 7 0
cpu0 50 5 25 500 200 3 8 10 3 0
cpu1 50 5 25 500 200 2 7 10 4 0
intr 12345 0 9
ctxt 999
btime 1700000000
procs_running 3
procs_blocked 0
"""

SNMP = """Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutRsts
Tcp: 1 200 120000 -1 11 42 0 0 7 1000 8
Udp: InDatagrams NoPorts
Udp: 5 6
"""

NETSTAT = """TcpExt: SyncookiesSent SyncookiesRecv ListenOverflows ListenDrops
TcpExt: 0 0 3 4
IpExt: InNoRoutes
IpExt: 0
"""

MEMINFO = """MemTotal:        1000000 kB
MemFree:          100000 kB
MemAvailable:     400000 kB
Buffers:           10000 kB
"""

VMSTAT = "nr_free_pages 100\npswpin 12\npswpout 13\noom_kill 1\n"

PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    return path


def proc(root: Path, pressure: bool = True) -> Path:
    """A /proc with two cores, 1 GB and a little traffic."""
    write(root / "stat", STAT)
    write(root / "meminfo", MEMINFO)
    write(root / "vmstat", VMSTAT)
    write(root / "thread-self/net/snmp", SNMP)
    write(root / "thread-self/net/netstat", NETSTAT)
    if pressure:
        for name in ("cpu", "memory", "io"):
            write(root / "pressure" / name, PRESSURE)
    return root


def cgroup(
    path: Path,
    quota: str = "max 100000",
    usage_usec: int = 1_000_000,
    throttled_usec: int = 0,
    memory_max: str | None = None,
    memory_current: int = 0,
    inactive_file: int = 0,
    weight: int = 100,
) -> Path:
    """One cgroup v2 directory."""
    write(path / "cgroup.procs", "")
    write(path / "cpu.max", quota + "\n")
    write(path / "cpu.weight", f"{weight}\n")
    use(path, usage_usec, throttled_usec)
    if memory_max is not None:
        write(path / "memory.max", memory_max + "\n")
        write(path / "memory.current", f"{memory_current}\n")
        write(path / "memory.stat", f"anon 1\nfile 2\ninactive_file {inactive_file}\npswpin 5\n")
        write(path / "memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\n")
    return path


def use(path: Path, usage_usec: int, throttled_usec: int = 0) -> None:
    write(
        path / "cpu.stat",
        f"usage_usec {usage_usec}\nuser_usec 1\nsystem_usec 1\nnr_periods 9\nthrottled_usec {throttled_usec}\n",
    )
