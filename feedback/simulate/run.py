"""Run: a case and a seed under policies, and the figures of each against the oracle of its scheduler.

Makes the generators; everything below is deterministic. The oracle of a scheduler runs once for a case and a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from feedback.simulate import traffic
from feedback.simulate.case import Case
from feedback.simulate.draws import generator
from feedback.simulate.figures import Reference, figures, reference
from feedback.simulate.policy import Policy
from feedback.simulate.trace import Trace
from feedback.simulate.world import World


class Outcome(msgspec.Struct, frozen=True):
    """The figures of one run."""

    case: str
    seed: int
    policy: Policy
    figures: dict[str, float]


def run(case: Case, policy: Policy, seed: int, arrivals: traffic.Traffic | None = None) -> Trace:
    """One run. Raises UnknownLawError."""
    made = arrivals or traffic.make(case, generator(seed, "traffic"))
    return World(case, policy, made, generator(seed, "world")).run()


def outcomes(
    case: Case, policies: Iterable[Policy], seed: int, tell: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """All policies on the same arrivals, each scheduler's oracle first. Each is reported as soon as it is done."""
    arrivals = traffic.make(case, generator(seed, "traffic"))
    oracles: dict[str, Reference] = {}
    made = []
    for policy in policies:
        if policy.scheduler not in oracles:
            trace = run(case, policy.reference, seed, arrivals)
            oracles[policy.scheduler] = reference(trace)
            made.append(Outcome(case.name, seed, policy.reference, figures(trace, None)))
            tell(made[-1])
        if policy == policy.reference:
            continue
        trace = run(case, policy, seed, arrivals)
        made.append(Outcome(case.name, seed, policy, figures(trace, oracles[policy.scheduler])))
        tell(made[-1])
    return made
