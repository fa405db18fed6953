"""A database with one writer: 25 clients write all the time, 25 connections wait, and another server becomes the
writer.

Three servers are behind a `failover` service with `law_options = { sticky = true, cut = "both" }`, by direct routing.
The check is a program that asks the server whether it is primary. The old server stays alive and goes on answering,
which is what makes it dangerous.

    promoted  the operator promotes another, three times
    failed    the holder's check fails: it says that it is not primary any more
    healed    its check passes again, which must change no place

There are three policies: `feedback`; `takeover`, where the active director dies 0.05 s after the holder's report,
before its check has failed; and `today`, the same law without options.

A write counts as made at the old server after the order if it was sent after the master reported the change, and the
old server committed it. `overlap` counts writes that the old server committed although they were sent after the first
write that the new one committed. A writer's pause is the longest time between two of its commits, around an order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from feedback.lab import network
from feedback.lab.bounds import Bound
from feedback.lab.error import LabError
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.injury import Death
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PYTHON, PairStand
from feedback.lab.pair.topology import CLIENT, DIRECTORS, ROUTE_PORT, VIP, Node, Pair, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Event, Trace
from feedback.lab.workload.writers import End, Plan, Write, read_ends, read_writes
from feedback.ops import control

WRITERS = IDLE = 25  # all of it runs on one core: with many more, the clients' own work would take the time
PROMOTED = (1, 2, 0)  # indices of the servers, in turn; the last one then fails
STEP_SECONDS = 2.5
WATCH_SECONDS = 5.0
DEATH_SECONDS = 0.05  # after the holder's report, before a check can have asked twice
AROUND_SECONDS = 1.0  # around an order, in which a pause counts
# The first check starts the process that runs programs. If it missed its deadline, the place would move too early.
INTERVAL_SECONDS, TIMEOUT_SECONDS, FALL = 1.0, 0.5, 2


class Writers(PairScenario):
    name = "writers"
    summary = "a database with one writer changes its writer: who writes where, and for how long nobody does"
    variants = ("feedback", "takeover", "today")
    seconds = STEP_SECONDS * (len(PROMOTED) + 4) + WATCH_SECONDS
    seconds_least = seconds
    law = "failover"
    scheduler = "sed"
    bounds = (
        Bound("orders", least=len(PROMOTED) + 1),
        Bound("writes_at_old_after_order", most=0),
        Bound("overlap", most=0),
        Bound("pause_max_ms", most=250),
        Bound("closed_both_ms", most=500),
        Bound("returned", most=0),
        Bound("takeover_writes_at_old_after_order", most=0),
        Bound("takeover_overlap", most=0),
        Bound("takeover_closed_both_ms", most=500),
        Bound("takeover_returned", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        first, second = DIRECTORS
        words = output / "primary"
        words.mkdir(exist_ok=True)
        with PairStand(pair(job.run), output, job.options) as stand:
            for server in stand.pair.servers:
                (words / str(server.front)).touch()
            options = "" if job.variant == "today" else 'law_options = { sticky = true, cut = "both" }\n'
            both = Product(stand, masters=True, services=_service(stand.pair, words, options))
            both.start(first)
            stand.wait_for_owner(first)
            stand.wait_for("the service", lambda: list(stand.machines[first.name].table().values()) == [3])
            both.start(second)
            both.wait_until_standby(second)
            plan = Plan(str(VIP), ROUTE_PORT, WRITERS, IDLE)
            command = [*PYTHON, "feedback.lab.workload.writers", plan.encode(), str(output)]
            stand.processes.start("client", command, namespace=stand.pair.namespace(CLIENT.name))
            stand.event("start", stand.wait_until_established())
            course = _Course(stand, both, words, job.variant)
            course.run()
            stand.wake()
            stand.processes.wait("client", 60.0)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            made = of_writers(read_writes(trace.output), read_ends(trace.output), trace.events)
            found |= pair_figures.named(variant, made)
        return found


class _Course:
    def __init__(self, stand: PairStand, both: Product, words: Path, variant: str) -> None:
        self.stand, self.both, self.words, self.variant = stand, both, words, variant
        self.director = DIRECTORS[0]
        self.holder = 0

    def run(self) -> None:
        stand, servers = self.stand, self.stand.pair.servers
        stand.event("clock", wall=time.time() - time.monotonic())
        stand.sleep_until(stand.now() + STEP_SECONDS)
        for index in PROMOTED:
            self.promote(servers[index])
        death = Death(stand.pair, DIRECTORS[0]) if self.variant == "takeover" else None
        old = servers[self.holder]
        (self.words / str(old.front)).unlink()
        stand.event("not primary", server=old.name)
        if death is not None:
            self.tell()
            stand.sleep_until(stand.now() + DEATH_SECONDS)
            stand.strike(death, DIRECTORS[0])
            self.director = DIRECTORS[1]
        self.watch(old)
        stand.sleep_until(stand.now() + STEP_SECONDS)
        (self.words / str(old.front)).touch()
        stand.event("healed")
        stand.sleep_until(stand.now() + STEP_SECONDS)
        self.tell()

    def promote(self, server: Node) -> None:
        old = self.stand.pair.servers[self.holder]
        self.stand.event("promote", server=server.name)
        if self.variant != "today":
            control.ask(
                self.both.master_control(self.director), {"command": "promote", "destination": str(server.front)}
            )
        else:  # the only way without options: the old server is drained, and the new one is next in the order
            self.drain(server)
        self.holder = self.stand.pair.servers.index(server)
        self.watch(old)
        self.stand.sleep_until(self.stand.now() + STEP_SECONDS)

    def drain(self, heir: Node) -> None:
        path = self.both.master_control(self.director)
        for server in self.stand.pair.servers:
            verb = "undrain" if server is heir else "drain"
            try:
                control.ask(
                    path,
                    {"command": verb, "destination": str(server.front), **({"force": True} if verb == "drain" else {})},
                )
            except control.ControlError:  # it was not drained
                continue

    def watch(self, old: Node) -> None:
        """Record when the old server's own ends were closed, according to its kernel."""
        deadline = self.stand.now() + WATCH_SECONDS
        while self.established(old):
            if self.stand.now() > deadline:
                self.stand.event("open at the old one", server=old.name, count=self.established(old))
                return
            time.sleep(0.005)
        self.stand.event("closed", server=old.name)

    def established(self, server: Node) -> int:
        wanted = f":{ROUTE_PORT:04X}"
        count = 0
        with network.entered(self.stand.pair.namespace(server.name)):
            for table in ("tcp", "tcp6"):
                rows = Path("/proc/thread-self/net", table).read_text(encoding="ascii").splitlines()[1:]
                fields = [row.split() for row in rows]
                count += sum(f[3] == "01" and f[1].endswith(wanted) for f in fields)
        return count

    def tell(self) -> None:
        """Record what the active director's master reports of the place, on the wall clock."""
        try:
            events = control.ask(self.both.master_control(self.director), {"command": "events"})["events"]
        except control.ControlError as error:
            raise LabError(f"{self.director.name}: {error}") from None
        for event in events:
            if event["kind"] in ("promoted", "cut", "removed", "returned"):
                told = {k: v for k, v in event.items() if k not in ("at", "kind", "number")}
                self.stand.event(f"master {event['kind']}", wall=event["at"], director=self.director.name, **told)


