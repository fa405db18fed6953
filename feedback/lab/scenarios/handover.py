"""The active director is relieved on purpose, with a thousand open connections and traffic on them.

The clients are those of `takeover`. With keepalived, which has no command for it, the one in service is stopped in an
orderly way: the nearest that its operators have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feedback.lab.job import Job
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.directors import directors
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import pair
from feedback.lab.scenarios.scenario import Figures, Options, Trace, shortfall
from feedback.lab.scenarios.takeover import AFTER_SECONDS, CONNECTIONS, WAKE_SECONDS, begin, end, plan


class Handover:
    name = "handover"
    summary = "the active director is relieved with 1,000 open connections: feedback, and keepalived stopped"
    variants = ("feedback", "keepalived", "keepalived_fast")
    seconds = 22.0
    seconds_least = 18.0
    quotas = ()
    law = "capacity"
    scheduler = "wlc"

    def run(self, job: Job, output: Path) -> None:
        options = Options.of(job)
        with PairStand(pair(job.run), output) as stand:
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
            made = pair_figures.of_takeover(pair_figures.read_looks(trace), trace.moment("handover"))
            found |= pair_figures.named(variant, made | pair_figures.common(trace))
        return found

    def failures(self, figures: Figures) -> list[str]:
        if "established" not in figures:
            return []
        return [
            *shortfall(figures, "established", least=CONNECTIONS),
            *shortfall(figures, "survived", least=figures["established"]),
            *shortfall(figures, "gap_max_ms", most=50),
            *shortfall(figures, "udp_moved", most=0),
            *shortfall(figures, "persistent_moved", most=0),
        ]


SCENARIO = Handover()
