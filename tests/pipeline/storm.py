"""Storm: a master under liars and misfortune, from one seed, with the invariants checked after each turn.

Honest servers and liars report; operators give orders; the master restarts with its state, reloads, loses the kernel
for a while; clocks stand still and leap; owners and strangers write. A violation names the seed and the turn, and
`play(seed)` does the same again.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from feedback import wire
from feedback.config import MasterConfig, parse
from feedback.model import AddService, Destination, DestinationKey, Service, ServiceKey
from tests.pipeline import invariants
from tests.pipeline.face import room
from tests.pipeline.hostile import Liar
from tests.pipeline.master import Master
from tests.pipeline.servers import Server, Servers
from tests.pipeline.stage import rip, service
from tests.pipeline.table import Table

SCHEDULERS = ("sed", "sed", "wlc", "wlc", "wrr", "wrr", "nq", "lc", "rr", "mh", "sh", "lblc", "fo", "ovf")
LAWS = ("capacity",) * 6 + ("overflow", "spillover", "failover", "linear", "orca", "pid", "topsis", "proportions")
LIAR_REPORTS = 10  # in one turn, of each liar: 50 a second are admitted
TURNS = 150
STATE = "state.json"
STEADY_SECONDS = 5.0  # a check that is good for so long has been heard


class Broken(msgspec.Struct, frozen=True):
    """What did not hold: `kind` is its first word or the exception's name."""

    kind: str
    seed: int
    turn: int
    text: str


