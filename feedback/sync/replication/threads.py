"""The kernel's two sync threads and the sysctls they need: set up as needed, and restored afterwards.

Both threads always run on both directors, on an interface that leads nowhere (`lo`). So no change of roles stops a
master thread, which would discard its open buffer. The master sends to port 8848 and the backup listens on 8849, so a
backup never hears its own master. This module owns the settings, and the file with the settings from before us. That
file is its only I/O: it asks the kernel through feedback.ipvs. Invariant: a thread that is not ours is never stopped.

Source: net/netfilter/ipvs/ip_vs_ctl.c, Documentation/networking/ipvs-sysctl.rst; facts measured on 6.1 and 6.12.
"""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec

from feedback.ipvs import Kernel, Refused, SyncDaemon, SyncRole, sysctl
from feedback.ipvs.sysctl import SysctlError, Value
from feedback.sync.replication import records
from feedback.sync.replication.push import BACKUP_PORT, GROUP, MASTER_BYTES, MASTER_PORT
from feedback.sync.replication.replica import BACKUP_ID, MASTER_ID

BACKUP_BYTES = records.DATAGRAM_BYTES_MAX
REFRESH_SECONDS = 10
SOCK_BYTES = 4 * 1024 * 1024  # the kernel takes at most net.core.rmem_max, and doubles it
QUEUE_DATAGRAMS = 32768  # the master silently drops what exceeds it; our datagrams have a fifth of the usual size

# (0, 0) with a refresh period: a record at the first packet in ESTABLISHED (UDP: at the first packet), then one
# whenever the timer that the peer knows is off by the period. With packet counts, idle and slow connections would go
# stale.
SETTINGS: dict[str, Value] = {
    "sync_threshold": (0, 0),
    "sync_refresh_period": REFRESH_SECONDS,
    "sync_retries": 0,  # our transport loses nothing silently
    "sync_version": 1,
    "sync_persist_mode": 0,
    "backup_only": 0,  # with both threads running it would stop the director from forwarding
    "sync_sock_size": SOCK_BYTES,
}


class ReplicationError(Exception):
    """The kernel's replication cannot be used. The text says why and what to do."""


class Before(msgspec.Struct, frozen=True):
    """The sysctls from before us, kept in a file. No sync thread was running then: somebody else's is an error."""

    settings: dict[str, int | tuple[int, ...] | str]


