"""The active director's processes and cables vanish at once, with a thousand open connections and traffic on them.

All ways at once: direct routing and masquerading, IPv4 and IPv6; downloads, a UDP flow, a persistent service; a part of
the connections is idle, and speaks again only afterwards. The same clients and seed with three policies:

    feedback         two sync daemons
    keepalived       VRRP at 1 s, the kernel's sync as keepalived starts it
    keepalived_fast  the same at 0.1 s

The yardstick is the client's TCP: what was lost is sent again 0.22, 0.7, 1.6, 3.5, 7.2 s after it was first sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from feedback.lab.job import Job
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.directors import Directors, directors
from feedback.lab.pair.injury import Death
from feedback.lab.pair.stand import PairStand, targets, udp_target
from feedback.lab.pair.topology import DIRECTORS, pair
from feedback.lab.scenarios.scenario import Figures, Options, Trace, shortfall
from feedback.lab.workload.streams import Plan

CONNECTIONS = 1000  # that talk, or have talked
MUTE = 20
DOWNLOADS = 8
AFTER_SECONDS = 9.0  # longer than the fifth retransmission
WAKE_SECONDS = 3.0


class Takeover:
    name = "takeover"
    summary = "the active director dies with 1,000 open connections: feedback, and keepalived at 1 s and 0.1 s"
    variants = ("feedback", "keepalived", "keepalived_fast")
    seconds = 22.0
    seconds_least = 18.0
    quotas = ()
    law = "capacity"
    scheduler = "wlc"

    def run(self, job: Job, output: Path) -> None:
        options = Options.of(job)
        first = DIRECTORS[0]
        with PairStand(pair(job.run), output) as stand:
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

    def failures(self, figures: Figures) -> list[str]:
        if "established" not in figures:
            return []
        return [
            *shortfall(figures, "established", least=CONNECTIONS),
            *shortfall(figures, "survived", least=figures["established"]),
            *shortfall(figures, "vip_ms", most=200),
            *shortfall(figures, "act_ms", most=20),
            *shortfall(figures, "gap_max_ms", most=260),
            *shortfall(figures, "udp_moved", most=0),
            *shortfall(figures, "persistent_moved", most=0),
        ]


def begin(stand: PairStand, both: Directors, work: Plan) -> float:
    """The first director active, the second complete, every connection established. Returns that moment."""
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
    """The persistent service is asked again, the idle ones speak, and all that is out must come back."""
    stand.event("visits", found=stand.visit())
    stand.wake()
    stand.wait_until_woken()
    stand.finish()
    both.tell()


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


def decision(trace: Trace, died: float, vip_ms: float) -> Figures:
    """The standby's own word of when it decided, between the death that it saw and the VIP that answered."""
    decided = min(
        (e.at for e in trace.events if e.what == "transition" and e.details["new"] == "active" and e.at >= died),
        default=math.inf,
    )
    detect_ms = 1000 * (decided - died)
    return {"detect_ms": detect_ms, "act_ms": vip_ms - detect_ms}


SCENARIO = Takeover()
