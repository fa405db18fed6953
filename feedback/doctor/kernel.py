"""IPVS's module, settings, schedulers and thresholds. Pure.

What each setting does was measured: facts in Documentation/networking/ipvs-sysctl.rst, and where it is silent, in
docs/console.md. It sets nothing: the operator's director stays unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from feedback.doctor.facts import Facts, Finding, Level
from feedback.ipvs.text import format_edit
from feedback.model import Forward, Protocol, Service, ServiceEntry, ServiceFlags, SetService

SHORT_RATIO = 5  # so many closed connections to an open one: connections are short
SHORT_COUNT = 100
NEARLY_FULL = 0.8  # of conn_max
LONG_CHAIN = 8  # connections in a bucket of the kernel's table

BLIND = {"rr": "wrr", "lc": "wlc", "dh": "sh"}  # schedulers that look only whether a weight is zero
FALLBACK = ServiceFlags.SCHED1  # of sh and mh


def examine(facts: Facts) -> Iterator[Finding]:
    if facts.snapshot is None:
        mend = "modprobe ip_vs" if "no IPVS" in facts.ipvs_problem else "run as root: sudo feedback doctor"
        yield Finding(Level.ERROR, "kernel", facts.ipvs_problem or "the kernel cannot be asked", mend)
        return
    entries = facts.snapshot.services
    yield from _settings(facts, entries)
    yield from _table(facts, entries)
    for entry in entries:
        yield from _scheduler(facts, entry)
        yield from _thresholds(facts, entry)
        yield from _left_behind(facts, entry)
        if entry.destinations and not any(d.destination.weight for d in entry.destinations):
            what = f"{entry.service.key}: every destination has weight 0: clients are refused"
            yield Finding(Level.ERROR, "service", what, "feedback show; feedback explain ADDRESS; feedback orders")


# --- settings --------------------------------------------------------------------------------------------------------


def _settings(facts: Facts, entries: tuple[ServiceEntry, ...]) -> Iterator[Finding]:
    vs = facts.vs
    if any(e.service.persistent for e in entries) and vs.get("expire_quiescent_template") == 0:
        what = (
            "expire_quiescent_template=0: clients of persistent services still go to a drained server, even at 0; "
            "with 1 their next connection goes elsewhere"
        )
        yield Finding(Level.WARNING, "sysctl", what, _set("expire_quiescent_template", 1))
    if vs.get("conn_reuse_mode") == 0:
        what = (
            "conn_reuse_mode=0: a client that reuses its port goes to its old server, drained or dead; "
            "with 3 it is scheduled anew"
        )
        yield Finding(Level.WARNING, "sysctl", what, _set("conn_reuse_mode", 3))
    elif vs.get("conn_reuse_mode") == 1 and _forwards(entries, Forward.ROUTE):
        what = (
            "conn_reuse_mode=1: with direct routing a closed connection stays in FIN_WAIT for two minutes, and a "
            "client that reuses its port goes to the same server; with 3 it is scheduled anew"
        )
        yield Finding(Level.ADVICE, "sysctl", what, _set("conn_reuse_mode", 3))
    if vs.get("expire_nodest_conn") == 0 and facts.removes:
        what = (
            "expire_nodest_conn=0, and on_failure removes servers: their flows are silently dropped instead of going "
            "on elsewhere, and revive when the server returns. The master sets it at its start"
        )
        mend = (
            _set("expire_nodest_conn", 1) + "   (on both directors; ReadWritePaths=-/proc/sys/net/ipv4/vs in the unit)"
        )
        yield Finding(Level.ERROR, "sysctl", what, mend)
    elif vs.get("expire_nodest_conn") == 0:
        what = (
            "expire_nodest_conn=0: when a server is removed, its clients' packets are silently dropped until their "
            "own timeout; with 1 they are told at once"
        )
        yield Finding(Level.ADVICE, "sysctl", what, _set("expire_nodest_conn", 1))
    udp = any(e.service.key.protocol is Protocol.UDP for e in entries)
    if vs.get("run_estimation") == 0:
        what = f"run_estimation=0: {_still(udp)}; with 1 they move every 2 s"
        yield Finding(Level.WARNING if udp else Level.ADVICE, "sysctl", what, _set("run_estimation", 1))
    elif vs.get("est_cpulist") == "":
        what = f"est_cpulist is empty, so no processor updates counters: {_still(udp)}"
        mend = "sysctl -w net.ipv4.vs.est_cpulist=0-N   (the processors that may do so)"
        yield Finding(Level.WARNING if udp else Level.ADVICE, "sysctl", what, mend)
    if _limited(entries) and facts.host.get("net.ipv4.icmp_ratelimit"):
        what = (
            f"net.ipv4.icmp_ratelimit={facts.host['net.ipv4.icmp_ratelimit']}: when every server is at its threshold, "
            "only one refusal in that many ms is sent to a client's address; the others wait for their own timeout; "
            "with 0 each is told at once"
        )
        yield Finding(Level.ADVICE, "sysctl", what, "sysctl -w net.ipv4.icmp_ratelimit=0")
    if _forwards(entries, Forward.MASQUERADE) and facts.host.get("net.ipv4.ip_forward") == 0:
        what = "net.ipv4.ip_forward=0: real servers' answers are not forwarded, which masquerading needs"
        yield Finding(Level.ERROR, "sysctl", what, "sysctl -w net.ipv4.ip_forward=1")


def _still(udp: bool) -> str:
    return "the kernel's counters stand still; rates" + (" of UDP services" if udp else "") + " are unknown"


def _table(facts: Facts, entries: tuple[ServiceEntry, ...]) -> Iterator[Finding]:
    """The capacity of the kernel's connection table, which differs between kernels (feedback/ipvs/table.py)."""
    bound = sum(d.active + d.inactive for e in entries for d in e.destinations)
    held = bound if facts.table.connections is None else facts.table.connections
    most = facts.vs.get("conn_max")
    if isinstance(most, int) and held >= NEARLY_FULL * most:
        what = (
            f"conn_max={most} and {held} connections are open or remembered: beyond that the kernel silently drops the "
            "packets of new clients, and a standby keeps no copy"
        )
        mend = _set("conn_max", max(2 * most, 2 * held)) + "   (on both directors)"
        yield Finding(Level.ERROR if held >= most else Level.WARNING, "table", what, mend)
    buckets = facts.table.most_buckets
    if buckets and held > LONG_CHAIN * buckets:
        size = f"{'at most ' if facts.table.grows else ''}{buckets} buckets"
        what = f"{held} connections in a table of {size}: every packet searches {held // buckets} of them"
        bits = min(27, held.bit_length())
        mend = f"options ip_vs conn_tab_bits={bits} in /etc/modprobe.d/ip_vs.conf; it counts when ip_vs is loaded anew"
        yield Finding(Level.ADVICE, "table", what, mend)


