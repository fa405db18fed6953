"""Ranges led to IPVS by firewall marks: what is missing, what collides, and who answers for them. Pure.

A range has no address anywhere: the router sends it to an address that moves with the active role. A host on which the
range is local in a table that every packet is looked up in answers ARP for it in either role, and so do both directors.
Sources: net/ipv4/arp.c (arp_process), net/ipv4/fib_frontend.c (src_valid_mark), net/core/fib_rules.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from feedback.doctor.facts import Facts, Finding, Level, Steered
from feedback.model import Family, ServiceKey

if TYPE_CHECKING:
    from feedback.steer.routing import PolicyRule

AREA = "steer"


def examine(facts: Facts) -> Iterator[Finding]:
    if (found := facts.steered) is None:
        return
    if found.problem:
        yield Finding(Level.ERROR, AREA, found.problem, "sudo feedback doctor; feedback steer show")
        return
    if found.lacking:
        more = f", and {len(found.lacking) - 1} more" if len(found.lacking) > 1 else ""
        what = f"{found.lacking[0]}{more}: packets for {_ranges(found)} do not reach IPVS"
        yield Finding(Level.ERROR, AREA, what, "systemctl reload feedback-master   (it restores them every second)")
    yield from _services(facts, found)
    yield from _collisions(found)
    yield from _answers(found)
    yield from _settings(found)


def _ranges(found: Steered) -> str:
    networks = sorted({str(match.network) for matches in found.marks.values() for match in matches})
    return networks[0] + (f" and {len(networks) - 1} more" if len(networks) > 1 else "")


def _services(facts: Facts, found: Steered) -> Iterator[Finding]:
    if facts.snapshot is None:
        return
    there = {entry.service.key for entry in facts.snapshot.services}
    for mark, family in sorted({(mark, match.family) for mark, matches in found.marks.items() for match in matches}):
        key = ServiceKey.marked(mark, family)
        if key not in there:
            what = f"{key}: has a match, but the kernel has no such service: its packets end at this host"
            mend = "feedback sync doctor   (a standby has the active one's)"
            if facts.adopts:
                option = " -6" if family is Family.IPV6 else ""
                mend = f"ipvsadm -A -f {mark}{option}   (or in its owner's file)"
            yield Finding(Level.ERROR, AREA, what, mend)


def _collisions(found: Steered) -> Iterator[Finding]:
    for foreign in found.foreign_marks:
        for mark in sorted(found.marks):
            if foreign.gives(mark):
                what = f"somebody else marks packets with {mark} too: {foreign.where}: they go to fwmark:{mark} as well"
                mend = "give the service in master.toml another mark (virtual, on both directors), or that rule"
                yield Finding(Level.ERROR, AREA, what, mend)
    for rule in found.policy:
        for mark in sorted(found.marks):
            if rule.priority < found.priority and rule.mask and mark & rule.mask == rule.mark & rule.mask:
                what = (
                    f"the policy rule {rule.priority} (fwmark {rule.mark:#x}/{rule.mask:#x}, table {rule.table}) comes "
                    f"before ours at {found.priority} and takes packets of mark {mark}"
                )
                yield Finding(Level.ERROR, AREA, what, _mend(rule, found))
    for route in found.strangers:
        what = (
            f"somebody else has a route to {route.network} in table {found.table}, where marked packets are looked up"
        )
        mend = f"set another table in [steer] of master.toml, on both directors; ip route show table {found.table}"
        yield Finding(Level.ERROR, AREA, what, mend)


def _mend(rule: PolicyRule, found: Steered) -> str:
    if rule.priority > 1:
        return f"set priority = {rule.priority - 1} in [steer] of master.toml, on both directors; ip rule"
    return f"move that rule behind {found.priority}: ip rule"


def _answers(found: Steered) -> Iterator[Finding]:
    matches = [(match, mark) for mark, each in sorted(found.marks.items()) for match in each]
    for route in found.local:
        for match, mark in matches:
            same = route.network.version == match.network.version
            if not same or not route.network.overlaps(match.network):
                continue
            single = route.network.prefixlen == route.network.max_prefixlen
            moves = single and route.network.network_address in found.moving
            if not single:
                what = (
                    f"{route.network} is local in table {route.table}: this host answers ARP for {match.network} of "
                    f"fwmark:{mark} in either role, and the other director too if it has the same"
                )
                mend = f"ip route del local {route.network} dev lo table {route.table}   (the mark needs none)"
                yield Finding(Level.ERROR, AREA, what, mend)
            elif match.single and found.paired and not moves:
                address = route.network.network_address
                what = f"{address} of fwmark:{mark} is this host's in either role: both directors would answer for it"
                mend = "remove it from the network configuration; an [[address]] in sync.toml moves with the role"
                yield Finding(Level.ERROR, AREA, what, mend)
            elif moves and not match.single:
                address = route.network.network_address
                what = (
                    f"{address} is a VIP here, so {match} does not mark its packets (a network spares local addresses)"
                )
                mend = (
                    f'name it by itself in match too: "{address} {match.protocol} ..."; or give it a service of its own'
                )
                yield Finding(Level.ADVICE, AREA, what, mend)
            break


def _settings(found: Steered) -> Iterator[Finding]:
    for name in found.valid_marks:
        what = (
            f"src_valid_mark is 1 on {name}: a client's address is then looked up with the mark, where every address "
            "is local: packets for the ranges are dropped as martians"
        )
        yield Finding(
            Level.ERROR, AREA, what, f"sysctl -w net.ipv4.conf.{name}.src_valid_mark=0   (and in /etc/sysctl.d)"
        )
    for name in found.proxies:
        what = f"proxy_arp is 1 on {name}: this host may answer ARP there for a range, in either role"
        yield Finding(Level.WARNING, AREA, what, f"sysctl -w net.ipv4.conf.{name}.proxy_arp=0   (and in /etc/sysctl.d)")
