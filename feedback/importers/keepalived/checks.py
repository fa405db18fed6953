"""keepalived's checkers as health checks of ours. Its belong to a real server, each with a place and a time of its own;
ours to a service, and only the port can be a destination's own.

A check that differs from keepalived's could take a good server out of service. So if the checks of a service's real
servers differ, they become a connection check. If they go to another address than the server's own, no check is carried
over. Both cause a remark.

keepalived counts `retry` tries more after one that fails, `delay_before_retry` apart; we count failures in a row, at
one interval. The interval is chosen so that both find a dead server after the same time at most.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from feedback.importers.draft import CHECK_INTERVAL, CHECK_TIMEOUT, Remark, statuses
from feedback.importers.keepalived.blocks import Node
from feedback.importers.keepalived.said import TIMERS, not_carried, take_timer, taken
from feedback.importers.keepalived.words import number, shell_words
from feedback.model import Address, ServiceKey

KINDS = {"HTTP_GET": "http", "SSL_GET": "https", "MISC_CHECK": "exec", "TCP_CHECK": "tcp", "SMTP_CHECK": "smtp"}
KINDS |= {"DNS_CHECK": "dns", "UDP_CHECK": "udp"}
RANK = ("https", "http", "dns", "exec", "udp", "tcp")  # of several checks of one server the first is taken
SILENT = {"connect_port", "url", "misc_path", "misc_timeout", "warmup", "log_all_failures", "http_protocol", "path"}
SILENT |= {"status_code", "virtualhost", "enable_sni", "alpha", "name", "type", "payload", "require_reply", "host"}
DELAY_SECONDS, CONNECT_SECONDS = 60.0, 5.0
RETRIES = {"MISC_CHECK": 0, "DNS_CHECK": 3}  # else 1
RETRY_SECONDS = {"HTTP_GET": 3.0, "SSL_GET": 3.0}  # else 1, and of DNS_CHECK the delay loop
FALL_MAX = 100
STATUS_MAX = 32
SMTP_PORT = 25
UNCONNECTED = {"exec", "udp", "dns"}  # what they ask may have nothing to do with a TCP port


@dataclass(slots=True)
class Real:
    """A real_server as it is read. `port` is what is written, 0 for nothing: there it is checked."""

    node: Node
    address: Address
    port: int
    method: str | None
    tunnel: dict[str, object]
    weight: int | None = None
    upper: int = 0
    lower: int = 0
    retry: int | None = None
    timers: dict[str, float] = field(default_factory=dict)
    host: str = ""
    inhibited: bool = False
    checks: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Check:
    """One real server's. `what` is the part of our words that says what is asked, `literal` the same without {port}."""

    node: Node
    port: int
    what: dict[str, object]
    literal: dict[str, object]
    delay_seconds: float
    retries: int
    retry_seconds: float
    timeout_seconds: float

    @property
    def fall(self) -> int:
        return min(self.retries + 1, FALL_MAX)

    @property
    def found_seconds(self) -> float:
        """How long after the last good answer a dead server is found at most, answers apart."""
        return self.delay_seconds + self.retries * self.retry_seconds

    @property
    def interval_seconds(self) -> float:
        return round(self.found_seconds / self.fall, 3)


Ports = dict[tuple[Address, int], int]  # of a destination to the port where it is checked


