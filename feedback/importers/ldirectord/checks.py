"""ldirectord's checks as ours. They belong to a virtual server, but the port of a real one, and what it is asked, can
be its own. As for keepalived's: where we would ask what ldirectord does not ask, a connection remains, or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from feedback.importers.draft import CHECK_INTERVAL, CHECK_TIMEOUT, Remark, statuses
from feedback.importers.ldirectord.file import File, Virtual
from feedback.model import Address, Family, Protocol, ServiceKey

CHECK_SECONDS, NEGOTIATE_SECONDS, INTERVAL_SECONDS = 5, 30, 10
FALL_MAX = 100
# ldirectord's own names of services, by the port that they are guessed from.
SERVICES = {21: "ftp", 25: "smtp", 53: "dns", 80: "http", 110: "pop", 119: "nntp", 143: "imap", 389: "ldap"}
SERVICES |= {443: "https", 587: "submission", 636: "ldaps", 993: "imaps", 995: "pops", 1521: "oracle", 1812: "radius"}
SERVICES |= {3128: "http_proxy", 3306: "mysql", 5060: "sip", 5432: "pgsql"}
SERVICE_PORTS = {name: port for port, name in SERVICES.items()}
# What a server of these says first. Whether it lets us in is not asked.
GREETINGS = {"smtp": ("tcp", "220"), "submission": ("tcp", "220"), "ftp": ("tcp", "220"), "pop": ("tcp", "+OK")}
GREETINGS |= {"pops": ("tls", "+OK"), "imap": ("tcp", "* "), "imaps": ("tls", "* "), "nntp": ("tcp", "20")}
PLAIN = re.compile(r"[\w ,:;<>=!@#%&/'\"~`-]*")  # text that is its own pattern


@dataclass(frozen=True, slots=True)
class Real:
    """`port` is what is written, 0 for nothing. `own` is what this server is asked, and what it has to answer."""

    line: int
    address: Address
    port: int
    forward: str
    weight: int
    upper: int
    lower: int
    own: tuple[str, str] | None


def check_of(file: File, v: Virtual, key: ServiceKey, reals: list[tuple[dict[str, object], Real]]) -> dict[str, object]:
    """In our words; empty where nothing is checked. `reals` with the destinations that they became, which get the port
    where they are checked, if it is one of their own."""
    words = {name: word.value for name, word in (file.words | v.words).items()}
    kind = v.words["checktype"].value if "checktype" in v.words else "negotiate"
    line = v.words["checktype"].line if "checktype" in v.words else v.line

    def said(text: str) -> None:
        file.remarks.append(Remark(line, f"{key}: {text}"))

    service = v.words["service"].value if "service" in v.words else SERVICES.get(key.port, "none")
    if kind in ("on", "off") or (kind == "negotiate" and service == "none"):
        return {}
    what = _what(file, v, key, kind, service, reals, said)
    if not what:
        return {}
    made = what | _times(file, v, words, kind, said)
    at = [_port(v, real, service) for _, real in reals]
    if what["type"] == "exec" and "{port}" not in what["command"]:  # type: ignore[operator]
        return made | ({} if key.port else {"port": 1})  # it is asked nothing there
    if "checkport" not in v.words and key.port and all(p == d["port"] for (d, _), p in zip(reals, at, strict=True)):
        return made
    if not all(at):
        said("no longer checked: not all of its servers have a port for it")
        return {}
    if len(set(at)) == 1:
        return made | {"port": at[0]}
    for (destination, _), port in zip(reals, at, strict=True):
        if port != destination["port"]:
            destination["check_port"] = port
    return made


def _port(v: Virtual, real: Real, service: str) -> int:
    if "checkport" in v.words:
        return int(v.words["checkport"].value)
    return real.port or SERVICE_PORTS.get(service, 0)


def _what(
    file: File,
    v: Virtual,
    key: ServiceKey,
    kind: str,
    service: str,
    reals: list[tuple[dict[str, object], Real]],
    said: Callable[[str], None],
) -> dict[str, object]:
    if kind == "external":
        return _command(v, key, reals, said)
    if kind in ("ping", "external-perl") or (kind == "connect" and key.protocol is Protocol.UDP):
        said(f"its check ({kind}) is not carried over: there is no such check here")
        return {}
    if kind == "connect":
        return {"type": "tcp"}
    if kind == "negotiate" and service == "dns":
        return _question(v, key, reals, said)
    if key.protocol is Protocol.UDP or (service in ("dns", "radius", "sip") and kind == "negotiate"):
        said(f"its check ({service}) is not carried over: there is no such check here")
        return {}
    if kind != "negotiate":
        said(f"checktype {kind} of {service}: becomes a connection only")
        return {"type": "tcp"}
    if service in ("http", "https"):
        return _http(file, v, service, reals, said)
    if service in GREETINGS:
        said(f"checktype {kind} of {service}: becomes a check of the greeting")
        type_, greeting = GREETINGS[service]
        return {"type": type_, "expect": greeting}
    said(f"checktype {kind} of {service}: becomes a connection only")
    return {"type": "tcp"}


def _question(
    v: Virtual, key: ServiceKey, reals: list[tuple[dict[str, object], Real]], said: Callable[[str], None]
) -> dict[str, object]:
    """`request` is a name, and `receive` a pattern for one of its addresses."""
    request = v.words["request"].value if "request" in v.words else "/"
    receive = v.words["receive"].value if "receive" in v.words else ""
    name = request.removeprefix("/")
    if not name or any(real.own for _, real in reals):
        said("its check (dns) is not carried over: expected the same name for all of its servers")
        return {}
    made: dict[str, object] = {"type": "dns", "name": name, "record": "A"}
    if key.protocol is not Protocol.UDP:
        made["transport"] = "tcp"
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", receive):
        made["answer"] = receive
    else:
        said(f'receive="{receive}": a pattern is not carried over: any address is taken')
    return made


def _command(
    v: Virtual, key: ServiceKey, reals: list[tuple[dict[str, object], Real]], said: Callable[[str], None]
) -> dict[str, object]:
    """It gets the service's address (or mark) and port, and the server's."""
    command = v.words["checkcommand"].value if "checkcommand" in v.words else "/bin/true"
    if not command.startswith("/") or not command.isprintable() or "{" in command:
        said(f"its check ({command}) is not carried over: expected an absolute path")
        return {}
    six = key.family is Family.IPV6
    where = str(key.fwmark) if key.address is None else f"[{key.address}]" if six else str(key.address)
    address = "[{address}]" if six else "{address}"
    written = {real.port for _, real in reals}
    if all(real.port == d["port"] for d, real in reals):
        port = "{port}"
    elif len(written) == 1:
        port = str(written.pop())
    else:
        said("its check is not carried over: its ports differ from those of the servers")
        return {}
    return {"type": "exec", "command": [command, where, str(key.port), address, port]}


def _http(
    file: File, v: Virtual, service: str, reals: list[tuple[dict[str, object], Real]], said: Callable[[str], None]
) -> dict[str, object]:
    request = v.words["request"].value if "request" in v.words else "/"
    receive = v.words["receive"].value if "receive" in v.words else ""
    asked = {real.own or (request, receive) for _, real in reals}
    (path, answer), *others = sorted(asked)
    if others:
        said("its servers have different requests: all get a connection check")
        return {"type": "tcp"}
    if "://" in path or not path.isascii() or not path.isprintable() or " " in path:
        said(f"request {path}: becomes a connection only: expected a path, printable ASCII without blanks")
        return {"type": "tcp"}
    check: dict[str, object] = {"type": service, "path": path, "status": statuses([(200, 299)])}
    if "virtualhost" in v.words and (host := v.words["virtualhost"].value):
        check["host"] = host
    if answer and PLAIN.fullmatch(answer):
        check["body"] = answer
    elif answer:
        said(f'receive="{answer}": a pattern is not carried over, though text would be')
    if "httpmethod" in v.words and v.words["httpmethod"].value == "HEAD":
        said("httpmethod=HEAD: replaced by GET")
    return check


def _times(file: File, v: Virtual, words: dict[str, str], kind: str, said: Callable[[str], None]) -> dict[str, object]:
    """A timeout that is not said is the other kind's, the virtual server's before the file's."""
    if "checkinterval" in v.words and words.get("fork") != "yes":
        interval = int(file.words["checkinterval"].value) if "checkinterval" in file.words else INTERVAL_SECONDS
        file.said(v.words["checkinterval"].line, "checkinterval", words["checkinterval"], "ignored without fork=yes")
    else:
        interval = int(words.get("checkinterval", INTERVAL_SECONDS))
    names = ("negotiatetimeout", "checktimeout") if kind == "negotiate" else ("checktimeout", "negotiatetimeout")
    places = [(where, name) for where in (v.words, file.words) for name in names]
    usual = NEGOTIATE_SECONDS if kind == "negotiate" else CHECK_SECONDS
    timeout = next((int(where[name].value) for where, name in places if name in where), usual)
    fall = int(words.get("failurecount", "1"))
    taken = min(interval, CHECK_INTERVAL[1]), min(timeout, CHECK_TIMEOUT[1]), min(fall, FALL_MAX)
    if (interval, timeout, fall) != taken:
        said(f"its check is every {interval} s, takes {timeout} s and counts {fall} failures: more than ours takes")
    return {"interval_seconds": float(taken[0]), "timeout_seconds": float(taken[1]), "rise": 1, "fall": taken[2]}
