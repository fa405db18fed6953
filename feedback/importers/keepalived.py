"""keepalived.conf as services: virtual_server and its groups. VRRP and the rest stay keepalived's.

Source: keepalived.conf(5), and what 2.2.7 makes of a file (tests/importers/test_real.py): `lb_algo` and `lb_kind` are
older names of `lvs_sched` and `lvs_method`; without `lvs_method` it is NAT, without `protocol` UDP, without `weight` 1;
and without NAT a real server has the service's port, whatever is written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from feedback.importers.blocks import Node
from feedback.importers.blocks import read as read_blocks
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
from feedback.model import ServiceKey

GROUP_MAX = 1024

METHODS = {"DR": "route", "NAT": "masquerade", "TUN": "tunnel"}
FLAGS = {"ops": "one-packet", "flag-1": "sched-flag-1", "flag-2": "sched-flag-2", "flag-3": "sched-flag-3"}
FLAGS |= {"sh-port": "port", "mh-port": "port", "sh-fallback": "fallback", "mh-fallback": "fallback"}
SILENT = {"real_server", "protocol", "delay_loop", "virtualhost", "connect_timeout", "retry", "ip_family", "warmup"}
SILENT |= {"delay_before_retry", "inhibit_on_failure", "snmp_name"}
INSTEAD = {
    "sorry_server": 'near to it: a destination with pool = "spill", and law = "spillover"',
    "quorum": "a pool is never all zero by our doing",
    "quorum_up": "feedback events --follow",
    "quorum_down": "feedback events --follow",
    "notify_up": "feedback events --follow",
    "notify_down": "feedback events --follow",
    "smtp_alert": "the alerts of contrib/prometheus",
    "alpha": "a server that does not serve yet waits for its first good check in any case",
    "omega": "stopping the master leaves the table as it is",
}
CHECKS = {"TCP_CHECK": "tcp", "HTTP_GET": "http", "SSL_GET": "https", "MISC_CHECK": "exec"}
OTHER_CHECKS = {"SMTP_CHECK", "DNS_CHECK", "BFD_CHECK", "PING_CHECK", "UDP_CHECK", "FILE_CHECK"}
ELSEWHERE = {"vrrp_instance": "it stays keepalived's, or becomes `feedback sync`: docs/sync.md"}
COMMON = {"connect_timeout", "retry", "delay_before_retry", "delay_loop", "warmup", "connect_port", "url", "misc_path"}
COMMON |= {"misc_timeout", "alpha", "log_all_failures", "enable_sni", "http_protocol"}


def read(text: str) -> Imported:
    """Raises ImportFormatError where it is no keepalived.conf."""
    tree = read_blocks(text)
    remarks = tree.remarks
    groups = {n.word(1): n for n in tree.nodes if n.name == "virtual_server_group"}
    drafts: list[Draft] = []
    for node in tree.nodes:
        if node.name == "virtual_server":
            drafts += _services(node, groups, remarks)
        elif node.name not in ("virtual_server_group", "include"):
            why = ELSEWHERE.get(node.name)
            said = " ".join(node.words[:2])
            remarks.append(Remark(node.line, f"{said}: not carried over" + (f": {why}" if why else "")))
    if not drafts and not any(n.name == "virtual_server" for n in tree.nodes):
        raise ImportFormatError("there is no virtual_server in it: is it a keepalived.conf with services?")
    return kept(drafts, remarks)


def _services(node: Node, groups: dict[str, Node], remarks: list[Remark]) -> Iterator[Draft]:
    """One for each address of a group. Remarks are made for the first."""
    for i, key in enumerate(_keys(node, groups, remarks)):
        yield _draft(key, node, remarks if i == 0 else [])


def _keys(node: Node, groups: dict[str, Node], remarks: list[Remark]) -> list[ServiceKey]:
    block = {n.name: n for n in node.block or ()}
    protocol = block["protocol"].word(1, "TCP").lower() if "protocol" in block else "udp"
    if "protocol" not in block and node.word(1) != "fwmark":
        said = " ".join(node.words[1:])
        remarks.append(Remark(node.line, f"{said}: has no protocol: keepalived takes that for UDP, and so do we"))
    if node.word(1) != "group":
        lines = [node.words[1:]]
    elif node.word(2) in groups:
        lines = [n.words for n in groups[node.word(2)].block or ()]
    else:
        remarks.append(Remark(node.line, f"group {node.word(2)}: left out: there is no such virtual_server_group"))
        return []
    return [key for words in lines for key in _expanded(words, protocol, _six(node, block), node.line, remarks)]


def _six(node: Node, block: dict[str, Node]) -> bool:
    """The family of a firewall mark's service: said, or that of its real servers."""
    if "ip_family" in block:
        return block["ip_family"].word(1) == "inet6"
    real = next((n for n in node.block or () if n.name == "real_server"), None)
    return real is not None and ":" in real.word(1)


