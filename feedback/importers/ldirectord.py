"""ldirectord.cf as services.

Source: ldirectord 4.12 (its own parser): lines of a service are indented, `#` begins a comment anywhere, a real server
is `ADDRESS[->ADDRESS][:PORT] gate|masq|ipip [WEIGHT] ["REQUEST", "RECEIVE"] [l:LOW] [u:HIGH]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from feedback.importers.draft import (
    Draft,
    Imported,
    ImportFormatError,
    Remark,
    at,
    is_address,
    kept,
    marked,
    prefix,
    statuses,
)

FORWARD = {"gate": "route", "masq": "masquerade", "ipip": "tunnel"}
SERVICES = {80: "http", 443: "https"}
PORTS = {"http": 80, "https": 443, "domain": 53, "smtp": 25, "ftp": 21, "imap": 143, "imaps": 993, "pop3": 110}
PORTS |= {"pop3s": 995, "ldap": 389, "ldaps": 636, "mysql": 3306, "postgresql": 5432, "sip": 5060, "submission": 587}
RANGE_MAX = 1024

SILENT = {
    "servicename",
    "comment",
    "service",
    "httpmethod",
    "protocol",
    "virtualhost",
    "request",
    "receive",
    "checktype",
}
SILENT |= {"checkport", "checkinterval", "checktimeout", "negotiatetimeout", "failurecount", "checkcommand"}
SECRET = {"login", "passwd", "secret"}  # remarks go to terminals and logs
GLOBAL = {"checkinterval", "checktimeout", "negotiatetimeout", "failurecount"}
INSTEAD = {
    "fallback": 'near to it: a destination with pool = "spill", and law = "spillover"',
    "fallback6": 'near to it: a destination with pool = "spill", and law = "spillover"',
    "quiescent": "a server whose check fails gets weight 0, as with quiescent=yes, and is never removed",
    "autoreload": "systemctl reload feedback-master",
    "emailalert": "the alerts of contrib/prometheus",
    "maintenancedir": "feedback drain",
    "cleanstop": "stopping the master leaves the table as it is",
    "logfile": "journalctl -u feedback-master",
    "supervised": "systemd runs the master",
}

_REAL = re.compile(
    r"(?P<first>\[[^\]]+\]|[\w.-]+?)(->(?P<last>[\w.]+))?(:(?P<port>[\w-]+))?\s+(?P<forward>\w+)(?P<rest>.*)"
)


@dataclass(slots=True)
class _Service:
    line: int
    words: dict[str, tuple[int, str]] = field(default_factory=dict)
    reals: list[tuple[int, str]] = field(default_factory=list)


def read(text: str) -> Imported:
    """Raises ImportFormatError where it is no ldirectord.cf."""
    remarks: list[Remark] = []
    defaults: dict[str, tuple[int, str]] = {}
    found: list[tuple[str, bool, _Service]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].expandtabs(4).rstrip()
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line:
            continue
        if not equals or not name.replace("-", "").isalnum():
            raise ImportFormatError(f"line {number}: expected NAME=VALUE, as ldirectord.cf has")
        value = value.strip('"') if not name.startswith("real") else value
        if name in ("virtual", "virtual6"):
            found.append((value, name == "virtual6", _Service(number)))
        elif not line.startswith(" "):
            if name in GLOBAL:
                defaults[name] = number, value
            else:
                remarks.append(_remark(number, name, value))
        elif not found:
            raise ImportFormatError(f"line {number}: {name} is indented and belongs to no virtual")
        elif name in ("real", "real6"):
            found[-1][2].reals.append((number, value))
        else:
            found[-1][2].words[name] = number, value
    if not found:
        raise ImportFormatError("there is no virtual= in it: is it an ldirectord.cf?")
    drafts = [d for where, six, s in found if (d := _draft(where, six, s, defaults, remarks)) is not None]
    return kept(drafts, remarks)


def _remark(line: int, name: str, value: str) -> Remark:
    hint = f"; instead: {INSTEAD[name]}" if name in INSTEAD else ""
    said = "..." if name in SECRET else value
    return Remark(line, f"{name}={said}: not carried over{hint}")


def _draft(
    where: str, six: bool, s: _Service, defaults: dict[str, tuple[int, str]], remarks: list[Remark]
) -> Draft | None:
    words = {name: value for name, (_, value) in (defaults | s.words).items()}
    if where.isdecimal():
        key = marked(where, six, s.line)
    else:
        host, _, port_name = where.rpartition(":")
        port = _port(port_name)
        address = host.strip("[]")
        if port is None or not is_address(address):
            remarks.append(Remark(s.line, f"virtual={where}: left out: names are not resolved, write numbers"))
            return None
        key = at(words.get("protocol", "udp" if port == 53 else "tcp"), address, port, s.line)
    draft = Draft(key, s.line, words.get("scheduler", "wrr"))
    for name, (line, value) in s.words.items():
        if not _take(draft, name, value, line, remarks) and name not in SILENT:
            remarks.append(_remark(line, name, value))
    for line, value in s.reals:
        draft.destinations += _reals(value, key.port, line, remarks)
    methods = [d["forward"] for d in draft.destinations]
    draft.forward = max(methods, key=methods.count) if methods else "route"
    _check(draft, words, s, remarks)
    return draft


def _take(draft: Draft, name: str, value: str, line: int, remarks: list[Remark]) -> bool:
    match name:
        case "scheduler":
            pass
        case "persistent":
            draft.persistence_seconds = int(value) if value.isdecimal() else 0
        case "netmask":
            draft.persistence_prefix = prefix(value)
            if draft.persistence_prefix is None:
                remarks.append(Remark(line, f"netmask={value}: is no prefix: not carried over"))
        case "ops":
            draft.flags += ["one-packet"] if value == "yes" else []
        case "schedflags":
            flags = {"flag-1": "sched-flag-1", "flag-2": "sched-flag-2", "flag-3": "sched-flag-3"}
            flags |= {f"{h}-{w}": w for h in ("sh", "mh") for w in ("fallback", "port")}
            for word in value.split(","):
                if word in flags:
                    draft.flags.append(flags[word])
                else:
                    remarks.append(Remark(line, f"schedflags={word}: not carried over"))
        case _:
            return False
    return True


def _reals(value: str, port: int, line: int, remarks: list[Remark]) -> list[dict[str, object]]:
    found = _REAL.fullmatch(value)
    if found is None or found["forward"] not in FORWARD:
        remarks.append(Remark(line, f"real={value}: left out: expected ADDRESS:PORT gate|masq|ipip"))
        return []
    first, last = found["first"].strip("[]"), (found["last"] or found["first"]).strip("[]")
    named = _port(found["port"]) if found["port"] else port
    if named is None or not (is_address(first) and is_address(last)):
        remarks.append(Remark(line, f"real={value}: left out: names are not resolved, write numbers"))
        return []
    rest = found["rest"]
    if '"' in rest:
        remarks.append(Remark(line, f"real={value}: its own request and receive: not carried over"))
        rest = re.sub(r'"[^"]*"[, ]*', " ", rest)
    weight = re.match(r"\s+(\d+)", rest)
    made: dict[str, object] = {"port": named, "weight": int(weight[1]) if weight else 1}
    for name, pattern in (("upper", r"\bu:(\d+)"), ("lower", r"\bl:(\d+)")):
        if limit := re.search(pattern, rest):
            made[name] = int(limit[1])
    made["forward"] = FORWARD[found["forward"]]
    start, end = ip_address(first), ip_address(last)
    count = int(end) - int(start) + 1
    if start.version != end.version or not 1 <= count <= RANGE_MAX:
        remarks.append(Remark(line, f"real={value}: left out: a range has 1 to {RANGE_MAX} addresses"))
        return []
    return [{"address": str(start + i), **made} for i in range(count)]


def _check(draft: Draft, words: dict[str, str], s: _Service, remarks: list[Remark]) -> None:
    """The service's check in our words. ldirectord's own defaults: every 10 s, 5 s time, one failure."""
    kind = words.get("checktype", "negotiate")
    line = s.words.get("checktype", (s.line, ""))[0]
    if kind == "on":
        return
    service = words.get("service") or SERVICES.get(draft.key.port, "none")
    check: dict[str, object] = {}
    if kind == "external":
        command = words.get("checkcommand", "/bin/true").split()
        where = [str(draft.key.address or draft.key.fwmark), str(draft.key.port)]
        check = {"type": "exec", "command": [*command, *where, "{address}", "{port}"]}
    elif kind == "negotiate" and service in ("http", "https"):
        check = _http(service, words, s, remarks)
    elif kind in ("negotiate", "connect") or kind.isdecimal():
        if draft.key.protocol == "udp" or (kind == "negotiate" and service == "none"):
            remarks.append(Remark(line, f"{draft.key}: its check ({service}): not carried over"))
            return
        check = {"type": "tcp"}
        if kind != "connect":
            remarks.append(Remark(line, f"{draft.key}: checktype {kind} of {service}: becomes a connection only"))
    else:
        remarks.append(Remark(line, f"{draft.key}: checktype={kind}: not carried over"))
        return
    if words.get("checkport", "").isdecimal():
        check["port"] = int(words["checkport"])
    elif not draft.key.port:
        remarks.append(Remark(line, f"{draft.key}: its check needs checkport: not carried over"))
        return
    timeout = words.get("negotiatetimeout" if kind == "negotiate" else "checktimeout", words.get("checktimeout", "5"))
    for name, text, most in (
        ("interval_seconds", words.get("checkinterval", "10"), 3600),
        ("timeout_seconds", timeout, 60),
    ):
        check[name] = float(min(int(text), most)) if text.isdecimal() else float(most)
    failures = words.get("failurecount", "1")
    draft.check = check | {"rise": 1, "fall": min(int(failures), 100) if failures.isdecimal() else 1}


def _http(service: str, words: dict[str, str], s: _Service, remarks: list[Remark]) -> dict[str, object]:
    path = words.get("request", "/")
    check: dict[str, object] = {"type": service, "path": path if path.startswith("/") else f"/{path}"}
    check["status"] = statuses([(200, 299)])
    if words.get("virtualhost"):
        check["host"] = words["virtualhost"]
    receive = words.get("receive", "")
    if re.escape(receive).replace("\\ ", " ").replace("\\-", "-") != receive:
        remarks.append(
            Remark(s.words["receive"][0], f'receive="{receive}": a pattern is not carried over, text would be')
        )
    elif receive:
        check["body"] = receive
    return check


def _port(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) < 65536 else PORTS.get(text)
