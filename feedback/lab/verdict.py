"""Verdict: the result of a run. It holds its bounds or misses them; or the host disturbed it, and it is inconclusive.

Pure. The time of a guest that has its own stands still while the host makes it wait: what it measures is never the
host's. Every other guest counts the host's stalls as its own, and beside other work its figures are mostly those. And
a guest whose processor is full measures itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from feedback.lab.bounds import Check

# Part of the run in which something on the host waited for a processor. Quiet runs had less than 0.10; three runs of
# `hog` with 0.29 to 0.33 had a gain over wlc of 0.3 to 1.5, where quiet ones have 22.
WAITED_SHARE_MOST = 0.15
# Part of the load's time in which the guest's own processor was full, so that clients, servers and daemons, which stand
# for many machines, waited for one another. `adopt` on a processor of half the speed was full for 28 to 32 % and gained
# 0.5 to 0.8; `hog` with half of it stolen had 10 % and held its bounds; on the reference's own most runs have none.
FULL_SHARE_MOST = 0.15


class Verdict(StrEnum):
    OK = "ok"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


def disturbance(*, own_time: bool, waited_share: float, full_share: float = 0.0) -> str:
    """Why the figures are partly those of the host or of the lab itself, in words; empty where they are not.
    `full_share` is of the guest that was worst. NaN: not told."""
    if full_share > FULL_SHARE_MOST:
        return (
            f"the guest's own processor was full for {full_share:.0%} of the load's time: with more than "
            f"{FULL_SHARE_MOST:.0%} the figures are the lab's own, whose clients and servers share that processor"
        )
    if own_time or not waited_share > WAITED_SHARE_MOST:
        return ""
    return (
        f"another process held this machine's processors for {waited_share:.0%} of the run, and this kernel's time "
        f"goes on meanwhile: with more than {WAITED_SHARE_MOST:.0%} the figures are partly the host's"
    )


def decide(checks: Iterable[Check], disturbed: str) -> Verdict:
    if disturbed:
        return Verdict.INCONCLUSIVE
    return Verdict.FAILED if any(check.ok is False for check in checks) else Verdict.OK
