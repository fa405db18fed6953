"""What `ipvsadm -S` or `feedback save` printed, as services."""

from __future__ import annotations

from feedback.importers.draft import Draft, Imported, ImportFormatError, Remark, kept
from feedback.ipvs.difference import Rules, of_edits
from feedback.ipvs.rules import RulesError
from feedback.ipvs.text import parse
from feedback.model import Destination, Forward, ServiceFlags, TunnelType

FORWARD = {Forward.MASQUERADE: "masquerade", Forward.ROUTE: "route", Forward.TUNNEL: "tunnel"}
FLAGS = {
    ServiceFlags.ONE_PACKET: "one-packet",
    ServiceFlags.SCHED1: "sched-flag-1",
    ServiceFlags.SCHED2: "sched-flag-2",
    ServiceFlags.SCHED3: "sched-flag-3",
}
HASH_FLAGS = {ServiceFlags.SCHED1: "fallback", ServiceFlags.SCHED2: "port"}


def read(text: str) -> Imported:
    """Raises ImportFormatError."""
    try:
        table = of_edits(parse(text))
    except (RulesError, ValueError) as error:
        raise ImportFormatError(str(error)) from None
    remarks: list[Remark] = []
    drafts = [_draft(rules, remarks) for rules in table.values()]
    return kept(drafts, remarks)


def _draft(rules: Rules, remarks: list[Remark]) -> Draft:
    service = rules.service
    words = FLAGS | (HASH_FLAGS if service.scheduler in ("sh", "mh") else {})
    draft = Draft(service.key, scheduler=service.scheduler)
    draft.flags = [word for flag, word in words.items() if service.flags & flag]
    draft.persistence_seconds = service.timeout_seconds if service.persistent else 0
    if isinstance(service.netmask, int):
        draft.persistence_prefix = service.netmask
    elif service.netmask is not None:
        remarks.append(Remark(0, f"{service.key}: netmask {service.netmask} is no prefix: not carried over"))
    if service.pe_name:
        remarks.append(Remark(0, f"{service.key}: persistence engine {service.pe_name}: not carried over"))
    destinations = rules.destinations[::-1]  # the kernel's order is backwards
    methods = [d.forward for d in destinations]
    draft.forward = FORWARD[max(methods, key=methods.count)] if methods else "route"
    for destination in destinations:
        draft.destinations.append(_destination(destination))
        if destination.tunnel_flags:
            remarks.append(Remark(0, f"{service.key}: {destination.key}: tunnel checksums: not carried over"))
        if destination.weight == 0:
            text = f"{service.key}: {destination.key} has weight 0: as configuration that quiesces it for good"
            remarks.append(Remark(0, text))
    return draft


def _destination(d: Destination) -> dict[str, object]:
    found: dict[str, object] = {"address": str(d.key.address), "port": d.key.port, "weight": d.weight}
    found |= {"upper": d.upper, "lower": d.lower, "forward": FORWARD[d.forward]}
    if d.tunnel_type is not TunnelType.IPIP:
        found |= {"tunnel": d.tunnel_type.name.lower(), "tunnel_port": d.tunnel_port}
    return found
