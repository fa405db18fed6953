"""The kernel state wanted for the marks of a configuration, and the smallest plan to reach it. Pure.

Owns which rules, policy rules and routes belong to a mark. Everything is absolute: the plan depends on what is wanted
and what exists, never on what was done before. Sources: net/netfilter/ipvs/ip_vs_ctl.c (a service by mark is looked up
first, and by the whole mark), ip-rule(8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from feedback.config.match import Match, Span
from feedback.config.strict import Network
from feedback.model import Family, Protocol

PROTOCOL = 251  # FRA_PROTOCOL and rtm_protocol: who made a rule or a route, as `ip rule` shows it


class Rule(msgspec.Struct, frozen=True):
    """Packets to `network`, `protocol` and `ports` get the mark. Addresses of this host inside a network are exempt, or
    a wide match would take the director's own ssh. An address that is named alone is not exempt: it may be a VIP that
    is here now."""

    network: Network
    protocol: Protocol
    ports: tuple[Span, ...]
    mark: int

    @property
    def family(self) -> Family:
        return Family.of(self.network.network_address)

    @property
    def spares_local(self) -> bool:
        return self.network.prefixlen < self.network.max_prefixlen


class Lookup(msgspec.Struct, frozen=True, order=True):
    """A policy rule: packets with the mark are looked up in our table."""

    family: Family
    mark: int


# A rule as it was read, or its text if we could not have made it.
Read: TypeAlias = Rule | str


class Held(msgspec.Struct, frozen=True):
    """Our part of the firewall. `hooked`: packets pass through it exactly once."""

    rules: tuple[Read, ...] = ()
    hooked: bool = False
    there: bool = False  # anything of ours, even if only an empty chain


class Wanted(msgspec.Struct, frozen=True):
    """`defaults` are the families in which our table makes every address local."""

    rules: tuple[Rule, ...] = ()
    lookups: frozenset[Lookup] = frozenset()
    defaults: frozenset[Family] = frozenset()


class Seen(msgspec.Struct, frozen=True):
    """What exists. `others` belong to somebody else and do the same as ours would, in the same place."""

    held: Held = Held()
    lookups: frozenset[Lookup] = frozenset()
    defaults: frozenset[Family] = frozenset()
    others: frozenset[Lookup] = frozenset()
    other_defaults: frozenset[Family] = frozenset()

    @property
    def nothing(self) -> bool:
        """Whether there is nothing of ours."""
        return not (self.held.there or self.lookups or self.defaults)


class Plan(msgspec.Struct, frozen=True):
    """`rules` is None if the firewall is left as it is, and empty if nothing of ours is to stay in it."""

    rules: tuple[Rule, ...] | None = None
    add_defaults: tuple[Family, ...] = ()
    add_lookups: tuple[Lookup, ...] = ()
    remove_lookups: tuple[Lookup, ...] = ()
    remove_defaults: tuple[Family, ...] = ()

    def __bool__(self) -> bool:
        return self != Plan()


def wanted(marks: Mapping[int, Sequence[Match]]) -> Wanted:
    """The most specific network is marked last, so its mark is the one that stays."""
    rules = [
        Rule(match.network, match.protocol, ports, mark)
        for mark, matches in marks.items()
        for match in matches
        for ports in match.parts
    ]
    rules.sort(key=_order)
    lookups = frozenset(Lookup(rule.family, rule.mark) for rule in rules)
    return Wanted(tuple(rules), lookups, frozenset(lookup.family for lookup in lookups))


def _order(rule: Rule) -> tuple[str, int, int, str, tuple[Span, ...], int]:
    network = rule.network
    return rule.family, network.prefixlen, int(network.network_address), rule.protocol, rule.ports, rule.mark


def plan(wanted: Wanted, seen: Seen, spelt: tuple[Read, ...] | None = None) -> Plan:
    """`spelt` is how our last rules were read back: a firewall of another version may print them differently."""
    held = seen.held
    marked = held.hooked and held.rules in (wanted.rules, spelt) if wanted.rules else not held.there
    return Plan(
        rules=None if marked else wanted.rules,
        add_defaults=tuple(sorted(wanted.defaults - seen.defaults - seen.other_defaults)),
        add_lookups=tuple(sorted(wanted.lookups - seen.lookups - seen.others)),
        remove_lookups=tuple(sorted(seen.lookups - wanted.lookups)),
        remove_defaults=tuple(sorted(seen.defaults - wanted.defaults)),
    )


def lacking(wanted: Wanted, seen: Seen) -> tuple[str, ...]:
    """What is missing for a packet, in words."""
    made = plan(wanted, seen)
    found = []
    if made.rules:
        have = sum(rule in wanted.rules for rule in seen.held.rules)
        hook = "" if seen.held.hooked else ", and no packet comes by"
        found.append(f"{have} of {len(wanted.rules)} rules that mark are there{hook}")
    found += [f"the policy rule of mark {lookup.mark} ({lookup.family}) is missing" for lookup in made.add_lookups]
    return (*found, *(f"the table's local route ({family}) is missing" for family in made.add_defaults))
