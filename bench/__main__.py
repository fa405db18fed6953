"""`make bench`: every benchmark, one after the other, so that none disturbs another: `python -m bench [--json]`.

agent_cost      on this host: CPU and memory of a real agent, and reports a second through the link
pipeline        on this host: reports through decode, fleet and estimate; a look and a decision for 4 to 10,000
                destinations
fleet           on this host: a real master with 500 and with 2,000 agents, each with a report a second
hostile         on this host: attacks on what a daemon can be made to hold, then a million malformed and hostile
                messages to a master; somebody honest beside each
weight_updates  on the lab's kernel: ours, pyroute2's, `ipvsadm -R` by a pipe, and one `ipvsadm -e` a change
replication     on the lab's kernel: connections a second into a standby, beside what its kernel takes at most
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import Guest, choose

HERE = Path(__file__).parent
GUEST_SECONDS = 180.0


def on_host(script: str) -> dict[str, Any]:
    module = [sys.executable, "-m", f"bench.{Path(script).stem}", "--json"]
    ended = subprocess.run(module, stdout=subprocess.PIPE, check=False, cwd=HERE.parent)
    result = last_object(ended.stdout)
    figures: dict[str, Any] = result.get("figures", result)
    return figures


def on_kernel(script: str) -> dict[str, Any]:
    """Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="feedback-bench-") as name:
        job = Job(task="script", output=name, run="bench", arguments=(str(HERE / script), "--json"))
        with Guest(choose(), job, cpu=0) as guest:
            guest.wait(GUEST_SECONDS)
        environment = json.loads((Path(name) / "environment.json").read_text(encoding="utf-8"))
        return last_object((Path(name) / "stdout").read_bytes()) | {"kernel": environment["kernel_release"]}


BENCHMARKS = (
    ("agent_cost", on_host),
    ("pipeline", on_host),
    ("fleet", on_host),
    ("hostile", on_host),
    ("weight_updates", on_kernel),
    ("replication", on_kernel),
)


def last_object(output: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    results: dict[str, Any] = {
        "host": f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    }
    try:
        for name, run in BENCHMARKS:
            print(f"{name} ...", file=sys.stderr)
            results[name] = run(f"{name}.py")
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps(results) if as_json else "\n".join(lines(results)))
    return 0


def lines(results: dict[str, Any]) -> list[str]:
    flat = [f"host: {results.pop('host')}"]
    for name, result in results.items():
        flat += ["", name, *(f"  {key:<40} {text(value)}" for key, value in figures(result))]
    return flat


def figures(result: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in result.items():
        found += figures(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def text(value: Any) -> str:
    match value:
        case bool():
            return f"{'yes' if value else 'no':>14}"
        case float():
            return f"{value:>14,.{0 if value >= 1000 else 1}f}"
        case int():
            return f"{value:>14,}"
    return f"{value!s:>14}"


if __name__ == "__main__":
    sys.exit(main())
