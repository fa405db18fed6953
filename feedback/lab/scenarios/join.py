"""A slow new real server joins a pool under load.

Three real servers share long requests. Each costs a little CPU and is held open for five seconds on average, like a
download or a long poll, so that some five hundred connections are open at any moment. Then a fourth server joins, half
as fast as each of the others. Its fair share is its part of the pool's CPU.

    plain      wlc and `ipvsadm -a` with the same weight as the others
    feedback   agents, master, the new server added to the master's configuration and SIGHUP; with `--adopt`, added by
               `ipvsadm -a` to a wlc service that somebody else owns

Why held connections: with short ones there is a flood too, but its size depends on the load of the lab's host. With
held ones it is the same in every run: both wlc and sed send *everything* to the new server until its count has caught
up. At this moment, with cold caches, a real server is at its slowest. `peak_flow_over_fair` is the largest share of new
connections that it had in any three seconds, over its fair share. Latencies are without the time that a request asked
to be held.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, peak_share, percentile_ms, share, within
from feedback.lab.frame import pool_load
from feedback.lab.job import Job, Options
from feedback.lab.product import STATIC_WEIGHT, Product
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import pool
from feedback.lab.trace import Trace
from feedback.lab.workload.load import Load, requests
from feedback.lab.workload.records import Record

QUOTAS = (0.20, 0.20, 0.20, 0.10)
NEW = 4  # rs4
FAIR = QUOTAS[NEW - 1] / sum(QUOTAS)
RATE = 100.0
COST_MS = 2.0
HOLD_SECONDS = 5.0
BEFORE = 0.4  # of the run's time
PEAK_SECONDS = 3.0
STEP_SECONDS = 0.25


class Join(Scenario):
    name = "join"
    summary = "a slow new real server joins a pool under load: plain wlc and feedback on the same requests"
    variants = ("plain", "feedback")
    seconds = 50.0
    seconds_least = 30.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"
    bounds = (
        Bound("peak_flow_over_fair", most=1.5),
        Bound("errors", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        old, new = topology.servers[:-1], topology.servers[-1]
        with Stand(topology, output) as stand:
            stand.wait_for_servers()
            if job.variant == "plain" or options.adopt:
                stand.make_service(options.scheduler or "wlc", [STATIC_WEIGHT] * len(old))
            product = None
            if job.variant == "feedback":
                law = options.law or self.law
                product = Product(stand, scheduler=options.scheduler, law=law, servers=old, adopt=options.adopt)
                product.start()
            start = stand.begin(load(options))
            stand.sleep_until(start + options.seconds * BEFORE)
            stand.event("join")
            if product and options.adopt:
                product.start_agent(new)
                stand.add_destination(new, STATIC_WEIGHT)
            elif product:
                # As an operator does it: the agent is installed and started, then the director's file gets a line.
                product.start_agent(new)
                product.write_master(topology.servers)
                product.reload_master()
            else:
                stand.add_destination(new, STATIC_WEIGHT)
            stand.finish(start + options.seconds, 60)

    def measured(self, trace: Trace, options: Options) -> list[Record]:
        after = within(trace.records, [(trace.when("join"), trace.when("end"))])
        return _unheld(after, trace.when("start"), options)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {"fair_share": FAIR}
        for variant, trace in traces.items():
            join, end = trace.moment("join"), trace.moment("end")
            after = within(trace.records, [(join, end)])
            name = "peak_flow_over_fair" + ("_plain" if variant == "plain" else "")
            found[name] = peak_share(after, NEW, join, end, PEAK_SECONDS, STEP_SECONDS) / FAIR
            found[f"share_at_end_{variant}"] = share(within(after, [(end - 10, end)]), NEW)
            found[f"p99_{variant}_ms"] = percentile_ms(self.measured(trace, options), 0.99)
            found[f"errors_{variant}"] = errors(trace.records)
        found["errors"] = sum(value for name, value in found.items() if name.startswith("errors_"))
        return found


def load(options: Options) -> Load:
    return pool_load(options, rate=RATE, cost_ms=COST_MS, hold_seconds=HOLD_SECONDS)


def _unheld(records: list[Record], start: float, options: Options) -> list[Record]:
    """Records with latencies less the time that each request asked to be held: the cost of waiting for the CPU."""
    asked = {start + request.offset_seconds: request.hold_seconds for request in requests(load(options))}
    return [r._replace(latency_seconds=r.latency_seconds - asked[r.intended]) for r in records]


SCENARIO = Join()
