"""What each numeric constant of the master's pipeline does: halved and doubled, which figure of the suite moves.

    python -m bench.constants [--case bursts-sed ...] [--only limits ...] [--all] [--out FILE] [--checkout DIR]

A constant is a number in a named assignment of a module or class under feedback/master, but for the shell, the laws of
others, and what reads or makes the bytes of a given format; or a guard's default in the configuration. Numbers under a
millionth only keep quotients finite, and are left out. It is changed in a copy of the package, and `capacity` runs the
cases again, one after another, until a figure has moved by 1 % (--all: through all cases): mean and p99 of latencies,
errors (in points), edits a minute (by 25 %: the least change moves them by 10). One JSON line for each, as it is done;
those in FILE already are not run again. The last lines of the output name those that moved nothing. The first row
changes the dead band by a thousandth: what no more than chance moves.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

from bench.checkout import HERE, opened

MOVED = {"p99_ms": 0.01, "mean_ms": 0.01, "errors": 0.01, "writes_a_minute": 0.25}  # relative; errors: of all requests
CASES = (
    "bursts-sed", "antagonists-wlc", "kept-antagonists-sed", "fail-recover-wrr", "overload-sed", "agents-lost-sed",
    "blackhole-wlc", "held-sed", "udp-wrr", "cold-start-wrr", "antagonists-known-sed", "late-reports-sed", "step-wlc",
    "slow-io-sed", "wlc-memory-wlc", "starved-sed", "antagonists-exporter@sed", "cold-start-no agent@sed",
    "kept-no agent@sed",
)  # fmt: skip
FACTORS = (0.5, 2.0)
APART = {
    "shell", "field", "link", "probes", "admission", "daemon", "statefile", "events", "commands", "status", "orders",
    "state", "recording", "linear", "cuberoot", "proportions", "orca", "pid", "topsis", "ahp", "strain", "advice",
    "overflow", "failover", "spillover", "tiers", "priority", "segments", "exposition", "node", "windows", "custom",
}  # fmt: skip
SEED = 1
LEAST = 1e-6


class Constant(msgspec.Struct, frozen=True):
    """`column` tells the numbers of one assignment apart."""

    file: str
    name: str
    line: int
    column: int
    text: str

    @property
    def title(self) -> str:
        return f"{self.file.removeprefix('feedback/')}:{self.name}@{self.line}.{self.column} = {self.text}"

    def changed(self, factor: float) -> str:
        value: float = ast.literal_eval(self.text)
        made = value * factor
        return str(max(1, round(made))) if isinstance(value, int) and factor < 1 else repr(type(value)(made))


def constants(root: Path) -> Iterator[Constant]:
    for path in sorted((root / "feedback/master").rglob("*.py")):
        if APART & {*path.relative_to(root / "feedback/master").parts, path.stem}:
            continue
        tree = ast.parse(path.read_text())
        for body in (tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))):
            for node in body:
                yield from _numbers(node, str(path.relative_to(root)), named=True)
    guards = root / "feedback/config/master.py"
    for found in ast.parse(guards.read_text()).body:
        if isinstance(found, ast.ClassDef) and found.name == "Guards":
            for node in found.body:
                yield from _numbers(node, "feedback/config/master.py", named=False)


def _numbers(node: ast.stmt, file: str, *, named: bool) -> Iterator[Constant]:
    if isinstance(node, ast.Assign):
        target, value = ast.unparse(node.targets[0]), node.value
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target, value = ast.unparse(node.target), node.value
    else:
        return
    if named and not target.strip("(_").isupper():
        return
    for each in ast.walk(value):
        number = isinstance(each, ast.Constant) and isinstance(each.value, int | float)
        if number and not isinstance(each.value, bool) and abs(each.value) >= LEAST:  # type: ignore[attr-defined]
            yield Constant(file, target, each.lineno, each.col_offset, repr(each.value))  # type: ignore[attr-defined]


def child(case: str) -> dict[str, float]:
    from feedback.simulate.figures import figures
    from feedback.simulate.policy import Policy
    from feedback.simulate.run import run
    from feedback.simulate.suite import named

    name, _, by = case.rpartition("-")
    law, _, scheduler = by.rpartition("@")
    found = figures(run(named(name), Policy(law or "capacity", scheduler), SEED), None)
    return {k: found[k] for k in MOVED}


def figures_of(root: Path, case: str) -> dict[str, float] | None:
    """None where it does not run to its end."""
    with opened(root) as checkout:
        try:
            found: dict[str, float] = json.loads(checkout.run("bench.constants", "--child", case))
        except subprocess.CalledProcessError:
            return None
        return found


def moved(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Figure -> by how much, where that is more than it may be."""
    apart = {k: after[k] - before[k] if k == "errors" else after[k] / (before[k] or 1e-9) - 1 for k in MOVED}
    return {k: round(v, 4) for k, v in apart.items() if abs(v) > MOVED[k]}


