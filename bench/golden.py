"""The same inputs through two checkouts, and every difference of what they write, by kind.

    python -m bench.golden --old DIR [--new DIR] [NAME...] [--json FILE]

Inputs are of two sorts. Scripts (tests/pipeline/scripts.py) are histories with owners, orders, checks, restarts, lost
agents. Worlds are the cases of `feedback simulate`, as they went under the old checkout: `world-CASE-SCHEDULER`; their
connections and reports are replayed, and the table follows whoever is replayed. NAME may be a prefix: `life`,
`world-bursts`. Exit status 1 where something differs.

Kinds, of one destination after one turn: `zero` (one of the two weights is 0), `weight` by 1, within 5, 20 % or over,
`threshold` (there or not), `threshold size` (over 10 %), `threshold of a zero`, where it holds nobody back; of one
service: `held` (the words why nothing is decided); of a whole run: `foreign` edits seen, `writes` (edits, where they
differ by over 5 %), `error` (what was raised).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from bench.checkout import HERE, Checkout, opened

Rows = Mapping[str, tuple[int, int, int]]
NEAR, FAR, THRESHOLD, WRITES = 0.05, 0.20, 0.10, 0.05
JOBS = 2


class Run(msgspec.Struct, frozen=True):
    """`turns` as tests.pipeline.stage.Turn has them; `error` what ended it early."""

    turns: list[Any]
    error: str = ""


# --- in the other process --------------------------------------------------------------------------------------------


def child(task: str, name: str, path: Path, recording: Path | None = None) -> None:
    """`record` a world, `play` a script or a recording, or list all `names`, and leave it at `path`."""
    if task == "names":
        path.write_bytes(msgspec.msgpack.encode(names()))
        return
    if task == "record":
        from bench.worlds import record

        path.write_bytes(msgspec.msgpack.encode(record(name)))
        return
    made = played(name, recording)
    path.write_bytes(msgspec.msgpack.encode(made))


def played(name: str, recording: Path | None) -> Run:
    from tests.pipeline.scripts import SCRIPTS
    from tests.pipeline.stage import Place

    with tempfile.TemporaryDirectory() as directory:
        place, error = Place(Path(directory), []), ""
        try:
            if recording is None:
                SCRIPTS[name](place)
            else:
                from bench.worlds import Recording, replay

                replay(msgspec.msgpack.decode(recording.read_bytes(), type=Recording), place)
        except Exception:
            error = traceback.format_exc(limit=-2)
        return Run(list(place.turns), error)


# --- here ------------------------------------------------------------------------------------------------------------


class Differences:
    """Of one name: how many of each kind, and the first of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.compared = 0

    def add(self, kind: str, text: Callable[[], str]) -> None:
        self.counts[kind] += 1
        if kind not in self.first:
            self.first[kind] = text()


def compared(old: Run, new: Run) -> Differences:
    found = Differences()
    for side, run in (("old", old), ("new", new)):
        if run.error:
            found.add(f"error in {side}", lambda run=run: run.error)  # type: ignore[misc]
    here: tuple[Rows, Rows] = {}, {}
    said: tuple[dict[str, str], dict[str, str]] = {}, {}
    for a, b in zip(old.turns, new.turns, strict=False):
        here = (a["rows"] if a["rows"] is not None else here[0], b["rows"] if b["rows"] is not None else here[1])
        said[0].update(a["reasons"])
        said[1].update(b["reasons"])
        _rows(found, a["at"], here, said)
        if a["held"] != b["held"]:
            found.add("held", lambda a=a, b=b: f"at {a['at']:.2f}: {a['held']} -> {b['held']}")  # type: ignore[misc]
    _totals(found, old, new)
    return found


def _rows(found: Differences, at: float, here: tuple[Rows, Rows], said: Sequence[Mapping[str, str]]) -> None:
    before, after = here
    found.compared += len(before)
    if before == after:
        return
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key), after.get(key)
        if a == b:
            continue
        for kind in _kinds(a, b):
            found.add(kind, lambda: f"at {at:.2f}, {key}: {a} -> {b}\n"  # noqa: B023 - called at once
                      f"      old: {said[0].get(key, '')}\n      new: {said[1].get(key, '')}")  # noqa: B023  # fmt: skip