def of_writers(writes: Sequence[Write], ends: Sequence[End], events: Sequence[Event]) -> Figures:
    wall = next(e.details["wall"] for e in events if e.what == "clock")
    promoted = sorted((e.details["wall"] - wall, e.details) for e in events if e.what == "master promoted")
    healed = next(e.at for e in events if e.what == "healed")
    orders = [at for at, _ in promoted if at < healed]
    asked = [e for e in events if e.what in ("promote", "not primary")]
    late = overlap = 0
    pauses, closed = [0.0], [0.0]
    for number, event in enumerate(asked):
        until = asked[number + 1].at if number + 1 < len(asked) else math.inf
        at = next((order for order in orders if event.at <= order < until), None)
        old = _writer_at(writes, event.at)
        mine = [w for w in writes if w.server == old and event.at <= w.sent < until]
        new = [w.sent for w in writes if w.server != old and event.at <= w.sent < until]
        late += sum(w.sent > (event.at if at is None else at) for w in mine)
        overlap += sum(w.sent > min(new, default=math.inf) for w in mine)
        if at is not None:
            pauses.append(_pause(writes, at))
            closed.append(_closed(ends, events, old, event.at, at))
    return {
        "orders": len(orders),
        "writes": len(writes),
        "writes_at_old_after_order": late,
        "overlap": overlap,
        "pause_max_ms": 1000 * max(pauses),
        "closed_both_ms": 1000 * max(closed),
        "returned": len(promoted) - len(orders),
    }


def _writer_at(writes: Sequence[Write], moment: float) -> str:
    before = [w for w in writes if w.committed < moment]
    return max(before, key=lambda w: w.committed).server if before else ""


def _pause(writes: Sequence[Write], order: float) -> float:
    longest = 0.0
    near = [w for w in writes if abs(w.committed - order) < AROUND_SECONDS]
    for writer in {w.writer for w in near}:
        moments = sorted(w.committed for w in near if w.writer == writer)
        longest = max(longest, *(b - a for a, b in pairwise(moments)), 0.0)
    return longest


def _closed(ends: Sequence[End], events: Sequence[Event], old: str, asked: float, order: float) -> float:
    """Seconds until the last of the old server's connections had ended on both sides. The master reports it
    afterwards."""
    server = next(
        (e.at for e in events if e.what == "closed" and e.details["server"] == old and e.at > asked), math.inf
    )
    clients = [e.at for e in ends if e.server == old and order - AROUND_SECONDS < e.at < order + STEP_SECONDS]
    return max(server, max(clients, default=math.inf)) - order


def _service(of: Pair, words: Path, options: str) -> str:
    text = f'[[service]]\nvirtual = "tcp:{VIP}:{ROUTE_PORT}"\nlaw = "failover"\n{options}'
    for number, server in enumerate(of.servers):
        text += f'[[service.destination]]\naddress = "{server.front}"\npriority = {100 - number}\n'
    program: list[Any] = ["/usr/bin/test", "-e", f"{words}/{{address}}"]
    text += f'[service.check]\ntype = "exec"\ncommand = {program}\n'.replace("'", '"')
    return (
        text + f"interval_seconds = {INTERVAL_SECONDS}\ntimeout_seconds = {TIMEOUT_SECONDS}\nfall = {FALL}\nrise = 2\n"
    )


SCENARIO = Writers()
