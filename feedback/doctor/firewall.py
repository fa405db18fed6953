"""IPVS beside a stateful firewall: what loses connections, now or at a takeover. Pure.

What each case does was measured on the lab's kernel (docs/firewall.md). The pair's own part, that both directors have
the same setting, is said by the sync daemon.
Source: net/netfilter/ipvs/ip_vs_nfct.c, Documentation/networking/ipvs-sysctl.rst and nf_conntrack-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Iterator

from feedback.doctor.facts import Facts, Finding, Level
from feedback.doctor.rulesets import stateful, untracked
from feedback.model import Forward, Protocol, ServiceEntry, ServiceKey

NEARLY_FULL = 0.8  # of nf_conntrack_max
FTP_PORT = 21
LOADED = "   (and the name in /etc/modules-load.d/ipvs.conf, on both directors)"


def examine(facts: Facts) -> Iterator[Finding]:
    entries = facts.snapshot.services if facts.snapshot is not None else ()
    masqueraded = [e for e in entries if _forwards(e, Forward.MASQUERADE)]
    tracks = facts.vs.get("conntrack") == 1
    yield from _routed(facts, entries, tracks=tracks)
    if masqueraded and not tracks and (rule := stateful(facts.rules)) is not None:
        first = masqueraded[0].service.key
        what = (
            f"net.ipv4.vs.conntrack=0, and the firewall is stateful ({_shown(rule.text)}): every packet of {first} "
            "and of its answers is NEW to it; with 1 they are ESTABLISHED"
        )
        mend = "sysctl -w net.ipv4.vs.conntrack=1   (on both directors, before they have connections; docs/firewall.md)"
        yield Finding(Level.WARNING, "firewall", what, mend)
    if masqueraded and tracks:
        yield from _takeover(facts, masqueraded)
        yield from _room(facts)
    yield from _ftp(facts, masqueraded, tracks=tracks)
    yield from _engines(facts, entries)


def _routed(facts: Facts, entries: tuple[ServiceEntry, ...], *, tracks: bool) -> Iterator[Finding]:
    """The tracking sees one way of a directly routed connection: to it the client's ACK is INVALID."""
    rule = stateful(facts.rules)
    for key in (e.service.key for e in entries if _forwards(e, Forward.ROUTE, Forward.TUNNEL)):
        if rule is None or key.address is None or untracked(facts.rules, key):
            continue
        so = "its clients' second packet is INVALID" if tracks else "each of its clients' packets is NEW"
        what = f"{key}: the answers bypass this director, and the firewall is stateful ({_shown(rule.text)}): {so}"
        yield Finding(Level.ERROR if tracks else Level.WARNING, "firewall", what, _notrack(key))


def _takeover(facts: Facts, masqueraded: list[ServiceEntry]) -> Iterator[Finding]:
    tracking = facts.tracking
    written = tracking is not None and tracking.get("mode") == "auto" and not tracking.get("problem")
    first = masqueraded[0].service.key
    if tracking is not None and not written and facts.host.get("net.netfilter.nf_conntrack_tcp_loose") == 0:
        what = (
            f"nf_conntrack_tcp_loose=0, and no entries are written at a takeover: every connection of {first} is "
            "INVALID to the other director's tracking"
        )
        yield Finding(Level.ERROR, "firewall", what, '[conntrack] mode = "auto" in sync.toml of both directors')
    if facts.conntrackd:
        what = (
            f"conntrackd runs, but ignores IPVS: for {first} it replicates answers from the VIP, and its commit "
            "replaces the right ones"
        )
        mend = f"Address Ignore {{ IPv{first.address.version if first.address else 4}_address {first.address} }} in the"
        yield Finding(
            Level.WARNING, "firewall", what, f"{mend} Filter of conntrackd.conf, for each VIP of masquerading"
        )


def _room(facts: Facts) -> Iterator[Finding]:
    """Compare the tracking table's limit with its entries and with those that a takeover would write."""
    most = facts.host.get("net.netfilter.nf_conntrack_max")
    held = facts.host.get("net.netfilter.nf_conntrack_count")
    if not isinstance(most, int) or not isinstance(held, int) or not most:
        return
    needed = max(held, facts.ledger)
    if needed >= NEARLY_FULL * most:
        whose = f"{held} are there" if held >= facts.ledger else f"{facts.ledger} connections would come at a takeover"
        what = f"nf_conntrack_max={most}, and {whose}: what finds no place is dropped, clients' packets too"
        mend = f"sysctl -w net.netfilter.nf_conntrack_max={2 * needed}   (on both directors, and in /etc/sysctl.d)"
        yield Finding(Level.ERROR if needed >= most else Level.WARNING, "firewall", what, mend)


def _ftp(facts: Facts, masqueraded: list[ServiceEntry], *, tracks: bool) -> Iterator[Finding]:
    for key in (e.service.key for e in masqueraded):
        if key.port != FTP_PORT or key.protocol is not Protocol.TCP:
            continue
        if "ip_vs_ftp" not in facts.modules:
            what = f"{key}: FTP by masquerading, and ip_vs_ftp is not loaded: every transfer fails"
            yield Finding(Level.ERROR, "modules", what, "modprobe ip_vs_ftp" + LOADED)
        elif not tracks:
            what = f"{key}: FTP by masquerading, and net.ipv4.vs.conntrack=0: addresses in it are not rewritten"
            yield Finding(Level.ERROR, "sysctl", what, "sysctl -w net.ipv4.vs.conntrack=1   (on both directors)")
        elif facts.tracking is not None and "nf_conntrack_netlink" not in facts.modules:
            what = f"{key}: nf_conntrack_netlink is not loaded: what is rewritten cannot be told to the other director"
            yield Finding(Level.ERROR, "modules", what, "modprobe nf_conntrack_netlink" + LOADED)


def _engines(facts: Facts, entries: tuple[ServiceEntry, ...]) -> Iterator[Finding]:
    for service in (e.service for e in entries):
        module = f"ip_vs_pe_{service.pe_name}"
        if service.pe_name and facts.modules and module not in facts.modules:
            what = f"{service.key}: its persistence engine is {service.pe_name}, and {module} is not loaded"
            yield Finding(Level.ERROR, "modules", what, f"modprobe {module}" + LOADED)


def _forwards(entry: ServiceEntry, *methods: Forward) -> bool:
    return any(d.destination.forward in methods for d in entry.destinations)


def _notrack(key: ServiceKey) -> str:
    assert key.address is not None and key.protocol is not None
    program = "iptables" if key.address.version == 4 else "ip6tables"
    port = f" --dport {key.port}" if key.port else ""
    return f"{program} -t raw -A PREROUTING -d {key.address} -p {key.protocol.value}{port} -j CT --notrack"


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
