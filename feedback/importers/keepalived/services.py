"""Virtual servers and their groups as services, read in the order of the file as keepalived reads them.

Missing values are those of keepalived 2.2.7: without `lvs_method` it is NAT, without `protocol` UDP, without
`lvs_sched` wlc, and a real server's `weight` is the virtual server's. Without NAT a real server has the service's port,
whatever is written. `lb_algo` and `lb_kind` are older names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from feedback.importers.draft import (
    DESTINATIONS_MAX,
    SCHEDULERS,
    Draft,
    Imported,
    ImportFormatError,
    Remark,
    kept,
    mask_prefix,
    way_out,
)
from feedback.importers.keepalived.blocks import CHECKERS, GROUP, Node
from feedback.importers.keepalived.checks import Real, check_of
from feedback.importers.keepalived.places import Place, address_of, places, port_of
from feedback.importers.keepalived.said import TIMERS, not_carried, take_timer, taken
from feedback.importers.keepalived.words import number
from feedback.model import WEIGHT_MAX, Address, Family, Protocol, ServiceKey

PERSISTENCE_SECONDS, PERSISTENCE_SECONDS_MAX = 360, 86400 * 31

PROTOCOLS = {p.value: p for p in Protocol}
METHODS = {"DR": "route", "NAT": "masquerade", "TUN": "tunnel"}
OWN_FLAGS = {"sh-port": ("sh", "port"), "sh-fallback": ("sh", "fallback")}
OWN_FLAGS |= {"mh-port": ("mh", "port"), "mh-fallback": ("mh", "fallback")}
FLAGS = {"ops": "one-packet", "flag-1": "sched-flag-1", "flag-2": "sched-flag-2", "flag-3": "sched-flag-3"}
# What needs no word: it is part of what is said elsewhere, or says how keepalived does what we do in our own way.
SILENT = {"real_server", "virtualhost", "warmup", "snmp_name", "hashed", "ha_suspend"}
ELSEWHERE = {"vrrp_instance": "it stays keepalived's, or becomes `feedback sync`: docs/sync.md"}


@dataclass(slots=True)
class Virtual:
    """A virtual_server as it is read; None is what was not said."""

    node: Node
    scheduler: str = ""
    method: str | None = None
    tunnel: dict[str, object] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    persistence: int = 0
    granularity: str = ""
    engine: str = ""
    protocol: Protocol | None = None
    family: Family | None = None
    weight: int = 1
    timers: dict[str, float] = field(default_factory=dict)
    retry: int | None = None
    host: str = ""
    inhibited: bool = False
    reals: dict[tuple[Address, int], Real] = field(default_factory=dict)


def imported(nodes: list[Node], remarks: list[Remark]) -> Imported:
    """Raises ImportFormatError where there is no virtual_server, or too much of them."""
    groups: dict[str, Node] = {}
    for node in nodes:
        if node.name == GROUP:
            groups.setdefault(node.word(1), node)
    drafts: dict[ServiceKey, Draft] = {}
    count = 0
    for node in nodes:
        if node.name == "virtual_server":
            for draft in _drafts(node, groups, remarks):
                _merge(drafts, draft, node, remarks)
                count += 1 + len(draft.destinations)
                if count > DESTINATIONS_MAX:
                    raise ImportFormatError(f"more than {DESTINATIONS_MAX} services and real servers, groups expanded")
        elif node.name != GROUP:
            why = ELSEWHERE.get(node.name)
            said = " ".join(node.words[:2])
            text = f"{said}: not carried over" + (f": {why}" if why else "")
            remarks.append(node.remark(text, note=node.name == "global_defs"))  # keepalived's own name and mail
    if not any(n.name == "virtual_server" for n in nodes):
        raise ImportFormatError("it has no virtual_server: is it a keepalived.conf with services?")
    return kept(list(drafts.values()), remarks)


def _merge(drafts: dict[ServiceKey, Draft], draft: Draft, node: Node, remarks: list[Remark]) -> None:
    """The kernel has one service of a key: of a second, keepalived adds the real servers to the first."""
    first = drafts.setdefault(draft.key, draft)
    if first is draft:
        return
    there = {(d["address"], d["port"]) for d in first.destinations}
    first.destinations += [d for d in draft.destinations if (d["address"], d["port"]) not in there]
    remarks.append(
        node.remark(f"{draft.key}: is listed twice: its real servers are added to the first one's", note=True)
    )


def _drafts(node: Node, groups: dict[str, Node], remarks: list[Remark]) -> Iterator[Draft]:
    """One for each address of a group."""
    found = list(places(node, groups, remarks))
    if not found:
        return
    virtual = Virtual(node, family=found[0].family if node.word(1) != "group" else None)
    for n in node.block:
        _take(virtual, n, remarks)
    if not virtual.reals:
        remarks.append(
            node.remark(
                f"{node.text}: left out: it has no real server, and keepalived makes no service of it", note=True
            )
        )
        return
    _finish(virtual, found, remarks)
    for place in found:
        if (key := _key(virtual, place, remarks)) is not None:
            yield _draft(virtual, place, key, remarks)


def _key(virtual: Virtual, place: Place, remarks: list[Remark]) -> ServiceKey | None:
    if place.address is None:
        family = place.family or virtual.family or Family.IPV4
        return ServiceKey.marked(place.fwmark, family)
    if place.grouped and virtual.family is not None and place.family is not virtual.family:
        text = f"{place.address}: left out: its real servers have another address family"
        remarks.append(virtual.node.remark(text))
        return None
    return ServiceKey.at(virtual.protocol or Protocol.UDP, place.address, place.port)


# --- what a service is ------------------------------------------------------------------------------------------------


def _take(v: Virtual, n: Node, remarks: list[Remark]) -> None:
    """One line of a virtual_server."""
    match n.name:
        case "lvs_sched" | "lb_algo":
            _scheduler(v, n, remarks)
        case "lvs_method" | "lb_kind":
            v.method, v.tunnel = _method(n, v.method, v.tunnel, remarks)
        case "persistence_timeout":
            v.persistence = _persistence(n, v.persistence, remarks)
        case "persistence_granularity":
            _granularity(v, n, remarks)
        case "persistence_engine":
            v.engine = n.word(1)
        case "protocol":
            if n.word(1).lower() in PROTOCOLS:
                v.protocol = PROTOCOLS[n.word(1).lower()]
            else:
                remarks.append(n.remark(f"{n.text}: no such protocol: keepalived ignores it, and so do we", note=True))
        case "ip_family":
            family = {"inet": Family.IPV4, "inet6": Family.IPV6}.get(n.word(1))
            if family is None or v.family not in (None, family):
                remarks.append(n.remark(f"{n.text}: ignored: expected inet or inet6, as the service's address is"))
            else:
                v.family = family
        case "weight":
            v.weight = taken(n, number(n.word(1), 1, WEIGHT_MAX), v.weight, remarks)
        case "inhibit_on_failure":
            v.inhibited = True
        case "retry":
            v.retry = taken(n, number(n.word(1), 1, 2**32 - 1, strict=True), v.retry, remarks)
        case "virtualhost":
            v.host = n.word(1)
        case "real_server":
            _real(v, n, remarks)
        case name if name in TIMERS:
            take_timer(n, v.timers, remarks)
        case name if name in FLAGS:
            v.flags.append(FLAGS[name])
        case name if name in OWN_FLAGS:
            scheduler, flag = OWN_FLAGS[name]
            if v.scheduler == scheduler:
                v.flags.append(flag)
            else:
                where = f"behind lvs_sched {scheduler}"
                remarks.append(n.remark(f"{n.text}: not carried over: keepalived takes it {where} only", note=True))
        case name if name not in SILENT:
            remarks.append(not_carried(n))


def _scheduler(v: Virtual, n: Node, remarks: list[Remark]) -> None:
    if n.word(1) in SCHEDULERS:
        v.scheduler = n.word(1)
    else:
        stays = v.scheduler or "wlc"
        remarks.append(n.remark(f"{n.text}: no such scheduler: keepalived ignores it, and {stays} it is", note=True))


def _persistence(n: Node, before: int, remarks: list[Remark]) -> int:
    if len(n.words) < 2:
        return PERSISTENCE_SECONDS
    found = number(n.word(1), 1, PERSISTENCE_SECONDS_MAX, strict=True)
    return taken(n, found, before, remarks)


def _granularity(v: Virtual, n: Node, remarks: list[Remark]) -> None:
    """It makes a service persistent, and says the family of one that has not said it."""
    family = v.family or (Family.IPV4 if "." in n.word(1) else Family.IPV6)
    if family is Family.IPV6:
        good = number(n.word(1), 1, 128, strict=True).value is not None
    else:
        good = re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", n.word(1)) is not None  # `24` is 0.0.0.24 there
    if good:
        v.granularity, v.family = n.word(1), family
        v.persistence = v.persistence or PERSISTENCE_SECONDS
    else:
        remarks.append(
            n.remark(f"{n.text}: ignored, as keepalived does: expected a mask, for IPv6 a prefix length", note=True)
        )


def _method(
    n: Node, before: str | None, tunnel: dict[str, object], remarks: list[Remark]
) -> tuple[str | None, dict[str, object]]:
    """`NAT`, `DR`, `TUN type gue port 6080 csum`. Where it is none, or its options are, what was said before stays."""
    if n.word(1) not in METHODS:
        remarks.append(n.remark(f"{n.text}: not known: ignored, as keepalived does"))
        return before, tunnel
    made: dict[str, object] = {}
    checksum, words, wrong = False, iter(n.words[2:]), ""
    for word in words:
        if word == "type":
            made["tunnel"] = next(words, "")
        elif word == "port":
            made["tunnel_port"] = number(next(words, ""), 1, 65535, strict=True).value or 0
        elif word in ("csum", "remcsum"):
            checksum = True
        elif word != "nocsum":
            wrong = wrong or word
    kind = made.get("tunnel", "ipip")
    if wrong or kind not in ("ipip", "gue", "gre") or (kind == "gue") != bool(made.get("tunnel_port")):
        text = (
            f"{n.text}: its options are not known: ignored, as keepalived does; a gue tunnel has a port, no other has"
        )
        remarks.append(n.remark(text))
        return METHODS[n.word(1)], tunnel
    if checksum:
        remarks.append(n.remark(f"{n.text}: a tunnel's checksum: not carried over"))
    return METHODS[n.word(1)], {k: v for k, v in made.items() if v != "ipip"}


def _real(v: Virtual, node: Node, remarks: list[Remark]) -> None:
    address, port = address_of(node.word(1)), port_of(node.word(2))
    if address is None or port is None:
        remarks.append(node.remark(f"{node.text}: left out: expected ADDRESS PORT, keepalived resolves no names"))
        return
    real = Real(node, address, port, v.method, v.tunnel)
    for n in node.block:
        match n.name:
            case "weight":
                real.weight = taken(n, number(n.word(1), 0, WEIGHT_MAX), real.weight, remarks)
            case "uthreshold":
                real.upper = taken(n, number(n.word(1), 0, 2**32 - 1), real.upper, remarks)
            case "lthreshold":
                real.lower = taken(n, number(n.word(1), 0, 2**32 - 1), real.lower, remarks)
            case "lvs_method":
                real.method, real.tunnel = _method(n, real.method, real.tunnel, remarks)
            case "inhibit_on_failure":
                real.inhibited = True
            case "retry":
                real.retry = taken(n, number(n.word(1), 1, 2**32 - 1, strict=True), real.retry, remarks)
            case "virtualhost":
                real.host = n.word(1)
            case name if name in TIMERS:
                take_timer(n, real.timers, remarks)
            case name if name in CHECKERS:
                real.checks.append(n)
            case name if name not in SILENT:
                remarks.append(not_carried(n))
    family = Family.of(address)
    if real.method != "tunnel":
        v.family = v.family or family
        if v.family is not family:
            remarks.append(node.remark(f"{node.text}: left out: the service has the other address family"))
            return
    if (address, port) in v.reals:
        remarks.append(
            node.remark(f"{node.text}: left out: it is listed twice, and keepalived takes the first", note=True)
        )
        return
    v.reals[address, port] = real


def _finish(v: Virtual, found: list[Place], remarks: list[Remark]) -> None:
    """What keepalived sets right once it has read all."""
    addressed = any(p.address is not None for p in found)
    if addressed and v.protocol is None:
        said = " ".join(v.node.words[1:])
        remarks.append(v.node.remark(f"{said}: has no protocol: keepalived reads that as UDP, and so do we", note=True))
    if addressed and v.protocol not in (None, Protocol.UDP) and "one-packet" in v.flags:
        remarks.append(v.node.remark("ops: ignored, as keepalived does: it needs UDP", note=True))
        v.flags = [f for f in v.flags if f != "one-packet"]
    if not v.persistence and any(p.address is not None and not p.port for p in found):
        text = f"a service without a port is persistent: {PERSISTENCE_SECONDS} s, as keepalived sets it"
        remarks.append(v.node.remark(text, note=True))
        v.persistence = PERSISTENCE_SECONDS
    for real in v.reals.values():
        if real.method is None:
            real.method, real.tunnel = v.method or "masquerade", v.tunnel
        real.retry = v.retry if real.retry is None else real.retry
        real.timers = v.timers | real.timers
        real.host = real.host or v.host
        real.inhibited = real.inhibited or v.inhibited


def _draft(v: Virtual, place: Place, key: ServiceKey, remarks: list[Remark]) -> Draft:
    draft = Draft(key, v.node.line.number, v.scheduler or "wlc", file=v.node.line.file)
    methods = [r.method or "" for r in v.reals.values()]
    draft.forward = max(methods, key=methods.count)
    draft.flags, draft.persistence_seconds = list(v.flags), v.persistence
    draft.on_failure = way_out(removed=not all(r.inhibited for r in v.reals.values()))
    draft.pe = v.engine or None
    if v.granularity:
        draft.persistence_prefix = mask_prefix(v.granularity, key.family)
        if draft.persistence_prefix is None:
            text = f"{key}: persistence_granularity {v.granularity}: is no prefix: not carried over"
            remarks.append(v.node.remark(text))
    made: dict[tuple[Address, int], Real] = {}
    for real in v.reals.values():
        port = _destination_port(real, place)
        if (real.address, port) in made:
            text = f"{real.node.text}: left out: {key} has {real.address}:{port} already"
            remarks.append(real.node.remark(text))
            continue
        if real.port and port != real.port:
            remarks.append(
                real.node.remark(f"{real.node.text}: port {port}, as keepalived makes it: without NAT", note=True)
            )
        made[real.address, port] = real
        weight = v.weight if real.weight is None else real.weight
        found: dict[str, object] = {"address": str(real.address), "port": port, "weight": weight}
        found |= {"upper": real.upper, "lower": real.lower, "forward": real.method} | real.tunnel
        found["on_failure"] = way_out(removed=not real.inhibited)
        draft.destinations.append(found)
    draft.check, ports = check_of(key, made, v.node, remarks)
    for where, destination in zip(made, draft.destinations, strict=True):
        if where in ports:
            destination["check_port"] = ports[where]
    return draft


def _destination_port(real: Real, place: Place) -> int:
    if real.method != "masquerade":
        return place.port
    return real.port or (0 if place.grouped or place.address is None else place.port)
