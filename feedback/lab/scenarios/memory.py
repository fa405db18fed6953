"""One real server's memory fills until the kernel would kill it.

Three real servers of the same speed share long requests. Each costs a little CPU and, while it is open, memory, as
sessions, buffers and threads do. rs2 has two thirds of the memory that its share of the connections needs (memory.max
of its cgroup, no swap). With as many connections as the others it is killed, and its connections are cut. A supervisor
starts it again a second later, as systemd would, and it is killed again. With fewer connections it survives.

    static     sed, equal weights
    feedback   agents, master, learned thresholds

`oom_kills_...` are the kernel's own count (memory.events). `peak_share_feedback` is the largest part of its memory that
rs2 ever used. CPU is no constraint here: the load needs a quarter of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from feedback.lab import cgroup
from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, refused, share
from feedback.lab.frame import govern, play, pool_load
from feedback.lab.job import Job, Options
from feedback.lab.product import STATIC_WEIGHT
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import RealServer, pool
from feedback.lab.trace import Trace

QUOTAS = (0.2, 0.2, 0.2)
SMALL = 1  # the index of the server with little memory
LIMIT_BYTES = 48 << 20
CONNECTION_BYTES = 512 << 10
RATE = 60.0
COST_MS = 2.0
HOLD_SECONDS = 5.0
RESTART_SECONDS = 1.0


class Memory(Scenario):
    name = "memory"
    summary = "one real server's memory fills until it would be killed: equal weights and feedback"
    variants = ("static", "feedback")
    seconds = 40.0
    seconds_least = 20.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"
    bounds = (
        Bound("oom_kills_static", least=1),
        Bound("oom_kills_feedback", most=0),
        Bound("errors_feedback", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        small = topology.servers[SMALL]
        with Stand(topology, output, connection_bytes=CONNECTION_BYTES) as stand:
            cgroup.limit_memory(stand.groups[small.name], LIMIT_BYTES)
            _supervise(stand, small)
            stand.wait_for_servers()
            govern(
                stand,
                job.variant,
                scheduler=options.scheduler or self.scheduler,
                law=options.law or self.law,
                weights=[STATIC_WEIGHT] * len(QUOTAS),
            )
            play(stand, pool_load(options, rate=RATE, cost_ms=COST_MS, hold_seconds=HOLD_SECONDS, patience_seconds=10))
            group = stand.groups[small.name]
            stand.event("memory", oom_kills=cgroup.oom_kills(group), peak_bytes=cgroup.peak_bytes(group))

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            told = next(event for event in trace.events if event.what == "memory").details
            found[f"oom_kills_{variant}"] = told["oom_kills"]
            found[f"errors_{variant}"] = errors(trace.records)
            found[f"refused_{variant}"] = refused(trace.records)
            found[f"peak_share_{variant}"] = told["peak_bytes"] / LIMIT_BYTES
            found[f"flow_share_{variant}"] = share(trace.records, SMALL + 1)
        return found


def _supervise(stand: Stand, server: RealServer) -> None:
    """Restart it as a systemd unit with Restart=always and RestartSec=1 would."""

    def again(status: int) -> None:
        stand.event("killed", status=status)
        time.sleep(RESTART_SECONDS)
        stand.start_server(server)

    stand.processes.may_die(server.name, again)


SCENARIO = Memory()
