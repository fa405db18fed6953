"""The active director's processes and cables vanish at once, with a thousand open connections and traffic on them.

There are all forwarding methods at once (direct routing and masquerading, IPv4 and IPv6), downloads, a UDP flow and a
persistent service. A part of the connections is idle, and sends again only afterwards. Three policies have the same
clients and seed:

    feedback         two sync daemons
    keepalived       VRRP at 1 s, the kernel's sync as keepalived starts it
    keepalived_fast  the same at 0.1 s

For comparison: the client's TCP sends a lost segment again 0.22, 0.7, 1.6, 3.5 and 7.2 s after it was first sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.course import AFTER_SECONDS, CONNECTIONS, WAKE_SECONDS, begin, end, plan
from feedback.lab.pair.directors import directors
from feedback.lab.pair.injury import Death
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace


class Takeover(PairScenario):
    name = "takeover"
    summary = "the active director dies with 1,000 open connections: feedback, and keepalived at 1 s and 0.1 s"
    variants = ("feedback", "keepalived", "keepalived_fast")
    mixed_variants = ("feedback",)
    seconds = 22.0
    seconds_least = 18.0
    bounds = (
        Bound("established", least=CONNECTIONS),
        Bound("survived", least="established"),
        Bound("vip_ms", most=200),
        Bound("act_ms", most=20),
        Bound("gap_max_ms", most=260),
        Bound("udp_moved", most=0),
        Bound("persistent_moved", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        first = DIRECTORS[0]
        with PairStand(pair(job.run), output, options) as stand:
            both = directors(stand, job.variant)
            start = begin(stand, both, plan(options))
            stand.event("visits", found=stand.visit())
            death = Death(stand.pair, first)
            stand.sleep_until(start + options.seconds - AFTER_SECONDS - WAKE_SECONDS)
            died = stand.strike(death, first)
            stand.sleep_until(died + AFTER_SECONDS)
            end(stand, both)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            died = trace.moment("death")
            made = pair_figures.of_takeover(pair_figures.read_looks(trace), died) | pair_figures.common(trace)
            if variant == "feedback":
                made |= decision(trace, died, made["vip_ms"])
            found |= pair_figures.named(variant, made)
        return found


def decision(trace: Trace, died: float, vip_ms: float) -> Figures:
    """The time of the standby's decision by its own report, between the death and the VIP's first answer."""
    decided = min(
        (e.at for e in trace.events if e.what == "transition" and e.details["new"] == "active" and e.at >= died),
        default=math.inf,
    )
    detect_ms = 1000 * (decided - died)
    return {"detect_ms": detect_ms, "act_ms": vip_ms - detect_ms}


SCENARIO = Takeover()
