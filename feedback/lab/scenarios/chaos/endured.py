"""What `chaos` did to the pool, from its trace to figures, and their bounds. Pure.

The bounds leave room for a crowded host: the faults that they must find (a spinning daemon, a flooded log, a forgotten
server, a file cut short) miss them by far.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, percentile_ms
from feedback.lab.listener import LOOKS
from feedback.lab.samples import Sample
from feedback.lab.trace import Event, Trace

LINKS = ("loss", "delay", "duplicates")
DESCRIPTORS = ("agent_descriptors", "master_descriptors")
NAMES = (
    *LINKS,
    *("agent_stalled", "agent_killed", "master_stalled", "master_killed", "clock"),
    *DESCRIPTORS,
    "disk",
)
DRAINED = {"disk": 0}  # which real server an order takes out there
RESTARTED = {"master_descriptors": 3}  # whose agent is killed there
REFERENCE_SECONDS = 2.0
LAST_SECONDS = 1.0
WEIGHT_LEAST = 0.4  # of the share before
DRIFT = 0.5  # relative
DISTURBED = ("agent-lost", "held", "ejected", "barred")
TOLD = "could not be written"
BOUNDS = (
    Bound("errors", most=0),
    Bound("recovered", least="struck"),
    Bound("served", least="struck"),
    Bound("zeroed", most=0),
    Bound("ejected", most=0),
    Bound("log_lines_per_second", most=10),
    Bound("loss_dropped", least=10),
    Bound("delay_passed", least=100),
    Bound("duplicates_passed", least=100),
    Bound("clock_disturbed", most=0),
    Bound("clock_expired", least=1),
    Bound("clock_left_seconds", least=7000),
    Bound("disk_told", least=1),
    Bound("disk_weight", most=0),
    Bound("disk_kept", least=1, most=1),
    Bound("disk_saved_ms", most=5000),
    Bound("disk_resumed", least=2),
    Bound("disk_said", least=2, most=2),
    *(Bound(f"weight_least_{name}", least=WEIGHT_LEAST) for name in NAMES),
    *(Bound(f"drift_{name}", most=DRIFT) for name in NAMES),
    *(Bound(f"{name}_cpu_share", most=0.4) for name in DESCRIPTORS),
    *(Bound(f"{name}_heard_per_second", least=1) for name in DESCRIPTORS),
    *(Bound(f"{name}_looks_per_second", least=1) for name in DESCRIPTORS),
)


def figures(trace: Trace) -> Figures:
    struck = [name for name in NAMES if any(event.what == name for event in trace.events)]
    found: Figures = {
        "errors": errors(trace.records),
        "p99_ms": percentile_ms(trace.records, 0.99),
        "struck": len(struck),
        "recovered": 0,
        "served": 0,
        "zeroed": 0,
        "ejected": 0,
        "log_lines_per_second": 0.0,
    }
    for name in struck:
        _add_blow(found, trace, name)
        _add_found(found, trace, name)
    return found


def _add_blow(found: Figures, trace: Trace, name: str) -> None:
    """Figures that must hold in each fault."""
    events = {event.what: event for event in trace.events}
    begin, over = events[name], events[f"{name} over"]
    before = [s for s in trace.samples if begin.at - REFERENCE_SECONDS <= s.at < begin.at]
    during = [s for s in trace.samples if begin.at <= s.at < over.at]
    last = [s for s in during if s.at >= over.at - LAST_SECONDS]
    servers = [i for i in range(len(before[0].weights)) if i != DRAINED.get(name)]
    reference = _shares(before, servers)
    found["zeroed"] += sum(any(s.weights[i] <= 0 for i in servers) for s in during)
    found[f"weight_least_{name}"] = min(min(_over(_shares([s], servers), reference)) for s in during)
    found[f"drift_{name}"] = max(abs(part - 1) for part in _over(_shares(last, servers), reference))
    said = Counter(over.details["said"])
    said.subtract(begin.details["said"])
    found["ejected"] += said["ejected"] + said["barred"]
    lines = sum(said.values()) / (over.at - begin.at)
    found["log_lines_per_second"] = max(found["log_lines_per_second"], lines)
    back = events.get(f"{name} recovered")
    if back is not None:
        found["recovered"] += 1
        found["served"] += back.details["served"]
        found[f"recovered_{name}_ms"] = 1000 * back.details["seconds"]
    if name == "clock":
        found["clock_disturbed"] = sum(said[kind] for kind in DISTURBED)
    if name == "disk":
        found["disk_said"] = said["state-failed"] + said["state-saved"]


def _add_found(found: Figures, trace: Trace, name: str) -> None:
    """Figures of this fault alone."""
    event = next((event for event in trace.events if event.what == f"{name} found"), None)
    if event is None:
        return
    seen = event.details
    if name in LINKS:
        found |= {f"{name}_passed": seen["passed"], f"{name}_dropped": seen["dropped"]}
    elif name in DESCRIPTORS:
        found |= _without_descriptors(name, event)
    elif name == "clock":
        found |= {"clock_expired": seen["expired"], "clock_left_seconds": seen["left_seconds"]}
    elif name == "disk":
        told = next(event.details["notes"] for event in trace.events if event.what == "disk told")
        found |= {
            "disk_told": any(TOLD in note for note in told),
            "disk_weight": seen["weight"],
            "disk_kept": seen["kept"],
            "disk_saved_ms": 1000 * seen["saved_seconds"],
            "disk_resumed": seen["resumed"],
        }


def _without_descriptors(name: str, event: Event) -> Figures:
    heard: dict[str, float] = dict(event.details["heard_per_second"])
    looks = heard.pop(LOOKS)
    restarted = RESTARTED.get(name)
    least = min(rate for i, rate in enumerate(heard.values()) if i != restarted)
    return {
        f"{name}_cpu_share": event.details["cpu_share"],
        f"{name}_heard_per_second": least,
        f"{name}_looks_per_second": looks,
    }


def _shares(samples: Sequence[Sample], servers: Sequence[int]) -> list[float]:
    """The mean share of these servers' weights in the sum, over the samples. NaN if there are none."""
    if not samples:
        return [math.nan for _ in servers]
    each = [[max(0, s.weights[i]) for i in servers] for s in samples]
    return [fmean(row[i] / max(1, sum(row)) for row in each) for i in range(len(servers))]


def _over(shares: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [share / before if before else math.nan for share, before in zip(shares, reference, strict=True)]
