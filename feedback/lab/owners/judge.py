"""Whether our master and the owner of a service got along, judged by what the owner says it wrote, what the master says
it saw, and samples of the kernel's table. Pure.

A *fight* is one of three. A zero of the owner's is above zero again, or a server that it removed exists again, although
the owner has not changed its mind. Or a weight of ours overwrites an edit of the owner's twice within FIGHT_SECONDS on
one server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from feedback.lab.owners.program import Written
from feedback.lab.samples import Sample

FIGHT_SECONDS = 5.0
NOTICE_SECONDS = 0.5  # what he does may be this old when the master sees it
ABSENT = -1


class Seen(msgspec.Struct, frozen=True):
    """A foreign edit as the master reports it; `at` is on the samples' clock. `weight` is None for a removal."""

    at: float
    address: str
    weight: int | None


def unseen(written: Iterable[Written], seen: Iterable[Seen]) -> list[Written]:
    """What the owner wrote and the master has not reported."""
    left = Counter((s.address, s.weight) for s in seen)
    missing = []
    for edit in written:
        key = (edit.address, edit.weight)
        if left[key]:
            left[key] -= 1
        else:
            missing.append(edit)
    return missing


def raised(seen: Sequence[Seen], samples: Sequence[Sample], servers: Sequence[str]) -> list[tuple[float, str]]:
    """Samples in which a server that the owner had set to 0 or removed was served again before the owner changed
    that."""
    found = []
    for i, address in enumerate(servers):
        edits = [s for s in seen if s.address == address]
        for n, edit in enumerate(edits):
            until = edits[n + 1].at - NOTICE_SECONDS if n + 1 < len(edits) else float("inf")
            bound = {None: ABSENT, 0: 0}.get(edit.weight)
            if bound is not None:
                between = [s for s in samples if edit.at < s.at < until]
                found += [(s.at, address) for s in between if s.weights[i] > bound]
    return found


def overwritten(seen: Sequence[Seen], samples: Sequence[Sample], servers: Sequence[str]) -> Mapping[str, list[float]]:
    """The moments at which our weights overwrote the owner's edits, for each server."""
    found: dict[str, list[float]] = {}
    for i, address in enumerate(servers):
        edits = [s for s in seen if s.address == address]
        for n, edit in enumerate(edits):
            until = edits[n + 1].at - NOTICE_SECONDS if n + 1 < len(edits) else float("inf")
            if edit.weight:
                ours = [s.at for s in samples if edit.at <= s.at < until and s.weights[i] not in (edit.weight, ABSENT)]
                found.setdefault(address, []).extend(ours[:1])
    return found


def fights(seen: Sequence[Seen], samples: Sequence[Sample], servers: Sequence[str]) -> int:
    again = 0
    for times in overwritten(seen, samples, servers).values():
        again += sum(b - a < FIGHT_SECONDS for a, b in pairwise(times))
    return again + len(raised(seen, samples, servers))
