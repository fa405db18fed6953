"""Histories: reloads, failures, restarts and lost state, after which a pool must be at its file's ratios.

From one seed: a file with weights, servers and a check that change, checks that fail and recover, restarts with the
state and without, looks at the kernel that take a turn or ten minutes. Nobody else writes and no order is given, so
nobody but the file has a say. At the end every check is good; then no destination may be at 0 unless the file says so,
and each one's part must be the file's. On the way no destination whose check is good for a while may be at 0.

With agents the law is `static`, or `capacity` where the servers can do what the file says of them. No server is ever
overloaded: what comes is a part of what those can do that are in service.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Any

from feedback import wire
from feedback.config import MasterConfig, parse
from feedback.model import AddService, DestinationKey, Service, ServiceKey
from tests.pipeline.face import room
from tests.pipeline.master import Master
from tests.pipeline.servers import Server, Servers
from tests.pipeline.stage import rip, service
from tests.pipeline.storm import Broken
from tests.pipeline.table import Table

TURN_SECONDS = 0.2
STEPS = 20
SERVERS_MAX = 5
STEADY_SECONDS = 3.0  # two good outcomes, half a second apart, a turn, and to spare
SETTLE_SECONDS, SETTLE_AGENTS_SECONDS = 16.0, 60.0  # what looks learned stands for 15, and a turn
POINTS = 0.02  # of the pool: what the end may be off, for weights are integers
POINTS_AGENTS = 0.05  # where capacities are measured
RATIO = 1.25  # and of its own part, where a part is small: a scale of integers
CHECK = '[service.check]\ntype = "tcp"\ninterval_seconds = 0.5\nrise = 2\nfall = 2\n'


class Kind(StrEnum):
    """`owner`: somebody else owns the service, the file is his, and his check writes zeros."""

    BARE = "bare"  # no agents
    AGENTS = "agents"  # law static
    CAPACITY = "capacity"
    OWNER = "owner"  # no agents
    OWNER_AGENTS = "owner-agents"  # law static


class History:
    """See the module."""

    def __init__(self, kind: Kind, seed: int, directory: Path) -> None:
        self.draw = draw = random.Random(f"{kind} {seed}")
        self.kind, self.seed = kind, seed
        self.owned = kind not in (Kind.OWNER, Kind.OWNER_AGENTS)
        self.agents = kind not in (Kind.BARE, Kind.OWNER)
        self.count = draw.randrange(1, SERVERS_MAX + 1)
        self.scheduler = draw.choice(("sed", "wlc", "wrr", "nq"))
        most = 4.0 if kind is Kind.CAPACITY else 100.0
        self.weights = {i: self._weight(most) for i in range(self.count)}
        self.last = dict(self.weights)  # what the file says in the end
        self.checked = draw.random() < 0.5
        self.bad: set[int] = set()
        self.good_since: dict[int, float] = dict.fromkeys(range(self.count), -inf)
        self.done: list[str] = []
        self._written: dict[int, int] = {}  # what the other owner wrote
        self._changed = (0, -inf)  # how much was done, and since when it is
        table = Table()
        if not self.owned:
            table.apply([AddService(Service(ServiceKey.parse("tcp:192.0.2.1:80"), self.scheduler))])
        path = directory / "state.json"
        path.unlink(missing_ok=True)
        self.master = Master(self._config(), path, table, self._answer)
        self.key = ServiceKey.parse("tcp:192.0.2.1:80")
        if not self.owned:
            self._own(self.weights)
        servers = [Server(rip(i), f"rs{i}", self.weights[i], 100.0, draw) for i in range(self.count)]
        self._load = draw.choice((0.2, 0.5, 0.7))
        self.flow = Servers(self.key, servers, 0.0, follow=False)
        self._agents_heard = self.agents

    def _weight(self, most: float) -> int:
        return int(self.draw.choice((1, 2, 4) if most <= 4 else (1, 2, 3, 5, 10, 20, 50, 100)))

    def _config(self) -> MasterConfig:
        law = "capacity" if self.kind is Kind.CAPACITY else "static" if self.agents else "capacity"
        extra = f'scheduler = "{self.scheduler}"\nlaw = "{law}"\n'
        check = CHECK if self.checked and self.owned else ""
        text = service(
            sorted(self.weights), weights=[self.weights[i] for i in sorted(self.weights)], extra=extra, below=check
        )
        if not self.owned:
            text = f'ownership = "weights"\n[[service]]\nvirtual = "tcp:192.0.2.1:80"\nlaw = "{law}"\n'
        return parse(text, MasterConfig)

    def _answer(self, probe: Any) -> Any:
        good = int(str(probe.target.address).rpartition(".")[2]) - 1 not in self.bad
        return room("health").Outcome(good, "answers" if good else "refused")

    # --- what happens ------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Broken]:
        for step in range(STEPS):
            self._step()
            self._wait()
            zeros = next(self._zeros(), "")
            if zeros:
                yield self._broken("zero under a good check", step, zeros)
                return
        self._end()
        yield from self._verdict()

    def _broken(self, kind: str, step: int, text: str) -> Broken:
        return Broken(f"{self.kind}: {kind}", self.seed, step, f"{text}; {self.scheduler}; {', '.join(self.done)}")

    def _step(self) -> None:
        draw = self.draw
        i = draw.randrange(self.count)
        match draw.randrange(8):
            case 0 | 1:
                self._change("weight", i, self._weight(4.0 if self.kind is Kind.CAPACITY else 100.0))
            case 2:
                self._change("gone", i, None if len(self.weights) > 1 else self.weights.get(i, 1))
            case 3:
                self._change("back", i, self.last[i])
            case 4 | 5:
                self._fail(i)
            case 6:
                self.checked = not self.checked
                self._reload("check" if self.checked else "no check")
            case _:
                lost = draw.random() < 0.5
                self.done.append("state lost" if lost else "restart")
                self.master.restart(lost=lost)

    def _change(self, what: str, i: int, weight: int | None) -> None:
        if weight is None:
            self.weights.pop(i, None)
        else:
            if i not in self.weights:
                self.good_since[i] = inf if i in self.bad else self.master.now
            self.weights[i] = weight
        self._reload(f"{what} {i + 1}" + (f" {weight}" if weight is not None else ""))

    def _reload(self, text: str) -> None:
        self.done.append(text)
        if self.owned:
            self.master.reload(self._config())
        else:
            self._own(self.weights)

    def _own(self, weights: dict[int, int]) -> None:
        """The other owner's table, as his reload leaves it: he writes what differs from what he wrote before."""
        before = self._written
        wanted = {i: 0 if i in self.bad and self.checked else w for i, w in weights.items()}
        for i, weight in wanted.items():
            if before.get(i) != weight:
                self.master.table.put(self.key, rip(i), weight=weight, upper=0, lower=0)
        for i in before.keys() - wanted.keys():
            self.master.table.rows[self.key].pop(rip(i), None)
        self._written = wanted

    def _fail(self, i: int) -> None:
        if i in self.bad:
            self.bad.discard(i)
            self.good_since[i] = self.master.now
        else:
            self.bad.add(i)
            self.good_since[i] = inf
        self.done.append(f"{'fails' if i in self.bad else 'recovers'} {i + 1}")
        if not self.owned:
            self._own(self.weights)

    def _wait(self) -> None:
        draw = self.draw
        turns = draw.choice((0, 1, 1, 2, 3, 8, 20, 25))
        self._turns(turns)
        if draw.random() < 0.1:
            self.done.append("ten minutes")
            self.master.wait(600.0)
            self._turns(1)

    def _turns(self, number: int) -> None:
        master = self.master
        for _ in range(number):
            master.wait(TURN_SECONDS)
            weights = master.table.weights(self.key)
            self.flow.rate = self._load * sum(s.capacity for s in self.flow.all if weights.get(s.key))
            self.flow.step(master.table, master.now, TURN_SECONDS)
            if self.agents:
                for report in self.flow.reports(master.now, TURN_SECONDS):
                    master.hear(wire.encode(report))
            master.turn()

    # --- what must hold ----------------------------------------------------------------------------------------------

    def _zeros(self) -> Iterator[str]:
        """Of those whose check is good for a while."""
        weights, now = self.master.table.weights(self.key), self.master.now
        for i, weight in self.weights.items():
            good = now - self.good_since[i] > STEADY_SECONDS and self._steady(now)
            if weight and good and not weights.get(rip(i), 1):
                yield f"{rip(i)} is at 0"

    def _steady(self, now: float) -> bool:
        """Whether outcomes have been heard since the file or the process changed."""
        if self._changed[0] != len(self.done):
            self._changed = (len(self.done), now)
        return now - self._changed[1] > STEADY_SECONDS

    def _end(self) -> None:
        """All is well, the file is complete. The other owner starts anew, and makes all of it again: of a weight that
        he wrote where ours happened to be the same, or before the state was lost, nobody can know."""
        self.bad.clear()
        self.weights = dict(self.last)
        self.good_since = dict.fromkeys(range(self.count), self.master.now)
        if not self.owned:
            self._written.clear()
            self.master.table.rows[self.key].clear()
            self._turns(1)
        self._reload("all well, all back")
        self._turns(round((SETTLE_AGENTS_SECONDS if self.agents else SETTLE_SECONDS) / TURN_SECONDS))

    def _verdict(self) -> Iterator[Broken]:
        weights = self.master.table.weights(self.key)
        got = self._parts(weights)
        total = sum(self.last.values())
        told = ", ".join(f"{rip(i).address} {weights.get(rip(i))} of {w}" for i, w in self.last.items())
        if not all(weights.get(rip(i)) for i in self.last):
            yield self._broken("zero in the end", STEPS, told)
            return
        points = POINTS_AGENTS if self.agents else POINTS
        for i, weight in self.last.items():
            part, wanted = got[rip(i)], weight / total
            if abs(part - wanted) > points and not wanted / RATIO < part < wanted * RATIO:
                yield self._broken("off the file's ratios", STEPS, f"{told}: {part:.3f} for {wanted:.3f}")
                return

    def _parts(self, weights: dict[DestinationKey, int]) -> dict[DestinationKey, float]:
        """Where agents report, of what the settings say: a weight is a share only under some schedulers."""
        if self.agents and self.master.decision is not None:
            return {s.destination: s.share for s in self.master.decision.settings}
        total = sum(weights.values()) or 1
        return {k: w / total for k, w in weights.items()}


def play(kind: Kind, seed: int, directory: Path) -> list[Broken]:
    return list(History(kind, seed, directory).run())
