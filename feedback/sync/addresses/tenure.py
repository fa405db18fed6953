"""Tenure: what being active means on this host: the addresses, their announcement, and the role file for the master.

This module performs decisions and makes none. Every step is absolute: taking over twice, or with the addresses already
present, changes nothing. Invariant: addresses that we did not add are never removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import msgspec

from feedback.ops.logs import Log
from feedback.ops.role import Role, RoleFile, RoleSaid
from feedback.sync.addresses.plan import Present, VirtualAddress, foreign, foreign_advice, held, next_announcement, plan

LOG = Log("addresses")


class Refusal(Protocol):
    @property
    def reason(self) -> str: ...


class Interfaces(Protocol):
    """The methods of network.Network that are used here."""

    wanted: tuple[VirtualAddress, ...]

    def installed(self) -> tuple[Present, ...]: ...
    def add(self, addresses: Collection[VirtualAddress]) -> Sequence[Refusal]: ...
    def remove(self, addresses: Collection[VirtualAddress]) -> Sequence[Refusal]: ...
    def announce(self, addresses: Collection[VirtualAddress]) -> Sequence[Refusal]: ...


class Tenure:
    """`network` is None if another program (keepalived) moves the addresses."""

    def __init__(self, network: Interfaces | None, role: RoleFile, peer: str, clock: Callable[[], float]) -> None:
        self.active = False
        self.acted_seconds: float | None = None  # last takeover: from the decision to the announcement
        self._network, self._role, self._peer, self._clock = network, role, peer, clock
        self._since = 0.0
        self._next = 0.0  # when the next announcement is due, after `since`
        self._to_say: RoleSaid | None = None
        self._said: RoleSaid | None = None
        self._unwritten = ""  # why the role file could not be written, as last logged
        self._lacking = 0  # connections, told with the role

    def begin(self, reason: str, term: int, now: float, *, resumed: bool = False) -> None:
        """Be active: addresses first, because clients wait; then everything else."""
        if self._network is not None:
            present = self._network.installed() if resumed else ()
            self._tell(self._network.add(plan(self._network.wanted, present, active=True).add))
            self._tell(self._network.announce(self._network.wanted))
        if not resumed:
            self.acted_seconds = self._clock() - now
        self.active, self._since, self._next = True, now, next_announcement(0.0)
        self.say(Role.ACTIVE, reason, term)

    def end(self, reason: str, term: int) -> None:
        """Be standby: remove the addresses first, because somebody else answers for them."""
        if self._network is not None:
            present = self._network.installed()
            self._tell(self._network.remove(plan(self._network.wanted, present, active=False).remove))
            for found in foreign(self._network.wanted, present):
                LOG.error("address-foreign", reason=foreign_advice(found))
        self.active = False
        self.say(Role.STANDBY, reason, term)

    def stand_by(self, reason: str, term: int) -> None:
        """Remain standby, for another reason or under another claim."""
        self.say(Role.STANDBY, reason, term)

    def announce_again(self, now: float) -> None:
        if self.active and self._network is not None:
            self._tell(self._network.announce(self._network.wanted))
            self._since, self._next = now, next_announcement(0.0)

    def next_timer(self) -> float:
        return self._since + self._next if self.active else float("inf")

    def handle_timer(self, now: float) -> None:
        """Make the scheduled announcements. Several overdue ones become one."""
        if self._network is None or now < self.next_timer():
            return
        self._tell(self._network.announce(self._network.wanted))
        while self.next_timer() <= now:
            self._next = next_announcement(self._next)

    def installed(self) -> bool:
        """Whether all addresses are on this host."""
        return self._network is not None and held(self._network.wanted, self._network.installed())

    def mend(self) -> None:
        """While active, restore what somebody removed; otherwise remove what is ours."""
        if self._network is None:
            return
        wanted = plan(self._network.wanted, self._network.installed(), self.active)
        if wanted.add or wanted.remove:
            LOG.warning("addresses-mended", added=_text(wanted.add), removed=_text(wanted.remove))
            self._tell(self._network.add(wanted.add))
            self._tell(self._network.remove(wanted.remove))
            self._tell(self._network.announce(wanted.add))

    def say(self, role: Role, reason: str, term: int) -> None:
        self._to_say = RoleSaid(role, reason, self._peer, term, self._lacking)
        self.say_again()

    def say_lacking(self, connections: int) -> None:
        """Write the number into the role file, with the last role."""
        self._lacking = connections
        if self._to_say is not None and self._to_say.lacking != connections:
            self._to_say = msgspec.structs.replace(self._to_say, lacking=connections)
            self.say_again()

    def say_again(self) -> None:
        """Write the role again if that failed before. The same reason is logged once."""
        if self._to_say is None or self._to_say == self._said:
            return
        try:
            self._role.write(self._to_say)
        except OSError as error:
            if str(error) != self._unwritten:
                LOG.error("role-unwritten", reason=str(error), note="tried again")
            self._unwritten = str(error)
            return
        if self._unwritten:
            LOG.info("role-written", role=self._to_say.role)
        self._said, self._unwritten = self._to_say, ""

    def _tell(self, refusals: Sequence[Refusal]) -> None:
        for refusal in refusals:
            LOG.error("address-refused", reason=refusal.reason)


def _text(addresses: Collection[VirtualAddress]) -> str:
    return " ".join(map(str, addresses)) or "none"
