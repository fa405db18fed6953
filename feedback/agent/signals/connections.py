"""TCP of the agent's own network namespace: connections accepted, established, refused by a full queue, reset.

/proc/net is a link to /proc/self/net, and `self` is the thread group's *leader*: a thread that did setns() would read
another namespace's counters there. /proc/thread-self is the thread itself; the namespace is fixed when the file is
opened.

Source: fs/proc/proc_net.c, net/ipv4/proc.c, RFC 1213 (tcpPassiveOpens).
"""

from __future__ import annotations

from pathlib import Path

from feedback.agent.signals.files import SignalError, SourceFile, open_if_present
from feedback.wire import Connections

OVERFLOWS_SECONDS = 1.0  # the file is long, and a law acts on overflows once a second


class ConnectionSource:
    """snmp has IPv4's and IPv6's TCP together; its lines are short. netstat is optional."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        net = proc / "thread-self" / "net"
        self._snmp = SourceFile(net / "snmp")
        self._netstat = open_if_present(net / "netstat")
        self._opened = _column(self._snmp.read(), b"Tcp:", b"PassiveOpens")
        self._established = _column(self._snmp.read(), b"Tcp:", b"CurrEstab")
        self._resets = _column(self._snmp.read(), b"Tcp:", b"OutRsts")
        self._overflows = self._overflow_column()
        self._overflowed = 0
        self._overflows_due = float("-inf")

    def _overflow_column(self) -> int | None:
        if self._netstat is None:
            return None
        try:
            return _column(self._netstat.read(), b"TcpExt:", b"ListenOverflows")
        except SignalError:
            return None

    def sample(self, now: float) -> Connections:
        data = self._snmp.read()
        if self._netstat is not None and self._overflows is not None and now >= self._overflows_due:
            self._overflowed = int(_values(self._netstat.read(), b"TcpExt:", self._overflows)[self._overflows])
            self._overflows_due = now + OVERFLOWS_SECONDS
        values = _values(data, b"Tcp:")
        return Connections(
            opened=int(values[self._opened]),
            established=max(0, int(values[self._established])),
            overflows=self._overflowed,
            resets=int(values[self._resets]),
        )


def open_connections(proc: Path = Path("/proc")) -> ConnectionSource | None:
    """None where the kernel has no such files."""
    try:
        return ConnectionSource(proc)
    except SignalError:
        return None


def _column(data: bytes, prefix: bytes, name: bytes) -> int:
    """Where a name stands: a line of names is followed by a line of values with the same prefix."""
    names = data[_line(data, prefix) :].split(b"\n", 1)[0].split()
    if name not in names:
        raise SignalError(f"{prefix.decode()} has no {name.decode()}")
    return names.index(name)


def _values(data: bytes, prefix: bytes, last: int = -2) -> list[bytes]:
    """The columns of a line of values, whole up to `last`: a line may have over a hundred."""
    start = data.find(b"\n", _line(data, prefix)) + 1
    return data[start : data.find(b"\n", start)].split(None, last + 1)


def _line(data: bytes, prefix: bytes) -> int:
    if data.startswith(prefix):
        return 0
    found = data.find(b"\n" + prefix)
    if found < 0:
        raise SignalError(f"no line {prefix.decode()}")
    return found + 1
