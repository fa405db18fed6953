"""The kernels' own replication by multicast, as an option: both threads on both directors, on a shared interface.

It is neither encrypted nor authenticated: anybody who can send to the group there can create connections on both
directors. It does not bring the table to a standby that joins late, and nothing shows its losses. Our relay does both.
"""

from __future__ import annotations

from feedback.ipvs import Kernel, SyncDaemon, SyncRole

SYNC_ID = 81
WARNING = (
    "connections are replicated by multicast, unencrypted: anybody on that network can forge them, a standby that "
    'joins late is never complete, and losses are not seen; mode = "relay" has none of this'
)


def ensure(kernel: Kernel, interface: str) -> tuple[str, ...]:
    """Start the threads that do not run; leave the others as they are. Returns what was done. Raises Refused, with
    ENODEV if there is no such interface."""
    running = {daemon.role for daemon in kernel.daemons()}
    done = []
    for role in SyncRole:
        if role not in running:
            kernel.start_daemon(SyncDaemon(role, interface, SYNC_ID))
            done.append(f"started the {role.name.lower()} sync thread on {interface}")
    return tuple(done)
