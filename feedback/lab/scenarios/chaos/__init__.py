"""Hostile conditions, one after the other, under load. Each is undone, and then everything must recover by itself.

    loss                20 % of the packets between agents and master, both ways (the data path is left alone)
    delay               300 ms, give or take 200, both ways, which also puts them out of order
    duplicates          half of the packets come twice
    agent_stalled       SIGSTOP for 5 s, then SIGCONT            agent_killed   SIGKILL, started again 3 s later
    master_stalled      the same                                 master_killed  the same; the weights stay meanwhile
    clock               the wall clock goes an hour forward, then two back (in a guest: there is none but the machine's)
    agent_descriptors   no descriptor left, and strangers at its agent-check port
    master_descriptors  the same, strangers at the agents' port and at the pages, and an agent that reconnects
    disk                full under the master's state, and an order given meanwhile

What must hold in all of them: no client sees an error (`errors`); no destination without an order goes away or has
weight 0 (`zeroed`), falls below WEIGHT_LEAST of the share that it had (`weight_least_*`), or is ejected (`ejected`); by
the end of the calm stretch every report is fresh (`recovered`), shares are within DRIFT of what they were (`drift_*`),
and whatever could not answer answers again (`served`). Logs stay short (`log_lines_per_second`). In detail:

- the link was really disturbed: packets were dropped (`loss_dropped`) or passed through (`*_passed`);
- while the clock jumps no agent is lost and nothing is held (`clock_disturbed`). Orders end by this clock, as
  docs/limitations.md says: an order of ten minutes is over when the clock goes an hour forward (`clock_expired`), and
  one lasts two hours longer when it goes back (`clock_left_seconds`);
- a daemon without descriptors does not spin (`*_cpu_share`), agents that are connected are heard
  (`*_heard_per_second`, the least of them) and the master turns (`*_looks_per_second`);
- the operator is told that the order is not on the disk (`disk_told`), yet it is done (`disk_weight`); the file stays
  whole and keeps what it had (`disk_kept`); it is written when there is room (`disk_saved_ms`), and a master killed
  after that goes on with both orders (`disk_resumed`); failure and success are said once each (`disk_said`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.figures import Figures
from feedback.lab.frame import pool_load
from feedback.lab.injuries import SmallDisk
from feedback.lab.job import Job, Options
from feedback.lab.product import Product
from feedback.lab.scenario import Scenario
from feedback.lab.scenarios.chaos import endured
from feedback.lab.scenarios.chaos.blows import Blow, Blows, make_product
from feedback.lab.stand import Stand
from feedback.lab.topology import pool
from feedback.lab.trace import Trace, logged

QUOTAS = (0.05, 0.10, 0.20, 0.40)
RATE = 60.0
COST_MS = 2.0
CONVERGE_SECONDS = 12.0


class Chaos(Scenario):
    name = "chaos"
    summary = "bad links, stalled and killed daemons, a set clock, a full disk, no descriptors: under load"
    variants = ("feedback",)
    seconds = 125.0
    seconds_least = 125.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"
    bounds = endured.BOUNDS

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        with Stand(topology, output) as stand, contextlib.ExitStack() as stack:
            stand.wait_for_servers()
            disk = SmallDisk(stand.words / "state")
            stack.callback(disk.close)
            product = make_product(stand, disk, scheduler=options.scheduler, law=options.law or self.law)
            product.start()
            start = stand.begin(pool_load(options, rate=RATE, cost_ms=COST_MS, patience_seconds=10))
            stand.sleep_until(start + CONVERGE_SECONDS)
            with Blows(stand, product, disk) as blows:
                for blow in blows.table():
                    _endure(stand, product, blow)
            stand.finish(start + options.seconds)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        return endured.figures(traces["feedback"])


def _endure(stand: Stand, product: Product, blow: Blow) -> None:
    """Apply the fault for its time and undo it. Then everything must recover, and is left alone for a while."""
    stand.event(blow.name, said=_said(stand))
    blow.strike()
    stand.event(f"{blow.name} struck")
    stand.sleep_until(time.monotonic() + blow.seconds)
    back = time.monotonic()
    stand.event(f"{blow.name} mended", back)
    blow.mend()
    try:
        fresh = product.wait_until_reported()
    except LabError as error:
        stand.event(f"{blow.name} not recovered", reason=str(error))
    else:
        stand.event(f"{blow.name} recovered", fresh, seconds=fresh - back, served=blow.asked())
    stand.sleep_until(back + blow.calm)
    stand.event(f"{blow.name} over", said=_said(stand))


def _said(stand: Stand) -> dict[str, int]:
    """How often the daemons have logged each event so far; other lines are counted together."""
    return logged(stand.processes.logs)


SCENARIO = Chaos()
