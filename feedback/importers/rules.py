"""Output of `ipvsadm -S` or `feedback save` as services. Without `-n` ipvsadm prints names of services."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import msgspec

from feedback.importers.draft import SCHEDULERS, Draft, Imported, ImportFormatError, Remark, kept
from feedback.ipvs.rules import RulesError
from feedback.ipvs.text import parse_line
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Forward,
    Service,
    ServiceFlags,
    ServiceKey,
    TunnelType,
)

FORWARD = {Forward.MASQUERADE: "masquerade", Forward.ROUTE: "route", Forward.TUNNEL: "tunnel"}
FLAGS = {
    ServiceFlags.ONE_PACKET: "one-packet",
    ServiceFlags.SCHED1: "sched-flag-1",
    ServiceFlags.SCHED2: "sched-flag-2",
    ServiceFlags.SCHED3: "sched-flag-3",
}
HASH_FLAGS = {ServiceFlags.SCHED1: "fallback", ServiceFlags.SCHED2: "port"}
LINE_MAX = 4096
_NAMED = re.compile(r"((?:-[tur]|--(?:tcp|udp|sctp)-service|--real-server)[ =]+\S*:)([A-Za-z][\w-]*)(?=\s|\Z)")
_UDP = re.compile(r"(^|\s)(-u|--udp-service)[ =]")


def read(text: str, *, port_of: Callable[[str, str], int | None] | None = None) -> Imported:
    """`port_of` gives the port of a service's name and protocol, as getservbyname(3) does. A line that is no rule costs
    that line. Raises ImportFormatError where there is no service."""
    table = _Table()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if len(line) > LINE_MAX:
                raise RulesError(f"a line of {len(line)} characters")
            table.take(parse_line(_numbers(line, port_of)), number)
        except ValueError as error:
            if not table.drafts:
                raise ImportFormatError(f"line {number}: {error}") from None
            table.remarks.append(Remark(number, f"left out: {error}"))
    if not table.drafts:
        raise ImportFormatError("it has no service: is it output of `ipvsadm -S -n`?")
    for draft in table.drafts.values():
        methods = Counter(d["forward"] for d in draft.destinations)
        draft.forward = methods.most_common(1)[0][0] if methods else "route"
    return kept(list(table.drafts.values()), table.remarks)


class _Table:
    """What rules make of an empty table: the kernel keeps the first of two with the same key."""

    def __init__(self) -> None:
        self.drafts: dict[ServiceKey, Draft] = {}
        self.remarks: list[Remark] = []
        self._seen: set[tuple[ServiceKey, DestinationKey]] = set()

    def take(self, edit: Edit, line: int) -> None:
        """Raises ValueError, with why it is left out."""
        if isinstance(edit, AddService):
            if edit.service.key in self.drafts:
                raise RulesError(f"{edit.service.key} is listed twice: the kernel keeps the first")
            self.drafts[edit.service.key] = _draft(edit.service, line, self.remarks)
        elif isinstance(edit, AddDestination):
            if edit.service not in self.drafts:
                raise RulesError(f"{edit.service}: a rule comes before its service's")
            self._add(self.drafts[edit.service], edit.destination, line)
        else:
            raise RulesError("a saved table has only services (-A) and destinations (-a)")

    def _add(self, draft: Draft, destination: Destination, line: int) -> None:
        """Raises ValueError, with why it is left out."""
        written = destination.key.port
        where = f"{draft.key}: {destination.key}"
        if (
            destination.forward is not Forward.MASQUERADE
            and draft.key.address is not None
            and written != draft.key.port
        ):
            text = f"{where}: port {draft.key.port}, as ipvsadm makes it: without masquerading"
            self.remarks.append(Remark(line, text, note=True))
            key = DestinationKey(destination.key.address, draft.key.port)
            destination = msgspec.structs.replace(destination, key=key)
        if (draft.key, destination.key) in self._seen:
            raise RulesError(f"{where} is listed twice: the kernel keeps the first")
        self._seen.add((draft.key, destination.key))
        draft.destinations.append(_destination(destination))
        if destination.tunnel_flags:
            self.remarks.append(Remark(line, f"{where}: tunnel checksums: not carried over"))
        if destination.weight == 0:
            self.remarks.append(Remark(line, f"{where} has weight 0: as configuration that quiesces it for good"))


def _numbers(line: str, port_of: Callable[[str, str], int | None] | None) -> str:
    """With numbers for the names of services. Raises ValueError at one that is not known."""
    protocol = "udp" if _UDP.search(line) else "sctp" if "--sctp-service" in line else "tcp"

    def number(found: re.Match[str]) -> str:
        port = port_of(found[2], protocol) if port_of is not None else None
        if port is None:
            raise RulesError(f"{found[2]}: an unknown service name: use ipvsadm -S -n")
        return f"{found[1]}{port}"

    return _NAMED.sub(number, line)


def _draft(service: Service, line: int, remarks: list[Remark]) -> Draft:
    draft = Draft(service.key, line, service.scheduler)
    if service.scheduler not in SCHEDULERS:
        remarks.append(draft.remark(f"scheduler {service.scheduler}: the kernel has no such scheduler: wlc is used"))
        draft.scheduler = "wlc"
    words = FLAGS | (HASH_FLAGS if service.scheduler in ("sh", "mh") else {})
    draft.flags = [word for flag, word in words.items() if service.flags & flag]
    draft.persistence_seconds = service.timeout_seconds if service.persistent else 0
    if isinstance(service.netmask, int):
        draft.persistence_prefix = service.netmask
    elif service.netmask is not None:
        remarks.append(draft.remark(f"netmask {service.netmask} is no prefix: not carried over"))
    draft.pe = service.pe_name or None
    return draft


def _destination(d: Destination) -> dict[str, object]:
    found: dict[str, object] = {"address": str(d.key.address), "port": d.key.port, "weight": d.weight}
    found |= {"upper": d.upper, "lower": d.lower, "forward": FORWARD[d.forward]}
    if d.tunnel_type is not TunnelType.IPIP:
        found |= {"tunnel": d.tunnel_type.name.lower(), "tunnel_port": d.tunnel_port}
    return found
