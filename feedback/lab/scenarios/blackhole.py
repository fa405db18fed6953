"""One real server answers every request at once with an error, and so looks idle and attracts all others.

Four equal real servers get short requests. For half of the run rs4 answers 500 with hardly any work, like a server
whose database is gone. (It is first in the kernel's list, so `sed` prefers it among idle servers; further back it would
attract a tenth.) In the variants `refused_...` nothing listens on it, while its host and its agent are well. Then it
works again.

    plain_sed, plain_wlc    ipvsadm alone, equal weights
    feedback                agents, master; the server reports its own answers (workload/word.py)
    refused_...             the same with nobody listening

`errors_plain` is the better of sed and wlc: wlc also counts the connections that the failing server closed in the last
two minutes, which limits the damage. Beside it, `ejected_ms` from the failure to weight 0 in the kernel, and
`back_ms` from the repair to a weight again (infinite if it never was ejected, or never came back).

Errors count for requests sent after the failure began: requests that were queued when the process died are lost under
any policy. With nothing listening, both schedulers limit the damage by themselves. Under direct routing the director
never sees the reset, and counts each refused connection as active for a minute. These are too few errors to divide by,
so feedback must only stay within FEW (`errors_allowed_refused`).

The choice of numbers: 80 requests a second of some 2.5 ms use 42 % of the pool. So the three healthy servers carry all
of it (at 56 %) without queues, on a busy host too, and the broken one is idle more often than they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, percentile_ms, ratio, within
from feedback.lab.job import Job, Options
from feedback.lab.product import STATIC_WEIGHT, Product
from feedback.lab.scenario import Scenario
from feedback.lab.stand import Stand
from feedback.lab.topology import PORT, VIP, pool
from feedback.lab.trace import Trace
from feedback.lab.workload.load import Load

QUOTAS = (0.12, 0.12, 0.12, 0.12)
BROKEN = 3  # the index of the server that fails
RATE = 80.0
COST_MS = 2.0
BEGIN, END = 0.25, 0.75  # of the run
PART_MAX = 0.1  # the most errors, as a part of plain's
FEW = 10  # five until it is ejected, and a trial or two


class Blackhole(Scenario):
    name = "blackhole"
    summary = "one real server answers every request at once with an error: ipvsadm alone and feedback"
    variants = (
        *("plain_sed", "feedback", "plain_wlc"),
        *("refused_plain_sed", "refused_feedback", "refused_plain_wlc"),
    )
    seconds = 40.0
    seconds_least = 12.0
    quotas = QUOTAS
    law = "capacity"
    scheduler = "sed"
    bounds = (
        Bound("errors_part", most=PART_MAX),
        Bound("errors_feedback_refused", most="errors_allowed_refused"),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        topology = pool(job.run, QUOTAS)
        broken = topology.servers[BROKEN]
        with Stand(topology, output) as stand:
            stand.wait_for_servers()
            _govern(stand, job.variant, options)
            start = stand.begin(_load(options))
            stand.sleep_until(start + BEGIN * options.seconds)
            refuses = job.variant.startswith("refused")
            stand.event("broken", stand.close_server(broken) if refuses else stand.break_server(broken))
            stand.sleep_until(start + END * options.seconds)
            stand.event("mended")
            if refuses:
                stand.start_server(broken)
            else:
                stand.mend_server(broken)
            stand.finish(start + options.seconds)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for prefix, suffix in (("", ""), ("refused_", "_refused")):
            plain = {name: _errors(trace) for name, trace in traces.items() if name.startswith(f"{prefix}plain")}
            if plain:
                found[f"errors_plain{suffix}"] = min(plain.values())
            if trace := traces.get(f"{prefix}feedback"):
                found[f"errors_feedback{suffix}"] = _errors(trace)
                found |= {f"{name}{suffix}": value for name, value in _ejection(trace).items()}
                if plain:
                    found[f"errors_part{suffix}"] = ratio(_errors(trace), min(plain.values()))
        if "refused_feedback" in traces:
            found["errors_allowed_refused"] = max(FEW, PART_MAX * found.get("errors_plain_refused", 0))
        for name, trace in traces.items():
            broken = within(trace.records, [(trace.moment("broken"), trace.moment("mended"))])
            found[f"error_share_{name}"] = ratio(errors(broken), len(broken))
            found[f"p99_{name}_ms"] = percentile_ms(self.measured(trace, options), 0.99)
        return found


def _govern(stand: Stand, variant: str, options: Options) -> None:
    servers = stand.topology.servers
    if variant.endswith("feedback"):
        law = options.law or Blackhole.law
        Product(stand, scheduler=options.scheduler, law=law, servers=servers).start()
    else:
        stand.make_service(variant.rpartition("_")[2], [STATIC_WEIGHT] * len(servers))


def _load(options: Options) -> Load:
    return Load(str(VIP), PORT, rate=RATE, seconds=options.seconds, seed=options.seed, cost_ms=COST_MS)


def _errors(trace: Trace) -> int:
    return errors(within(trace.records, [(trace.moment("broken"), trace.moment("end"))]))


def _ejection(trace: Trace) -> Figures:
    """Milliseconds to weight 0, and from the repair to another weight."""
    broken, mended = trace.moment("broken"), trace.moment("mended")
    zero = [s.at for s in trace.samples if broken <= s.at < mended and s.weights[BROKEN] == 0]
    back = [s.at for s in trace.samples if s.at >= mended and s.weights[BROKEN] > 0]
    infinite = float("inf")
    return {
        "ejected_ms": 1000 * (zero[0] - broken) if zero else infinite,
        "back_ms": 1000 * (back[0] - mended) if zero and back else infinite,
    }


SCENARIO = Blackhole()
