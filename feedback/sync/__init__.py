"""The director pair: replication and takeover. `Election` decides who is active; it is the stable public interface.

election/     heartbeats, the election, engines that follow another program   -> decisions
addresses/    what goes with the active role on this host                    decisions -> addresses, announcements
replication/  connections, services and state from the active director to the standby
daemon.py     the shell around the three; doctor.py and report.py describe its state
"""

from feedback.sync.election.election import Election, Settings, Status
from feedback.sync.election.heartbeat import (
    Heartbeat,
    HeartbeatError,
    Replica,
    ReplicaState,
    Role,
    decode,
    derive_key,
    encode,
)
from feedback.sync.election.transitions import (
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