def _set(name: str, value: int) -> str:
    return f"sysctl -w net.ipv4.vs.{name}={value}"


def _forwards(entries: tuple[ServiceEntry, ...], method: Forward) -> bool:
    return any(d.destination.forward is method for e in entries for d in e.destinations)


def _limited(entries: tuple[ServiceEntry, ...]) -> bool:
    return any(d.destination.upper and d.destination.weight for e in entries for d in e.destinations)


# --- schedulers ------------------------------------------------------------------------------------------------------


def _scheduler(facts: Facts, entry: ServiceEntry) -> Iterator[Finding]:
    service, name = entry.service, entry.service.scheduler
    udp = service.key.protocol is Protocol.UDP
    if name in ("sed", "nq") and udp:
        what = f"{service.key}: {name} looks at active connections, which UDP never has: one server gets everything"
        yield Finding(Level.ERROR, "scheduler", what, _change(facts, service, "wrr"))
    if name in BLIND:
        what = f"{service.key}: {name} only checks whether a weight is zero: learned weights have no effect"
        yield Finding(Level.WARNING, "scheduler", what, _change(facts, service, "wrr" if udp else "sed"))
    if name == "wrr" and not udp:
        what = f"{service.key}: wrr ignores open connections, and restarts its round at each change of a weight"
        yield Finding(Level.ADVICE, "scheduler", what, _change(facts, service, "sed"))
    if name == "wlc" and not udp and _short(entry):
        fin = facts.timeouts.tcp_fin_seconds or 120
        what = (
            f"{service.key}: wlc counts closed connections for {fin} s, and yours are short: a returning server is "
            "flooded and weights act late"
        )
        yield Finding(Level.ADVICE, "scheduler", what, _change(facts, service, "sed"))
    if name in ("sh", "mh") and not service.flags & FALLBACK:
        what = f"{service.key}: {name} without {name}-fallback refuses the clients of a drained or full server"
        yield Finding(Level.WARNING, "scheduler", what, _fall_back(facts, service))