def _expanded(words: list[str], protocol: str, six: bool, line: int, remarks: list[Remark]) -> list[ServiceKey]:
    if words and words[0] == "fwmark":
        return [marked(words[1] if len(words) > 1 else "", six or "inet6" in words, line)]
    port = words[1] if len(words) > 1 else "0"
    addresses = _range(words[0]) if words else []
    if not addresses or not port.isdecimal():
        remarks.append(Remark(line, f"{' '.join(words)}: left out: expected ADDRESS or a range of at most {GROUP_MAX}"))
    return [at(protocol, address, int(port), line) for address in addresses] if port.isdecimal() else []


def _range(text: str) -> list[str]:
    """`10.0.0.1`, `10.0.0.1-9`, `10.0.0.250-10.0.1.9`, `10.0.0.8/29`."""
    try:
        if "/" in text:
            network = ip_network(text, strict=False)
            return [str(a) for a in network] if network.num_addresses <= GROUP_MAX else []
        first, dash, last = text.partition("-")
        if not dash:
            return [str(ip_address(text))]
        if not is_address(last):
            separator = ":" if ":" in first else "."
            last = first.rpartition(separator)[0] + separator + last
        start, end = ip_address(first), ip_address(last)
        count = int(end) - int(start) + 1
        return [str(start + i) for i in range(count)] if start.version == end.version and count <= GROUP_MAX else []
    except ValueError:
        return []


def _draft(key: ServiceKey, node: Node, remarks: list[Remark]) -> Draft:
    draft = Draft(key, node.line, "wlc", "masquerade")
    tunnel: dict[str, object] = {}
    for n in node.block or ():
        match n.name:
            case "lvs_sched" | "lb_algo":
                draft.scheduler = n.word(1)
            case "lvs_method" | "lb_kind":
                draft.forward, tunnel = _method(n, remarks)
            case "persistence_timeout":
                draft.persistence_seconds = int(n.word(1)) if n.word(1).isdecimal() else 360
            case "persistence_granularity":
                draft.persistence_prefix = prefix(n.word(1))
                if draft.persistence_prefix is None:
                    remarks.append(
                        Remark(n.line, f"persistence_granularity {n.word(1)}: is no prefix: not carried over")
                    )
            case name if name in FLAGS:
                draft.flags.append(FLAGS[name])
            case name if name not in SILENT:
                remarks.append(_not_carried(n))
    reals = [n for n in node.block or () if n.name == "real_server"]
    for n in reals:
        draft.destinations += _real(n, key, draft.forward, tunnel, remarks)
    _check(draft, node, reals, remarks)
    return draft


def _not_carried(node: Node) -> Remark:
    hint = f"; instead: {INSTEAD[node.name]}" if node.name in INSTEAD else ""
    return Remark(node.line, f"{' '.join(node.words)}: not carried over{hint}")


def _method(node: Node, remarks: list[Remark]) -> tuple[str, dict[str, object]]:
    """`TUN type gue port 6080 csum` and the simple ones."""
    kind, words = node.word(1), node.words[2:]
    if kind not in METHODS:
        remarks.append(Remark(node.line, f"{' '.join(node.words)}: not known: NAT is assumed"))
        return "masquerade", {}
    tunnel: dict[str, object] = {}
    for name, value in zip(words, [*words[1:], ""], strict=False):
        if name == "type":
            tunnel["tunnel"] = value
        elif name == "port" and value.isdecimal():
            tunnel["tunnel_port"] = int(value)
        elif name in ("csum", "remcsum"):
            remarks.append(Remark(node.line, f"tunnel {name}: not carried over"))
    return METHODS[kind], {k: v for k, v in tunnel.items() if v != "ipip"}


def _real(
    node: Node, key: ServiceKey, forward: str, tunnel: dict[str, object], remarks: list[Remark]
) -> list[dict[str, object]]:
    address, port = node.word(1), node.word(2, str(key.port))
    if not is_address(address) or not port.isdecimal():
        remarks.append(Remark(node.line, f"real_server {' '.join(node.words[1:])}: left out: expected ADDRESS PORT"))
        return []
    made: dict[str, object] = {"address": str(ip_address(address)), "port": int(port), "weight": 1, "forward": forward}
    made |= tunnel
    numbers = {"weight": "weight", "uthreshold": "upper", "lthreshold": "lower"}
    for n in node.block or ():
        if n.name in numbers and n.word(1).isdecimal():
            made[numbers[n.name]] = int(n.word(1))
        elif n.name in ("lvs_method", "lb_kind"):
            method, own = _method(n, remarks)
            made = {k: v for k, v in made.items() if k not in ("tunnel", "tunnel_port")} | own | {"forward": method}
        elif n.name not in SILENT | CHECKS.keys() | OTHER_CHECKS:
            remarks.append(_not_carried(n))
    if made["forward"] != "masquerade" and made["port"] != key.port:
        text = f"real_server {address} {port}: port {key.port}, as keepalived makes it: without NAT ports cannot differ"
        remarks.append(Remark(node.line, text))
        made["port"] = key.port
    return [made]


