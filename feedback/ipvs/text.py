"""ipvsadm's rules text <-> edits: what `ipvsadm -Sn` prints and `ipvsadm -R` reads. Pure.

`format_table` writes a snapshot as -A and -a lines, with the thresholds (-x, -y) that `ipvsadm -S` itself leaves out:
nothing is lost in saving. `parse` reads lines into edits. -C (clear) is refused: a table is restored by difference,
because between a flush and the last -a the kernel drops the packets of every connection.

What ipvsadm cannot express is left out: a persistence timeout without persistence, flags other than one-packet and the
scheduler's three. Addresses and ports are numbers; names are refused, not resolved.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from feedback.ipvs.rules import SERVICE_WORDS, RulesError, split
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Family,
    Forward,
    Protocol,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    Snapshot,
    TunnelType,
    format_endpoint,
    parse_address,
    parse_endpoint,
)

PERSISTENCE_SECONDS = 360  # ipvsadm's -p without a number
TUNNEL_CHECKSUM, TUNNEL_REMOTE_CHECKSUM = 1, 2

_COMMANDS = {"-A": AddService, "-E": SetService, "-D": RemoveService}
_DESTINATION_COMMANDS = {"-a": AddDestination, "-e": SetDestination, "-d": RemoveDestination}
_PROTOCOL_WORDS = {"-t": Protocol.TCP, "-u": Protocol.UDP, "--sctp-service": Protocol.SCTP}
_FORWARD_WORDS = {"-g": Forward.ROUTE, "-i": Forward.TUNNEL, "-m": Forward.MASQUERADE}
_FLAG_WORDS = {
    "flag-1": ServiceFlags.SCHED1,
    "flag-2": ServiceFlags.SCHED2,
    "flag-3": ServiceFlags.SCHED3,
    "sh-fallback": ServiceFlags.SCHED1,
    "mh-fallback": ServiceFlags.SCHED1,
    "sh-port": ServiceFlags.SCHED2,
    "mh-port": ServiceFlags.SCHED2,
}
_NAMED_FLAGS = {"sh", "mh"}  # schedulers that have their own words for the first two flags


# --- writing ---------------------------------------------------------------------------------------------------------


def format_table(snapshot: Snapshot) -> str:
    """All of a snapshot, in an order that does not change from one kernel's hash to another's."""
    lines: list[str] = []
    for entry in sorted(snapshot.services, key=lambda e: str(e.service.key)):
        lines.append(format_edit(AddService(entry.service)))
        # The kernel puts each new destination at the head of its list: written backwards, the order comes back.
        lines += [format_edit(AddDestination(entry.service.key, d.destination)) for d in reversed(entry.destinations)]
    return "".join(line + "\n" for line in lines)


def format_edit(edit: Edit) -> str:
    match edit:
        case AddService() | SetService():
            word = "-A" if isinstance(edit, AddService) else "-E"
            return f"{word} {_service_words(edit.service.key)} {_service_options(edit.service)}"
        case RemoveService():
            return f"-D {_service_words(edit.service)}"
        case AddDestination() | SetDestination():
            word = "-a" if isinstance(edit, AddDestination) else "-e"
            destination = edit.destination
            return f"{word} {_service_words(edit.service)} -r {destination.key} {_destination_options(destination)}"
        case RemoveDestination():
            return f"-d {_service_words(edit.service)} -r {edit.destination}"


def removal(key: ServiceKey) -> str:
    """The command that removes a service, for people."""
    return f"ipvsadm {format_edit(RemoveService(key))}"


def _service_words(key: ServiceKey) -> str:
    if key.address is None or key.protocol is None:
        return f"-f {key.fwmark}" + (" -6" if key.family is Family.IPV6 else "")
    word = {protocol: word for word, protocol in _PROTOCOL_WORDS.items()}[key.protocol]
    return f"{word} {format_endpoint(key.address, key.port)}"


def _service_options(service: Service) -> str:
    words = ["-s", service.scheduler]
    if service.persistent:
        words += ["-p", str(service.timeout_seconds)]
    if service.netmask is not None:
        words += ["-M", _format_netmask(service.netmask, service.key.family)]
    if service.pe_name:
        words += ["--pe", service.pe_name]
    if service.flags & ServiceFlags.ONE_PACKET:
        words.append("-o")
    own = f"{service.scheduler}-" if service.scheduler in _NAMED_FLAGS else ""
    names = (own + "fallback", own + "port", "flag-3") if own else ("flag-1", "flag-2", "flag-3")
    flags = [name for name in names if service.flags & _FLAG_WORDS[name]]
    if flags:
        words += ["-b", ",".join(flags)]
    return " ".join(words)


def _destination_options(destination: Destination) -> str:
    words = [{Forward.MASQUERADE: "-m", Forward.TUNNEL: "-i"}.get(destination.forward, "-g")]
    words += ["-w", str(destination.weight)]
    if destination.upper:
        words += ["-x", str(destination.upper)]
    if destination.lower:
        words += ["-y", str(destination.lower)]
    if destination.forward is not Forward.TUNNEL or destination.tunnel_type is TunnelType.IPIP:
        return " ".join(words)
    words += ["--tun-type", destination.tunnel_type.name.lower()]
    if destination.tunnel_port:
        words += ["--tun-port", str(destination.tunnel_port)]
    if destination.tunnel_flags & TUNNEL_CHECKSUM:
        words.append("--tun-csum")
    if destination.tunnel_flags & TUNNEL_REMOTE_CHECKSUM:
        words.append("--tun-remcsum")
    return " ".join(words)


def _format_netmask(netmask: int | IPv4Address, family: Family) -> str:
    if family is Family.IPV6 or isinstance(netmask, IPv4Address):
        return str(netmask)
    return str(IPv4Address(0xFFFFFFFF << (32 - netmask) & 0xFFFFFFFF))


# --- reading ---------------------------------------------------------------------------------------------------------


def parse(text: str) -> tuple[Edit, ...]:
    """Every line that is neither empty nor a comment, in order. Raises RulesError with the number of the line."""
    edits: list[Edit] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            edits.append(parse_line(line))
        except RulesError as error:
            raise RulesError(f"line {number}: {error}") from None
    return tuple(edits)


def parse_line(line: str) -> Edit:
    """One rule, with or without `ipvsadm` before it. Raises RulesError."""
    options = split(line)
    commands = [word for word in options if word in _COMMANDS or word in _DESTINATION_COMMANDS or word == "-C"]
    if len(commands) != 1:
        raise RulesError("expected one of -A, -E, -D, -a, -e, -d")
    command = commands[0]
    if command == "-C":
        raise RulesError("-C is not supported: a table is restored by difference, never by a flush, which drops flows")
    try:
        key = _service_key(options)
        if command == "-D":
            return RemoveService(key)
        if command in _COMMANDS:
            service = _service(key, options)
            return AddService(service) if command == "-A" else SetService(service)
        return _destination_edit(command, key, options)
    except ValueError as error:  # of ipaddress, int and the model: their texts name the value
        raise RulesError(str(error)) from None


def _service_key(options: dict[str, str]) -> ServiceKey:
    named = [word for word in SERVICE_WORDS if word in options and word != "-6"]
    if len(named) != 1:
        raise RulesError("expected one service: -t, -u or --sctp-service ADDRESS:PORT, or -f MARK")
    word = named[0]
    if word == "-f":
        return ServiceKey.marked(_number(options, "-f"), Family.IPV6 if "-6" in options else Family.IPV4)
    address, port = _endpoint(options[word], 0)
    return ServiceKey.at(_PROTOCOL_WORDS[word], parse_address(address), port)


def _service(key: ServiceKey, options: dict[str, str]) -> Service:
    flags = ServiceFlags.PERSISTENT if "-p" in options else ServiceFlags(0)
    if "-o" in options:
        flags |= ServiceFlags.ONE_PACKET
    for word in options["-b"].split(",") if "-b" in options else []:
        if word not in _FLAG_WORDS:
            raise RulesError(f"-b {word}: expected {', '.join(_FLAG_WORDS)}")
        flags |= _FLAG_WORDS[word]
    return Service(
        key=key,
        scheduler=options.get("-s", "wlc"),
        flags=flags,
        timeout_seconds=int(options["-p"] or PERSISTENCE_SECONDS) if "-p" in options else 0,
        netmask=_netmask(options["-M"], key.family) if "-M" in options else None,
        pe_name=options.get("--pe"),
    )


def _destination_edit(command: str, service: ServiceKey, options: dict[str, str]) -> Edit:
    if "-r" not in options:
        raise RulesError(f"{command} needs -r ADDRESS:PORT")
    address, port = _endpoint(options["-r"], service.port)
    key = DestinationKey(parse_address(address), port)
    if command == "-d":
        return RemoveDestination(service, key)
    methods = [method for word, method in _FORWARD_WORDS.items() if word in options]
    if len(methods) > 1:
        raise RulesError("-g, -i and -m exclude one another")
    destination = Destination(
        key=key,
        weight=_number(options, "-w", 1),
        forward=methods[0] if methods else Forward.ROUTE,
        upper=_number(options, "-x"),
        lower=_number(options, "-y"),
        tunnel_type=_tunnel_type(options.get("--tun-type", "ipip")),
        tunnel_port=_number(options, "--tun-port"),
        tunnel_flags=("--tun-csum" in options) * TUNNEL_CHECKSUM
        | ("--tun-remcsum" in options) * TUNNEL_REMOTE_CHECKSUM,
    )
    return AddDestination(service, destination) if command == "-a" else SetDestination(service, destination)


def _tunnel_type(word: str) -> TunnelType:
    words = {member.name.lower(): member for member in TunnelType}
    if word not in words:
        raise RulesError(f"--tun-type {word}: expected {', '.join(words)}")
    return words[word]


def _number(options: dict[str, str], name: str, absent: int = 0) -> int:
    if name not in options:
        return absent
    if not (options[name].isascii() and options[name].isdecimal()):
        raise RulesError(f"{name} {options[name]!r}: expected a number")
    return int(options[name])


def _endpoint(text: str, default_port: int) -> tuple[str, int]:
    """`10.0.0.1:80`, `[2001:db8::1]:80`, or without a port."""
    if text.endswith("]") or ":" not in text:
        return text.strip("[]"), default_port
    address, port = parse_endpoint(text)
    return str(address), port


def _netmask(text: str, family: Family) -> int | IPv4Address | None:
    """An IPv6 prefix length; an IPv4 mask, as a prefix length if it is one."""
    if family is Family.IPV6:
        if not text.isdecimal() or not 1 <= int(text) <= 128:
            raise RulesError(f"-M {text}: expected a prefix length, 1..128")
        return None if int(text) == 128 else int(text)
    mask = IPv4Address(text)
    bits = format(int(mask), "032b")
    if "01" in bits:
        return mask
    return None if bits.count("1") == 32 else bits.count("1")