def _short(entry: ServiceEntry) -> bool:
    active = sum(d.active for d in entry.destinations)
    inactive = sum(d.inactive for d in entry.destinations)
    return inactive > SHORT_COUNT and inactive > SHORT_RATIO * active


def _change(facts: Facts, service: Service, scheduler: str) -> str:
    if str(service.key) in facts.owned:
        return f'scheduler = "{scheduler}" for {service.key} in master.toml; then: systemctl reload feedback-master'
    changed = msgspec.structs.replace(service, scheduler=scheduler, flags=service.flags & ~_of_hashes())
    return f"ipvsadm {format_edit(SetService(changed))}   (and lb_algo {scheduler} where its owner is configured)"


def _of_hashes() -> ServiceFlags:
    return ServiceFlags.SCHED1 | ServiceFlags.SCHED2 | ServiceFlags.SCHED3


def _fall_back(facts: Facts, service: Service) -> str:
    if str(service.key) in facts.owned:
        return f'flags = ["fallback"] for {service.key} in master.toml; then: systemctl reload feedback-master'
    changed = msgspec.structs.replace(service, flags=service.flags | FALLBACK)
    return f"ipvsadm {format_edit(SetService(changed))}"


# --- flows that stay -------------------------------------------------------------------------------------------------


def _left_behind(facts: Facts, entry: ServiceEntry) -> Iterator[Finding]:
    """A UDP flow never ends while its client asks: with weight 0 it goes on to a dead server for ever."""
    if not facts.adopts or entry.service.key.protocol is not Protocol.UDP:
        return
    stuck = [d for d in entry.destinations if not d.destination.weight and d.inactive]
    if stuck:
        first = stuck[0]
        what = (
            f"{entry.service.key}: {first.destination.key} has weight 0 and {first.inactive} UDP flows that stay with "
            "it, dead or alive; with ownership `weights` only the service's owner can remove it"
        )
        mend = (
            "keepalived: no inhibit_on_failure for its real_server; ldirectord: quiescent=no; and expire_nodest_conn=1"
        )
        yield Finding(Level.WARNING, "flows", what, mend)


# --- thresholds ------------------------------------------------------------------------------------------------------


def _thresholds(facts: Facts, entry: ServiceEntry) -> Iterator[Finding]:
    key = entry.service.key
    limited = [d for d in entry.destinations if d.destination.upper and d.destination.weight]
    clogged = [d for d in limited if d.active + d.inactive >= d.destination.upper and d.inactive > d.active]
    if clogged:
        first = clogged[0]
        fin = facts.timeouts.tcp_fin_seconds or 120
        what = (
            f"{key}: {first.destination.key} is full because of closed connections ({first.inactive} of "
            f"{first.destination.upper}): a threshold counts them for {fin} s"
        )
        mend = f'ipvsadm --set 0 {max(10, fin // 4)} 0   (the FIN timeout), a larger upper, or thresholds = "learned"'
        yield Finding(Level.WARNING, "threshold", what, mend)
    if limited and entry.service.persistent:
        what = f"{key}: clients of a persistent service bypass its thresholds"
        mend = f'thresholds = "off" for {key} in master.toml, or no persistence'
        yield Finding(Level.ADVICE, "threshold", what, mend)
