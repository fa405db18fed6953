"""Runs a scenario from the host: a guest for each variant, one for each core at a time; then its figures and its
verdict.

Owns the run's output directory. Must not know what a scenario shows, nor how progress is drawn: `watch` is called a few
times a second with what is running. Invariant: when `run` returns or raises, no guest is left.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import feedback
from feedback.lab import scenarios
from feedback.lab.bounds import Check, judge, shortfalls
from feedback.lab.error import LabError
from feedback.lab.figures import Figures, full_share
from feedback.lab.job import Job, Options
from feedback.lab.kernel import Guest, Kernel, choose
from feedback.lab.scenario import Scenario
from feedback.lab.trace import Trace
from feedback.lab.verdict import Verdict, decide, disturbance

SETUP_SECONDS = 90.0  # boot, daemons, the end; beyond the load's own time
WATCH_SECONDS = 0.3
SIDE_BY_SIDE_MAX = 2  # more would share caches and memory with what they measure

CROWDED = 10.0  # a guest whose time stands still while it waits may need that many times longer by the host's

Watch = Callable[[Sequence[Guest]], None]


class Ran(NamedTuple):
    """A variant that has run: `guest_seconds` by its guest's clock, and, with the guest's boot and end, `wall_seconds`
    by the host's."""

    guest_seconds: float
    wall_seconds: float
    own_time: bool
    facts: Mapping[str, float | bool | str]


@dataclass(frozen=True, slots=True)
class Result:
    scenario: str
    figures: Figures
    checks: list[Check]
    environment: dict[str, Any]
    output: Path
    disturbed: str = ""  # why there is no verdict; then there are no checks either

    @property
    def verdict(self) -> Verdict:
        return decide(self.checks, self.disturbed)

    @property
    def failures(self) -> list[str]:
        """Where the figures miss their bounds, in words."""
        return shortfalls(self.checks)

    def as_json(self) -> dict[str, Any]:
        """NaN and infinity, which JSON does not have, become null."""
        finite = {name: value if math.isfinite(value) else None for name, value in self.figures.items()}
        bounds = [{"figure": c.figure, "least": c.least, "most": c.most, "ok": c.ok} for c in self.checks]
        return {
            "scenario": self.scenario,
            "verdict": self.verdict,
            "ok": None if self.disturbed else self.verdict is Verdict.OK,
            "disturbed": self.disturbed,
            "figures": finite,
            "bounds": bounds,
            "failures": self.failures,
            "environment": self.environment,
            "output": str(self.output),
        }


def run(
    name: str,
    output: Path,
    *,
    options: Options | None = None,
    kernel: Kernel | None = None,
    only: Sequence[str] = (),
    watch: Watch = lambda guests: None,
) -> Result:
    """Raises LabError."""
    scenario = scenarios.named(name)
    options = options or Options(seconds=scenario.seconds)
    chosen = kernel or choose()
    variants = _mixed(scenario, chosen) if options.foreign else _variants(scenario, options, only)
    if options.firewall and not scenario.paired:
        raise LabError(f"{name} has no pair of directors: --firewall has nowhere to be")
    if options.seconds < scenario.seconds_least:
        raise LabError(f"scenario {name} needs at least {scenario.seconds_least:g} seconds, not {options.seconds:g}")
    jobs = [_job(name, variant, output, options, number) for number, variant in enumerate(variants)]
    started, waited = time.monotonic(), _host_waited()
    timeout_seconds = chosen.patience * (options.seconds + SETUP_SECONDS)
    together = min(SIDE_BY_SIDE_MAX, len(os.sched_getaffinity(0)))
    ran: dict[str, Ran] = {}
    for i in range(0, len(jobs), together):
        ran |= _run_together(chosen, jobs[i : i + together], timeout_seconds, watch)
    took = time.monotonic() - started
    waited_share = round((_host_waited() - waited) / took, 3)
    traces = {job.variant: Trace.read(Path(job.output)) for job in jobs}
    full = {variant: share for variant, trace in traces.items() if (share := full_share(trace.samples)) >= 0}
    figures = scenario.figures(traces, options)
    environment = {
        **_environment(chosen, Path(jobs[0].output)),
        **ran[jobs[0].variant].facts,
        **_chosen(scenario, options),
        "took_seconds": round(took, 1),
        "times": {
            variant: {"guest_seconds": each.guest_seconds, "wall_seconds": each.wall_seconds}
            for variant, each in ran.items()
        },
        "full_share": {variant: round(share, 3) for variant, share in full.items()},
        "host_waited_share": waited_share,
    }
    own_time = all(each.own_time for each in ran.values())
    worst = max(full.values(), default=0.0)
    disturbed = disturbance(own_time=own_time, waited_share=waited_share, full_share=worst)
    checks = [] if disturbed else judge(scenario.bounds, figures)
    result = Result(name, figures, checks, environment, output, disturbed)
    (output / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result.as_json())))
    return result


