"""A preferred real server fills, then the next: the kernel's scheduler `ovf` with capacities learned, not configured.

Three real servers have an order of preference, and requests are held open for some seconds. The load climbs in steps
past what the first can hold, and falls again. Nobody has configured how many connections each can hold.

Figures from the kernel's table, ten times a second:

    over_capacity_max   the most connections that a server was *given* over its weight, which under ovf is its capacity
                        (a capacity that falls below the present count is no fault; one more connection then is).
                        The kernel admits one more than the weight
    out_of_order        how often a later server was given connections while an earlier one had room for
                        ROOM_CONNECTIONS before and after: fewer may have come and gone between two looks
    refused             connections that no server accepted
    refused_with_room   those of them while a server had used less than BUSY of its CPU in the ROOM_SECONDS before. When
                        all servers are busy the excess must be refused; on a busy host that is so at this load

`preferred_utilisation` at the peak shows that the learned capacities are useful: with capacities far too small all the
figures above would be 0.

The choice of numbers: a request costs 4 ms, some 4.6 with the server's own work, and is held for 3 s on average, so one
server can do 43 requests a second and hold 130 connections with all its CPU in use. The peak is 56, which fills the
first, and which the three can still do on a host so busy that everything costs double. All are alike, since ovf orders
by weight: behind a small one, a large one is never let in to more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, refused, share, utilisation, within
from feedback.lab.frame import Step, play, pool_load
from feedback.lab.job import Job, Options
from feedback.lab.product import Product
from feedback.lab.samples import Sample
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import pool
from feedback.lab.trace import Trace
from feedback.lab.workload.records import Record

QUOTAS = (0.20, 0.20, 0.20)  # in order of preference
COST_MS = 4.0
HOLD_SECONDS = 3.0
RATE = 20.0
STEPS = (Step("45/s", 0.3, 45.0), Step("56/s", 0.5, 56.0), Step("20/s", 0.8, 20.0))
PEAK = (0.65, 0.8)
ROOM_CONNECTIONS = 10
ROOM_SECONDS, BUSY = 2.0, 0.9
UTILISATION_LEAST = 0.5
SHARE_LEAST = 0.05  # of the second server at the peak: shows that the first was full


class Overflow(Scenario):
    name = "overflow"
    summary = "a preferred server fills, then the next, with learned capacities under the scheduler ovf"
    variants = ("feedback",)
    seconds = 60.0
    seconds_least = 30.0
    quotas = QUOTAS
    law = "overflow"
    scheduler = "ovf"
    bounds = (
        Bound("over_capacity_max", most=1),
        Bound("out_of_order", most=0),
        Bound("refused_with_room", most=0),
        Bound("preferred_utilisation", least=UTILISATION_LEAST),
        Bound("peak_share_rs2", least=SHARE_LEAST),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        with Stand(topology, output) as stand:
            stand.wait_for_servers()
            Product(
                stand,
                scheduler=options.scheduler or self.scheduler,
                law=options.law or self.law,
                servers=topology.servers,
                destinations={server.name: {"priority": -i} for i, server in enumerate(topology.servers)},
            ).start()
            load = pool_load(options, rate=RATE, cost_ms=COST_MS, hold_seconds=HOLD_SECONDS, steps=STEPS)
            play(stand, load, STEPS)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        trace = traces["feedback"]
        start, end = trace.moment("start"), trace.moment("end")
        samples = [sample for sample in trace.samples if start <= sample.at < end]
        peak = (start + PEAK[0] * (end - start), start + PEAK[1] * (end - start))
        at_peak = within(trace.records, [peak])
        return {
            "over_capacity_max": over_capacity(samples),
            "out_of_order": out_of_order(samples),
            "refused": refused(trace.records),
            "refused_with_room": refused_with_room(trace.records, trace.samples),
            "errors": errors(trace.records),
            "preferred_utilisation": _mean(
                [u for at, u in utilisation(samples, 0, QUOTAS[0]) if peak[0] <= at < peak[1]]
            ),
            "last_share_before": share(
                within(trace.records, [(start, start + STEPS[0].part * (end - start))]), len(QUOTAS)
            ),
            **{f"peak_share_rs{i}": share(at_peak, i) for i in range(1, len(QUOTAS) + 1)},
        }


def over_capacity(samples: Sequence[Sample]) -> int:
    """The most connections above its weight that a server had after it was given more; 0 if never."""
    worst = 0
    for before, now in pairwise(samples):
        for i, active in enumerate(now.active):
            if active > before.active[i]:
                worst = max(worst, active - max(before.weights[i], now.weights[i]))
    return worst


def out_of_order(samples: Sequence[Sample]) -> int:
    """How often a server got more although an earlier one had room all the time."""
    count = 0
    for before, now in pairwise(samples):
        for i, active in enumerate(now.active):
            grew = active > before.active[i]
            count += grew and any(_room(before, j) and _room(now, j) for j in range(i))
    return count


def refused_with_room(records: Sequence[Record], samples: Sequence[Sample]) -> int:
    """Connections that no server accepted although one was not busy."""
    moments = [record.intended for record in records if refused([record])]
    return sum(
        any(_mean(_used(samples, i, moment - ROOM_SECONDS, moment)) < BUSY for i in range(len(QUOTAS)))
        for moment in moments
    )


def _used(samples: Sequence[Sample], index: int, begin: float, end: float) -> list[float]:
    inside = [sample for sample in samples if begin <= sample.at < end]
    return [used for _at, used in utilisation(inside, index, QUOTAS[index])]


def _room(sample: Sample, index: int) -> bool:
    return sample.weights[index] > 0 and sample.active[index] <= sample.weights[index] - ROOM_CONNECTIONS


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


SCENARIO = Overflow()
