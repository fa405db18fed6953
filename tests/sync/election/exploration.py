"""Every interleaving of up to K faults between two elections, in a small discrete world.

A step is one interval: what was sent in the step before arrives (or is lost, or is delayed), then each daemon that runs
takes its turn. Before each step at most one fault happens; from every state the world also goes on without one. States
that differ only in the absolute time, sequence numbers, boot ids and the height of the terms are one state, so the
exploration ends by itself: it covers K faults at any distance from each other, not only within a number of steps.

Held in every state:
- whoever takes over while the other's kernel answers did so because the look could not work, or at the other's word;
- two answer for the addresses no longer than `BOTH_HEARD` steps while heartbeats pass in both directions, and no longer
  than `BOTH_LOOKED` while only the data path works;
- of two that hear each other claim, the greater claim stays;
- who stood still long enough to be suspected does not say that it is active in its first turn.
From every state, once everything is healed: exactly one active within `HEALED` steps, and then no change ever again;
and once everything but a machine that is off is healed, the other one is active within `HEALED` steps.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from feedback.sync import (
    AnnounceAgain,
    Election,
    Heartbeat,
    Look,
    PrepareHandover,
    Replica,
    ReplicaState,
    Resume,
    Role,
    SendHeartbeat,
    Settings,
    State,
    StepDown,
    TakeOver,
)
from feedback.sync.election.transitions import Event

VIP = "10.0.0.100"
NAMES = ("d1", "d2")
MACS = (b"mac-d1", b"mac-d2")
BOTH_HEARD = 4
BOTH_LOOKED = 9
LOOK_WORKS = 3  # steps for which the other must have answered before a takeover counts as wrong
HEALED = 20
STALL = 4  # steps that a stop or a pause lasts: more than raises suspicion
FAR = 12  # times further away than this are alike
PACE: dict[str, Any] = {
    "addresses": (VIP,),
    "interval_seconds": 1.0,
    "suspect_intervals": 2,
    "look_seconds": 1.0,
    "looks": 2,
    "watch_seconds": 1.0,
    "contest_seconds": 2.0,
    "claim_seconds": 2.0,
    "start_seconds": 5.0,
    "resume_seconds": 3.0,
    "fresh_seconds": 4.0,
    "handover_seconds": 3.0,
    "yield_seconds": 3.0,
    "hold_seconds": 5.0,
    "unreached_seconds": 1.0,
    "repeat_seconds": 5.0,
}


class ViolationError(AssertionError):
    """An invariant does not hold; the text is the way there."""


@dataclass(slots=True)
class Machine:
    """`still`: steps for which the daemon is stopped; `paused`: the same of the whole machine."""

    election: Election
    boot: int = 0
    runs: bool = True
    on: bool = True
    still: int = 0
    paused: int = 0
    slept: int = 0  # turns missed in a row
    seen: int = 0  # steps for which it has answered for the addresses and the data path worked
    addresses: bool = False
    claim: int = 0  # the term of its last TakeOver or Resume
    announces: int = 0
    inbox: tuple[tuple[str, Any], ...] = ()

    @property
    def answers(self) -> bool:
        return self.addresses and self.on and not self.paused

    @property
    def turns(self) -> bool:
        return self.runs and self.on and not self.still and not self.paused


@dataclass(slots=True)
class World:
    make: Callable[[Settings, str, int, float], Election]
    order: tuple[int, int]
    machines: list[Machine]
    now: float = 0.0
    heard: list[bool] = field(default_factory=lambda: [True, True])  # heartbeats towards d1, d2
    data: bool = True
    lose: int = -1  # the receiver that loses what comes in this step
    delay: int = -1  # the receiver that gets it one step late
    both_heard: int = 0
    both_looked: int = 0
    wrong: str = ""

    def copy(self) -> World:
        twin = copy.copy(self)
        twin.machines = [copy.copy(m) for m in self.machines]
        for machine in twin.machines:
            machine.election = copy.copy(machine.election)
        twin.heard = list(self.heard)
        return twin

    # Faults

    def boot(self, i: int) -> None:
        machine = self.machines[i]
        machine.boot += 1
        settings = Settings(peer=NAMES[1 - i], priority=100, **PACE)
        machine.election = self.make(settings, NAMES[i], 1000 * (i + 1) + machine.boot, self.now)
        machine.election.receive_installed(machine.addresses)
        machine.election.receive_macs((MACS[i],))
        machine.election.receive_replica(Replica(ReplicaState.COMPLETE), self.now)
        machine.runs, machine.on, machine.still, machine.paused, machine.slept = True, True, 0, 0, 0
        machine.inbox = ()
        self.both_heard = self.both_looked = 0  # it has heard and seen nothing yet

    def faults(self) -> Iterator[tuple[str, Callable[[World], None]]]:
        """What may happen before the next step."""
        if not all(self.heard) or not self.data:
            yield "the network heals", World.heal_network
        if any(self.heard):
            yield "all links are cut", lambda w: w.cut(False, False, w.data)
            if self.data:
                yield "links and data path are cut", lambda w: w.cut(False, False, False)
        if all(self.heard):
            yield "links towards d1 are cut", lambda w: w.cut(False, True, w.data)
            yield "links towards d2 are cut", lambda w: w.cut(True, False, w.data)
        if self.data:
            yield "the data path is cut", lambda w: w.cut(*w.heard, False)
        else:
            yield "the data path heals", lambda w: w.cut(*w.heard, True)
        for i, machine in enumerate(self.machines):
            yield from self._faults_of(i, machine)

    def _faults_of(self, i: int, machine: Machine) -> Iterator[tuple[str, Callable[[World], None]]]:
        name = NAMES[i]
        if not (machine.runs and machine.on):
            yield f"{name}'s daemon starts", lambda w: w.boot(i)
        if machine.on:
            yield f"{name} loses its power", lambda w: w.power_off(i)
        if not machine.turns:
            return
        yield f"{name} loses a heartbeat", lambda w: setattr(w, "lose", i)
        yield f"{name} gets a heartbeat late", lambda w: setattr(w, "delay", i)
        yield f"{name}'s daemon is killed", lambda w: setattr(w.machines[i], "runs", False)
        yield f"{name}'s daemon is restarted", lambda w: w.boot(i)
        yield f"{name}'s daemon is stopped", lambda w: setattr(w.machines[i], "still", STALL)
        yield f"{name} is paused", lambda w: setattr(w.machines[i], "paused", STALL)
        if machine.election.role is Role.ACTIVE:
            yield f"{name} is told to hand over", lambda w: w.hand_over(i)

    def cut(self, first: bool, second: bool, data: bool) -> None:
        self.heard, self.data = [first, second], data

    def heal_network(self) -> None:
        self.cut(True, True, True)

    def power_off(self, i: int) -> None:
        machine = self.machines[i]
        machine.on = machine.runs = machine.addresses = False
        machine.inbox, machine.announces = (), 0

    def hand_over(self, i: int) -> None:
        self.machines[i].election.request_handover(self.now)

    def heal(self, power: bool) -> None:
        """Everything works again; a machine that is off comes back only with `power`."""
        self.heal_network()
        for i, machine in enumerate(self.machines):
            machine.still = machine.paused = 0
            if not machine.runs and (machine.on or power):
                self.boot(i)

    # A step

    def step(self) -> None:
        self.now += 1.0
        arrived = []
        for i, machine in enumerate(self.machines):
            arrived.append(machine.inbox)
            machine.inbox = ()
            if i == self.delay or (machine.still and machine.on):
                machine.inbox, arrived[i] = arrived[i], ()  # a stopped daemon finds it later in its socket
            if i == self.lose or machine.paused or not machine.runs:
                machine.inbox, arrived[i] = (), ()
        self.lose = self.delay = -1
        for machine in self.machines:
            machine.seen = min(machine.seen + 1, LOOK_WORKS) if self.data and machine.answers else 0
        for i in self.order:
            machine = self.machines[i]
            if machine.turns:
                self._turn(i, arrived[i])
                machine.slept = 0
            else:
                machine.slept = min(machine.slept + 1, FAR)
        for machine in self.machines:
            machine.still, machine.paused = max(0, machine.still - 1), max(0, machine.paused - 1)
        self._judge()

    def _turn(self, i: int, arrived: tuple[tuple[str, Any], ...]) -> None:
        machine, other = self.machines[i], self.machines[1 - i]
        election = machine.election
        for kind, what in arrived:
            if kind == "heartbeat":
                election.receive_heartbeat(what, "l", self.now)
            else:
                election.receive_claim(VIP, what, self.now)
        for _ in range(8):  # whatever is due at once, an answer to a look included
            decisions = election.handle_timer(self.now)
            for decision in decisions:
                self._perform(i, machine, other, decision)
            if election.next_timer() > self.now:
                break
        else:
            self.wrong = f"{NAMES[i]} never comes to rest"
        while election.next_event():
            pass
        if machine.announces and self.data:
            other.inbox += (("claim", MACS[i]),)
        machine.announces = max(0, machine.announces - 1)

    def _perform(self, i: int, machine: Machine, other: Machine, decision: Any) -> None:
        election = machine.election
        match decision:
            case SendHeartbeat():
                self._send(i, machine, other, election.heartbeat(self.now))
            case Look():
                if self.data and other.answers:
                    election.receive_answer(VIP, MACS[1 - i], self.now)
            case TakeOver() | Resume():
                if isinstance(decision, TakeOver):
                    self._judge_takeover(i, machine, other)
                machine.addresses, machine.announces, machine.claim = True, 2, decision.term
                election.receive_installed(True)
            case StepDown():
                self._judge_step_down(i, machine, other)
                machine.addresses, machine.announces = False, 0
                election.receive_installed(False)
            case AnnounceAgain():
                machine.announces = max(machine.announces, 1)
            case PrepareHandover():
                election.receive_handed_over(self.now)

    def _send(self, i: int, machine: Machine, other: Machine, heartbeat: Heartbeat) -> None:
        if self.heard[1 - i]:
            other.inbox += (("heartbeat", heartbeat),)
        if machine.slept >= STALL and heartbeat.role is Role.ACTIVE:
            self.wrong = f"{NAMES[i]} stood still, and says that it is active in its first turn"

    # Judgement

    def _judge_takeover(self, i: int, machine: Machine, other: Machine) -> None:
        yielded = machine.election._m.transitions[-1].event is Event.PEER_YIELDS
        if other.seen >= LOOK_WORKS and not yielded:
            self.wrong = f"{NAMES[i]} takes over, and {NAMES[1 - i]} has answered for the addresses all the time"

    def _judge_step_down(self, i: int, machine: Machine, other: Machine) -> None:
        """Of two that hear each other claim, the greater claim stays."""
        mine, theirs = ((m.claim, m.election.name) for m in (machine, other))
        last = machine.election._m.transitions[-1]
        heard = last.event is Event.PEER_ACTIVE and last.old is State.ACTIVE
        if heard and other.runs and other.election.state is State.ACTIVE and mine > theirs:
            self.wrong = f"{NAMES[i]} gives way to {NAMES[1 - i]}, whose claim is below its own"

    def _judge(self) -> None:
        both = all(m.answers for m in self.machines) and all(m.turns for m in self.machines)
        self.both_heard = self.both_heard + 1 if both and all(self.heard) else 0
        self.both_looked = self.both_looked + 1 if both and self.data else 0
        if self.both_heard > BOTH_HEARD:
            self.wrong = f"both answer for {self.both_heard} steps while heartbeats pass"
        if self.both_looked > BOTH_LOOKED:
            self.wrong = f"both answer for {self.both_looked} steps while the look works"

    def settled(self, power: bool) -> bool:
        """Exactly one of those that have power is active and answers."""
        there = [m for m in self.machines if m.on]
        actives = [m for m in there if m.election.state is State.ACTIVE]
        standbys = [m for m in there if m.election.state is State.STANDBY or (not power and m in actives)]
        return len(actives) == 1 and actives[0].answers and sum(m.answers for m in there) == 1 and bool(standbys)

    def roles(self) -> tuple[object, ...]:
        return tuple((m.answers, m.election.state) for m in self.machines)

    # What makes two states one

    def key(self) -> tuple[object, ...]:
        floor = min(self._terms(), default=0)
        return (
            tuple(self._machine_key(m, floor) for m in self.machines),
            tuple(self.heard),
            self.data,
            self.both_heard,
            self.both_looked,
        )

    def _terms(self) -> Iterator[int]:
        for machine in self.machines:
            yield machine.election._m.term
            if machine.election._m.peer is not None:
                yield machine.election._m.peer.term
            for kind, what in machine.inbox:
                if kind == "heartbeat":
                    yield what.term

    def _machine_key(self, machine: Machine, floor: int) -> tuple[object, ...]:
        plain = (
            machine.runs,
            machine.on,
            machine.still,
            machine.paused,
            machine.slept,
            machine.seen,
            machine.addresses,
        )
        inbox = tuple((k, w if k == "claim" else self._beat_key(w, floor)) for k, w in machine.inbox)
        if not machine.runs:
            return (*plain, machine.announces)
        return (*plain, machine.announces, inbox, self._election_key(machine.election, floor))

    def _boot(self, boot: int) -> tuple[int, int]:
        """Which machine's, and how many lives ago."""
        if not boot:
            return (-1, 0)
        i = boot // 1000 - 1
        return (i, self.machines[i].boot - boot % 1000)

    def _sequence(self, boot: int, sequence: int) -> int:
        i, lives = self._boot(boot)
        return -1 if i < 0 or lives else min(2 * FAR, self.machines[i].election._m.sequence - sequence)

    def _beat_key(self, h: Heartbeat, floor: int) -> tuple[object, ...]:
        proof = (self._boot(h.boot), self._sequence(h.boot, h.sequence))
        echo = (self._boot(h.heard_boot), min(FAR, self._sequence(h.heard_boot, h.heard_sequence)))
        return (*proof, *echo, *self._content_key(h, floor))

    def _content_key(self, h: Heartbeat, floor: int) -> tuple[object, ...]:
        return (h.role, h.term - floor, h.installed, h.yields, h.forced, h.wishes, h.reach, h.healthy, h.replica.state)

    def _ago(self, at: float, far: float = FAR) -> float:
        return -math.inf if at == -math.inf else min(far, self.now - at)

    def _election_key(self, election: Election, floor: int) -> tuple[object, ...]:
        m, w = election._m, election._m.window
        fresh = election.settings.fresh_seconds
        waits = election.settings.silence_seconds
        return (
            m.state,
            m.term - floor,
            m.installed,
            m.answered,
            m.missed if m.state in (State.LOOKING, State.DOUBTING) else 0,
            m.peer_was,
            m.forced,
            None if m.peer is None else self._content_key(m.peer, floor),
            self._ago(m.turn_at),
            self._ago(m.beat_due),
            self._ago(m.entered_at, 6),
            self._ago(m.watch_from, waits),
            self._ago(m.look_at, 3),
            self._ago(m.claimed_at, 5),
            self._ago(m.announced_at, 3),
            self._ago(m.stalled_at, 2),
            self._ago(m.repeated_at, 6),
            max(0.0, m.hold_until - self.now),
            max(0.0, m.wish_until - self.now),
            m.peer_macs,
            tuple((m.sequence - s, self.now - at) for s, at in w.sent if self.now - at <= fresh),
            self._boot(w.peer_boot),
            self._sequence(w.peer_boot, w.peer_sequence),
            self._ago(w.heard_at, waits),
            self._boot(w.echo_boot),
            self._sequence(w.echo_boot, w.echo_sequence),
            tuple((self._boot(boot), self._sequence(boot, sequence)) for boot, sequence in w.others),
            tuple((h.link, self._sequence(w.peer_boot, h.sequence)) for h in w.links),
            tuple(self._boot(b) for b in w.retired),
            tuple(type(d).__name__ for d in m.pending),
        )

    def picture(self) -> str:
        parts = []
        for name, m in zip(NAMES, self.machines, strict=True):
            how = (
                "off" if not m.on else "dead" if not m.runs else "paused" if m.paused else "stopped" if m.still else ""
            )
            state = m.election.state if m.runs else "-"
            parts.append(f"{name} {state}{'+VIP' if m.addresses else ''} term {m.election._m.term} {how}".rstrip())
        links = "".join("<" if self.heard[0] else "-") + ("-" if self.data else " ") + (">" if self.heard[1] else "-")
        return f"{parts[0]:34} {links} {parts[1]}"


