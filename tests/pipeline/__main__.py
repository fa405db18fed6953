"""`python -m tests.pipeline [storm|interference|histories ...]`: as many of them as one likes; what broke, by kind.

    python -m tests.pipeline --seconds 600                       # all three by turns
    python -m tests.pipeline storm --reports 10000000 --jobs 2   # ten million reports
    python -m tests.pipeline histories --count 2000              # of each kind of history
    python -m tests.pipeline storm --first 4711 --count 1        # one again

Seeds count from --first, by default from a random one. Exit status 1 if anything broke.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from tests.pipeline import histories, interference, storm
from tests.pipeline.storm import Broken

CHUNK = 20  # seeds of one task
MEMORY = Path("/dev/shm")  # state files are written at each turn


class Done(NamedTuple):
    name: str
    played: int
    reports: int
    broken: list[Broken]


def chunk(name: str, seeds: range) -> Done:
    """In a process of its own. An exception in what plays is a finding too."""
    play, reports, broken = PLAYS[name], 0, []
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
        for seed in seeds:
            try:
                found, said = play(seed, Path(directory))
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{type(error).__name__} in {Path(where.filename).name}:{where.name}"
                found, said = [Broken(kind, seed, 0, traceback.format_exc(limit=-3))], 0
            reports += said
            broken += found
    return Done(name, len(seeds), reports, broken)


def _history(kind: histories.Kind) -> Callable[[int, Path], tuple[list[Broken], int]]:
    return lambda seed, directory: (histories.play(kind, seed, directory), 0)


PLAYS: dict[str, Callable[[int, Path], tuple[list[Broken], int]]] = {
    "storm": storm.play,
    "interference": interference.play,
    **{f"histories-{kind}": _history(kind) for kind in histories.Kind},
}


def write(text: str) -> None:
    sys.stdout.write(text + "\n")


class Tally:
    """What came of it."""

    def __init__(self) -> None:
        self.played: Counter[str] = Counter()
        self.bad: dict[str, set[int]] = {}
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.first: dict[tuple[str, str], Broken] = {}
        self.reports = 0

    def add(self, done: Done) -> None:
        self.played[done.name] += done.played
        self.reports += done.reports
        for broken in done.broken:
            key = (done.name, broken.kind)
            self.kinds[key] += 1
            self.first.setdefault(key, broken)
            self.bad.setdefault(done.name, set()).add(broken.seed)

    def tell(self, seconds: float) -> None:
        for (name, kind), count in self.kinds.most_common():
            first = self.first[name, kind]
            write(f"\n{name}: {kind}: {count} times, first with seed {first.seed} at turn {first.turn}:\n{first.text}")
        for name, played in self.played.items():
            write(f"{name:24} {played:8,} played, {len(self.bad.get(name, ())):6,} of them broke something")
        write(f"{self.reports:,} reports in {seconds:.0f} s")


def tasks(names: list[str], first: int, count: int | None) -> Iterator[tuple[str, range]]:
    """By turns, without an end where no count is given."""
    at = first
    while count is None or at < first + count:
        end = at + CHUNK if count is None else min(at + CHUNK, first + count)
        yield from ((name, range(at, end)) for name in names)
        at = end


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"the beginning of one of {', '.join(PLAYS)}")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--reports", type=float, default=float("inf"), help="stop after so many reports")
    parser.add_argument("--count", type=int, help="seeds of each")
    parser.add_argument("--first", type=int, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.count is None and min(arguments.seconds, arguments.reports) == float("inf"):
        parser.error("how many? --seconds, --reports or --count")
    names = [n for n in PLAYS if not arguments.names or n.startswith(tuple(arguments.names))]
    if not names:
        parser.error(f"expected {', '.join(PLAYS)}")
    first = random.getrandbits(40) if arguments.first is None else arguments.first
    began, tally = time.monotonic(), Tally()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        todo, running = tasks(names, first, arguments.count), set()
        while True:
            over = time.monotonic() - began > arguments.seconds or tally.reports >= arguments.reports
            while not over and len(running) < 2 * arguments.jobs and (task := next(todo, None)) is not None:
                running.add(pool.submit(chunk, *task))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                tally.add(future.result())
    tally.tell(time.monotonic() - began)
    return 1 if tally.kinds else 0


if __name__ == "__main__":
    sys.exit(main())
