"""Each of our daemons dies, one after the other, under load, without effect on the pool.

    converge   agents and master learn four unequal real servers
    agents     all agents killed (SIGKILL), for a while, then started again
    cut        the agents' route to the master is a blackhole in each real server, and then restored
    one        a single agent killed, then started again: the failure of one server, not of our system
    master     the master killed (SIGKILL), for a while, then started again

`weights_changed_wrongly` counts, over each two successive samples of the kernel's table:

- a destination that disappears or has weight 0, which is always wrong;
- while no report arrives at all (agents dead or cut, from SETTLE_SECONDS after the failure, when earlier reports have
  taken effect, until the return): any weight that changes. A fleet that falls silent as a whole is our fault, and the
  last known state must be held;
- while the master is dead: any weight that changes;
- for RESTART_SECONDS after the master's restart: a weight that is farther than DRIFT from the one at its death. A reset
  to static weights would be that far away; the small steps of a law under load are not.

`recovered` counts the returns (of four) after which every report is fresh again within the time allowed, by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.error import LabError
from feedback.lab.figures import Figures, errors, percentile_ms
from feedback.lab.frame import pool_load
from feedback.lab.job import Job, Options
from feedback.lab.product import Product
from feedback.lab.samples import Sample
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import RealServer, pool
from feedback.lab.trace import Trace

QUOTAS = (0.05, 0.10, 0.20, 0.40)
RATE = 60.0
COST_MS = 2.0
CONVERGE_PART = 0.25  # of the run; the rest is for the four failures, each half dead and half restored
FAILURES = ("agents", "cut", "one", "master")
SETTLE_SECONDS = 1.0
RESTART_SECONDS = 3.0
DRIFT = 0.35  # relative: static weights are three times too much for the smallest and half for the largest


class Silence(Scenario):
    name = "silence"
    summary = "agents killed, the network cut, the master killed, each in turn under load: nothing may change"
    variants = ("feedback",)
    seconds = 80.0
    seconds_least = 50.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"
    bounds = (
        Bound("errors", most=0),
        Bound("weights_changed_wrongly", most=0),
        Bound("recovered", least=len(FAILURES)),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        with Stand(topology, output) as stand:
            stand.wait_for_servers()
            product = Product(stand, scheduler=options.scheduler, law=options.law or self.law, servers=topology.servers)
            product.start()
            start = stand.begin(pool_load(options, rate=RATE, cost_ms=COST_MS, patience_seconds=10))
            converged = start + options.seconds * CONVERGE_PART
            stand.sleep_until(converged)
            each = (options.seconds - (converged - start)) / len(FAILURES)
            for number, failure in enumerate(FAILURES):
                _fail(stand, product, failure, converged + number * each, each)
            stand.finish(start + options.seconds)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        trace = traces["feedback"]
        wrong = wrong_changes(trace)
        back = {event.what: event for event in trace.events if event.what.startswith("recovered ")}
        found: Figures = {
            "errors": errors(trace.records),
            "weights_changed_wrongly": sum(wrong.values()),
            "recovered": len(back),
            "p99_ms": percentile_ms(self.measured(trace, options), 0.99),
        }
        found |= {f"wrong_{what}": count for what, count in wrong.items()}
        for what, event in back.items():
            found[what.replace(" ", "_") + "_ms"] = 1000 * event.details["seconds"]
        return found


def _fail(stand: Stand, product: Product, failure: str, begin: float, seconds: float) -> None:
    """One fault for half of the time, then its end, and the wait for fresh reports."""
    fail, mend = _acts(stand, product, failure)
    stand.sleep_until(begin)
    stand.event(failure)
    fail()
    stand.event(f"{failure} dead")
    stand.sleep_until(begin + seconds / 2)
    back = time.monotonic()
    stand.event(f"{failure} back", back)
    mend()
    try:
        fresh = product.wait_until_reported()
    except LabError:
        stand.event(f"not recovered {failure}")
    else:
        stand.event(f"recovered {failure}", fresh, seconds=fresh - back)
    stand.sleep_until(begin + seconds)


def _acts(stand: Stand, product: Product, failure: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """What causes the fault, and what undoes it."""
    servers = product.servers

    def kill(*names: str) -> None:
        for name in names:
            stand.processes.kill(name)

    def start(count: int) -> None:
        for server in servers[-count:]:
            product.start_agent(server)

    agents = [f"{server.name}-agent" for server in servers]
    acts: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "agents": (lambda: kill(*agents), lambda: start(len(servers))),
        "cut": (lambda: _each(product.cut, servers), lambda: _each(product.mend, servers)),
        "one": (lambda: kill(agents[-1]), lambda: start(1)),
        "master": (lambda: kill("master"), product.start_master),
    }
    return acts[failure]


def _each(act: Callable[[RealServer], object], servers: tuple[RealServer, ...]) -> None:
    for server in servers:
        act(server)


def wrong_changes(trace: Trace) -> dict[str, int]:
    """The kinds of wrong change, with how often each was seen (see the module's docstring)."""
    dead = {what: trace.moment(f"{what} dead") for what in FAILURES}
    back = {what: trace.moment(f"{what} back") for what in FAILURES}
    counts = {"gone_or_zero": 0, "while_silent": 0, "while_master_dead": 0, "after_restart": 0}
    samples = [sample for sample in trace.samples if sample.at >= trace.moment("start")]
    held = _last_before(samples, trace.moment("master"))
    for before, now in pairwise(samples):
        if any(new <= 0 < old for old, new in zip(before.weights, now.weights, strict=True)):
            counts["gone_or_zero"] += 1
        changed = before.weights != now.weights
        if changed and any(
            dead[what] + SETTLE_SECONDS <= before.at and now.at < back[what] for what in ("agents", "cut")
        ):
            counts["while_silent"] += 1
        if changed and dead["master"] <= before.at and now.at < back["master"]:
            counts["while_master_dead"] += 1
        if back["master"] <= now.at < back["master"] + RESTART_SECONDS and _far(held.weights, now.weights):
            counts["after_restart"] += 1
    return counts


def _last_before(samples: list[Sample], moment: float) -> Sample:
    return [sample for sample in samples if sample.at < moment][-1]


def _far(held: tuple[int, ...], now: tuple[int, ...]) -> bool:
    return any(abs(new - old) > DRIFT * old for old, new in zip(held, now, strict=True))


SCENARIO = Silence()
