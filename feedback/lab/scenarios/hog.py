"""Four real servers of unequal speed, steady load; halfway through a CPU hog starts beside the largest.

The quotas are 1:2:4:8 and unknown to the director. Four policies get the same requests (seed):

    wlc       LVS as people run it: wlc, equal weights
    static    our scheduler, equal weights
    oracle    our scheduler, with weights set to what is truly left of each quota, and changed when the hog starts
    feedback  agents and a master that knows nothing at first

With `--adopt` the service has an owner that chose wlc, and the master only adjusts it. It must then never be worse than
wlc alone: `worst_over_wlc` is the largest p99 of any three seconds over wlc's in the same three.

With `--source` there is one more policy, named after the source: the same master with that source instead of agents.
The figures for feedback are then those of this policy, and `over_agents` is its p99 over the agents'.

What is truly left: the hog and the service have the same cpu.weight, so a service that wants it has half the quota.

The choice of numbers. A request costs 2.2 ms of CPU, including the server's own work. So 160 a second use 0.35 of a
core of the pool's 0.75: 47 % before the hog, and 64 % of what is left after. The cost is a little less than the
smallest quota of a period: a request that just does not fit would wait for the next period, whoever chose the server.
Everything, including client, agents and master, fits the guest's one processor with a third to spare, which a busy host
may need. Clients keep their connections for a second on average after the answer, as browsers and proxies do. So
connections are not load, and a scheduler that counts them needs weights. (Without keep-alive, counting connections
counts the queue, and `sed` with equal weights was measured to be as good as the oracle.) The quota's period is 50 ms:
with 100 ms the stalls of the hogged server alone would make the oracle's p99.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feedback.lab import exporters
from feedback.lab.bounds import Bound
from feedback.lab.figures import (
    Figures,
    Window,
    converged_at,
    errors,
    fell_at,
    idle_share,
    percentile_ms,
    ratio,
    shifted,
    within,
    worst_ratio,
)
from feedback.lab.job import Job, Options
from feedback.lab.product import STATIC_WEIGHT, Product
from feedback.lab.samples import Sample
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import Topology, pool
from feedback.lab.trace import Trace
from feedback.lab.workload.load import Load
from feedback.lab.workload.records import Record

QUOTAS = (0.05, 0.10, 0.20, 0.40)
HOGGED = 3  # the index of the real server with the hog
LEFT = (0.05, 0.10, 0.20, 0.20)
RATE = 160.0
COST_MS = 2.2
KEEP_SECONDS = 1.0
WARM_UP_SECONDS = 10.0  # of each phase, left out of the percentiles
TOLERANCE = 0.2
HOLD_SECONDS = 1.0
REACTED = 0.95  # of its share before: noise does not reach this, but the first step of a reaction does
WEIGHT_SCALE = 1000  # 0.05 of a core -> 50
WORST_SECONDS = 3.0
WORST_STEP_SECONDS = 0.5


class Hog(Scenario):
    name = "hog"
    summary = "one of four unequal real servers gets a CPU hog: wlc, static, oracle and feedback on the same requests"
    variants = ("wlc", "feedback", "static", "oracle")
    sources = ("exporter", "none")
    seconds = 60.0
    seconds_least = 30.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"
    bounds = (
        Bound("gain_over_wlc", least=2, when="adopted"),
        Bound("worst_over_wlc", most=1.2, when="adopted"),
        Bound("gain_over_wlc", least=5, unless="otherwise"),
        Bound("gain_over_static", least=2, unless="otherwise"),
        Bound("over_oracle", most=1.3, unless="otherwise"),
        Bound("converge_ms", most=8000, unless="otherwise"),
        Bound("reaction_ms", most=1000, unless="otherwise"),
        Bound("gain_over_wlc", least=10, when="by_exporter"),
        Bound("over_agents", most=1.3, when="by_exporter"),
        Bound("worst_over_static", most=1.1, when="by_nothing"),
        Bound("errors", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        with Stand(topology, output, metered=True) as stand:
            hog = stand.start_hog(topology.servers[HOGGED])
            stand.wait_for_servers()
            _govern(stand, job.variant, options)
            start = stand.begin(load(topology, options))
            stand.sleep_until(start + options.seconds / 2)
            stand.event("hog", stand.release(hog))
            if job.variant == "oracle":
                stand.set_weights(_weights(LEFT))
            stand.finish(start + options.seconds)

    def measured(self, trace: Trace, options: Options) -> list[Record]:
        return within(trace.records, windows(trace))

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        p99 = {variant: percentile_ms(self.measured(trace, options), 0.99) for variant, trace in traces.items()}
        found = {_p99_name(variant): value for variant, value in p99.items()}
        ours = options.source or "feedback"
        if ours in traces:
            found |= _of_feedback(traces[ours])
            for name, other in (("gain_over_wlc", "wlc"), ("gain_over_static", "static")):
                if other in p99:
                    found[name] = ratio(p99[other], p99[ours])
            for name, other in (("over_oracle", "oracle"), ("over_agents", "feedback")):
                if other in p99 and other != ours:
                    found[name] = ratio(p99[ours], p99[other])
            for name, other in (("worst_over_wlc", "wlc"), ("worst_over_static", "static")):
                if other in traces:
                    found[name] = _worst_over(traces[ours], traces[other])
            found |= {"adopted": float(options.adopt), "otherwise": float(options.adopt or bool(options.source))}
            found |= {"by_exporter": float(ours == "exporter"), "by_nothing": float(ours == "none")}
        for variant, trace in traces.items():
            found[f"errors_{variant}"] = errors(trace.records)
            found[f"idle_{variant}"] = idle_share(_measured(trace))
            for phase, window in zip(("before", "after"), windows(trace), strict=True):
                found[f"p99_{variant}_{phase}_ms"] = percentile_ms(within(trace.records, [window]), 0.99)
        return found


def _govern(stand: Stand, variant: str, options: Options) -> None:
    scheduler = options.scheduler or ("wlc" if options.adopt else Hog.scheduler)
    servers = stand.topology.servers
    equal = [STATIC_WEIGHT] * len(servers)
    if variant == "feedback" or variant in Hog.sources:
        if options.adopt:
            stand.make_service(scheduler, equal)
        _start(stand, variant, options)
    elif variant == "oracle":
        stand.make_service(scheduler, _weights(QUOTAS))
    else:
        stand.make_service("wlc" if variant == "wlc" else scheduler, equal)


def _start(stand: Stand, variant: str, options: Options) -> None:
    """Start the product, with agents or with the source that replaces them."""
    servers, tables = stand.topology.servers, ""
    if variant == "exporter":
        exporters.start(stand, servers)
        tables = exporters.TABLE
    product = Product(
        stand,
        scheduler=options.scheduler,
        law=options.law or Hog.law,
        servers=servers,
        service={"passive": True} if variant == "none" else None,
        adopt=options.adopt,
        master_tables=tables,
        agents=servers if variant == "feedback" else (),
    )
    if variant == "none":
        product.start_master()
        product.wait_until_decided()
    else:
        product.start()


def _weights(quotas: tuple[float, ...]) -> list[int]:
    return [round(quota * WEIGHT_SCALE) for quota in quotas]


def load(topology: Topology, options: Options) -> Load:
    return Load(
        address=str(topology.vip),
        port=topology.port,
        rate=RATE,
        seconds=options.seconds,
        seed=options.seed,
        cost_ms=COST_MS,
        keep_seconds=KEEP_SECONDS,
    )


def _p99_name(variant: str) -> str:
    return f"p99_{'wlc_static' if variant == 'wlc' else variant}_ms"


def windows(trace: Trace) -> tuple[Window, Window]:
    """The time before the hog and the time with it, each without its warm-up."""
    start, hog, end = (trace.when(what) for what in ("start", "hog", "end"))
    return (start + WARM_UP_SECONDS, hog), (hog + WARM_UP_SECONDS, end)


def _worst_over(trace: Trace, other: Trace) -> float:
    start, end = trace.moment("start"), trace.moment("end")
    others = shifted(other.records, start - other.moment("start"))
    return worst_ratio(trace.records, others, start, end, WORST_SECONDS, WORST_STEP_SECONDS)


def _measured(trace: Trace) -> list[Sample]:
    start, end = trace.moment("start"), trace.moment("end")
    return [sample for sample in trace.samples if start <= sample.at < end]


def _of_feedback(trace: Trace) -> Figures:
    start, hog = trace.moment("start"), trace.moment("hog")
    before = [sample for sample in trace.samples if start <= sample.at < hog]
    after = [sample for sample in trace.samples if sample.at >= hog]
    return {
        "converge_ms": 1000 * (converged_at(before, QUOTAS, TOLERANCE, HOLD_SECONDS) - start),
        "reconverge_ms": 1000 * (converged_at(after, LEFT, TOLERANCE, HOLD_SECONDS) - hog),
        "reaction_ms": 1000 * (fell_at(trace.samples, HOGGED, hog, REACTED) - hog),
        "errors": errors(trace.records),
    }


SCENARIO = Hog()
