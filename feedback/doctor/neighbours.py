"""Which interfaces wrongly answer ARP for a virtual address. Pure.

Linux answers ARP for every address of the host on every interface (arp_ignore=0). On a director with two interfaces on
one segment both answer for the VIP; the other director's look and the clients' caches then see two MACs for it. A real
server of direct routing that has the VIP on lo answers for it in the director's place.

Source: Documentation/networking/ip-sysctl.rst (arp_ignore, arp_announce: the larger of `all` and the interface counts).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from ipaddress import IPv4Address

from feedback.doctor.facts import Facts, Finding, Interface, Level

MEND = "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2   (and in /etc/sysctl.d)"


def examine(facts: Facts) -> Iterator[Finding]:
    outside = [i for i in facts.interfaces if i.name != "lo"]
    if facts.directs:
        services = facts.snapshot.services if facts.snapshot else ()
        vips = {e.service.key.address for e in services}
        yield from _shared_segments(outside, {a for a in vips if isinstance(a, IPv4Address)})
    else:
        lo = [a for i in facts.interfaces if i.name == "lo" for a in i.addresses]
        yield from _hidden(outside, sorted({a.ip for a in lo if not a.ip.is_loopback}))


def _shared_segments(interfaces: Sequence[Interface], vips: Collection[IPv4Address]) -> Iterator[Finding]:
    networks = sorted({a.network for i in interfaces for a in i.addresses if a.network.prefixlen < 31})
    for network in networks:
        there = [i for i in interfaces if any(a.network == network for a in i.addresses)]
        names = {i.name for i in there}
        near = {a.ip for i in there for a in i.addresses}
        mine = sorted(vip for vip in vips if vip in network or vip in near)
        loud = [i for i in there if i.ignore < 1 or i.announce < 2]
        if len(names) > 1 and mine and loud:
            first = loud[0]
            what = (
                f"{' and '.join(sorted(names))} are both in {network}, and each answers ARP for {mine[0]} "
                f"({first.name}: arp_ignore={first.ignore}, arp_announce={first.announce}): "
                "neighbours see two MACs for it"
            )
            yield Finding(Level.WARNING, "arp", what, MEND)


def _hidden(interfaces: Sequence[Interface], vips: Sequence[IPv4Address]) -> Iterator[Finding]:
    loud = [i for i in interfaces if i.addresses and (i.ignore < 1 or i.announce < 2)]
    if vips and loud:
        first = loud[0]
        what = (
            f"{vips[0]} is on lo, and {first.name} announces it to the network (arp_ignore={first.ignore}, "
            f"arp_announce={first.announce}): clients of a virtual address bypass the director"
        )
        yield Finding(Level.WARNING, "arp", what, MEND)
