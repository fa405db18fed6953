"""Daemons killed, restarted and stopped for seconds, first on the standby, then on the active director, under load.

    killed    SIGKILL, and started again a second later, as systemd does
    upgraded  SIGTERM, and started again at once
    frozen    SIGSTOP for five seconds, then SIGCONT

Each time this happens to both the sync daemon and the master of a director. The daemons are not the data path: no
connection may be lost, no new one refused, and no role may change.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.course import CONNECTIONS, begin, end, plan
from feedback.lab.pair.directors import Directors, directors
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, Node, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace

BEFORE_SECONDS = 2.0
AWAY_SECONDS = 1.0
FROZEN_SECONDS = 5.0
BACK_SECONDS = 3.0  # after each step, in which it starts and is watched
STEPS = {"killed": AWAY_SECONDS, "upgraded": 0.0, "frozen": FROZEN_SECONDS}


class Restart(PairScenario):
    name = "restart"
    summary = "our daemons killed, upgraded and frozen under load, on the standby and on the active director"
    variants = ("feedback", "keepalived_fast")
    seconds = BEFORE_SECONDS + 2 * (sum(STEPS.values()) + len(STEPS) * BACK_SECONDS) + 2
    seconds_least = seconds
    bounds = (
        Bound("established", least=CONNECTIONS),
        Bound("errors", most=0),
        Bound("lost", most=0),
        Bound("udp_lost", most=0),
        Bound("role_changes", most=0),
        Bound("both_active_ms", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        with PairStand(pair(job.run), output, job.options) as stand:
            both = directors(stand, job.variant, masters=True)
            start = begin(stand, both, plan(options))
            stand.event("visits", found=stand.visit())
            moment = start + BEFORE_SECONDS
            for director in reversed(DIRECTORS):
                for step, seconds in STEPS.items():
                    stand.sleep_until(moment)
                    _do(stand, both, step, director, seconds)
                    moment += seconds + BACK_SECONDS
            stand.sleep_until(moment)
            stand.mark_cpu("busy to")
            end(stand, both)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            made = pair_figures.common(trace)
            seen = pair_figures.read_looks(trace)
            start, finish = trace.moment("start"), trace.moment("end")
            made["lost"] = made["established"] - made["survived"]
            made["errors"] = pair_figures.unanswered(trace)
            made["role_changes"] = pair_figures.role_changes(seen, start, finish)
            made["both_active_ms"] = pair_figures.both_active_ms(seen, start, finish)
            found |= pair_figures.named(variant, made)
        return found


def _do(stand: PairStand, both: Directors, step: str, director: Node, seconds: float) -> None:
    """Perform a step. New connections are opened while the daemons are away, and after they are back."""
    stand.event(f"{step} {director.name}")
    if step == "frozen":
        moment = both.freeze(director)
    else:
        moment = both.kill(director, signal.SIGKILL if step == "killed" else signal.SIGTERM)
    if seconds:
        stand.event("visits", found=stand.visit())
    stand.sleep_until(moment + seconds)
    stand.event(f"{director.name} back")
    if step == "frozen":
        both.thaw(director)
    else:
        both.start(director)
    stand.event("visits", found=stand.visit())


SCENARIO = Restart()
