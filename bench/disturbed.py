"""Scenarios of the lab on a quiet host, on a busy one, and with half of the processors taken away: the same figures?

    python -m bench.disturbed [SCENARIO ...] [--json]

    quiet   nothing else
    busy    one busy loop for each processor of the host, as important as the guests
    half    on each processor something with real-time priority that takes 10 ms of every 20 (root only)

For each scenario its bounded figures and a few more, side by side, with the ratio to the quiet run. `demo` is what
`make demo` runs. Takes two to five minutes for each scenario and condition, and should be started on a quiet host.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from feedback.ops.process import die_with_parent

DEMO = "demo"
SCENARIOS = ("hog", "join", "takeover", "handover", "latejoin", "adopt")
# Beside what a scenario has a bound for.
MORE = {
    DEMO: ("p99_wlc_static_ms", "p99_feedback_ms"),
    "hog": ("p99_wlc_static_ms", "p99_feedback_ms", "p99_oracle_ms"),
    "join": ("p99_feedback_ms", "p99_plain_ms", "peak_flow_over_fair_plain"),
    "takeover": ("keepalived_vip_ms", "keepalived_fast_vip_ms"),
    "handover": ("gap_max_ms",),
    "latejoin": ("copying_ms",),
    "adopt": (),
}
COMMAND = [sys.executable, "-c", "from feedback.cli.main import main; main()", "lab"]
REAL_TIME_PRIORITY = 20
TAKEN_SECONDS = 0.01


def be_busy(cpu: int) -> None:
    die_with_parent()
    os.sched_setaffinity(0, {cpu})
    os.setsid()  # as the guests are, where the kernel shares the processor out by sessions
    while True:
        pass


def take_half(cpu: int) -> None:
    die_with_parent()
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
    while True:
        end = time.monotonic() + TAKEN_SECONDS
        while time.monotonic() < end:
            pass
        time.sleep(TAKEN_SECONDS)


CONDITIONS = {"quiet": None, "busy": be_busy, "half": take_half}


@contextlib.contextmanager
def condition(name: str) -> Iterator[None]:
    target = CONDITIONS[name]
    cpus = sorted(os.sched_getaffinity(0)) if target else []
    others = [get_context("spawn").Process(target=target, args=(cpu,), daemon=True) for cpu in cpus]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def run(scenario: str, name: str) -> dict[str, Any]:
    """The scenario's result; Raises SystemExit where it could not be run."""
    with tempfile.TemporaryDirectory(prefix="feedback-disturbed-") as output, condition(name):
        command = [DEMO] if scenario == DEMO else ["run", scenario]
        subprocess.run([*COMMAND, *command, "--output", output], stdout=subprocess.DEVNULL, check=False)
        try:
            result: dict[str, Any] = json.loads((Path(output) / "result.json").read_text())
        except OSError:
            sys.exit(f"{scenario} did not run ({name})")
    return result


def figures_of(scenario: str, results: dict[str, dict[str, Any]]) -> list[str]:
    bounded = [bound["figure"] for result in results.values() for bound in result["bounds"]]
    return list(dict.fromkeys([*bounded, *MORE.get(scenario, ())]))


def show(scenario: str, results: dict[str, dict[str, Any]]) -> None:
    print(f"\n{scenario:34}" + "".join(f"{name:>12}" for name in results))
    print(f"{'verdict':34}" + "".join(f"{result['verdict']:>12}" for result in results.values()))
    for key in ("took_seconds", "host_waited_share"):
        print(f"{key:34}" + "".join(f"{result['environment'][key]:12}" for result in results.values()))
    quiet = results["quiet"]["figures"]
    for figure in figures_of(scenario, results):
        values = [result["figures"].get(figure) for result in results.values()]
        row = "".join(f"{'-' if value is None else format(value, '.4g'):>12}" for value in values)
        ratios = [f"{value / quiet[figure]:.2f}" for value in values[1:] if value is not None and quiet.get(figure)]
        print(f"{figure:34}{row}   {' '.join(ratios)}")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", default=SCENARIOS)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    arguments = parser.parse_args()
    names = [name for name in CONDITIONS if name != "half" or os.geteuid() == 0]
    found: dict[str, dict[str, Any]] = {}
    for scenario in arguments.scenarios:
        found[scenario] = {name: run(scenario, name) for name in names}
        show(scenario, found[scenario])
    if arguments.json:
        print(json.dumps(found))
    return 0 if all(result["ok"] for results in found.values() for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
