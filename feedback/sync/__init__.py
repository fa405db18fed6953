"""The director pair: replication and takeover. `Election` decides who is active; it is the stable public face.

Pure: `heartbeat` (the datagram), `transitions` (the table), `election` (the decision), codecs and plans beside them.
Shells: `network`, `relay`, `replication`, and `daemon` around all.
"""

from feedback.sync.election import Election, Settings, Status
from feedback.sync.heartbeat import Heartbeat, HeartbeatError, Replica, ReplicaState, Role, decode, derive_key, encode
from feedback.sync.transitions import (
    AnnounceAgain,
    Decision,
    Look,
    PrepareHandover,
    Resume,
    SendHeartbeat,
    State,
    StepDown,
    TakeOver,
)

__all__ = [
    "AnnounceAgain",
    "Decision",
    "Election",
    "Heartbeat",
    "HeartbeatError",
    "Look",
    "PrepareHandover",
    "Replica",
    "ReplicaState",
    "Resume",
    "Role",
    "SendHeartbeat",
    "Settings",
    "State",
    "Status",
    "StepDown",
    "TakeOver",
    "decode",
    "derive_key",
    "encode",
]