def mutated(root: Path, constant: Constant, text: str, directory: Path) -> Path:
    shutil.copytree(root / "feedback", directory / "feedback", ignore=shutil.ignore_patterns("__pycache__", "lab"))
    shutil.copy(root / "pyproject.toml", directory)
    path = directory / constant.file
    lines = path.read_bytes().splitlines(keepends=True)
    line, at = lines[constant.line - 1], constant.column
    end = at
    while end < len(line) and (
        chr(line[end]).isalnum() or line[end : end + 1] in b"._" or line[end - 1 : end + 1] == b"e-"
    ):
        end += 1
    lines[constant.line - 1] = line[:at] + text.encode() + line[end:]
    path.write_bytes(b"".join(lines))
    return directory


def judged(
    root: Path, constant: Constant, text: str, base: dict[str, dict[str, float]], every: bool
) -> dict[str, dict[str, float]]:
    """Case -> what moved."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        made = mutated(root, constant, text, Path(name))
        for case, before in base.items():
            after = figures_of(made, case)
            change = {"does not run": 1.0} if after is None else moved(before, after)
            if change:
                found[case] = change
                if not every:
                    break
    return found


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=list(CASES), help="CASE-SCHEDULER or CASE-LAW@SCHEDULER")
    parser.add_argument("--only", nargs="+", default=[], help="parts of titles, as in the output")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("constants.jsonl"))
    parser.add_argument("--checkout", type=Path, default=HERE)
    arguments = parser.parse_args()
    root = arguments.checkout.resolve()
    chosen = [c for c in constants(root) if not arguments.only or any(word in c.title for word in arguments.only)]
    done = _read(arguments.out)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        figures = pool.map(lambda case: figures_of(root, case), arguments.case)
        base = {case: found for case, found in zip(arguments.case, figures, strict=True) if found is not None}
        todo = {(c.title, str(f)): (c, c.changed(f)) for c in chosen for f in FACTORS}
        band = next(c for c in constants(root) if c.name == "dead_band")
        todo = {("chance: " + band.title, "1.001"): (band, repr(float(band.text) * 1.001))} | todo
        futures = {
            pool.submit(judged, root, constant, text, base, arguments.all): key
            for key, (constant, text) in todo.items()
            if key not in done
        }
        with arguments.out.open("a") as out:
            for future in as_completed(futures):
                title, factor = futures[future]
                done[title, factor] = future.result()
                line = {"constant": title, "factor": factor, "moved": done[title, factor]}
                out.write(json.dumps(line) + "\n")
                out.flush()
                print(f"{len(done)}/{len(todo)} {title} x {factor}: {line['moved'] or 'nothing moved'}", flush=True)
    idle = [c.title for c in chosen if not any(done[c.title, str(f)] for f in FACTORS)]
    print(f"\n{len(idle)} of {len(chosen)} move nothing:", *idle, sep="\n  ")
    return 0


def _read(path: Path) -> dict[tuple[str, str], Any]:
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(line["constant"], line["factor"]): line["moved"] for line in lines}


if __name__ == "__main__":
    sys.exit(main())
