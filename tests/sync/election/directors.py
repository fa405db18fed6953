"""Two elections on a fake network and a fake clock: machines with a kernel, a daemon in it, links and a data path.

A kernel answers looks for the addresses it has, however its daemon is; a stopped daemon finds everything that came in
the meantime in its sockets; a paused machine answers nothing and loses what came. Timers fire on a grain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from feedback.sync import (
    AnnounceAgain,
    Decision,
    Election,
    Look,
    PrepareHandover,
    Replica,
    ReplicaState,
    Resume,
    Role,
    SendHeartbeat,
    Settings,
    StepDown,
    TakeOver,
    decode,
    derive_key,
    encode,
)
from feedback.sync.election.election import Transition

VIP = "10.0.0.100"
KEY = derive_key(b"a secret of the pair, 32 bytes..")
COMPLETE = Replica(ReplicaState.COMPLETE)
TICK = 0.001


@dataclass
class Machine:
    """`daemon`: running, stopped or dead; `power`: on, paused or off."""

    name: str
    mac: bytes
    settings: Settings
    election: Election
    daemon: str = "running"
    power: str = "on"
    addresses: bool = False
    boots: int = 1
    inbox: list[Callable[[float], None]] = field(default_factory=list)
    log: list[tuple[float, Decision]] = field(default_factory=list)
    prepares: bool = True  # the shell answers PrepareHandover at once
    clock_skips: float = 0.0  # a pause that the clock did not count
    announce_at: list[float] = field(default_factory=list)

    @property
    def answers(self) -> bool:
        return self.addresses and self.power == "on"

    @property
    def runs(self) -> bool:
        return self.power == "on" and self.daemon == "running"

    def roles(self) -> list[str]:
        return [type(d).__name__ for _, d in self.log if isinstance(d, TakeOver | Resume | StepDown)]

    def last(self) -> Decision:
        return next(d for _, d in reversed(self.log) if not isinstance(d, Look | SendHeartbeat))


class Pair:
    """d1 has the higher priority. `cut` holds (link, sender) pairs that lose everything."""

    def __init__(self, links: int = 2, grain: float = TICK, **settings: object) -> None:
        self.now = 100.0
        self.grain = grain
        self.links = [f"link{i}" for i in range(links)]
        self.cut: set[tuple[str, str]] = set()
        self.data = True
        self.deaf: set[str] = set()  # who hears nothing of the other on the service network
        self.both_seconds = 0.0  # how long two have answered for the addresses, at most at a stretch
        self._both_since: float | None = None
        self.machines: dict[str, Machine] = {}
        for name, peer, priority in (("d1", "d2", 150), ("d2", "d1", 100)):
            chosen = Settings(**{"peer": peer, "addresses": (VIP,), "priority": priority} | settings)  # type: ignore[arg-type]
            mac = name.encode() + b"-mac"
            self.machines[name] = Machine(name, mac[:6].ljust(6, b"-"), chosen, None)  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def other(self, machine: Machine) -> Machine:
        return next(m for m in self.machines.values() if m is not machine)

    def start(self, *names: str) -> Pair:
        """Boot these daemons, with whatever addresses their kernels have."""
        for name in names:
            machine = self[name]
            machine.boots += 1
            machine.election = Election(machine.settings, name, machine.boots * 100 + int(name[1]), self.local(machine))
            machine.election.receive_installed(machine.addresses)
            machine.election.receive_macs((machine.mac,))
            machine.daemon, machine.power, machine.inbox = "running", "on", []
        return self

    def settled(self) -> Pair:
        """d1 active, d2 its complete standby."""
        self.start("d1", "d2").run(1.0)
        assert self.roles() == {"d1": Role.ACTIVE, "d2": Role.STANDBY}
        self["d2"].election.receive_replica(COMPLETE, self.now)
        self.run(0.2)
        for machine in self.machines.values():
            machine.log.clear()
        self.both_seconds = 0.0
        return self

    def local(self, machine: Machine) -> float:
        return self.now - machine.clock_skips

    def roles(self) -> dict[str, Role]:
        return {name: m.election.role for name, m in self.machines.items() if m.runs}

    def answering(self) -> list[str]:
        return [m.name for m in self.machines.values() if m.answers]

    def cut_links(self, *links: str) -> None:
        self.cut |= {(link, name) for link in links or self.links for name in self.machines}

    def heal(self) -> None:
        self.cut, self.data, self.deaf = set(), True, set()

    def kill(self, name: str) -> None:
        self[name].power, self[name].addresses, self[name].inbox = "off", False, []

    def run(self, seconds: float) -> Pair:
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.now = round(self.now + TICK, 6)
            for machine in self.machines.values():
                self._turn(machine)
            self._watch()
        return self

    def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """How long it takes until the condition holds. At most `seconds`."""
        begin = self.now
        while not condition():
            assert self.now < begin + seconds, f"not within {seconds} s: {self.roles()}"
            self.run(TICK)
        return self.now - begin

    def _watch(self) -> None:
        if len(self.answering()) < 2:
            self._both_since = None
            return
        self._both_since = self.now if self._both_since is None else self._both_since
        self.both_seconds = max(self.both_seconds, self.now - self._both_since)

    def _turn(self, machine: Machine) -> None:
        if not machine.runs or machine.election is None:
            return
        now, inbox, machine.inbox = self.local(machine), machine.inbox, []
        for receive in inbox:
            receive(now)
        if machine.announce_at and now >= machine.announce_at[0]:
            machine.announce_at.pop(0)
            self._announce(machine)
        due = machine.election.next_timer()
        urgent = due <= now and bool(inbox)
        on_grain = math.isclose(self.now / self.grain, round(self.now / self.grain), abs_tol=1e-6)
        if due <= now and (on_grain or urgent):
            for decision in machine.election.handle_timer(now):
                machine.log.append((self.now, decision))
                self._perform(machine, decision)

    def _perform(self, machine: Machine, decision: Decision) -> None:
        now, election, other = self.local(machine), machine.election, self.other(machine)
        match decision:
            case SendHeartbeat():
                self._send(machine, encode(election.heartbeat(now), KEY))
            case Look(addresses):
                if self.data and other.answers and not self.deaf:
                    machine.inbox.append(lambda at: election.receive_answer(addresses[0], other.mac, at))
            case TakeOver() | Resume():
                machine.addresses = True
                election.receive_installed(True)
                machine.announce_at = [now, now + 0.1, now + 0.5]
            case AnnounceAgain():
                machine.announce_at = [now]
            case StepDown():
                machine.addresses, machine.announce_at = False, []
                election.receive_installed(False)
            case PrepareHandover():
                if machine.prepares:
                    election.receive_handed_over(now)

    def _send(self, machine: Machine, data: bytes) -> None:
        other = self.other(machine)
        for link in self.links:
            if (link, machine.name) not in self.cut:
                self._into(other, lambda at, link=link: other.election.receive_heartbeat(decode(data, KEY), link, at))  # type: ignore[misc]

    def _announce(self, machine: Machine) -> None:
        other = self.other(machine)
        if self.data and other.name not in self.deaf:
            self._into(other, lambda at: other.election.receive_claim(VIP, machine.mac, at))

    def _into(self, machine: Machine, receive: Callable[[float], None]) -> None:
        if machine.power == "on" and machine.daemon != "dead" and machine.election is not None:
            machine.inbox.append(receive)


def transitions(pair: Pair, name: str) -> list[str]:
    """The events since the last call."""
    found = []
    while (event := pair[name].election.next_event()) is not None:
        if isinstance(event, Transition):
            found.append(f"{event.old}>{event.new}")
    return found
