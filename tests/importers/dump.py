"""What keepalived says that it checks (its option -d), and what our configuration says, in the same words."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from http import HTTPStatus

from feedback.config import MasterConfig, service_key, to_destination

REGISTERED = frozenset(map(int, HTTPStatus))  # of a range, the importer takes these
_CHECKER = re.compile(
    r" (?:\[(?P<vip>[^]]+)\]:(?P<protocol>\w+):(?P<port>\d+)|FWM (?P<mark>\d+)) -> \[(?P<rip>[^]]+)\]"
)
_STATUS = re.compile(r" {7}(\d+)(?:-(\d+))?")
_CLOCK = re.compile(r"(?m)^\w{3} \w{3} [ \d]\d [\d:]+ \d{4}: ")


@dataclass(frozen=True)
class Asked:
    """What one real server of one service is asked: `found_seconds` after the last good answer it is out at most."""

    kind: str
    port: int
    what: str
    host: str
    statuses: tuple[int, ...]
    tries: int
    timeout_seconds: float
    found_seconds: float

    def differs(self, other: Asked) -> list[str]:
        return [f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)]


KINDS = {"TCP_CHECK": "tcp", "HTTP_GET": "http", "SSL_GET": "https", "MISC_CHECK": "exec", "DNS_CHECK": "dns"}
KINDS |= {"UDP_CHECK": "udp"}
Place = tuple[str, str]  # the service's key as text, and the address of the real server


def of_keepalived(log: str) -> dict[Place, list[Asked]]:
    """Services of groups are not told apart in it: they are left out."""
    text = _CLOCK.sub("", log)
    hosts = _hosts(text)
    _, _, checkers = text.partition("------< Health checkers >------\n")
    found: dict[Place, list[Asked]] = {}
    blocks = re.split(r"(?m)^(?= \S.* -> )", checkers)
    for block in blocks:
        if (m := _CHECKER.match(block)) is None:
            continue
        key = f"fwmark:{m['mark']}" if m["mark"] else f"{m['protocol']}:{_in_brackets(m['vip'])}:{m['port']}"
        place = key, m["rip"]
        found.setdefault(place, []).append(_asked(block, hosts.get(place, "")))
    return found


def _in_brackets(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _hosts(text: str) -> dict[Place, str]:
    """The virtual hosts that services and real servers name for all of their checks."""
    found: dict[Place, str] = {}
    for service in text.split(" ------< Virtual server >------\n")[1:]:
        head, *reals = service.partition("------< Health")[0].split("   ------< Real server >------\n")
        vip = re.search(r"VS VIP = (\S+), VPORT = (\d+)", head)
        protocol = re.search(r"protocol = (\w+)", head)
        if vip is None or protocol is None:
            continue
        common = re.search(r"VirtualHost = (\S+)", head)
        for real in reals:
            own = re.search(r"VirtualHost = '([^']+)'", real)
            rip = re.search(r"RIP = (\S+),", real)
            assert rip is not None
            host = own[1] if own else common[1] if common else ""
            found[f"{protocol[1].lower()}:{_in_brackets(vip[1])}:{vip[2]}", rip[1]] = host
    return found


def _asked(block: str, host: str) -> Asked:
    def number(pattern: str, absent: float = 0) -> float:
        m = re.search(pattern, block)
        return float(m[1]) if m else absent

    method = re.search(r"Keepalive method = (\w+)", block)
    assert method is not None, block
    kind = KINDS.get(method[1], method[1])
    delay, tries = number(r"Delay loop = (\d+) us") / 1e6, int(number(r"Retries = (\d+)")) + 1
    retry = number(r"Delay before retry = (\d+) us") / 1e6
    what, statuses = "", ()
    if m := re.search(r"Checked url = (.*)", block):
        what = m[1]
        first = block.split("Checked url = ")[1]
        statuses = tuple(
            s
            for m in _STATUS.finditer(first)
            for s in range(int(m[1]), int(m[2] or m[1]) + 1)
            if s in REGISTERED or not m[2]
        )
        for pattern in (r"Virtual ?host = (\S+)", r"Virtualhost = (\S+)"):
            if m := re.search(pattern, first) or re.search(pattern, block):
                host = m[1]
                break
    elif m := re.search(r"script = (.*)", block):
        what = m[1]
    elif kind == "dns":
        what = f"{_word('Type', block)} {_word('Name', block)}"
    elif kind == "udp":
        what = f"{_word('Payload len', block)} {_word('Require reply', block)}"
    timeout = number(r"     Timeout = ([\d.]+)") if kind != "exec" else number(r"   timeout = (\d+)") or delay
    port = int(number(r"Dest = \[[^]]*\]:(\d+)"))
    return Asked(
        kind,
        port,
        what,
        host if kind in ("http", "https") else "",
        statuses,
        tries,
        timeout,
        round(delay + (tries - 1) * retry, 2),
    )


def _word(name: str, block: str) -> str:
    found = re.search(rf"   {name} = (\S+)", block)
    return found[1] if found else ""


def of_ours(config: MasterConfig) -> dict[Place, Asked]:
    found = {}
    for service in config.service:
        check = service.check
        if check is None:
            continue
        for destination in service.destination:
            made = to_destination(destination, service)
            port = destination.check_port or check.port or made.key.port
            what, host, statuses = "", "", ()
            if check.type == "exec":
                words = [
                    w.replace("{address}", str(made.key.address)).replace("{port}", str(port)) for w in check.command
                ]
                what, port = " ".join(f"'{w}'" for w in words), 0
            elif check.type in ("http", "https"):
                what, host, statuses = check.path, check.host or "", check.status
            elif check.type == "dns":
                what = f"{check.record} {check.name}"
            elif check.type == "udp":
                what = f"{len(check.sent)} {'yes' if check.reply else 'no'}"
            elif check.expect:
                what = f"greeting {check.expect}"
            seconds = round(check.interval_seconds * check.fall, 2)
            found[str(service_key(service)), str(made.key.address)] = Asked(
                check.type, port, what, host, statuses, check.fall, check.timeout_seconds, seconds
            )
    return found