# --- checks: keepalived's belong to a real server, ours to a service --------------------------------------------------


def _check(draft: Draft, node: Node, reals: list[Node], remarks: list[Remark]) -> None:
    """The first real server's, if the others have the same."""
    found: list[tuple[Node, dict[str, object]]] = []
    for real in reals:
        checks = [n for n in real.block or () if n.name in CHECKS.keys() | OTHER_CHECKS]
        for n in checks:
            if n.name in OTHER_CHECKS:
                remarks.append(Remark(n.line, f"{n.name}: not carried over: there are tcp, http, https and exec"))
            elif n is not next(c for c in checks if c.name in CHECKS):
                remarks.append(Remark(n.line, f"{n.name}: not carried over: a service has one check"))
            else:
                made = _one_check(n, real, node, remarks if not found else [])
                if made:
                    found.append((n, made))
    if not found:
        return
    draft.check = found[0][1]
    if not draft.key.port and "port" not in draft.check:
        port = next((int(r.word(2)) for r in reals if r.word(2).isdecimal()), 0)
        if not port:
            remarks.append(Remark(found[0][0].line, f"{draft.key}: its check needs a port: not carried over"))
            draft.check = {}
            return
        draft.check = draft.check | {"port": port}
    for n, made in found[1:]:
        if made | {"port": 0} != draft.check | {"port": 0}:
            remarks.append(Remark(n.line, f"{n.name}: differs from the first real server's, which is taken for all"))
    unchecked = len(reals) - len(found)
    if unchecked:
        remarks.append(
            Remark(node.line, f"{draft.key}: {unchecked} real servers have no check of their own: now they do")
        )


def _one_check(check: Node, real: Node, service: Node, remarks: list[Remark]) -> dict[str, object]:
    block = {n.name: n for n in check.block or ()}
    inherited = [{n.name: n for n in b.block or ()} for b in (check, real, service)]

    def said(name: str) -> str:
        return next((b[name].word(1) for b in inherited if name in b), "")

    made: dict[str, object] = {
        "type": {"TCP_CHECK": "tcp", "HTTP_GET": "http", "SSL_GET": "https"}.get(check.name, "exec")
    }
    if check.name == "MISC_CHECK":
        command = _command(block.get("misc_path"), real)
        if not command:
            remarks.append(Remark(check.line, "MISC_CHECK: not carried over: misc_path needs an absolute path"))
            return {}
        made["command"] = command
    elif check.name != "TCP_CHECK":
        made |= _url(check, said("virtualhost"), remarks)
    if said("connect_port").isdecimal():
        made["port"] = int(said("connect_port"))
    if interval := _number(said("delay_loop")):
        made["interval_seconds"] = min(max(interval, 0.2), 3600.0)
    if timeout := _number(said("misc_timeout" if check.name == "MISC_CHECK" else "connect_timeout")):
        made["timeout_seconds"] = min(max(timeout, 0.05), 60.0)
    if said("retry").isdecimal():
        made |= {"rise": 1, "fall": min(int(said("retry")) + 1, 100)}
    for n in check.block or ():
        if n.name not in COMMON:
            remarks.append(_not_carried(n))
    return made


def _command(path: Node | None, real: Node) -> list[str]:
    """A script is told its server by arguments: what is the server's own address or port becomes a placeholder."""
    try:
        words = shlex.split(" ".join(path.words[1:])) if path else []
    except ValueError:
        return []
    if not words or not words[0].startswith("/"):
        return []
    own = {real.word(1): "{address}", real.word(2): "{port}"}
    return [words[0], *(own.get(w, w) for w in words[1:])]


def _url(check: Node, host: str, remarks: list[Remark]) -> dict[str, object]:
    urls = [n for n in check.block or () if n.name == "url"]
    made: dict[str, object] = {"status": statuses([(200, 299)])}
    if not urls:
        return made
    for n in urls[1:]:
        remarks.append(Remark(n.line, "url: not carried over: a check asks one"))
    for n in urls[0].block or ():
        if n.name == "path":
            made["path"] = n.word(1, "/")
        elif n.name == "virtualhost":
            host = n.word(1)
        elif n.name == "status_code":
            ranges = [
                (int(m[1]), int(m[2] or m[1])) for w in n.words[1:] if (m := re.fullmatch(r"(\d+)(?:-(\d+))?", w))
            ]
            made["status"] = statuses(ranges)
        else:
            remarks.append(_not_carried(n))
    return made | ({"host": host} if host else {})


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
