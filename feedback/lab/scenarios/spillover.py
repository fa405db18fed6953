"""A service pool fills, the spill pool takes over, and the service pool takes it back.

rs1 and rs2 share the load; rs3 must get nothing until both are at their thresholds. The load climbs past what the two
may hold, and falls again. The kernel itself must switch, at the very connection that finds no room: no connection is
refused, and none is spilt earlier.

    typed     thresholds as an operator types them
    learned   thresholds learned from load and memory

    spill_before       connections to the spill pool while a server of the service pool certainly had room: from when it
                       falls under its lower threshold (or three quarters of the upper) until it comes within
                       NEAR connections of the upper one again, in the samples before and after
    refused            connections that no server accepted
    spill_share_after  the spill pool's part of the new connections while the load is high
    return_ms          from the fall of the load to the last connection spilt

The worse figure of both variants counts; each is also reported under its own name. The kernel counts closed connections
against thresholds as long as it remembers them, so that is set to 1 s (`ipvsadm --set 0 1 0`).

The choice of numbers: a request costs 4 ms, some 4.6 with the server's own work, and is held for 3 s on average. The
service pool can do 52 a second; at the peak it gets 60, which stand for 180 connections and 60 that the kernel still
remembers, twice what the typed thresholds admit. The spill pool is large, so that both can serve everything even on a
host so busy that everything costs double. A refusal is then not due to a lack of CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, refused, share, within
from feedback.lab.frame import Step, play, pool_load
from feedback.lab.job import Job, Options
from feedback.lab.product import Product
from feedback.lab.samples import Sample
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import pool
from feedback.lab.trace import Trace
from feedback.lab.workload.records import Record

QUOTAS = (0.12, 0.12, 0.40)
SERVICE, SPILL = (0, 1), 2  # indices
UPPER, LOWER = 60, 48  # typed
COST_MS = 4.0
HOLD_SECONDS = 3.0
LOW, HIGH = 15.0, 60.0  # requests a second
BEGIN, END = 0.35, 0.7  # of the run
FIN_SECONDS = 1
RETURN_MS = 10_000.0
SHARE_LEAST = 0.05
NEAR = 5  # so many connections may come and go between two samples


class Spillover(Scenario):
    name = "spillover"
    summary = "a service pool fills, the spill pool takes over, and back: thresholds typed and learned"
    variants = ("typed", "learned")
    seconds = 60.0
    seconds_least = 30.0
    quotas = QUOTAS
    law = "spillover"
    scheduler = "sed"
    bounds = (
        Bound("spill_before", most=0),
        Bound("refused", most=0),
        Bound("spill_share_after", least=SHARE_LEAST),
        Bound("return_ms", most=RETURN_MS),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        with Stand(topology, output) as stand:
            stand.set_fin_seconds(FIN_SECONDS)
            stand.wait_for_servers()
            _product(stand, job.variant, options).start()
            steps = (Step("high", BEGIN, HIGH), Step("low", END, LOW))
            load = pool_load(options, rate=LOW, cost_ms=COST_MS, hold_seconds=HOLD_SECONDS, steps=steps)
            play(stand, load, steps)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        each = {variant: _figures(trace) for variant, trace in traces.items()}
        worse = {"spill_share_after": min}
        names = next(iter(each.values()))
        found = {name: worse.get(name, max)(figures[name] for figures in each.values()) for name in names}
        found |= {f"{name}_{variant}": value for variant, figures in each.items() for name, value in figures.items()}
        return found


def _product(stand: Stand, variant: str, options: Options) -> Product:
    servers = stand.topology.servers
    typed: dict[str, str | int] = {"upper": UPPER, "lower": LOWER} if variant == "typed" else {}
    destinations: dict[str, dict[str, str | int]] = {servers[i].name: {"pool": "service", **typed} for i in SERVICE} | {
        servers[SPILL].name: {"pool": "spill"}
    }
    return Product(
        stand,
        scheduler=options.scheduler or Spillover.scheduler,
        law=options.law or Spillover.law,
        servers=servers,
        service={"thresholds": "learned" if variant == "learned" else "static"},
        destinations=destinations,
    )


def _figures(trace: Trace) -> Figures:
    high, low, end = (trace.moment(what) for what in ("high", "low", "end"))
    after = [record.intended for record in _spilt(trace.records) if low <= record.intended < end]
    return {
        "spill_before": spill_before(trace.records, trace.samples),
        "refused": refused(trace.records),
        "errors": errors(trace.records),
        "spill_share_after": share(within(trace.records, [(high + (low - high) / 2, low)]), SPILL + 1),
        "return_ms": 1000 * (max(after) - low) if after else 0.0,
    }


def _spilt(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.server == SPILL + 1]


def spill_before(records: Sequence[Record], samples: Sequence[Sample]) -> int:
    """Connections spilt too early (see the module's docstring)."""
    moments = [record.intended for record in _spilt(records)]
    early = 0
    for (before, full), (now, still) in pairwise(_with_full(samples)):
        if any(not full[i] and not still[i] for i in SERVICE):
            early += sum(before.at <= moment < now.at for moment in moments)
    return early


def _with_full(samples: Sequence[Sample]) -> Iterator[tuple[Sample, dict[int, bool]]]:
    """Each sample with what may be full, or is quiesced. Full is the kernel's mark, which nobody can read: it stands
    until the lower threshold is crossed, and between two samples a server may have filled and lost some again."""
    full = dict.fromkeys(SERVICE, False)
    for sample in samples:
        full = {i: sample.weights[i] <= 0 or _may_be_full(sample, i, full[i]) for i in SERVICE}
        yield sample, full


def _may_be_full(sample: Sample, index: int, was: bool) -> bool:
    upper, lower = sample.upper[index], sample.lower[index]
    total = sample.active[index] + sample.inactive[index]  # what the kernel counts
    return bool(upper) and (total >= upper - NEAR or (was and total >= (lower or upper - (upper >> 2))))


SCENARIO = Spillover()
