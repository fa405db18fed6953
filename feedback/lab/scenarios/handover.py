"""The active director hands over on purpose, with a thousand open connections and traffic on them.

The clients are those of `takeover`. `gap_max_ms` is the longest delay of a record sent from one second before the order
to nine seconds after it. `whole_run_gap_max_ms` is that of the whole run, which includes the load when a thousand
clients connect, and when the idle ones wake together at the end. keepalived has no command for a handover, so its
active daemon is stopped in an orderly way, as its operators would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.course import AFTER_SECONDS, CONNECTIONS, WAKE_SECONDS, begin, end, plan
from feedback.lab.pair.directors import directors
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace

BEFORE_SECONDS = 1.0  # what was sent then may still be under way when the order comes


class Handover(PairScenario):
    name = "handover"
    summary = "the active director is relieved with 1,000 open connections: feedback, and keepalived stopped"
    variants = ("feedback", "keepalived", "keepalived_fast")
    mixed_variants = ("feedback",)
    seconds = 22.0
    seconds_least = 18.0
    bounds = (
        Bound("established", least=CONNECTIONS),
        Bound("survived", least="established"),
        Bound("gap_max_ms", most=50),
        Bound("udp_moved", most=0),
        Bound("persistent_moved", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        with PairStand(pair(job.run), output, options) as stand:
            both = directors(stand, job.variant)
            start = begin(stand, both, plan(options))
            stand.event("visits", found=stand.visit())
            stand.sleep_until(start + options.seconds - AFTER_SECONDS - WAKE_SECONDS)
            stand.mark_cpu("busy to")
            asked = both.hand_over()
            stand.event("handover", asked)
            stand.sleep_until(asked + AFTER_SECONDS)
            end(stand, both)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            asked = trace.moment("handover")
            made = pair_figures.of_takeover(pair_figures.read_looks(trace), asked)
            # Records from ten seconds before, when a thousand clients had just connected, are left out, and so is the
            # waking of the idle ones nine seconds later: on a slow processor that load alone delays records.
            delay = pair_figures.delay_max_ms(trace.records, asked - BEFORE_SECONDS, asked + AFTER_SECONDS)
            common = pair_figures.common(trace)
            whole = {"gap_max_ms": delay, "whole_run_gap_max_ms": common["gap_max_ms"]}
            found |= pair_figures.named(variant, made | common | whole)
        return found


SCENARIO = Handover()
