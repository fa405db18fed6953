"""Frame: what the scenarios of one pool have in common in the guest: the policy, the pool's load, and the run. Knows no
scenario's numbers and no figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from feedback.lab.job import Options
from feedback.lab.product import Product
from feedback.lab.stand import Stand
from feedback.lab.topology import PORT, VIP
from feedback.lab.workload.load import Load


class Step(NamedTuple):
    """A rate of requests a second, from this part of the run on."""

    what: str
    part: float
    rate: float


def govern(stand: Stand, variant: str, *, scheduler: str, law: str, weights: Sequence[int]) -> None:
    """`feedback` is the product with learned thresholds; any other policy is the plain service with these weights and
    no thresholds."""
    if variant == "feedback":
        learned = {"thresholds": "learned"}
        Product(stand, scheduler=scheduler, law=law, servers=stand.topology.servers, service=learned).start()
    else:
        stand.make_service(scheduler, list(weights))


def pool_load(
    options: Options,
    *,
    rate: float,
    cost_ms: float,
    hold_seconds: float = 0.0,
    steps: Iterable[Step] = (),
    patience_seconds: float = 20.0,
) -> Load:
    """One connection for each request, which the server may hold open. The longest hold is twice the mean."""
    return Load(
        address=str(VIP),
        port=PORT,
        rate=rate,
        seconds=options.seconds,
        seed=options.seed,
        cost_ms=cost_ms,
        hold_seconds=hold_seconds,
        timeout_seconds=2 * hold_seconds + patience_seconds,
        steps=rates(options, steps),
    )


def rates(options: Options, steps: Iterable[Step]) -> tuple[tuple[float, float], ...]:
    return tuple((step.part * options.seconds, step.rate) for step in steps)


def play(stand: Stand, load: Load, steps: Iterable[Step] = (), *, patience_seconds: float = 60.0) -> None:
    """Run a load from start to end, with an event at each step."""
    start = stand.begin(load)
    for what, part, rate in steps:
        stand.sleep_until(start + part * load.seconds)
        stand.event(what, start + part * load.seconds, rate=rate)
    stand.finish(start + load.seconds, patience_seconds)
