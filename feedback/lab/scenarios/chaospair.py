"""Hostile conditions for a pair of directors under load: bad heartbeat cables, and a changed wall clock.

    loss        20 % of the packets on the first heartbeat cable, both ways
    delay       300 ms, give or take 200, both ways, which also puts them out of order
    duplicates  half of the packets come twice
    both        the first two on both cables at once: only the look at the VIP works as before
    clock       an hour forward, then two back (only in a guest, since the clock is the machine's)

Heartbeats, and the replication over one of the cables, must go on: no change of role (`role_changes`,
`both_active_ms`), no connection lost (`lost`, `udp_lost`), no new one refused (`errors`). Within a few seconds of the
end the standby must be complete (`complete_ms`). Logs stay short (`log_lines`, of the whole run). `dropped` and
`passed` show that the faults were in force.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from feedback.lab.bounds import Bound
from feedback.lab.error import LabError
from feedback.lab.figures import Figures
from feedback.lab.injuries import BadLink, WallClock
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.course import CONNECTIONS, begin, end, plan
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, HEARTBEATS, heartbeat_interface, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace, logged

BEFORE_SECONDS = 1.0
HURT_SECONDS = 3.0
CALM_SECONDS = 2.0
HOUR = 3600.0
COMPLETE_SECONDS = 10.0


class Hurt(NamedTuple):
    cables: int
    netem: str


PHASES = {
    "loss": Hurt(1, "loss 20%"),
    "delay": Hurt(1, "delay 300ms 200ms"),
    "duplicates": Hurt(1, "duplicate 50%"),
    "both": Hurt(2, "delay 300ms 200ms loss 20%"),
}
CLOCK_STEPS = (HOUR, -2 * HOUR, HOUR)


class ChaosPair(PairScenario):
    name = "chaospair"
    summary = "bad heartbeat cables and a set clock, on a pair of directors under load: nothing may change"
    variants = ("feedback",)
    seconds = BEFORE_SECONDS + len(PHASES) * (HURT_SECONDS + CALM_SECONDS) + len(CLOCK_STEPS) * CALM_SECONDS + 2
    seconds_least = seconds
    bounds = (
        Bound("established", least=CONNECTIONS),
        Bound("errors", most=0),
        Bound("lost", most=0),
        Bound("udp_lost", most=0),
        Bound("role_changes", most=0),
        Bound("both_active_ms", most=0),
        Bound("log_lines", most=100),
        Bound("loss_dropped", least=10),
        Bound("delay_passed", least=50),
        Bound("duplicates_passed", least=50),
        Bound("both_dropped", least=10),
        Bound("complete_ms", most=10_000),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        with PairStand(pair(job.run), output, job.options) as stand, contextlib.ExitStack() as undo:
            both = Product(stand)
            begin(stand, both, plan(options))
            stand.event("visits", found=stand.visit())
            _rest(stand, BEFORE_SECONDS)
            for phase, hurt in PHASES.items():
                _hurt(stand, undo, phase, hurt)
            _set_clock(stand, undo)
            _wait_until_complete(stand, both)
            end(stand, both)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        trace = traces["feedback"]
        made = pair_figures.common(trace)
        seen = pair_figures.read_looks(trace)
        start, finish = trace.moment("start"), trace.moment("end")
        made["lost"] = made["established"] - made["survived"]
        made["errors"] = pair_figures.unanswered(trace)
        made["log_lines"] = sum(logged(trace.output / "logs").values())
        made["role_changes"] = pair_figures.role_changes(seen, start, finish)
        made["both_active_ms"] = pair_figures.both_active_ms(seen, start, finish)
        made["complete_ms"] = math.inf
        for event in trace.events:
            if event.what.endswith(" hurt"):
                phase = event.what.removesuffix(" hurt")
                made |= {f"{phase}_passed": event.details["passed"], f"{phase}_dropped": event.details["dropped"]}
            if event.what == "complete":
                made["complete_ms"] = 1000 * event.details["seconds"]
        return made


def _rest(stand: PairStand, seconds: float) -> None:
    stand.sleep_until(time.monotonic() + seconds)


def _hurt(stand: PairStand, undo: contextlib.ExitStack, phase: str, hurt: Hurt) -> None:
    """Apply a fault for its time, and open new connections meanwhile."""
    stand.event(phase)
    assert hurt.cables <= len(HEARTBEATS)
    links = [
        BadLink(stand.pair.namespace(director.name), interface=heartbeat_interface(i))
        for director in DIRECTORS
        for i in range(hurt.cables)
    ]
    for link in links:
        undo.callback(link.close)
        link.hurt(hurt.netem)
    _rest(stand, HURT_SECONDS / 2)
    stand.event("visits", found=stand.visit())
    _rest(stand, HURT_SECONDS / 2)
    passed, dropped = (sum(counts) for counts in zip(*(link.packets() for link in links), strict=True))
    stand.event(f"{phase} hurt", passed=passed, dropped=dropped)
    for link in links:
        link.mend()
    _rest(stand, CALM_SECONDS)


def _set_clock(stand: PairStand, undo: contextlib.ExitStack) -> None:
    clock = WallClock()
    if not clock.ours():
        return
    undo.callback(clock.close)
    for step in CLOCK_STEPS:
        stand.event("clock", seconds=step)
        clock.step(step)
        stand.event("visits", found=stand.visit())
        _rest(stand, CALM_SECONDS)


def _wait_until_complete(stand: PairStand, both: Product) -> None:
    began = time.monotonic()
    try:
        moment = stand.wait_for("the standby is complete", lambda: both.complete(DIRECTORS[1]), COMPLETE_SECONDS)
    except LabError as error:
        stand.event("not complete", reason=str(error))
    else:
        stand.event("complete", moment, seconds=moment - began)


SCENARIO = ChaosPair()
