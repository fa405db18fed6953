"""A service that keepalived or ldirectord owns, with wlc and equal weights; our master only adjusts its weights.

The load, the quotas and the CPU hog are those of `hog`. During it, in this order:

    zero      an operator sets the weight of rs2 to 0 by ipvsadm, and back
    reload    SIGHUP to the owner, its file unchanged
    stopped   the service of rs2 is stopped, then that of rs3: the owner's checks fail. keepalived removes rs2 and sets
              rs3 to 0 (inhibit_on_failure), ldirectord sets both to 0. Each is started again
    changed   another weight for rs2 in the owner's file, and SIGHUP
    hog       on the largest server
    crash     SIGKILL to all of the owner, which is started again

Each owner runs under two policies: alone, and with feedback. `foreign_edits` are the edits made according to the
owner's log and the operator; `foreign_edits_seen` are those of them that the master reported. owners/judge.py defines
`fights`. `errors` leaves out unavoidable ones: requests to the stopped servers before the owner noticed.
`errors_all_...` counts all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, percentile_ms, ratio, within
from feedback.lab.job import Job, Options
from feedback.lab.owners.judge import Seen, fights, raised, unseen
from feedback.lab.owners.program import PROGRAMS, Owner, Written, logged_at
from feedback.lab.product import Product
from feedback.lab.scenario import Scenario
from feedback.lab.scenarios import hog
from feedback.lab.stand import DIRECTOR, Stand
from feedback.lab.topology import RealServer, pool
from feedback.lab.trace import Trace
from feedback.lab.workload.load import Load
from feedback.lab.workload.records import Record
from feedback.ops import control

WEIGHT, OTHER_WEIGHT = 10, 20
QUIESCED, STOPPED = 1, (1, 2)  # indices of the real servers
INHIBITED = ("rs3",)
# Seconds after the start. Editing the same weight again within five seconds would be a dispute, not a reload. The hog
# comes when the stopped servers have their whole share again: the load leaves no room for both faults.
ZERO, BACK, RELOAD, CHANGED, HOG, CRASH, RESTART, END = 10, 12, 17, 39, 44, 47, 48, 60
OUTAGES = ((20, 23), (26, 29))  # of the stopped servers, one after the other, so that the others can carry the load
FOUND_OUT_SECONDS = 5.0  # after a stop: by then the owner's checks must have failed
RELOAD_SECONDS = 2.0


class Adopt(Scenario):
    name = "adopt"
    summary = "keepalived, then ldirectord, owns the service: reloads, failures, zeros and crashes beside our master"
    variants = ("keepalived", "keepalived_feedback", "ldirectord", "ldirectord_feedback")
    seconds = float(END)
    seconds_least = float(END)
    quotas = hog.QUOTAS
    law = "capacity"
    scheduler = "wlc"
    bounds = (
        Bound("fights", most=0),
        Bound("foreign_edits_seen", least="foreign_edits"),
        Bound("errors", most=0),
        Bound("reload_edits_keepalived", most=0),
        *(Bound(f"gain_over_owner_{name}", least=2) for name in PROGRAMS),
        *(Bound(f"errors_reload_{name}_feedback", most=0) for name in PROGRAMS),
        *(Bound(f"foreign_edits_{name}", least=5) for name in PROGRAMS),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        name, _, feedback = job.variant.partition("_")
        topology = pool(job.run, hog.QUOTAS)
        with Stand(topology, output, metered=True) as stand:
            hogging = stand.start_hog(topology.servers[hog.HOGGED])
            stand.wait_for_servers()
            owner = Owner(stand, name, [WEIGHT] * len(topology.servers), INHIBITED)
            owner.start()
            owner.wait_until_serving(WEIGHT)
            product = None
            if feedback:
                law = options.law or self.law
                product = Product(stand, scheduler=None, law=law, servers=topology.servers, adopt=True)
                product.start()
            stand.event("clock", wall=time.time() - time.monotonic())
            start = stand.begin(_load(stand, options))
            _Course(stand, owner, product, start).run(hogging)
            stand.finish(start + options.seconds)
            if product is not None:
                _tell(stand, product)

    def measured(self, trace: Trace, options: Options) -> list[Record]:
        return within(trace.records, hog.windows(trace))

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            start, end = trace.moment("start"), trace.moment("end")
            found[f"p99_{variant}_ms"] = percentile_ms(self.measured(trace, options), 0.99)
            found[f"errors_all_{variant}"] = errors(trace.records)
            reload, helped, since = trace.moment("reload"), [], start
            for stop in (e.at for e in trace.events if e.what == "stopped"):
                helped.append((since, stop - hog.KEEP_SECONDS))
                since = stop + FOUND_OUT_SECONDS
            found[f"errors_{variant}"] = errors(within(trace.records, [*helped, (since, end)]))
            found[f"errors_reload_{variant}"] = errors(within(trace.records, [(reload, reload + RELOAD_SECONDS)]))
        for name in PROGRAMS:
            if f"{name}_feedback" in traces:
                found |= {f"{what}_{name}": value for what, value in _beside(name, traces[f"{name}_feedback"]).items()}
            both = [found.get(f"p99_{variant}_ms") for variant in (name, f"{name}_feedback")]
            if both[0] is not None and both[1] is not None:
                found[f"gain_over_owner_{name}"] = ratio(both[0], both[1])
        return found | _sums(found)


class _Course:
    """What happens, in its order."""

    def __init__(self, stand: Stand, owner: Owner, product: Product | None, start: float) -> None:
        self.stand, self.owner, self.product, self.start = stand, owner, product, start
        self.servers = stand.topology.servers

    def at(self, seconds: float) -> None:
        self.stand.sleep_until(self.start + seconds)

    def run(self, hogging: str) -> None:
        stand, owner = self.stand, self.owner
        for seconds, weight in ((ZERO, 0), (BACK, WEIGHT)):
            self.at(seconds)
            self.operator(self.servers[QUIESCED], weight)
        self.at(RELOAD)
        stand.event("reload", owner.reload())
        for i, (stop, back) in zip(STOPPED, OUTAGES, strict=True):
            self.at(stop)
            stand.event("stopped", stand.close_server(self.servers[i]))
            self.at(back)
            stand.start_server(self.servers[i], prompt=True)
            stand.event("started")
        self.at(CHANGED)
        weights = [OTHER_WEIGHT if i == QUIESCED else WEIGHT for i in range(len(self.servers))]
        owner.configure(weights)
        stand.event("changed", owner.reload())
        self.at(HOG)
        stand.event("hog", stand.release(hogging))
        self.at(CRASH)
        stand.event("crash", owner.crash())
        self.at(RESTART)
        owner.start()
        stand.event("restart")

    def operator(self, server: RealServer, weight: int) -> None:
        topology = self.stand.topology
        service, real = f"{topology.vip}:{topology.port}", f"{server.address}:{topology.port}"
        command = ["ipvsadm", "-e", "-t", service, "-r", real, "-g", "-w", str(weight)]
        self.stand.processes.start("ipvsadm", command, namespace=topology.namespace(DIRECTOR))
        self.stand.processes.wait("ipvsadm", 60.0)
        self.stand.event("operator", address=str(server.address), weight=weight)


def _load(stand: Stand, options: Options) -> Load:
    return hog.load(stand.topology, options)


def _tell(stand: Stand, product: Product) -> None:
    """Record what the master reports to have seen."""
    answer: dict[str, Any] = control.ask(product.control, {"command": "events"})
    edits = [e for e in answer["events"] if e["kind"] == "foreign-edit"]
    stand.event("seen", gone=answer["gone"], edits=edits)
    held = [e for e in answer["events"] if e["kind"] == "held"]
    stand.event("held", found=[e["reason"] for e in held])


def _sums(found: Figures) -> Figures:
    sums: Figures = {}
    for what in ("foreign_edits", "foreign_edits_seen", "fights", "zeros_raised"):
        parts = [found[f"{what}_{name}"] for name in PROGRAMS if f"{what}_{name}" in found]
        if parts:
            sums[what] = sum(parts)
    ours = [found[f"errors_{name}_feedback"] for name in PROGRAMS if f"errors_{name}_feedback" in found]
    if ours:
        sums["errors"] = sum(ours)
    gains = [found[f"gain_over_owner_{name}"] for name in PROGRAMS if f"gain_over_owner_{name}" in found]
    if gains:
        sums["gain_over_owner"] = min(gains)
    return sums


def _beside(name: str, trace: Trace) -> Figures:
    servers = _addresses(trace)
    seen, made = _seen(trace), _made(name, trace)
    missing = unseen(made, seen)
    reload = trace.moment("reload")
    after = [s for s in seen if reload <= s.at < reload + RELOAD_SECONDS]
    return {
        "foreign_edits": len(made),
        "foreign_edits_seen": len(made) - len(missing),
        "fights": fights(seen, trace.samples, servers),
        "zeros_raised": len(raised(seen, trace.samples, servers)),
        "reload_edits": len(after),
        "stood_back": sum("owner" in why for e in trace.events if e.what == "held" for why in e.details["found"]),
    }


def _addresses(trace: Trace) -> list[str]:
    return [str(server.address) for server in pool("", hog.QUOTAS).servers]


def _seen(trace: Trace) -> list[Seen]:
    """The edits that the master saw during the load, on the samples' clock."""
    wall = next(e.details["wall"] for e in trace.events if e.what == "clock")
    edits = next(e.details["edits"] for e in trace.events if e.what == "seen")
    made = [Seen(e["at"] - wall, e["destination"].rpartition(":")[0], e["theirs"]) for e in edits if "destination" in e]
    return [s for s in made if s.at >= trace.moment("start")]


def _made(name: str, trace: Trace) -> list[Written]:
    """The edits that were made, by the owner's log (in whole seconds) and by the operator."""
    wall = next(e.details["wall"] for e in trace.events if e.what == "clock")
    begin, end = (wall + trace.moment(what) for what in ("start", "end"))
    log = (trace.output / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    weights = dict.fromkeys(_addresses(trace), WEIGHT)
    during = (line for line in log.splitlines() if (at := logged_at(line)) is not None and begin <= at < end)
    lines = [PROGRAMS[name].written(line, weights) for line in during]
    operator = [Written(e.details["address"], e.details["weight"]) for e in trace.events if e.what == "operator"]
    return [*operator, *(w for w in lines if w is not None)]


SCENARIO = Adopt()
