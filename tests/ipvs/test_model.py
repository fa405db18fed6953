"""The model of `feedback simulate` against the kernel, choice by choice: the same script of connections, closings,
weights and thresholds on both, under every scheduler that the model has. tests/simulate holds it to the fake kernel.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from feedback.ipvs import Overload
from feedback.model import AddDestination, AddService, Destination, DestinationKey, Service, SetDestination
from feedback.simulate.director import Director as Model
from feedback.simulate.director import Slot
from tests.ipvs.conftest import WEB, Director

SCHEDULERS = ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf"]
KEYS = [DestinationKey.parse(f"10.1.0.{n + 1}:80") for n in range(4)]
Act = tuple[str, int, int, int]


def script(seed: int, steps: int) -> tuple[list[int], list[Act]]:
    """Weights to begin with, and acts: the choice of what is closed is by number, so that both sides can follow."""
    draw = random.Random(seed)
    weights = [draw.randint(1, 9) for _ in KEYS]
    acts = []
    for _ in range(steps):
        kind = draw.choices(["open", "close", "weight", "threshold"], [70, 18, 8, 4])[0]
        acts.append((kind, draw.randrange(len(KEYS)), draw.randint(0, 9), draw.choice([0, 3, 6])))
    return weights, acts


class Played:
    """What each new connection went to, as text: a destination's number, or - where it was refused."""

    def __init__(self, weights: list[int]) -> None:
        self.records = [Destination(k, w) for k, w in zip(KEYS, weights, strict=True)]
        self.held: list[Any] = []
        self.trace = ""

    def play(self, acts: list[Act]) -> str:
        for kind, which, weight, upper in acts:
            if kind == "open":
                self.trace += self.open()
            elif kind == "close" and self.held:
                self.close(self.held.pop((which * 10 + weight) % len(self.held)))
            elif kind in ("weight", "threshold"):
                changed = {"weight": weight} if kind == "weight" else {"upper": upper}
                self.records[which] = msgspec.structs.replace(self.records[which], **changed)
                self.set(self.records[which])
        return self.trace

    def open(self) -> str:
        raise NotImplementedError

    def close(self, connection: Any) -> None:
        raise NotImplementedError

    def set(self, record: Destination) -> None:
        raise NotImplementedError


class OnKernel(Played):
    def __init__(self, director: Director, scheduler: str, weights: list[int]) -> None:
        super().__init__(weights)
        self.director, self.kernel = director, director.kernel
        adding = [AddDestination(WEB, d) for d in self.records]
        assert self.kernel.apply([AddService(Service(WEB, scheduler)), *adding]) == ()

    def open(self) -> str:
        before = {e.destination.key: e.active for e in self.kernel.destinations(WEB)}
        connection = self.director.open()
        if connection is None:
            return "-"
        self.held.append(connection)
        grown = [e.destination.key for e in self.kernel.destinations(WEB) if e.active > before[e.destination.key]]
        (chosen,) = grown
        return str(KEYS.index(chosen))

    def close(self, connection: Any) -> None:
        self.director.close(connection)

    def set(self, record: Destination) -> None:
        assert self.kernel.apply([SetDestination(WEB, record)]) == ()

    def counts(self) -> list[tuple[int, int]]:
        return [(e.active, e.inactive) for e in self.kernel.destinations(WEB)]


class InModel(Played):
    def __init__(self, scheduler: str, overload: Overload, scanned: int, weights: list[int]) -> None:
        super().__init__(weights)
        self.table = Model(Service(WEB, scheduler), self.records, overload=overload, scanned=scanned)

    def open(self) -> str:
        slot = self.table.open(0.0)
        if slot is None:
            return "-"
        self.held.append(slot)
        return str(slot.index)

    def close(self, connection: Slot) -> None:
        self.table.close(connection, 0.0)

    def set(self, record: Destination) -> None:
        self.table.apply([SetDestination(WEB, record)])

    def counts(self) -> list[tuple[int, int]]:
        return [(e.active, e.inactive) for e in self.table.snapshot(0.0).services[0].destinations]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_model_chooses_as_the_kernel_does(director: Director, scheduler: str, seed: int) -> None:
    weights, acts = script(seed, 80)
    kernel = OnKernel(director, scheduler, weights)
    trace = kernel.play(acts)
    assert len(set(trace)) > 1
    # Which of the two ways with thresholds a kernel has, only its effects show.
    models = [InModel(scheduler, overload, scanned, weights) for overload in Overload for scanned in (0, 24)]
    alike = [m for m in models if m.play(acts) == trace]
    assert len(alike) >= 2, f"{trace} is none of {sorted({m.trace for m in models})}"
    assert all(m.counts() == kernel.counts() for m in alike)