class Storm:
    """See the module. `reports` counts what was said, by honest agents and others."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.draw = draw = random.Random(seed)
        self.seed = seed
        self.adopted = draw.random() < 0.4
        self.count = draw.randrange(2, 9)
        self.turn_seconds = draw.choice((0.05, 0.2, 0.2, 1.0))
        self.scheduler, self.law = draw.choice(SCHEDULERS), draw.choice(LAWS)
        self.thresholds = draw.choice((None, None, "learned", "off"))
        self.checked = not self.adopted and draw.random() < 0.3
        self.base = {rip(i): draw.choice((100, 100, 1, 50, 1000)) for i in range(self.count)}
        self.policy = draw.choice(("hold", "static", "quiesce"))
        config = self._config()
        table = Table()
        self.key = ServiceKey.parse(config.service[0].virtual)
        if self.adopted:
            table.apply([AddService(Service(self.key, self.scheduler))])
            for key, weight in self.base.items():
                table.put(self.key, Destination(key).key, weight=weight)
        self.good = dict.fromkeys(self.base, (True, float("-inf")))  # what its check finds, and since when
        self.master = Master(config, directory / STATE, table, self._answer)
        servers = [
            Server(rip(i), f"rs{i}", draw.choice((1, 2, 4, 8)), draw.choice((50.0, 100.0)), draw)
            for i in range(self.count)
        ]
        rate = draw.choice((0.0, 0.1, 0.6, 0.95, 1.2)) * sum(s.capacity for s in servers)
        self.flow = Servers(self.key, servers, rate, follow=draw.random() < 0.5)
        liars = draw.sample(range(self.count), draw.choice((1, 1, 1, max(1, self.count // 3))))
        self.liars = {i: Liar(servers[i], draw) for i in liars}
        self.orders: dict[Any, Any] = {}
        self.foreign: set[DestinationKey] = set()  # at 0 by somebody else's word
        self.reports = 0
        self.blind_at = float("-inf")  # a new master, or one that nobody ran, has not heard what fails since

    def _config(self) -> MasterConfig:
        below = '[service.check]\ntype = "tcp"\ninterval_seconds = 0.5\nrise = 2\nfall = 2\n' if self.checked else ""
        extra = f'scheduler = "{self.scheduler}"\nlaw = "{self.law}"\n'
        extra += f'thresholds = "{self.thresholds}"\n' if self.thresholds else ""
        rows = [f"priority = {i % 3}" for i in range(self.count)]
        text = service(self.count, weights=list(self.base.values()), rows=rows, extra=extra, below=below)
        head = 'ownership = "weights"\n' if self.adopted else ""
        return parse(f'{head}{text}[guards]\nlost_policy = "{self.policy}"\n', MasterConfig)

    def _answer(self, probe: Any) -> Any:
        good, _ = self.good[DestinationKey(probe.target.address, probe.target.port)]
        return room("health").Outcome(good, "answers" if good else "refused")

    def run(self) -> Iterator[Broken]:
        """Ends at the first exception: what comes after it means nothing."""
        turn = 0
        try:
            for turn in range(TURNS):
                self._turn()
                for text in self._violations(deep=turn % 10 == 0):
                    yield Broken(text.partition(":")[0], self.seed, turn, text)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(where.filename).name}:{where.name}"
            yield Broken(kind, self.seed, turn, traceback.format_exc(limit=-3))

    def _turn(self) -> None:
        master, draw = self.master, self.draw
        master.wait(self.turn_seconds)
        self.flow.step(master.table, master.now, self.turn_seconds)
        if draw.random() < 0.15:
            self._happen()
        for i, server in enumerate(self.flow.all):
            if i in self.liars:
                for k in range(1, LIAR_REPORTS + 1):
                    at = master.now - self.turn_seconds * (1 - k / LIAR_REPORTS)
                    master.hear(self.liars[i].say(at, 0.2))
                self.reports += LIAR_REPORTS
            elif not server.silent and (self.turn_seconds >= 0.2 or draw.random() < 0.25):
                master.hear(wire.encode(server.report(master.now, max(0.2, self.turn_seconds))))
                self.reports += 1
        master.turn()

    def _violations(self, *, deep: bool) -> Iterator[str]:
        master, standing = self.master, self._standing()
        yield from invariants.faults(master)
        yield from invariants.settings(master)
        yield from invariants.edits(master)
        yield from invariants.serving(master, self.key, self._able(sure=True), self._able(sure=False))
        yield from invariants.orders(master, standing)
        yield from invariants.obeyed(master, self.key)
        if deep:
            yield from invariants.state(master)

    def _standing(self) -> list[Any]:
        wall = self.master.wall
        self.orders = {k: o for k, o in self.orders.items() if o.until is None or o.until > wall}
        return list(self.orders.values())

    def _able(self, *, sure: bool) -> list[DestinationKey]:
        """Who could serve: wanted by its owner, in no order, its check good; `sure`: for long enough to be heard.
        Nobody while all is paused: then an operator has taken over."""
        orders = self.orders.values()
        if any(not o.destination for o in orders):
            return []
        ordered = {o.destination for o in orders if sure or o.takes_out()}
        return [
            k
            for k, weight in self.base.items()
            if weight and k not in self.foreign and str(k) not in ordered and self._heard(k, sure)
        ]

    def _heard(self, key: DestinationKey, sure: bool) -> bool:
        good, since = self.good[key]
        fresh = self.master.now - (since if sure else max(since, self.blind_at)) <= STEADY_SECONDS
        return not self.checked or (good and not fresh if sure else good or fresh)

    # --- misfortune --------------------------------------------------------------------------------------------------

    def _happen(self) -> None:
        draw, master = self.draw, self.master
        i = draw.randrange(self.count)
        server, key = self.flow.all[i], rip(i)
        match draw.randrange(14):
            case 0 | 1:
                master.restart()
                self.blind_at = master.now
            case 2:
                server.silent = not server.silent
            case 3:
                server.reboot()
            case 4:
                server.available = draw.choice((1.0, 0.5, 0.05))
            case 5:
                self.flow.rate = draw.choice((0.0, 0.3, 0.7, 1.3)) * sum(s.capacity for s in self.flow.all)
            case 6:
                master.wait(draw.choice((0.0, 1e-9, 3.0, 30.0, 3600.0)))  # nobody ran
                self.blind_at = master.now
            case 7 | 8:
                self._order(key)
            case 9:
                self._check(key)
            case 10 if self.adopted:
                self._own(key)
            case 11 if not self.adopted:
                self.base[key] = draw.choice((1, 10, 100, 1000))
                master.reload(self._config())
            case 12:
                server.failing, server.application = draw.random() < 0.5, True
            case _:
                server.known = not server.known

    def _order(self, key: DestinationKey) -> None:
        if self.master.decision is None:
            return
        draw = self.draw
        seconds = draw.choice((None, None, 2.0, 20.0))
        command, fields = draw.choice(
            (
                ("drain", {"destination": str(key), "seconds": seconds}),
                ("undrain", {"destination": str(key)}),
                (
                    "override",
                    {"destination": str(key), "weight": draw.choice((0, 1, 77, 2**31 - 1)), "seconds": seconds},
                ),
                ("pause", {"seconds": seconds}),
                ("resume", {}),
            )
        )
        try:
            done = self.master.command(command, **fields)
        except room("commands").CommandError:
            return
        for order in done.lifted:
            self.orders.pop(order.slot, None)
        for order in done.given:
            self.orders[order.slot] = order

    def _check(self, key: DestinationKey) -> None:
        self.good[key] = (not self.good[key][0], self.master.now)

    def _own(self, key: DestinationKey) -> None:
        """The other owner writes, as ipvsadm would."""
        weight = self.draw.choice((0, 1, 100, 500))
        self.base[key] = weight
        self.foreign.discard(key)
        if not weight:
            self.foreign.add(key)
        self.master.table.put(self.key, key, weight=weight, upper=0, lower=0)


def play(seed: int, directory: Path) -> tuple[list[Broken], int]:
    """What broke, and how many reports were said."""
    (directory / STATE).unlink(missing_ok=True)
    storm = Storm(seed, directory)
    return list(storm.run()), storm.reports
