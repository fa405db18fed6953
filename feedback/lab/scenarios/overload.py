"""More is asked than the pool can do: 115 % of its capacity for 20 s, then back to 60 %.

Four unequal real servers, short requests. Relative weights help nobody here: what helps is to refuse in time what
cannot be served in time, so that what is let in is served well and the queues are gone when the load is.

    static     sed with the *true* weights and no thresholds: the gain must come from shedding, not from weights
    feedback   agents, master, learned thresholds

Percentiles are of what was let in, over the run without its first quarter; `refused` counts what was not, and
`refused_needless` is by how much its part of the arrivals exceeds what no pool could have served (1 - 1 / asked). The
queue that 115 % leaves behind after 20 s is 3 s of work. `recovery_ms` is from the end of the overload to the moment
after which, in each second, at most 5 % of the requests (two of some forty) were refused, failed or slower than half a
second.

The kernel counts closed connections against thresholds as long as it remembers them, two minutes by default, and where
they are many more than the open ones no threshold can mean anything. So both run with 1 s (`ipvsadm --set 0 1 0`, for
direct routing), and clients keep their connections for 2 s on average, as browsers do.

The choice of numbers: a request costs 4 ms of CPU and the server's own work, which differs between machines, and on a
busy host all of it counts double and more. So what a request costs is measured first, by a few seconds of load, and
the rates follow (`rate_...`: that of the overload); the sequence of requests is the same. The measurement is the median
of short windows after a warm-up, for what disturbs a host comes in bursts. `asked_...` says what was truly asked:
arrivals in the overload times the CPU that each request had cost before it, over the quotas; a run in which that was
far from 115 % on either side proves nothing, and fails. `idle_...` is what was left of the guest's processor then: with
nothing left, not the pool is what is overloaded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from feedback.lab import cgroup
from feedback.lab.figures import errors, idle_share, percentile_ms, ratio, recovered_at, refused, served, within
from feedback.lab.job import Job
from feedback.lab.scenarios.frame import Step, govern, play, rates
from feedback.lab.scenarios.scenario import Figures, Options, Trace, shortfall
from feedback.lab.stand import LEAD_SECONDS, Stand
from feedback.lab.topology import PORT, VIP, pool
from feedback.lab.workload.load import Load, Request, requests

QUOTAS = (0.05, 0.08, 0.12, 0.15)
WEIGHT_SCALE = 1000
COST_MS = 4.0
KEEP_SECONDS = 2.0
TRIAL_RATE = 50.0
WARM_SECONDS, WINDOW_SECONDS, WINDOWS = 3.0, 1.5, 6
TRIAL_SECONDS = WARM_SECONDS + WINDOWS * WINDOW_SECONDS + 1.0
BEFORE, DURING = 0.60, 1.15  # of the pool's capacity
BEGIN, END = 1 / 3, 2 / 3  # of the run
FIN_SECONDS = 1
LIMIT_SECONDS = 0.5
BAD_PART = 0.05
GAIN = 3.0
RECOVERY_MS = 5000.0
NEEDLESS_MAX = 0.10  # of the arrivals in the overload
ASKED = (1.05, 1.35)


class Overload:
    name = "overload"
    summary = "115 % of the pool's capacity for a third of the run: true weights alone, and learned thresholds"
    variants = ("static", "feedback")
    seconds = 60.0
    seconds_least = 45.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"

    def run(self, job: Job, output: Path) -> None:
        options = Options.of(job)
        topology = pool(job.run, QUOTAS)
        with Stand(topology, output) as stand:
            stand.set_fin_seconds(FIN_SECONDS)
            stand.wait_for_servers()
            govern(
                stand,
                job.variant,
                scheduler=options.scheduler or self.scheduler,
                law=options.law or self.law,
                weights=[round(quota * WEIGHT_SCALE) for quota in QUOTAS],
            )
            capacity = sum(QUOTAS) / _cost_seconds(stand, options)
            steps = (Step("overload", BEGIN, DURING * capacity), Step("back", END, BEFORE * capacity))
            load = replace(_trial(options), rate=BEFORE * capacity, seconds=options.seconds)
            play(stand, replace(load, steps=rates(options, steps)), steps, patience_seconds=30)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            begin, back, end = (trace.moment(what) for what in ("overload", "back", "end"))
            warm = trace.moment("start") + (begin - trace.moment("start")) / 2
            found[f"p99_{variant}_ms"] = percentile_ms(served(within(trace.records, [(warm, end)])), 0.99)
            during = within(trace.records, [(begin, back)])
            found[f"p50_{variant}_overload_ms"] = percentile_ms(served(during), 0.5)
            recovered = recovered_at(trace.records, back, end, LIMIT_SECONDS, BAD_PART)
            found["recovery" + ("_static" if variant == "static" else "") + "_ms"] = 1000 * (recovered - back)
            found[f"rate_{variant}"] = next(e.details["rate"] for e in trace.events if e.what == "overload")
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

    def failures(self, figures: Figures) -> list[str]:
        return [
            *shortfall(figures, "gain", least=GAIN),
            *shortfall(figures, "recovery_ms", most=RECOVERY_MS),
            *shortfall(figures, "refused_needless", most=NEEDLESS_MAX),
            *shortfall(figures, "refused_outside", most=0),
            *shortfall(figures, "asked_static", least=ASKED[0], most=ASKED[1]),
            *shortfall(figures, "asked_feedback", least=ASKED[0], most=ASKED[1]),
        ]


def _trial(options: Options) -> Load:
    return Load(
        address=str(VIP),
        port=PORT,
        rate=TRIAL_RATE,
        seconds=TRIAL_SECONDS,
        seed=options.seed,
        cost_ms=COST_MS,
        keep_seconds=KEEP_SECONDS,
        timeout_seconds=20.0,
    )


def _cost_seconds(stand: Stand, options: Options) -> float:
    """CPU of one request, all included, here and today."""

    def used() -> float:
        return sum(cgroup.usage_seconds(group / "service") for group in stand.groups.values())

    load = _trial(options)
    start = time.monotonic() + LEAD_SECONDS
    stand.start_client(load, start, "trial")
    readings = []
    for k in range(WINDOWS + 1):
        stand.sleep_until(start + WARM_SECONDS + k * WINDOW_SECONDS)
        readings.append((time.monotonic() - start, used()))
    stand.processes.wait("trial", 60)
    return request_seconds(readings, list(requests(load)))


def request_seconds(readings: Sequence[tuple[float, float]], asked: Sequence[Request]) -> float:
    """CPU of a mean request. `readings`: (seconds after the start, CPU seconds used so far). What was used over what
    was asked for in each window; the median."""
    factors = []
    for (begin, before), (end, after) in pairwise(readings):
        wanted = sum(request.cost_ms for request in asked if begin <= request.offset_seconds < end)
        factors.append(ratio(after - before, wanted))
    return median(factors) * mean(request.cost_ms for request in asked)


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