def check_of(
    key: ServiceKey, reals: Mapping[tuple[Address, int], Real], node: Node, remarks: list[Remark]
) -> tuple[dict[str, object], Ports]:
    """The service's check in our words, empty where none is carried over, and the ports of those destinations that it
    asks at one of their own. `reals` by address and port of the destination."""
    found = {port_key: check for port_key, real in reals.items() if (check := _of_real(real, port_key[1], remarks))}
    if not found:
        return {}, {}
    checks = list(found.values())
    if any(c.what != checks[0].what for c in checks) and all(c.literal == checks[0].literal for c in checks):
        checks = [replace(c, what=c.literal) for c in checks]
    first = _common(checks, remarks)
    ports = {check.port for check in checks}
    if first is None:
        return {}, {}
    made, own = _timed(first, remarks) | first.what, Ports()
    if all(check.port == port for (_, port), check in found.items()) and key.port:
        pass
    elif first.what["type"] == "exec" and "{port}" not in str(first.what["command"]):
        made |= {} if key.port else {"port": max(ports) or 1}  # it is asked nothing there
    elif len(ports) == 1 and (port := ports.pop()):
        made["port"] = port
    elif len(found) < len(reals) or not all(ports):
        text = f"{key}: no longer checked: not all of its real servers have a port for it"
        remarks.append(first.node.remark(text))
        return {}, {}
    else:
        own = {place: check.port for place, check in found.items() if check.port != place[1]}
    unchecked = len(reals) - len(found)
    if unchecked:
        text = f"{key}: {unchecked} real servers had no check of their own that is carried over: now they are checked"
        remarks.append(node.remark(text))
    return made, own


def _common(checks: list[Check], remarks: list[Remark]) -> Check | None:
    """What all are asked: the first one's check where all have the same."""
    first = checks[0]
    same = [check for check in checks[1:] if check.what != first.what]
    if same and any(check.what["type"] in UNCONNECTED for check in checks):
        text = "no longer checked: no one way of checking fits all real servers of the service"
        remarks.append(same[0].node.remark(f"{same[0].node.name}: {text}"))
        return None
    if same:
        text = "differs from the first real server's: all get a connection check"
        remarks.append(same[0].node.remark(f"{same[0].node.name}: {text}"))
        first = replace(first, what={"type": "tcp"})
    times = [(c.interval_seconds, c.fall, c.timeout_seconds) for c in checks]
    if len(set(times)) > 1:
        slowest = max(checks, key=lambda c: (c.found_seconds, c.timeout_seconds))
        text = "the real servers of the service have different times: the most patient ones are taken"
        remarks.append(slowest.node.remark(f"{slowest.node.name}: {text}"))
        first = replace(slowest, what=first.what)
    return first


def _timed(check: Check, remarks: list[Remark]) -> dict[str, object]:
    interval = min(max(check.interval_seconds, CHECK_INTERVAL[0]), CHECK_INTERVAL[1])
    timeout = min(max(check.timeout_seconds, CHECK_TIMEOUT[0]), CHECK_TIMEOUT[1])
    name = check.node.name
    if interval != check.delay_seconds or check.retries >= FALL_MAX:
        there = f"every {check.delay_seconds:g} s, and then up to {check.retries} more, {check.retry_seconds:g} s apart"
        text = f"{name}: every {interval:g} s, out after {check.fall} failures; keepalived asks {there}"
        same = abs(interval * check.fall - check.found_seconds) < 0.01 * check.found_seconds
        remarks.append(check.node.remark(text, note=same))
    if timeout != check.timeout_seconds:
        remarks.append(check.node.remark(f"{name}: its time is {check.timeout_seconds:g} s: {timeout:g} s is taken"))
    return {"interval_seconds": interval, "timeout_seconds": timeout, "rise": 1, "fall": check.fall}


# --- one real server's ------------------------------------------------------------------------------------------------


def _of_real(real: Real, port: int, remarks: list[Remark]) -> Check | None:
    """`port` is the destination's, which stands for {port}."""
    found: list[Check] = []
    for node in real.checks:
        if node.name not in KINDS:
            text = f"{node.name}: not carried over: there is no such check here"
            remarks.append(node.remark(text))
        elif (check := _one(node, real, port, remarks)) is not None:
            found.append(check)
    found.sort(key=lambda check: RANK.index(str(check.what["type"])))
    for check in found[1:]:
        remarks.append(check.node.remark(f"{check.node.name}: not carried over: a service has one check"))
    return found[0] if found else None


