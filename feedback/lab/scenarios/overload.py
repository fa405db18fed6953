"""More load than the pool can serve: 115 % of its capacity for 20 s, then back to 60 %.

Four unequal real servers get short requests. Relative weights do not help here. It helps to refuse early what cannot be
served in time: then admitted requests are served well, and the queues end with the overload.

    static     sed with the *true* weights and no thresholds: the gain must come from shedding, not from weights
    feedback   agents, master, learned thresholds

Percentiles are of admitted requests, over the run without its first quarter. `refused` counts the others.
`refused_needless` is by how much their part of the arrivals exceeds what no pool could have served (1 - 1 / asked). The
queue that 115 % leaves after 20 s is 3 s of work. `recovery_ms` is the time from the end of the overload to the moment
after which, in each second, at most 5 % of the requests (two of some forty) were refused, failed or slower than half a
second.

The kernel counts closed connections against thresholds as long as it remembers them, two minutes by default. Where they
far outnumber the open ones, thresholds are meaningless. So both policies run with 1 s (`ipvsadm --set 0 1 0`, for
direct routing). Each request has a connection of its own.

A request costs 4 ms of CPU in all, including the server's overhead (workload/burn.py), so that 115 % means 115 % on any
host. `asked_...` is what was really asked: arrivals in the overload times the CPU cost of a request before it, over the
quotas. A run in which this was far from 115 % proves nothing, and fails. `idle_...` is what was left of the guest's
processor: if nothing was left, the guest was overloaded and not the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import (
    Figures,
    errors,
    idle_share,
    percentile_ms,
    ratio,
    recovered_at,
    refused,
    served,
    within,
)
from feedback.lab.frame import Step, govern, play, pool_load
from feedback.lab.job import Job, Options
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import pool
from feedback.lab.trace import Trace
from feedback.lab.workload.records import Record

QUOTAS = (0.05, 0.08, 0.12, 0.15)
WEIGHT_SCALE = 1000
COST_MS = 4.0
CAPACITY = 1000 * sum(QUOTAS) / COST_MS  # requests a second
BEFORE, DURING = 0.60, 1.15  # of the pool's capacity
BEGIN, END = 1 / 3, 2 / 3  # of the run
FIN_SECONDS = 1
LIMIT_SECONDS = 0.5
BAD_PART = 0.05
GAIN = 3.0
RECOVERY_MS = 5000.0
NEEDLESS_MAX = 0.10  # of the arrivals in the overload
ASKED = (1.08, 1.25)


class Overload(Scenario):
    name = "overload"
    summary = "115 % of the pool's capacity for a third of the run: true weights alone, and learned thresholds"
    variants = ("static", "feedback")
    seconds = 60.0
    seconds_least = 45.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"
    bounds = (
        Bound("gain", least=GAIN),
        Bound("recovery_ms", most=RECOVERY_MS),
        Bound("refused_needless", most=NEEDLESS_MAX),
        Bound("refused_outside", most=0),
        Bound("asked_static", least=ASKED[0], most=ASKED[1]),
        Bound("asked_feedback", least=ASKED[0], most=ASKED[1]),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        with Stand(topology, output, metered=True) as stand:
            stand.set_fin_seconds(FIN_SECONDS)
            stand.wait_for_servers()
            govern(
                stand,
                job.variant,
                scheduler=options.scheduler or self.scheduler,
                law=options.law or self.law,
                weights=[round(quota * WEIGHT_SCALE) for quota in QUOTAS],
            )
            steps = (Step("overload", BEGIN, DURING * CAPACITY), Step("back", END, BEFORE * CAPACITY))
            load = pool_load(options, rate=BEFORE * CAPACITY, cost_ms=COST_MS, steps=steps)
            play(stand, load, steps, patience_seconds=30)

    def measured(self, trace: Trace, options: Options) -> list[Record]:
        start = trace.when("start")
        warm = start + (trace.when("overload") - start) / 2
        return served(within(trace.records, [(warm, trace.when("end"))]))

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            begin, back, end = (trace.moment(what) for what in ("overload", "back", "end"))
            found[f"p99_{variant}_ms"] = percentile_ms(self.measured(trace, options), 0.99)
            during = within(trace.records, [(begin, back)])
            found[f"p50_{variant}_overload_ms"] = percentile_ms(served(during), 0.5)
            recovered = recovered_at(trace.records, back, end, LIMIT_SECONDS, BAD_PART)
            found["recovery" + ("_static" if variant == "static" else "") + "_ms"] = 1000 * (recovered - back)
            found[f"asked_{variant}"] = _asked(trace)
            found[f"idle_{variant}"] = idle_share([sample for sample in trace.samples if begin <= sample.at < back])
            found[f"errors_{variant}"] = errors(served(trace.records))
            if variant == "feedback":
                found["refused"] = refused(trace.records)
                found["refused_share"] = ratio(refused(during), len(during))
                found["refused_needless"] = found["refused_share"] - max(0.0, 1 - ratio(1.0, found["asked_feedback"]))
                found["refused_outside"] = refused(trace.records) - refused(within(trace.records, [(begin, back + 1)]))
        if len(traces) == 2:
            found["gain"] = ratio(found["p99_static_ms"], found["p99_feedback_ms"])
        return found


def _asked(trace: Trace) -> float:
    """The part of the pool's capacity that the overload asked for (see the module's docstring)."""
    start, begin, back = (trace.moment(what) for what in ("start", "overload", "back"))
    before = [s for s in trace.samples if start <= s.at < begin]
    if len(before) < 2:
        return float("nan")
    used = sum(before[-1].service_usage) - sum(before[0].service_usage)
    cost = ratio(used, len(within(trace.records, [(before[0].at, before[-1].at)])))
    return cost * len(within(trace.records, [(begin, back)])) / (back - begin) / sum(QUOTAS)


SCENARIO = Overload()
