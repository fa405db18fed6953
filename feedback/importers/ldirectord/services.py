"""Virtual servers of ldirectord.cf as services. Missing values come from where ldirectord takes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address

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
from feedback.importers.ldirectord.checks import Real, check_of
from feedback.importers.ldirectord.file import NOT_STARTED, File, Virtual
from feedback.model import Address, Family, Protocol, ServiceKey

PortOf = Callable[[str, str], int | None]

FORWARD = {"gate": "route", "masq": "masquerade", "ipip": "tunnel"}
# Where the host has no names of services.
PORTS = {"http": 80, "www": 80, "https": 443, "domain": 53, "smtp": 25, "ftp": 21, "imap2": 143, "imaps": 993}
PORTS |= {"pop3": 110, "pop3s": 995, "ldap": 389, "ldaps": 636, "mysql": 3306, "postgresql": 5432, "sip": 5060}
PORTS |= {"imap": 143, "submission": 587, "ssh": 22, "telnet": 23, "nntp": 119, "radius": 1812}
RANGE_MAX = 1024
PERSISTENCE_SECONDS_MAX = 86400 * 31
FLAGS = {"flag-1": "sched-flag-1", "flag-2": "sched-flag-2", "flag-3": "sched-flag-3"}
OWN_FLAGS = {f"{s}-{flag}": (s, flag) for s in ("sh", "mh") for flag in ("fallback", "port")}

# What needs no word: it is said elsewhere, or taken.
SILENT = {
    "servicename",
    "comment",
    "service",
    "protocol",
    "virtualhost",
    "request",
    "receive",
    "checktype",
    "checkport",
}
SILENT |= {"checktimeout", "negotiatetimeout", "failurecount", "checkcommand", "checkinterval", "scheduler"}
SILENT |= {"persistent", "netmask", "ops", "schedflags", "httpmethod", "fork", "readdquiescent", "quiescent"}
INSTEAD = {
    "fallback": 'similar: a destination with pool = "spill", and law = "spillover"',
    "fallback6": 'similar: a destination with pool = "spill", and law = "spillover"',
    "autoreload": "systemctl reload feedback-master",
    "emailalert": "the alerts of contrib/prometheus",
    "maintenancedir": "feedback drain",
    "cleanstop": "stopping the master leaves the table as it is",
    "logfile": "journalctl -u feedback-master",
    "supervised": "systemd runs the master",
    "execute": "import that file by itself",
}

OWN_WAY = {"autoreload", "logfile", "supervised"}  # no loss: a service of systemd has all of it

_AT = re.compile(r"([0-9A-Za-z._+-]+|\[[0-9A-Fa-f:.]+\]):([0-9A-Za-z_-]+)")
_REAL = re.compile(
    r"([0-9.]+|[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?:->([0-9.]+|[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]))?"
    r"(?::([A-Za-z0-9_-]+))?\s+(.*)"
)


def imported(file: File, port_of: PortOf) -> Imported:
    """Raises ImportFormatError where it unfolds to too much."""
    for name, word in file.words.items():
        if name not in SILENT:
            _not_carried(file, name, word.line, word.value)
    drafts, count = [], 0
    seen: set[ServiceKey] = set()
    for virtual in file.virtuals:
        key = _key(file, virtual, port_of)
        if key is None:
            continue
        if key in seen:
            file.remarks.append(Remark(virtual.line, f"{key}: left out: is listed twice; {NOT_STARTED}"))
            continue
        seen.add(key)
        drafts.append(_draft(file, virtual, key, port_of))
        count += len(drafts[-1].destinations)
        if count > DESTINATIONS_MAX:
            raise ImportFormatError(f"more than {DESTINATIONS_MAX} real servers, ranges expanded")
    return kept(drafts, file.remarks)


def _not_carried(file: File, name: str, line: int, value: str) -> None:
    hint = f"; instead: {INSTEAD[name]}" if name in INSTEAD else ""
    file.said(line, name, value, f"not carried over{hint}", note=name in OWN_WAY)


def _key(file: File, virtual: Virtual, port_of: PortOf) -> ServiceKey | None:
    def refused(why: str) -> None:
        file.said(virtual.line, "virtual6" if virtual.six else "virtual", virtual.where, f"left out: {why}")

    protocol = virtual.words.get("protocol")
    found = _AT.match(virtual.where)
    if found is None:
        mark = re.match(r"[0-9]+", virtual.where)
        if mark is None or not 0 < int(mark[0][:20]) < 2**32:
            refused(f"expected ADDRESS:PORT or the number of a mark; {NOT_STARTED}")
            return None
        if protocol is not None and protocol.value != "fwm":
            file.said(protocol.line, "protocol", protocol.value, f"ignored: a mark has none; {NOT_STARTED}")
        return ServiceKey.marked(int(mark[0]), Family.IPV6 if virtual.six else Family.IPV4)
    said = protocol.value if protocol else "udp" if found[2] in ("53", "domain") else "tcp"
    if said == "fwm":
        file.said(virtual.line, "protocol", said, f"ignored: that is for a mark; {NOT_STARTED}")
        said = "tcp"
    port = _port(found[2], said, port_of)
    address = _address(found[1])
    if port is None or address is None:
        what = "the address" if port is not None else "the service's name"
        refused(f"{what} is unknown here: host names are not resolved, use numbers")
        return None
    if (address.version == 6) != virtual.six:
        refused(f"an IPv6 address belongs in virtual6, an IPv4 address in virtual; {NOT_STARTED}")
        return None
    return ServiceKey.at(Protocol(said), address, port)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def _port(text: str, protocol: str, port_of: PortOf) -> int | None:
    if text.isascii() and text.isdecimal():
        return int(text[:6]) if int(text[:6]) < 65536 else None
    return port_of(text, protocol)


def _draft(file: File, virtual: Virtual, key: ServiceKey, port_of: PortOf) -> Draft:
    words = {name: word.value for name, word in virtual.words.items()}
    draft = Draft(key, virtual.line, words.get("scheduler", "wrr"))
    for name, word in virtual.words.items():
        if name not in SILENT:
            _not_carried(file, name, word.line, word.value)
    if draft.scheduler not in SCHEDULERS:
        file.said(
            virtual.words["scheduler"].line,
            "scheduler",
            draft.scheduler,
            "the kernel has no such scheduler, and ldirectord makes no service of it: wlc is used",
        )
        draft.scheduler = "wlc"
    quiescent = virtual.words.get("quiescent") or file.words.get("quiescent")
    draft.on_failure = way_out(removed=quiescent is None or quiescent.value == "no")
    _persistence(file, virtual, draft)
    if words.get("ops") == "yes":
        if key.protocol is Protocol.UDP:
            draft.flags.append("one-packet")
        else:
            file.said(virtual.words["ops"].line, "ops", "yes", "ignored, as ldirectord does: it needs UDP", note=True)
    _scheduler_flags(file, virtual, draft)
    reals: list[Real] = []
    for word in virtual.reals:
        reals += _reals(file, word.line, word.value, key, port_of)
        if len(reals) > DESTINATIONS_MAX:
            raise ImportFormatError(f"{key}: more than {DESTINATIONS_MAX} real servers, ranges expanded")
    methods = [FORWARD[r.forward] for r in reals]
    draft.forward = max(methods, key=methods.count) if methods else "route"
    if words.get("checktype") == "off" and reals:
        text = "its servers are not in service with ldirectord: they have weight 0 here"
        file.said(virtual.words["checktype"].line, "checktype", "off", text)
    made: dict[str, Real] = {}
    for real in reals:
        destination = _destination(real, key)
        where = f"{real.address}:{destination['port']}"
        if where in made and made[where].port == real.port:  # ldirectord sets what it finds by this name
            text = f"real={real.address}:{real.port}: is listed twice: the last one counts"
            file.remarks.append(Remark(real.line, text, note=True))
            draft.destinations[list(made).index(where)] = destination
            made[where] = real
            continue
        if where in made:
            file.remarks.append(Remark(real.line, f"real={real.address}: left out: {key} has {where} already"))
            continue
        if real.port and destination["port"] != real.port:
            text = f"real={real.address}:{real.port}: port {destination['port']}, as ipvsadm makes it: without masq"
            file.remarks.append(Remark(real.line, text, note=True))
        if words.get("checktype") == "off":
            destination["weight"] = 0
        made[where] = real
        draft.destinations.append(destination)
    if made:
        draft.check = check_of(file, virtual, key, list(zip(draft.destinations, made.values(), strict=True)))
    return draft


def _persistence(file: File, virtual: Virtual, draft: Draft) -> None:
    persistent, mask = virtual.words.get("persistent"), virtual.words.get("netmask")
    if persistent is not None:
        seconds = int(persistent.value)
        if 1 <= seconds <= PERSISTENCE_SECONDS_MAX:
            draft.persistence_seconds = seconds
        else:
            text = f"not carried over: expected 1 to {PERSISTENCE_SECONDS_MAX}; ipvsadm refuses the service"
            file.said(persistent.line, "persistent", persistent.value, text)
    if mask is None:
        return
    prefix = mask_prefix(mask.value, draft.key.family)
    if prefix is None:
        file.said(mask.line, "netmask", mask.value, "not carried over: is no prefix")
    elif draft.persistence_seconds:
        draft.persistence_prefix = prefix
    else:
        file.said(mask.line, "netmask", mask.value, "not carried over: the service is not persistent")


def _scheduler_flags(file: File, virtual: Virtual, draft: Draft) -> None:
    flags = virtual.words.get("schedflags")
    for word in flags.value.split(",") if flags else []:
        if word in FLAGS:
            draft.flags.append(FLAGS[word])
        elif word in OWN_FLAGS and OWN_FLAGS[word][0] == draft.scheduler:
            draft.flags.append(OWN_FLAGS[word][1])
        elif flags is not None:
            file.said(flags.line, "schedflags", word, f"not carried over: {draft.scheduler} has no such flag")


def _reals(file: File, line: int, value: str, key: ServiceKey, port_of: PortOf) -> list[Real]:
    """The patterns are ldirectord's own: what they skip, it skips."""

    def refused(why: str) -> list[Real]:
        file.said(line, "real", value, f"left out: {why}")
        return []

    found = _REAL.search(value)
    method = re.search(r"(\w+)(.*)", found[4], re.ASCII) if found else None
    if found is None or method is None or method[1] not in FORWARD:
        return refused(f"expected ADDRESS:PORT gate|masq|ipip; {NOT_STARTED}")
    first, last = _address(found[1]), _address(found[2] or found[1])
    port = _port(found[3], "", port_of) if found[3] else 0
    if first is None or last is None or port is None:
        return refused("names are not resolved, use numbers")
    rest, weight, own = method[2], 1, None
    if m := re.search(r"\s+([0-9]+)(.*)", rest):
        if rest[: m.start()].strip():
            file.said(line, "real", value, f"{rest[: m.start()].strip()!r} is skipped, as ldirectord does", note=True)
        weight, rest = int(m[1][:20]), m[2]
    if m := re.search(r'\s+"(.*)"[, ]\s*"(.*)"(.*)', rest):
        own, rest = ("/" + m[1].removeprefix("/"), m[2]), m[3]
    limits = {"l": 0, "u": 0}
    for name in limits:  # in this order: a lower one behind an upper one hides it
        if m := re.search(rf"\s+{name}:([0-9]+)(.*)", rest):
            if rest[: m.start()].strip():
                file.said(
                    line, "real", value, f"{rest[: m.start()].strip()!r} is skipped, as ldirectord does", note=True
                )
            limits[name], rest = int(m[1][:20]), m[2]
    if rest.strip():
        return refused(f"{rest.strip()!r} is unknown there; {NOT_STARTED}")
    count = int(last) - int(first) + 1
    if first.version != last.version or not 1 <= count <= RANGE_MAX or (first.version == 6 and count > 1):
        return refused(f"a range has 1 to {RANGE_MAX} addresses, and of IPv6 one; {NOT_STARTED}")
    if first.version != (4 if key.family is Family.IPV4 else 6):
        return refused(f"it has the other address family; {NOT_STARTED}")
    if count > 1 and len(str(int(first))) != len(str(int(last))):
        file.said(line, "real", value, "ldirectord compares the ends of a range as text, and may end it early")
    return [Real(line, first + i, port, method[1], weight, limits["u"], limits["l"], own) for i in range(count)]


def _destination(real: Real, key: ServiceKey) -> dict[str, object]:
    """ipvsadm gives a server the service's port where it is not masqueraded; a mark has none to give."""
    port = real.port if real.forward == "masq" or key.fwmark else key.port
    found: dict[str, object] = {"address": str(real.address), "port": port, "weight": real.weight}
    return found | {"upper": real.upper, "lower": real.lower, "forward": FORWARD[real.forward]}
