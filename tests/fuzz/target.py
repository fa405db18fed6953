"""Target: one decoder, and the property that holds for it whatever comes.

`refuses` are the errors that it declares; anything else is a defect, and so is one input that takes more than its share
of processor time or memory. The corpus is part of it: what begins with `valid-` must be taken.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from feedback.refusals import SAID_MAX
from tests.fuzz.mutation import changed_bytes, changed_trees

CORPUS = Path(__file__).with_name("corpus")
MEMORY_BYTES, MEMORY_FACTOR = 4 << 20, 200  # of one input: so much, and so many times its length
# Three changes can make 600 kB of a tree, of which tomllib alone needs a second. The time allowed is for a tenth of it.
TREE_BYTES_MAX = 100_000

Take = Callable[[bytes], object]


@dataclass(frozen=True, kw_only=True)
class Target:
    """`take` decodes, and asserts what holds of the result; `opened` makes one that needs something open around it.
    `seal` mends what is checked first (a checksum, a signature, the length of all): a changed input then gets further.
    `trees` reads a seed as a document, `write` writes one."""

    name: str
    take: Take | None = None
    opened: Callable[[], AbstractContextManager[Take]] | None = None
    refuses: tuple[type[Exception], ...] = ()
    tokens: Sequence[bytes] = ()
    seal: Callable[[bytes], bytes] | None = None
    trees: Callable[[bytes], Any] | None = None
    write: Callable[[Any], bytes] | None = None
    bytes_max: int = 20_000
    cpu_seconds: float = 0.5
    costs: int = field(default=1)  # examples are so much dearer

    @property
    def kept(self) -> list[Path]:
        return sorted((CORPUS / self.name).iterdir())

    def inputs(self) -> st.SearchStrategy[bytes]:
        seeds = [path.read_bytes() for path in self.kept]
        ways = [changed_bytes(seeds, self.tokens, self.bytes_max)]
        if self.seal is not None:
            ways.append(ways[0].map(self.seal))
        if self.trees is not None and self.write is not None:
            valid = [path.read_bytes() for path in self.kept if path.name.startswith("valid-")]
            trees = changed_trees([self.trees(data) for data in valid], self.write)
            ways.append(trees.filter(lambda data: len(data) <= TREE_BYTES_MAX))
        return st.one_of(ways)

    @contextmanager
    def session(self) -> Iterator[Callable[[bytes], bool]]:
        """A function that checks one input; true if it was taken, false if it was refused as declared."""
        assert self.take is not None or self.opened is not None
        with self.opened() if self.opened is not None else nullcontext(self.take) as take:
            assert take is not None
            yield lambda data: self._check(take, data)

    def _check(self, take: Take, data: bytes) -> bool:
        tracemalloc.start()
        try:
            taken, seconds = self._timed(take, data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        if seconds >= self.cpu_seconds:  # the tracing itself takes many times as long, and sometimes much longer
            taken, seconds = self._timed(take, data)
        assert seconds < self.cpu_seconds, f"{seconds:.2f} s of processor time for {len(data)} bytes"
        assert peak < MEMORY_BYTES + MEMORY_FACTOR * len(data), f"{peak} bytes for {len(data)}"
        return taken

    def _timed(self, take: Take, data: bytes) -> tuple[bool, float]:
        """Whether it was taken, and the processor time."""
        began = time.thread_time()
        try:
            take(data)
            taken = True
        except self.refuses as error:
            taken = False
            text = str(error)
            assert text.isprintable(), "a refusal is one line, and no terminal acts on it"
            assert len(text) <= SAID_MAX + 10, "and not as long as what it refuses"
        return taken, time.thread_time() - began


def explore(target: Target, examples: int, number: int | None = None) -> None:
    """So many new inputs. Raises what a failing one raised, shrunk; its bytes are then in the error's `input`."""
    last: list[bytes] = []
    with target.session() as check:

        @settings(
            max_examples=max(1, examples // target.costs),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(target.inputs())
        def every(data: bytes) -> None:
            last[:] = [data]
            check(data)

        try:
            (seed(number)(every) if number is not None else every)()
        except BaseException as error:
            error.add_note(f"{target.name}: {last[0][:200]!r}, {len(last[0])} bytes")
            error.input = last[0]  # type: ignore[attr-defined]
            raise