def begin(make: Callable[[Settings, str, int, float], Election] = Election, order: tuple[int, int] = (0, 1)) -> World:
    nobody: Any = None
    world = World(make, order, [Machine(nobody), Machine(nobody)])
    for i in (0, 1):
        world.boot(i)
    return world


@dataclass
class Explored:
    states: int = 0
    steps: int = 0
    healings: int = 0
    longest_healing: int = 0
    both_heard_max: int = 0
    both_looked_max: int = 0


Key = int  # of the hash: 64 bits of a tuple of a kilobyte


class Explorer:
    """From `start`, with at most `faults` faults: first all that comes without any, then with one, and so on, so that
    what is reached with fewer is not gone through again. Raises ViolationError with the whole way there."""

    def __init__(self, start: World, faults: int) -> None:
        self.start = start
        self.faults = faults
        self.seen: dict[Key, tuple[Key | None, str]] = {}
        self.settles: list[dict[Key, int]] = [{}, {}]
        self.found = Explored()

    def run(self) -> Explored:
        level: list[tuple[World, Key]] = []
        self._visit(self.start, None, "", level)
        for left in range(self.faults, -1, -1):
            after: list[tuple[World, Key]] = []
            for world, key in level:  # grows
                self._go(world, key, "", None, level)
            for world, key in level if left else ():
                for label, fault in world.faults():
                    self._go(world, key, label, fault, after)
            level = after
        return self.found

    def _go(
        self, world: World, key: Key, label: str, fault: Callable[[World], None] | None, level: list[tuple[World, Key]]
    ) -> None:
        twin = world.copy()
        if fault is not None:
            fault(twin)
        twin.step()
        self.found.steps += 1
        self._visit(twin, key, label, level)

    def _visit(self, world: World, parent: Key | None, label: str, level: list[tuple[World, Key]]) -> None:
        key = hash(world.key())
        if key in self.seen:
            return
        self.seen[key] = (parent, label)
        self.found.states += 1
        self.found.both_heard_max = max(self.found.both_heard_max, world.both_heard)
        self.found.both_looked_max = max(self.found.both_looked_max, world.both_looked)
        if world.wrong:
            raise ViolationError(f"{world.wrong}\n{self._way(key)}")
        for power in (True, False):
            if power or (any(not m.on for m in world.machines) and any(m.on for m in world.machines)):
                self._heal(world, power, key)
        level.append((world, key))

    def _heal(self, world: World, power: bool, key: Key) -> None:
        """The healed run is one line; where it meets a line that was followed before, it ends as that one did."""
        known = self.settles[power]
        twin = world.copy()
        twin.heal(power)
        line: list[Key] = []
        while (here := hash(twin.key())) not in known:
            if here in line:
                break
            line.append(here)
            if len(line) > 2 * HEALED:
                raise ViolationError(f"healed, and comes to no rest\n{self._way(key, power)}")
            twin.step()
            self.found.healings += 1
            if twin.wrong:
                raise ViolationError(f"healed, but {twin.wrong}\n{self._way(key, power)}")
        rest = known.get(here)
        if rest is None:
            if not self._rests(twin, power):
                raise ViolationError(f"healed, but not exactly one is active for good\n{self._way(key, power)}")
            rest = 0
            known[here] = 0
        for earlier in reversed(line):
            if earlier != here:
                rest += 1
                known[earlier] = rest
        if rest > HEALED:
            raise ViolationError(f"healed, but it takes {rest} steps\n{self._way(key, power)}")
        self.found.longest_healing = max(self.found.longest_healing, rest)

    def _rests(self, world: World, power: bool) -> bool:
        twin = world.copy()
        roles = twin.roles()
        for _ in range(FAR):
            if not twin.settled(power) or twin.roles() != roles:
                return False
            twin.step()
        return True

    def _way(self, key: Key, power: bool | None = None) -> str:
        """The trace, run again from the start."""
        labels: list[str] = []
        at: Key | None = key
        while at is not None:
            parent, label = self.seen[at]
            if parent is not None:
                labels.append(label)
            at = parent
        world, lines = self.start.copy(), [f"  0                                  {self.start.picture()}"]
        for label in reversed(labels):
            for text, fault in world.faults():
                if text == label:
                    fault(world)
                    break
            world.step()
            lines.append(f"{world.now:3.0f} {label:32} {world.picture()}")
        if power is not None:
            world.heal(power)
            for step in range(HEALED):
                world.step()
                lines.append(f"{world.now:3.0f} {'everything heals' if not step else '':32} {world.picture()}")
        return "\n".join(lines)


def settled_world(
    make: Callable[[Settings, str, int, float], Election] = Election, order: tuple[int, int] = (0, 1)
) -> World:
    """One active, the other its standby, at rest."""
    world = begin(make, order)
    for _ in range(2 * FAR):
        world.step()
    assert world.settled(True)
    return world


def main(faults: int) -> None:
    for name, start in (("both start", begin), ("at rest", settled_world)):
        for order in ((0, 1), (1, 0)):
            found = Explorer(start(order=order), faults).run()
            sys.stdout.write(f"{name}, order {order}, {faults} faults: {found}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
