"""What must hold after each turn, whatever agents say. Each function returns what does not, in words.

Kernel: a weight is an int that is not negative, a threshold at most 2^31 - 1, an upper one not under the lower one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite

from feedback.model import THRESHOLD_MAX, WEIGHT_MAX, DestinationKey, ServiceKey
from tests.pipeline.face import room
from tests.pipeline.master import Master

SHARE = 1e-6


def settings(master: Master) -> Iterator[str]:
    assert master.decision is not None
    for s in master.decision.settings:
        if not 0 <= s.weight <= WEIGHT_MAX:
            yield f"weight: {s.destination} has {s.weight}"
        if not (0 <= s.lower <= s.upper <= THRESHOLD_MAX):
            yield f"threshold: {s.destination} has {s.upper} and {s.lower}"
        if not (isfinite(s.share) and -SHARE <= s.share <= 1 + SHARE):
            yield f"share: {s.destination} has {s.share}"


def faults(master: Master) -> Iterator[str]:
    """What a service or an agent is spared is a mistake all the same."""
    for fault in master.faults:
        yield f"fault: {fault.where}: {fault.text}"


def edits(master: Master) -> Iterator[str]:
    """Each is taken by the kernel."""
    for failed in master.failed:
        yield f"refused: {failed.text}"


def serving(
    master: Master, service: ServiceKey, able: Iterable[DestinationKey], perhaps: Iterable[DestinationKey]
) -> Iterator[str]:
    """Where some are able to serve, not all are at 0, and not all of those and of those that perhaps are."""
    weights = master.table.weights(service)
    there = [k for k in able if k in weights]
    if there and not any(weights.values()):
        yield f"all zero: {service}, where {', '.join(map(str, there))} could serve"
    elif there and not any(weights.get(k) for k in (*there, *perhaps)):
        yield f"none able: {service} has {', '.join(map(str, there))} at 0, and nobody else can serve"


def orders(master: Master, given: Iterable[object]) -> Iterator[str]:
    """None is lost, none comes back."""
    have, want = set(master.controller.orders.all()), set(given)
    for order in want - have:
        yield f"order lost: {order}"
    for order in have - want:
        yield f"order back: {order}"


def obeyed(master: Master, service: ServiceKey) -> Iterator[str]:
    """A drained destination is at 0, an overridden one at its weight or kept out."""
    weights = master.table.weights(service)
    for key, order in master.controller.orders.of(service).destinations.items():
        if key in weights and weights[key] not in (0, order.weight):
            yield f"order not obeyed: {key} has {weights[key]}, {order}"


def state(master: Master) -> Iterator[str]:
    """What is written reads back equal, and is what stands in the file."""
    codec, now = room("state"), master.controller.state()
    try:
        if codec.decode(codec.encode(now)) != now:
            yield "state: reads back as something else"
    except codec.StateError as error:
        yield f"state: does not read back: {error}"
