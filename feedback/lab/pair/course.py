"""The course of a pair's scenario with its usual clients: how it begins, and how it ends.

The clients are a thousand connections over all forwarding methods, downloads, UDP flows and a persistent service. This
module knows no figure, and not what happens between beginning and end.
"""

from __future__ import annotations

from feedback.lab.job import Options
from feedback.lab.pair.directors import Directors
from feedback.lab.pair.stand import PairStand, targets, udp_target
from feedback.lab.pair.topology import DIRECTORS
from feedback.lab.workload.streams import Plan

CONNECTIONS = 1000  # that send records, or did before
MUTE = 20
DOWNLOADS = 8
AFTER_SECONDS = 9.0  # longer than the fifth retransmission
WAKE_SECONDS = 3.0


def plan(options: Options, *, idle: float = 0.2) -> Plan:
    return Plan(
        targets=targets(),
        connections=CONNECTIONS + MUTE,
        seed=options.seed,
        idle=idle,
        mute=MUTE / (CONNECTIONS + MUTE),
        downloads=DOWNLOADS,
        download_seconds=options.seconds + 2,
        udp=udp_target(),
        udp_flows=8,
    )


def begin(stand: PairStand, both: Directors, work: Plan) -> float:
    """Wait until the first director is active, the second complete, and every connection established. Returns that
    moment."""
    first, second = DIRECTORS
    both.start(first)
    both.wait_until_active(first)
    both.start(second)
    both.wait_until_standby(second)
    stand.start_client(work)
    start = stand.wait_until_established()
    stand.event("start", start)
    return start


def end(stand: PairStand, both: Directors) -> None:
    """Ask the persistent service again, wake the idle clients, and wait for every outstanding answer."""
    stand.event("visits", found=stand.visit())
    stand.wake()
    stand.wait_until_woken()
    stand.finish()
    both.tell()
