"""A standby starts when 20,000 connections exist, nineteen in twenty of them idle; a little later the active director
dies.

    feedback  the standby gets the whole table from the active director
    kernel    only the kernel's synchronisation, which sends a connection again after fifty more packets

For the kernel's policy the lab itself moves the addresses at the moment of death, so that only what the standby knows
makes the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.directors import directors
from feedback.lab.pair.injury import Death
from feedback.lab.pair.stand import PairStand, targets
from feedback.lab.pair.topology import DIRECTORS, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace
from feedback.lab.workload.streams import Plan

CONNECTIONS = 20_000
IDLE = 0.95
ESTABLISH_SECONDS = 90.0
ALONE_SECONDS = 3.0  # from the last connection to the standby's start
JOINED_SECONDS = 10.0  # from the standby's start to the death
AFTER_SECONDS = 5.0
WAKE_RATE = 1500.0


class Latejoin(PairScenario):
    name = "latejoin"
    summary = "a standby starts with 20,000 connections there, then the active one dies: feedback, the kernel alone"
    variants = ("feedback", "kernel")
    seconds = 60.0  # including the time to establish them all
    seconds_least = 60.0
    bounds = (
        Bound("established", least=CONNECTIONS),
        Bound("survived", least="established"),
        Bound("resync_ms", most=5000),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        first, second = DIRECTORS
        with PairStand(pair(job.run), output, job.options) as stand:
            both = directors(stand, job.variant)
            both.start(first)
            both.wait_until_active(first)
            stand.start_client(_plan(options))
            start = stand.wait_until_established(ESTABLISH_SECONDS)
            stand.event("start", start)
            stand.sleep_until(start + ALONE_SECONDS)
            stand.event("join")
            both.start(second)
            stand.event("complete", both.wait_until_standby(second))
            stand.sleep_until(start + ALONE_SECONDS + JOINED_SECONDS)
            died = stand.strike(Death(stand.pair, first), first)
            if job.variant == "kernel":
                stand.take_addresses(second)
            stand.sleep_until(died + AFTER_SECONDS)
            stand.wake()
            stand.wait_until_woken(ESTABLISH_SECONDS)
            stand.finish()
            both.tell()

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            made = pair_figures.common(trace)
            if variant == "kernel":
                found |= {
                    "survived_kernel_sync_alone": made["survived"],
                    "idle_kernel_sync_alone": made["idle_survived"],
                }
                continue
            found |= made | pair_figures.of_takeover(pair_figures.read_looks(trace), trace.moment("death"))
            found["connections"] = made["established"]
            # Counted from the start of the standby's process: a second of it is Python's start, another part the
            # copying.
            found["resync_ms"] = 1000 * (trace.moment("complete") - trace.moment("join"))
            copied = [event.details["took_seconds"] for event in trace.events if event.what == "replica"]
            found["copying_ms"] = 1000 * (copied[-1] if copied else math.nan)
        return found


def _plan(options: Options) -> Plan:
    return Plan(targets(), CONNECTIONS, options.seed, idle=IDLE, wake_rate=WAKE_RATE)


SCENARIO = Latejoin()