class Threads:
    """The threads of one namespace. `memory` is the file that keeps the settings from before the first time."""

    def __init__(self, kernel: Kernel, netns: str | None, interface: str, memory: Path | None) -> None:
        self._kernel, self.netns, self.interface, self.memory = kernel, netns, interface, memory

    def ensure(self) -> tuple[str, ...]:
        """Set up sysctls and threads. Returns what had to be done. Raises ReplicationError or IpvsError."""
        return (*self._set_sysctls(), *self._start_threads())

    def uninstall(self) -> tuple[str, ...]:
        """Stop our threads and put the sysctls back; connections stay until they expire. Returns what was done."""
        done = []
        for running in self._kernel.daemons():
            if _ours(running, self.interface):
                self._kernel.stop_daemon(running.role)
                done.append(f"stopped the {running.role.name.lower()} sync thread on {running.interface}")
        before = self._remembered()
        for name, value in before.settings.items() if before else ():
            sysctl.write(name, value, self.netns)
            done.append(f"net.ipv4.vs.{name} is {_text(value)} again")
        if self.memory is not None:
            self.memory.unlink(missing_ok=True)
        return tuple(done)

    def problems(self) -> tuple[str, ...]:
        """For `doctor`: what is no longer as `ensure` left it, such as a stopped thread or a changed sysctl."""
        running = {daemon.role for daemon in self._kernel.daemons() if _ours(daemon, self.interface)}
        found = [
            f"the kernel's {role.name.lower()} sync thread does not run" for role in SyncRole if role not in running
        ]
        for name, wanted in SETTINGS.items():
            try:
                value = sysctl.read(name, self.netns)
            except SysctlError:
                continue
            if value != wanted:
                found.append(f"net.ipv4.vs.{name} is {_text(value)}, should be {_text(wanted)}")
        return tuple(found)

    def restart_master(self) -> bool:
        """Returns False if the thread is not ours, or if it has nothing to send: without services IPVS looks at no
        packet."""
        running = [daemon for daemon in self._kernel.daemons() if daemon.role is SyncRole.MASTER]
        if not self._kernel.services() or (running and not _ours(running[0], self.interface)):
            return False
        if running:
            self._kernel.stop_daemon(SyncRole.MASTER)
        self._kernel.start_daemon(_daemons(self.interface)[1])
        return True

    def _set_sysctls(self) -> list[str]:
        have = sysctl.read_all(self.netns)
        if have.get("sync_ports", 1) != 1:
            raise ReplicationError(
                f"net.ipv4.vs.sync_ports is {have['sync_ports']}, and we hear one port: set it to 1 while no sync "
                "daemon runs (ipvsadm --stop-daemon master; ipvsadm --stop-daemon backup)"
            )
        wanted = dict(SETTINGS)
        longest = have.get("sync_qlen_max")
        if isinstance(longest, int):
            wanted["sync_qlen_max"] = max(longest, QUEUE_DATAGRAMS)
        changed = {name: have[name] for name, value in wanted.items() if name in have and have[name] != value}
        self._remember(changed)
        for name in changed:
            sysctl.write(name, wanted[name], self.netns)
        return [f"net.ipv4.vs.{name}: {_text(old)} -> {_text(wanted[name])}" for name, old in changed.items()]

    def _start_threads(self) -> list[str]:
        running = {daemon.role: daemon for daemon in self._kernel.daemons()}
        done = []
        for wanted in _daemons(self.interface):
            have = running.get(wanted.role)
            role = wanted.role.name.lower()
            if have is not None and not _ours(have, self.interface):
                raise ReplicationError(
                    f"a {role} sync thread runs already on {have.interface} with sync id {have.sync_id}, and the "
                    "kernel has room for one: it is keepalived's (remove lvs_sync_daemon from its configuration), or "
                    f"somebody started it by hand (ipvsadm --stop-daemon {role})"
                )
            if have is not None and _same(have, wanted):
                continue
            if have is not None:
                self._kernel.stop_daemon(wanted.role)
            try:
                self._kernel.start_daemon(wanted)
            except Refused as error:
                if error.errno == errno.ENODEV:
                    raise ReplicationError(f"there is no interface {self.interface}: set `interface`") from None
                raise ReplicationError(f"{error}: is {self.interface} up, with an address?") from None
            done.append(f"{'restarted' if have else 'started'} the {role} sync thread on {self.interface}")
        return done

    def _remember(self, changed: dict[str, Value]) -> None:
        """Write the file once: at a later start the settings found are our own."""
        if self.memory is None or self.memory.exists():
            return
        temporary = self.memory.with_suffix(".new")
        try:
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(Before(changed))))
            temporary.replace(self.memory)
        except OSError as error:
            raise ReplicationError(
                f"{self.memory}: {error.strerror}: the earlier net.ipv4.vs must be saved there"
            ) from None

    def _remembered(self) -> Before | None:
        if self.memory is None or not self.memory.exists():
            return None
        try:
            return msgspec.json.decode(self.memory.read_bytes(), type=Before)
        except msgspec.MsgspecError as error:
            raise ReplicationError(f"{self.memory}: {error}: remove it, and set net.ipv4.vs by hand") from None


def _daemons(interface: str) -> tuple[SyncDaemon, SyncDaemon]:
    return (
        SyncDaemon(SyncRole.BACKUP, interface, BACKUP_ID, BACKUP_BYTES, GROUP, BACKUP_PORT, 1),
        SyncDaemon(SyncRole.MASTER, interface, MASTER_ID, MASTER_BYTES, GROUP, MASTER_PORT, 1),
    )


def _ours(daemon: SyncDaemon, interface: str) -> bool:
    sync_id = MASTER_ID if daemon.role is SyncRole.MASTER else BACKUP_ID
    return daemon.interface == interface and daemon.sync_id == sync_id


def _same(have: SyncDaemon, wanted: SyncDaemon) -> bool:
    return (have.maxlen, have.port, have.group) == (wanted.maxlen, wanted.port, wanted.group)


def _text(value: Value) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