def _one(node: Node, real: Real, port: int, remarks: list[Remark]) -> Check | None:
    kind = KINDS[node.name]
    timers, retry, at, timeout = dict(real.timers), real.retry, real.port, 0.0
    block = [*node.block, *(n for host in node.block if host.name == "host" for n in host.block)]
    if node.name == "SMTP_CHECK":
        at = at or SMTP_PORT
    for n in block:
        match n.name:
            case "retry" | "nb_get_retry":
                retry = taken(n, number(n.word(1), 0, 2**32 - 1), retry, remarks)
            case "connect_port":
                at = taken(n, number(n.word(1), 1, 65535), at, remarks)
            case "misc_timeout":
                timeout = float(taken(n, number(n.word(1), 0, 2**32 // 10**6), 0, remarks))
            case name if name in TIMERS:
                take_timer(n, timers, remarks)
            case "connect_ip":
                if n.word(1) == real.node.word(1):
                    continue
                remarks.append(n.remark(f"{n.text}: {node.name} not carried over: it asks another address"))
                return None
            case name if name not in SILENT:
                remarks.append(not_carried(n))
    what = _what(kind, node, real, port, remarks)
    if what is None:
        return None
    if kind == "exec":
        timeout = timeout or timers.get("delay_loop", DELAY_SECONDS)
    else:
        timeout = timers.get("connect_timeout", CONNECT_SECONDS)
        if not at:
            remarks.append(node.remark(f"{real.node.text}: has no port: keepalived's check would ask port 0"))
            at = port
    delay = timers.get("delay_loop", DELAY_SECONDS)
    between = delay if node.name == "DNS_CHECK" else RETRY_SECONDS.get(node.name, 1.0)
    return Check(
        node,
        at,
        what,
        _literal(what, real.port),
        delay,
        RETRIES.get(node.name, 1) if retry is None else retry,
        timers.get("delay_before_retry", between),
        timeout,
    )


def _literal(what: dict[str, object], port: int) -> dict[str, object]:
    command = what.get("command")
    if not isinstance(command, list):
        return what
    return what | {"command": [w.replace("{port}", str(port)) for w in command]}


def _what(kind: str, node: Node, real: Real, port: int, remarks: list[Remark]) -> dict[str, object] | None:
    if kind == "tcp":
        return {"type": "tcp"}
    if kind == "smtp":
        remarks.append(node.remark("SMTP_CHECK: becomes a check of the greeting: 220"))
        return {"type": "tcp", "expect": "220", "quit": "QUIT\r\n"}
    if kind == "dns":
        return _question(node, remarks)
    if kind == "udp":
        return _datagram(node, remarks)
    if kind == "exec":
        command = _command(node, real, port, remarks)
        return {"type": "exec", "command": command} if command else None
    urls = [n for n in node.block if n.name == "url" and any(m.name == "path" for m in n.block)]
    for n in node.block:
        if n.name == "url" and n not in urls:
            remarks.append(n.remark("url: ignored, as keepalived does: it has no path"))
    if not urls:
        remarks.append(node.remark(f"{node.name}: not carried over: it has no url, and keepalived ignores it too"))
        return None
    for n in urls[1:]:
        remarks.append(n.remark("url: not carried over: a check asks only one"))
    own = next((n.word(1) for n in node.block if n.name == "virtualhost"), "")
    return {"type": kind} | _url(urls[0], own or real.host, remarks)


def _question(node: Node, remarks: list[Remark]) -> dict[str, object]:
    said = {n.name: n.word(1) for n in reversed(node.block)}
    remarks.append(node.remark("DNS_CHECK: here an answer needs such a record, not only no error"))
    return {"type": "dns", "name": said.get("name") or ".", "record": (said.get("type") or "SOA").upper()}


def _datagram(node: Node, remarks: list[Remark]) -> dict[str, object] | None:
    said = {n.name: "".join(n.words[1:]) for n in node.block}
    payload = said.get("payload", "")
    if len(payload) % 2 or not re.fullmatch(r"[0-9A-Fa-f]+", payload):
        remarks.append(node.remark("UDP_CHECK: not carried over: it has no payload, which ours needs"))
        return None
    made: dict[str, object] = {"type": "udp", "send": bytes.fromhex(payload).decode("latin-1")}
    if said.get("require_reply"):
        remarks.append(node.remark("require_reply: what it must be is not carried over: any answer is taken"))
    return made | ({} if "require_reply" in said else {"reply": False})


def _command(node: Node, real: Real, port: int, remarks: list[Remark]) -> list[str]:
    """A script is told its server by arguments: the server's own address or port, whole or in a word, becomes a
    placeholder."""
    path = next((n for n in reversed(node.block) if n.name == "misc_path"), None)
    # keepalived splits the line, and then its first word, which holds all of the command if it is quoted
    line = shell_words(path.line.text) if path else None
    words = shell_words(line[1]) if line and len(line) > 1 else None
    if path is None or not words:
        remarks.append(node.remark("MISC_CHECK: not carried over: it has no readable misc_path"))
        return []
    if line and len(line) > 2:
        remarks.append(path.remark("misc_path: words after the first are no arguments: put all of it in quotes"))
    if not words[0].startswith("/") or any("{address}" in w or "{port}" in w or not w.isprintable() for w in words):
        remarks.append(path.remark("MISC_CHECK: not carried over: expected an absolute path and printable arguments"))
        return []
    address = re.compile(rf"(?<![\w.:]){re.escape(real.node.word(1))}(?![\w.]|:\w*:)")
    found = [words[0]]
    for word in words[1:]:
        if word == real.node.word(2) and real.port == port:
            found.append("{port}")
            continue
        placed = address.sub("{address}", word)
        if real.port == port and port:
            placed = re.sub(rf"(\{{address\}}\]?[:,/]){port}(?!\d)", r"\1{port}", placed)
        found.append(placed)
    return found


def _url(url: Node, host: str, remarks: list[Remark]) -> dict[str, object]:
    made: dict[str, object] = {"status": statuses([(200, 299)])}
    ranges: list[tuple[int, int]] = []
    for n in url.block:
        if n.name == "path":
            made["path"] = _path(n, remarks)
        elif n.name == "virtualhost":
            host = n.word(1) or host
        elif n.name == "status_code":
            ranges += _ranges(n, remarks)
        else:
            remarks.append(not_carried(n))
    if ranges:
        made["status"] = statuses(ranges)
    if len(statuses(ranges, most=1000)) > STATUS_MAX:
        remarks.append(url.remark(f"status_code: a check takes {STATUS_MAX} of them: the first are taken"))
    if host and not (host.isascii() and host.isprintable() and " " not in host):
        remarks.append(url.remark(f"virtualhost {host}: not carried over: expected printable ASCII"))
        host = ""
    return made | ({"host": host} if host else {})


def _path(n: Node, remarks: list[Remark]) -> str:
    """What is not ASCII is sent by keepalived as it stands, by us percent-encoded: a server reads the same."""
    path = n.word(1) or "/"
    if path.isascii() and path.isprintable() and " " not in path and path.startswith("/"):
        return path
    encoded = quote(path.encode("utf-8", "surrogateescape"), safe="".join(map(chr, range(0x21, 0x7F))))
    encoded = encoded if encoded.startswith("/") else f"/{encoded}"
    remarks.append(n.remark(f"path {path}: asked for as {encoded}"))
    return encoded


def _ranges(n: Node, remarks: list[Remark]) -> list[tuple[int, int]]:
    found = []
    for word in n.words[1:]:
        m = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", word)
        low, high = (int(m[1]), int(m[2] or m[1])) if m else (0, 0)
        if 100 <= low <= high <= 599:
            found.append((low, high))
        else:
            remarks.append(n.remark(f"status_code {word}: ignored, as keepalived does"))
    return found
