"""Maintains marks, rules and routes as wanted, and removes them when none are wanted. Shell of plan.py.

A packet's route is added before its mark, and removed after it. The places of ours, and the program that made them, are
written to a file under /run first: after a boot both are gone. So the remains of an earlier configuration are found and
removed, and nothing else is searched. Use from one thread at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from feedback.config.match import Match
from feedback.ipvs.namespace import within
from feedback.model import Family
from feedback.ops import files
from feedback.steer import plan as planning
from feedback.steer.errors import SteerError
from feedback.steer.firewall import Firewall, ForeignMark, Run, run
from feedback.steer.iptables import Iptables
from feedback.steer.nftables import Nftables
from feedback.steer.plan import PROTOCOL, Held, Lookup, Plan, Read, Seen, Wanted
from feedback.steer.routing import WHOLE, Place, PolicyRule, Routing

PROGRAMS: Mapping[str, Callable[[Run], Firewall]] = {
    "nftables": Nftables,
    "iptables": lambda run: Iptables(run, "iptables"),
    "iptables-legacy": lambda run: Iptables(run, "iptables-legacy"),
}


class Made(msgspec.Struct, frozen=True):
    """The places of ours: the content of the file under /run."""

    firewall: str
    table: int
    priority: int

    @property
    def place(self) -> Place:
        return Place(self.table, self.priority)


class Keeper:
    """`firewall` is auto or a name of PROGRAMS. `memory` is the file under /run. Everything is done in the namespace
    (None: our own), with sockets and programs that exist for one call."""

    def __init__(self, memory: Path, firewall: str, place: Place, netns: str | None = None) -> None:
        self._memory, self._place = memory, place
        self._programs = [firewall] if firewall in PROGRAMS else list(PROGRAMS)
        self._netns = netns
        self._spelt: tuple[Read, ...] | None = None
        self._wanted = Wanted()

    def want(self, marks: Mapping[int, Sequence[Match]]) -> None:
        self._wanted, self._spelt = planning.wanted(marks), None

    def turn(self) -> Plan:
        """Make, mend and remove. Returns what was done: nothing if all is as wanted. Raises SteerError: some of it may
        be done then, and the next turn does the rest."""
        made = self._remembered()
        if not self._wanted.rules and made is None:
            return Plan()

        def turn() -> Plan:
            with Routing() as routing:
                return self._turn(made, routing)

        return within(self._netns, turn)

    def _turn(self, made: Made | None, routing: Routing) -> Plan:
        if made is not None and (made.place != self._place or made.firewall not in self._programs):
            cleared, made = self._clear(made, routing), None
            if not self._wanted.rules:
                return cleared
        seen = Seen() if made is None else self._seen(made, routing)
        if self._wanted.rules and not seen.held.there:  # no marks of ours: the earlier program may be gone too
            made = self._begin(first=made.firewall if made else "")
            seen = self._seen(made, routing)
        assert made is not None
        return self._perform(made, seen, routing)

    def seen(self) -> tuple[str, Seen]:
        """What exists, and by which program. Changes nothing. Raises SteerError."""
        made = self._remembered()
        if made is None:
            return "", Seen()

        def look() -> Seen:
            with Routing() as routing:
                return self._seen(made, routing)

        return made.firewall, within(self._netns, look)

    def lacking(self) -> tuple[str, ...]:
        return planning.lacking(self._wanted, self.seen()[1])

    def foreign(self) -> tuple[ForeignMark, ...]:
        """Marks that others write, by any of the programs. Never raises SteerError, since it is for advice."""

        def look() -> tuple[ForeignMark, ...]:
            found = list[ForeignMark]()
            for make in PROGRAMS.values():
                with contextlib.suppress(SteerError):
                    found += make(run).foreign()
            return tuple(dict.fromkeys(found))

        return within(self._netns, look)

    # --- parts -------------------------------------------------------------------------------------------------------

    def _begin(self, first: str) -> Made:
        """Choose a program that works here; `first` is tried before others."""
        reasons = []
        for name in sorted(self._programs, key=lambda name: name != first):
            why = PROGRAMS[name](run).unusable(self._wanted.rules)
            if why is None:
                made = Made(name, self._place.table, self._place.priority)
                self._remember(made)
                return made
            reasons.append(why)
        raise SteerError(f"nothing here can mark packets: {'; '.join(reasons)}: apt install nftables")

    def _perform(self, made: Made, seen: Seen, routing: Routing) -> Plan:
        plan = planning.plan(self._wanted, seen, self._spelt)
        for family in plan.add_defaults:
            routing.add_default(family, made.table)
        for lookup in plan.add_lookups:
            routing.add_lookup(lookup, made.place)
        if plan.rules is not None:
            self._mark(made, self._families(seen))
        for lookup in plan.remove_lookups:
            routing.remove_lookup(lookup, made.place)
        for family in plan.remove_defaults:
            routing.remove_default(family, made.table)
        if not self._wanted.rules:
            self._memory.unlink(missing_ok=True)
        return plan

    def _mark(self, made: Made, families: frozenset[Family]) -> None:
        firewall = PROGRAMS[made.firewall](run)
        firewall.write(self._wanted.rules, families)
        again = firewall.read(families)
        self._spelt = again.rules if len(again.rules) == len(self._wanted.rules) else None

    def _families(self, seen: Seen) -> frozenset[Family]:
        """The families in which the firewall is read. iptables creates a table when it reads it, so families without
        anything of ours are left out."""
        found = self._wanted.defaults | seen.defaults | {lookup.family for lookup in seen.lookups}
        return found or frozenset(Family)

    def _clear(self, made: Made, routing: Routing) -> Plan:
        keep, self._wanted = self._wanted, Wanted()
        try:
            return self._perform(made, self._seen(made, routing), routing)
        finally:
            self._wanted = keep

    def _seen(self, made: Made, routing: Routing) -> Seen:
        rules = [rule for rule in routing.policy() if _leads(rule, made.place)]
        routes = routing.defaults(made.table)
        ours = frozenset(Lookup(r.family, r.mark) for r in rules if r.protocol == PROTOCOL)
        others = frozenset(Lookup(r.family, r.mark) for r in rules if r.protocol != PROTOCOL)
        own = frozenset(Family.of(r.network.network_address) for r in routes if r.protocol == PROTOCOL)
        foreign = frozenset(Family.of(r.network.network_address) for r in routes if r.protocol != PROTOCOL)
        seen = Seen(Held(), ours, own, others, foreign)
        held = PROGRAMS[made.firewall](run).read(self._families(seen))
        return msgspec.structs.replace(seen, held=held)

    # --- memory ------------------------------------------------------------------------------------------------------

    def _remembered(self) -> Made | None:
        try:
            made = msgspec.json.decode(self._memory.read_bytes(), type=Made)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        except OSError as error:
            raise SteerError(f"{self._memory}: {error.strerror}: did another user's daemon write it?") from None
        return made if made.firewall in PROGRAMS else None

    def _remember(self, made: Made) -> None:
        try:
            files.write(self._memory, msgspec.json.encode(made).decode() + "\n")
        except OSError as error:
            raise SteerError(
                f"{self._memory}: {error.strerror}: nothing is made that could not be found again"
            ) from None


def _leads(rule: PolicyRule, place: Place) -> bool:
    """Whether it does the same as one of ours, in the same place, whoever made it."""
    return (
        rule.plain and (rule.table, rule.priority, rule.mask) == (place.table, place.priority, WHOLE) and rule.mark > 0
    )
