"""`make bench`: every benchmark, one after the other, so that none disturbs another, or those of these names:
`python -m bench [NAME...] [--json]`.

agent_cost      on this host: CPU and memory of a real agent, and reports a second through the link
pipeline        on this host: reports through decode, fleet and estimate; a look and a decision for 4 to 10,000
                destinations
checks          on this host: 3,000 health checks by HTTP every two seconds
fleet           on this host: a real master with 500 and with 2,000 agents, each with a report a second
scrapes         on this host: pages of 500 and of 2,000 exporters, each once a second, over a kept connection each
hostile         on this host: attacks on what a daemon can be made to hold, then a million malformed and hostile
                messages to a master; somebody honest beside each
weight_updates  on the lab's kernel: ours, pyroute2's, `ipvsadm -R` by a pipe, and one `ipvsadm -e` a change
replication     on the lab's kernel: connections a second into a standby, beside what its kernel takes at most
million         on the lab's kernel, with as many chains as connections: a late standby's session of a million
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import Guest, choose

HERE = Path(__file__).parent
GUEST_SECONDS = 180.0
MILLION_BITS = 20  # conn_tab_bits: 2^20 chains


def on_host(script: str) -> dict[str, Any]:
    module = [sys.executable, "-m", f"bench.{Path(script).stem}", "--json"]
    ended = subprocess.run(module, stdout=subprocess.PIPE, check=False, cwd=HERE.parent)
    result = last_object(ended.stdout)
    figures: dict[str, Any] = result.get("figures", result)
    return figures


def on_kernel(script: str, *arguments: str, conn_tab_bits: int = 0, memory_mb: int = 1024) -> dict[str, Any]:
    """Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="feedback-bench-") as name:
        job = Job(
            task="script",
            output=name,
            run="bench",
            arguments=(str(HERE / script), "--json", *arguments),
            conn_tab_bits=conn_tab_bits,
            memory_mb=memory_mb,
        )
        with Guest(choose(), job, cpu=0) as guest:
            guest.wait(GUEST_SECONDS)
        environment = json.loads((Path(name) / "environment.json").read_text(encoding="utf-8"))
        return last_object((Path(name) / "stdout").read_bytes()) | {"kernel": environment["kernel_release"]}


BENCHMARKS: dict[str, Callable[[], dict[str, Any]]] = {
    **{
        name: partial(on_host, f"{name}.py")
        for name in ("agent_cost", "pipeline", "checks", "fleet", "scrapes", "hostile")
    },
    **{name: partial(on_kernel, f"{name}.py") for name in ("weight_updates", "replication")},
    "million": partial(on_kernel, "replication.py", "--session", conn_tab_bits=MILLION_BITS, memory_mb=2048),
}


def last_object(output: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *BENCHMARKS], help="only these")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "host": f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    }
    try:
        for name in options.names or BENCHMARKS:
            print(f"{name} ...", file=sys.stderr)
            results[name] = BENCHMARKS[name]()
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps(results) if options.json else "\n".join(lines(results)))
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