def _variants(scenario: Scenario, options: Options, only: Sequence[str]) -> list[str]:
    if options.source and options.source not in scenario.sources:
        have = f"choose from {', '.join(scenario.sources)}" if scenario.sources else "it has agents only"
        raise LabError(f"{scenario.name} has no source {options.source!r}: {have}")
    there = scenario.played(options)
    for variant in only:
        if variant not in there:
            raise LabError(f"{scenario.name} has no {variant!r}: choose from {', '.join(there)}")
    return scenario.played(options, only)


def _mixed(scenario: Scenario, kernel: Kernel) -> list[str]:
    """The variants in which one director can have another kernel."""
    found = list(getattr(scenario, "mixed_variants", ()))
    if not found:
        raise LabError(f"{scenario.name} has no director that could have another kernel: takeover and handover have")
    if kernel.name == "uml":
        raise LabError("within a user-mode kernel there is room for no other: --kernel qemu:newest")
    return found


def _job(name: str, variant: str, output: Path, options: Options, number: int) -> Job:
    return Job(
        task="scenario",
        output=str((output / variant).absolute()),
        run=f"lab{os.getpid()}x{number}",
        scenario=name,
        variant=variant,
        options=options,
        conn_tab_bits=scenarios.named(name).conn_tab_bits,
    )


def _run_together(kernel: Kernel, jobs: list[Job], timeout_seconds: float, watch: Watch) -> dict[str, Ran]:
    began = time.monotonic()
    ended: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        guests = [stack.enter_context(Guest(kernel, job)) for job in jobs]
        if any(guest.own_time for guest in guests):
            timeout_seconds *= CROWDED
        while len(ended) < len(guests):
            time.sleep(WATCH_SECONDS)
            for guest in guests:
                if guest.job.variant not in ended and not guest.running():
                    guest.check()
                    ended[guest.job.variant] = time.monotonic()
            if time.monotonic() > began + timeout_seconds:
                late = ", ".join(guest.job.variant for guest in guests if guest.running())
                raise LabError(f"not ended in {timeout_seconds:.0f} s: {late}")
            watch(guests)
    return {
        guest.job.variant: Ran(guest.seconds(), round(ended[guest.job.variant] - began, 1), guest.own_time, guest.facts)
        for guest in guests
    }


def _host_waited() -> float:
    """Seconds during which something on this host waited for a CPU (pressure stall information); 0 if unknown."""
    with contextlib.suppress(OSError):
        line = Path("/proc/pressure/cpu").read_text(encoding="ascii").splitlines()[0]
        return int(line.rsplit("total=", 1)[1]) / 1e6
    return 0.0


def _environment(kernel: Kernel, output: Path) -> dict[str, Any]:
    inside = output / "environment.json"
    return {
        "kernel": kernel.name,
        **(msgspec.json.decode(inside.read_bytes()) if inside.exists() else {}),
        "host_kernel": platform.release(),
        "host_cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "lvs_feedback": feedback.__version__,
    }


def _chosen(scenario: Scenario, options: Options) -> dict[str, Any]:
    return {
        "seed": options.seed,
        "law": options.law or scenario.law,
        "scheduler": options.scheduler or ("wlc" if options.adopt else scenario.scheduler),
        "load_seconds": options.seconds,
        **({"firewall": options.firewall} if options.firewall else {}),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