def _kinds(a: tuple[int, int, int] | None, b: tuple[int, int, int] | None) -> Iterable[str]:
    if a is None or b is None:
        yield "there or not"
        return
    if a[0] != b[0]:
        apart = abs(a[0] - b[0]) / max(a[0], b[0])
        if not a[0] or not b[0]:
            yield "zero"
        elif abs(a[0] - b[0]) == 1:
            yield "weight by 1"
        else:
            yield "weight < 5 %" if apart <= NEAR else "weight < 20 %" if apart <= FAR else "weight over 20 %"
    if a[1] != b[1] and not a[0] and not b[0]:
        yield "threshold of a zero"
    elif bool(a[1]) != bool(b[1]):
        yield "threshold"
    elif a[1] and abs(a[1] - b[1]) > THRESHOLD * max(a[1], b[1]):
        yield "threshold size"


def _totals(found: Differences, old: Run, new: Run) -> None:
    for name in ("edits", "foreign"):
        a, b = (sum(turn[name] for turn in run.turns) for run in (old, new))
        if abs(a - b) > (WRITES * max(a, b) if name == "edits" else 0):
            found.add("writes" if name == "edits" else name, lambda a=a, b=b: f"{a} -> {b}")  # type: ignore[misc]
    if len(old.turns) != len(new.turns) and not (old.error or new.error):
        found.add("turns", lambda: f"{len(old.turns)} -> {len(new.turns)}")


def compare(name: str, old: Checkout, new: Checkout, directory: Path) -> Differences:
    recording: tuple[str, ...] = ()
    if name.startswith("world-"):
        recording = (str(directory / f"{name}.inputs"),)
        old.run("bench.golden", "--child", "record", name, *recording)
    runs = []
    for side, checkout in (("old", old), ("new", new)):
        path = directory / f"{name}.{side}"
        checkout.run("bench.golden", "--child", "play", name, str(path), *recording)
        runs.append(msgspec.msgpack.decode(path.read_bytes(), type=Run))
        path.unlink()
    if recording:
        Path(recording[0]).unlink()
    return compared(*runs)


def names() -> list[str]:
    from bench.worlds import WORLDS
    from tests.pipeline.scripts import SCRIPTS

    return [*SCRIPTS, *WORLDS]


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]) if sys.argv[5:] else None)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--new", type=Path, default=HERE, help="default: this one")
    parser.add_argument("--json", type=Path, help="all of it, to this file")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    results: dict[str, Differences] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        opened(arguments.old) as old,
        opened(arguments.new) as new,
        ThreadPoolExecutor(JOBS) as pool,
    ):
        known = Path(name) / "names"
        old.run("bench.golden", "--child", "names", "", str(known))  # it may have fewer cases to record
        there = msgspec.msgpack.decode(known.read_bytes(), type=list[str])
        chosen = [n for n in there if not arguments.names or n.startswith(tuple(arguments.names))]
        for case, found in zip(chosen, pool.map(lambda n: compare(n, old, new, Path(name)), chosen), strict=True):
            results[case] = found
            print(f"{case:36} {_line(found)}", flush=True)
    _tell(results)
    if arguments.json is not None:
        plain = {c: {"compared": f.compared, "counts": f.counts, "first": f.first} for c, f in results.items()}
        arguments.json.write_text(json.dumps(plain, indent=1))
    return 1 if any(f.counts for f in results.values()) else 0


def _line(found: Differences) -> str:
    kinds = ", ".join(f"{kind}: {n}" for kind, n in sorted(found.counts.items())) or "the same"
    return f"{found.compared:>8,} compared; {kinds}"


def _tell(results: Mapping[str, Differences]) -> None:
    kinds = sorted({kind for found in results.values() for kind in found.counts})
    for kind in kinds:
        cases = {case: found for case, found in results.items() if kind in found.counts}
        print(f"\n{kind}: {sum(f.counts[kind] for f in cases.values())} in {len(cases)} cases")
        for case, found in sorted(cases.items(), key=lambda pair: -pair[1].counts[kind])[:3]:
            print(f"  {case} ({found.counts[kind]}): {found.first[kind]}")
    same = sum(not found.counts for found in results.values())
    print(f"\n{same} of {len(results)} the same, {sum(f.compared for f in results.values()):,} rows compared")


if __name__ == "__main__":
    sys.exit(main())
