"""Jobs: many runs in several processes. A job is one case, one scheduler and one seed, so that its oracle runs once.

The shell around `run`: processes and progress. Invariant: the results depend neither on the number of processes nor on
the order in which they end.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

from feedback.simulate.case import Case
from feedback.simulate.policy import ORACLE, Policy
from feedback.simulate.run import Outcome, outcomes

# A run makes millions of objects and no cycles: look for cycles after so many new objects instead of after 700.
YOUNG_OBJECTS = 100_000
WORK_OF_DECIDING = 100.0  # requests that take as long to simulate as one second of decisions about one server


class Job(msgspec.Struct, frozen=True):
    case: Case
    scheduler: str
    seed: int
    policies: tuple[Policy, ...]

    @property
    def work(self) -> float:
        """Roughly proportional to the time that it takes: requests, and decisions about each server."""
        case = self.case
        requests = case.seconds * max(load.part for load in case.load) * case.capacity * (2 if case.keep_seconds else 1)
        decisions = case.seconds * len(case.servers) * WORK_OF_DECIDING
        return (requests + decisions) * len(self.policies)

    @property
    def title(self) -> str:
        return f"{self.case.name} on {self.scheduler}, seed {self.seed}"


def plan(
    cases: Iterable[Case],
    laws: Sequence[str],
    schedulers: Sequence[str],
    seeds: Iterable[int],
    *,
    late: Sequence[str] = (),
    only_own: bool = False,
) -> list[Job]:
    """If `schedulers` is empty, each case has its own. `only_own`: of the given ones, only the case's own. The laws in
    `late` run once more with twice the delay."""
    made = []
    seeds = tuple(seeds)
    for case in cases:
        for scheduler in schedulers or case.schedulers:
            if only_own and scheduler not in case.schedulers:
                continue
            policies = (Policy(ORACLE, scheduler), *(Policy(law, scheduler) for law in laws if law != ORACLE))
            policies += tuple(Policy(law, scheduler, 2.0) for law in laws if law in late)
            made += [Job(case, scheduler, seed, policies) for seed in seeds]
    return made


def perform(plan: Sequence[Job], processes: int, tell: Callable[[str], None]) -> list[Outcome]:
    """All outcomes, in the order of the plan. Raises UnknownLawError."""
    done: dict[int, list[Outcome]] = {}
    for number, found in _performed(plan, processes):
        done[number] = found
        tell(f"{len(done)}/{len(plan)} {plan[number].title}: {_summary(found)}")
    return [outcome for number in sorted(done) for outcome in done[number]]


def _summary(found: Sequence[Outcome]) -> str:
    """p99 relative to the oracle's, shown while a long run goes on. The oracle comes first."""
    best = found[0].figures["p99_ms"]
    ratios = (
        f"{o.policy.law}{' late' if o.policy.delay != 1 else ''} {o.figures['p99_ms'] / best:.2f}" for o in found[1:]
    )
    return f"p99 {best:.0f} ms x {', '.join(ratios)}" if best else "nothing was sent"


def _performed(plan: Sequence[Job], processes: int) -> Iterator[tuple[int, list[Outcome]]]:
    if processes <= 1 or len(plan) == 1:
        yield from ((number, _one(job)) for number, job in enumerate(plan))
        return
    with ProcessPoolExecutor(processes, initializer=gc.set_threshold, initargs=(YOUNG_OBJECTS,)) as pool:
        order = sorted(range(len(plan)), key=lambda number: -plan[number].work)  # longest first: they end together
        futures = {pool.submit(_one, plan[number]): number for number in order}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one(job: Job) -> list[Outcome]:
    return outcomes(job.case, job.policies, job.seed)
