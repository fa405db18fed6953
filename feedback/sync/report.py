"""The sync daemon's status and events for commands, as plain JSON. Pure. SCHEMA is the version of the fields that a
reader may rely on."""

from __future__ import annotations

from typing import Any

from feedback.config import SyncConfig
from feedback.sync.election.election import Happening, Status, Transition
from feedback.sync.election.heartbeat import PROTOCOL, Replica, ReplicaState, Role
from feedback.sync.replication.replica import Condition

SCHEMA = 1
LINK_SECONDS = 0.5  # a link that is silent for longer is down

REPLICA_STATES = {
    Condition.ABSENT: ReplicaState.NONE,
    Condition.CATCHING_UP: ReplicaState.CATCHING_UP,
    Condition.BEHIND: ReplicaState.BEHIND,
    Condition.COMPLETE: ReplicaState.COMPLETE,
}


def of_event(event: Happening, number: int, now: float, wall: float) -> dict[str, Any]:
    """`at` is the wall-clock time (seconds since 1970), `monotonic` the time of CLOCK_BOOTTIME."""
    base = {"number": number, "at": round(wall - (now - event.at), 3), "monotonic": round(event.at, 6)}
    if isinstance(event, Transition):
        words = {"old": str(event.old), "new": str(event.new), "cause": str(event.event), "reason": event.reason}
        return base | {"kind": "transition"} | words
    return base | {"kind": "notice", "reason": event.text}


def of_status(
    status: Status,
    config: SyncConfig,
    now: float,
    *,
    replica: dict[str, Any],
    tracking: dict[str, Any] | None,
    installed: set[str],
    routes: list[bool],
    act_ms: float | None,
    counters: dict[str, Any],
) -> dict[str, Any]:
    """`installed` are the addresses that this host has. `routes` says of each [[route]] whether it is installed
    here."""
    heard = {link.link: link.age_seconds for link in status.links}
    return {
        "schema": SCHEMA,
        "name": status.name,
        "role": str(status.role),
        "state": str(status.state),
        "reason": status.reason,
        "since_seconds": round(status.for_seconds, 3),
        "term": status.term,
        "engine": config.engine,
        "peer": _peer(status, config.peer),
        "links": [
            {
                "local": link.local,
                "peer": link.peer,
                "up": (age := heard.get(link.local)) is not None and age < LINK_SECONDS,
                "age_seconds": age,
            }
            for link in config.link
        ],
        "addresses": [
            {"address": a.address, "interface": a.interface, "installed": a.address.partition("/")[0] in installed}
            for a in config.address
        ],
        "routes": [
            {"to": route.to, "table": route.table, "installed": here}
            for route, here in zip(config.route, routes, strict=True)
        ],
        "replica": replica,
        "tracking": tracking,
        "limitation": status.limitation,
        "handover_limitation": status.handover_limitation,
        "unreached": list(status.unreached),
        "act_ms": act_ms,
        "refused": dict(status.refused),
        "transitions": [
            {
                "age_seconds": round(now - t.at, 3),
                "old": str(t.old),
                "new": str(t.new),
                "cause": str(t.event),
                "reason": t.reason,
            }
            for t in status.transitions
        ],
        "counters": counters,
    }


def _peer(status: Status, name: str) -> dict[str, Any]:
    peer = status.peer
    if peer is None:
        return {"name": name, "alive": False, "age_seconds": None, "role": str(Role.UNDECIDED), "replica": "unknown",
                "version": None, "version_differs": False, "installed": False, "term": 0, "priority": None}  # fmt: skip
    return {
        "name": name,
        "alive": peer.alive,
        "age_seconds": round(peer.age_seconds, 3),
        "role": str(peer.role),
        "replica": replica_text(peer.replica),
        "version": peer.version,
        "version_differs": peer.version != PROTOCOL,
        "installed": peer.installed,
        "term": peer.term,
        "priority": peer.priority,
    }


def replica_text(replica: Replica) -> str:
    if replica.state is ReplicaState.CATCHING_UP and replica.total:
        return f"catching up {replica.done} of {replica.total}"
    return str(replica.state)
