"""master.toml: services, destinations and guards of a director, and how they become the model's types."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec

from feedback.config.exporter import Exporter
from feedback.config.match import RULES_MAX, TEXT_MAX, Match, parse_match
from feedback.config.probe import AgentSource, Check
from feedback.config.strict import (
    ConfigError,
    File,
    Network,
    Port,
    Positive,
    Strict,
    check_address,
    check_endpoint,
    check_listen,
    check_word,
)
from feedback.model import (
    CHECK_MARKS,
    THRESHOLD_MAX,
    WEIGHT_MAX,
    Address,
    Destination,
    DestinationKey,
    Family,
    Forward,
    Protocol,
    Service,
    ServiceFlags,
    ServiceKey,
    TunnelType,
    parse_address,
)

MASTER_PATH = Path("/etc/feedback/master.toml")

Weight = Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_MAX)]
Threshold = Annotated[int, msgspec.Meta(ge=0, le=THRESHOLD_MAX)]
CheckName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

FIREWALLS = ("auto", "nftables", "iptables", "iptables-legacy")
KERNELS_TABLES = (253, 254, 255)  # default, main, local
FORWARD_WORDS = {"route": Forward.ROUTE, "masquerade": Forward.MASQUERADE, "tunnel": Forward.TUNNEL}
TUNNEL_WORDS = {"ipip": TunnelType.IPIP, "gue": TunnelType.GUE, "gre": TunnelType.GRE}
ENGINES = ("sip",)  # persistence engines: ip_vs_pe_NAME
FLAG_WORDS = {
    "one-packet": ServiceFlags.ONE_PACKET,
    "sched-flag-1": ServiceFlags.SCHED1,
    "sched-flag-2": ServiceFlags.SCHED2,
    "sched-flag-3": ServiceFlags.SCHED3,
    "fallback": ServiceFlags.SCHED1,  # sh and mh
    "port": ServiceFlags.SCHED2,  # sh and mh
}


class OnFailure(StrEnum):
    """What becomes of a destination whose health check fails, and so of the flows that it has."""

    QUIESCE = "quiesce"  # weight 0: its flows stay with it
    REMOVE = "remove"  # out of the table, and its flows with it
    CUT = "cut"  # the same, and its TCP clients are told


class DestinationConfig(Strict, frozen=True):
    """`address` is the RIP, `port` the service's own if absent. `weight` is the static weight: the one to fall back to,
    and 0 means that the operator has quiesced it. `check_port` is where its health check asks it, if it is not at the
    check's port or its own. `priority` (the highest first) and `pool` (service, spill) are for the laws of priority
    pools. `stand_in` is the RIP of the destination of this service that gets nothing until this one fails, and then
    goes on with its sessions."""

    address: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | None = None
    weight: Weight = 100
    upper: Threshold = 0
    lower: Threshold = 0
    forward: str | None = None
    tunnel: str = "ipip"
    tunnel_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    priority: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)] = 0
    pool: str = "service"
    check_port: Port | None = None
    on_failure: str | None = None  # the service's
    stand_in: str | None = None


class ServiceConfig(Strict, frozen=True):
    """A virtual service: `virtual` is `tcp:10.0.0.100:80` or `fwmark:7`. `match` is what gets the mark, of both
    families: the packets of each go to the service of the mark and its family."""

    virtual: str
    match: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=TEXT_MAX)], ...], msgspec.Meta(max_length=64)] = ()
    destination: tuple[DestinationConfig, ...] = ()
    scheduler: str | None = None
    forward: str = "route"
    law: str = "capacity"
    law_options: dict[str, Any] = msgspec.field(default_factory=dict)  # what the law takes: docs/laws.md
    persistence_seconds: Annotated[int, msgspec.Meta(ge=0, le=86400 * 31)] = 0
    persistence_prefix: Annotated[int, msgspec.Meta(ge=0, le=128)] | None = None
    pe: str | None = None  # persistence engine: sip
    flags: tuple[str, ...] = ()
    thresholds: str | None = None  # static | learned | off; the law's own default
    latency_seconds: Positive = 0.25  # what a connection may take at full load: sizes learned thresholds
    check: Check | str | None = None  # its own, or the name of a [check.NAME]
    agent_check: AgentSource | None = None
    exporter: Exporter | str | None = None  # its own, or the name of an [exporter.NAME]
    on_failure: str | None = None  # quiesce | remove | cut; UDP with a check: remove, else quiesce
    passive: bool = False  # what nobody reports of a server is told by how long connections stay there


class Guards(Strict, frozen=True):
    """The bounds that no law can cross; what each means is said where feedback/master/guard.py applies it."""

    floor: Share = 0.02  # no destination in service gets less than this part of an equal share
    ceiling: Annotated[float, msgspec.Meta(ge=1, le=1e6)] = 4.0  # and none more than so many times its static share
    dead_band: Share = 0.05  # relative change of a weight below which nothing is written
    change_per_second: Positive = 4.0  # a share at most multiplies or divides by this in a second
    slow_start_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    stale_seconds: Positive = 2.0  # a report older than this freezes what is known
    lost_seconds: Positive = 15.0  # and after this the policy below holds
    lost_policy: str = "hold"  # hold | static | quiesce
    panic: Share = 0.5  # when at least this part of the fleet falls silent at once, everything is held


class Http(Strict, frozen=True):
    """The master's pages, read-only: metrics, probes, status. Empty: none. `sync` is where the sync daemon of a pair is
    asked for what the page says of it."""

    listen: str = "127.0.0.1:7480"
    sync: Path = Path("/run/feedback/sync.sock")


class Steer(Strict, frozen=True):
    """How packets with a mark come to IPVS. `firewall` is the program that marks them; `table` the routing table in
    which every address is local, `priority` where the policy rules stand that lead to it: before the main one."""

    firewall: str = "auto"
    table: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] = 7433
    priority: Annotated[int, msgspec.Meta(ge=1, le=32765)] = 7433


class MasterConfig(File, frozen=True):
    """A director's master. With ownership `table` it makes the services below and owns them; with `weights` it takes
    the services that the kernel has (those below, or all if none is named) and touches weights and thresholds only."""

    listen: tuple[str, ...] = ("tcp://0.0.0.0:7433",)
    key: Path = Path("/etc/feedback/master.key_secret")
    enrolled: Path = Path("/etc/feedback/agents")
    ownership: str = "table"
    remove_unlisted: bool = False  # services that this master made and that this file names no more
    control: Path = Path("/run/feedback/master.sock")
    state: Path = Path("/var/lib/feedback/master.json")
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.2
    role: Path | None = None  # the sync daemon's role file; none: this director is always the active one
    netns: str | None = None
    law: str = "capacity"
    service: tuple[ServiceConfig, ...] = ()
    checks: dict[CheckName, Check] = msgspec.field(
        default_factory=dict, name="check"
    )  # [check.NAME], for services to name
    exporters: dict[CheckName, Exporter] = msgspec.field(default_factory=dict, name="exporter")  # likewise
    guards: Guards = Guards()
    http: Http = Http()
    steer: Steer = Steer()

    def check(self, source: str) -> None:
        check_word(self.ownership, {"table", "weights"}, f"{source}: ownership")
        check_word(self.guards.lost_policy, {"hold", "static", "quiesce"}, f"{source}: guards.lost_policy")
        for i, endpoint in enumerate(self.listen):
            check_endpoint(endpoint, f"{source}: listen[{i}]")
        if self.http.listen:
            check_listen(self.http.listen, f"{source}: http.listen")
        if self.guards.lost_seconds <= self.guards.stale_seconds:
            raise ConfigError(f"{source}: guards.lost_seconds: must be more than guards.stale_seconds")
        if self.remove_unlisted and self.ownership != "table":
            raise ConfigError(f'{source}: remove_unlisted: is for ownership "table": nothing else is ours')
        if self.ownership == "table" and not self.service:
            raise ConfigError(f'{source}: service: ownership "table" needs at least one [[service]]')
        for name, shared in self.checks.items():
            shared.check(f"{source}: check.{name}")
        for name, page in self.exporters.items():
            page.check(f"{source}: exporter.{name}")
        seen: set[ServiceKey] = set()
        for i, service in enumerate(self.service):
            where = f"{source}: service[{i}]"
            key = service_key(service, where)
            if key in seen:
                raise ConfigError(f"{where}.virtual: {key} is listed twice")
            seen.add(key)
            if key.fwmark in CHECK_MARKS:
                marks = f"{CHECK_MARKS.start:#x} to {CHECK_MARKS.stop - 1:#x}"
                raise ConfigError(f"{where}.virtual: {key}: the marks {marks} are for our own checks")
            to_service(service, where)
            self._check_check(service, where)
            self._check_exporter(service, where)
            _check_destinations(service, where)
            _check_failure(service, self.ownership, where)
        check_word(self.steer.firewall, FIREWALLS, f"{source}: steer.firewall")
        if self.steer.table in KERNELS_TABLES:
            raise ConfigError(
                f"{source}: steer.table: {self.steer.table} is the kernel's own: every address would be local"
            )
        _check_matches(self, seen, source)

    def _check_check(self, service: ServiceConfig, where: str) -> None:
        if isinstance(service.check, str):
            if service.check not in self.checks:
                have = f"have {', '.join(sorted(self.checks))}" if self.checks else "there is none"
                raise ConfigError(f"{where}.check: {service.check!r}: no such [check.NAME]: {have}")
        elif service.check is not None:
            service.check.check(f"{where}.check")
        check = self.check_of(service)
        portless = [d for d in service.destination if not (d.check_port or d.port)] or not service.destination
        if check is not None and not check.port and not service_key(service).port and portless:
            raise ConfigError(f"{where}.check: needs a port, since the service has none")
        if check is not None and check.through == "service":
            self._check_through(service, where)

    def _check_exporter(self, service: ServiceConfig, where: str) -> None:
        if isinstance(service.exporter, str):
            if service.exporter not in self.exporters:
                have = f"have {', '.join(sorted(self.exporters))}" if self.exporters else "there is none"
                raise ConfigError(f"{where}.exporter: {service.exporter!r}: no such [exporter.NAME]: {have}")
        elif service.exporter is not None:
            service.exporter.check(f"{where}.exporter")

    def check_ports(self, service: ServiceConfig) -> dict[DestinationKey, int]:
        """Destinations that their check asks at a port of its own."""
        return {to_destination(d, service).key: d.check_port for d in service.destination if d.check_port}

    def _check_through(self, service: ServiceConfig, where: str) -> None:
        key = service_key(service)
        if key.address is None:
            raise ConfigError(f'{where}.check: through = "service" needs a VIP: a firewall mark has none')
        if self.netns is not None:
            raise ConfigError(f'{where}.check: through = "service": with netns, checks go out in another namespace')

    def check_of(self, service: ServiceConfig) -> Check | None:
        """The check of a service, whether its own or named."""
        return self.checks[service.check] if isinstance(service.check, str) else service.check

    def exporter_of(self, service: ServiceConfig) -> Exporter | None:
        """Whether its own or named."""
        return self.exporters[service.exporter] if isinstance(service.exporter, str) else service.exporter


def marks(config: MasterConfig) -> dict[int, tuple[Match, ...]]:
    """What gets each mark. Raises ConfigError."""
    found: dict[int, tuple[Match, ...]] = {}
    for i, service in enumerate(config.service):
        if service.match:
            fwmark = service_key(service).fwmark
            made = (parse_match(text, f"service[{i}].match[{j}]") for j, text in enumerate(service.match))
            found[fwmark] = found.get(fwmark, ()) + tuple(made)
    return found


def _check_matches(config: MasterConfig, services: set[ServiceKey], source: str) -> None:
    kept: dict[tuple[Network, Protocol], list[tuple[Match, int]]] = {}
    singles: list[tuple[Match, int]] = []
    total = 0
    for i, service in enumerate(config.service):
        where, mark = f"{source}: service[{i}].match", service_key(service).fwmark
        if service.match and not mark:
            raise ConfigError(f'{where}: is for a firewall mark: virtual = "fwmark:7"')
        for j, text in enumerate(service.match):
            here = f"{where}[{j}]"
            match = parse_match(text, here)
            if ServiceKey.marked(mark, match.family) not in services:
                wanted = ServiceKey.marked(mark, match.family)
                raise ConfigError(f'{here}: {text}: there is no [[service]] virtual = "{wanted}" for it: add it')
            total += len(match.parts)
            if total > RULES_MAX:
                raise ConfigError(
                    f"{here}: more than {RULES_MAX} rules in this file: every packet walks past all of them"
                )
            rivals = kept.setdefault((match.network, match.protocol), [])
            for other, its in rivals:
                if its != mark and match.rivals(other):
                    raise ConfigError(f"{here}: {match}: mark {its} has {other}: a packet can have one mark only")
            rivals.append((match, mark))
            singles += [(match, mark)] if match.single else []
    _check_hidden(services, singles, source)


def _check_hidden(services: set[ServiceKey], singles: list[tuple[Match, int]], source: str) -> None:
    """The kernel looks a service up by its mark first: one by address would get nothing any more."""
    for match, mark in singles:
        for key in services:
            if key.protocol and key.address == match.network[0] and match.takes(key.protocol, key.port):
                raise ConfigError(f"{source}: service: {key}: gets nothing: {match} gives its packets to mark {mark}")


def _check_destinations(service: ServiceConfig, where: str) -> None:
    if service.thresholds is not None:
        check_word(service.thresholds, {"static", "learned", "off"}, f"{where}.thresholds")
    seen: set[DestinationKey] = set()
    for j, destination in enumerate(service.destination):
        here = f"{where}.destination[{j}]"
        check_word(destination.pool, {"service", "spill"}, f"{here}.pool")
        made = to_destination(destination, service, here)
        if made.key in seen:
            raise ConfigError(f"{here}.address: {made.key} is listed twice")
        seen.add(made.key)
    _check_stand_ins(service, where)


def _check_stand_ins(service: ServiceConfig, where: str) -> None:
    of = {check_address(d.address, where): d.stand_in for d in service.destination}
    for j, destination in enumerate(service.destination):
        if destination.stand_in is None:
            continue
        here, text = f"{where}.destination[{j}].stand_in", destination.stand_in
        address = check_address(text, here)
        if address not in of:
            raise ConfigError(
                f"{here}: {text} is no destination of this service: add it (it gets nothing until it is needed)"
            )
        if address == check_address(destination.address, here):
            raise ConfigError(f"{here}: {text} is this destination itself")
        if of[address] is not None:
            raise ConfigError(f"{here}: {text} has a stand-in itself: a stand-in cannot have one")


def stand_ins(config: MasterConfig) -> dict[tuple[Address, int], frozenset[Address]]:
    """Who stands in: RIP and port of a server, and the RIPs of those that may go on with its sessions."""
    found: dict[tuple[Address, int], frozenset[Address]] = {}
    for service in config.service:
        for destination in service.destination:
            if destination.stand_in is not None:
                key = to_destination(destination, service).key
                other = parse_address(destination.stand_in)
                found[key.address, key.port] = found.get((key.address, key.port), frozenset()) | {other}
    return found


def _check_failure(service: ServiceConfig, ownership: str, where: str) -> None:
    places = [(where, service.on_failure)]
    places += [(f"{where}.destination[{j}]", d.on_failure) for j, d in enumerate(service.destination)]
    for place, word in places:
        if word is None:
            continue
        here = f"{place}.on_failure"
        check_word(word, set(OnFailure), here)
        if word == OnFailure.QUIESCE:
            continue
        if ownership == "weights":
            raise ConfigError(f'{here}: {word!r}: with ownership "weights" only the owner removes: `feedback doctor`')
        if service.check is None:
            raise ConfigError(f"{here}: {word!r}: needs [service.check], which detects that a destination fails")
        if word == OnFailure.CUT and service_key(service).protocol is not Protocol.TCP:
            raise ConfigError(f'{here}: "cut": only clients of a TCP service can be told: "remove" ends the flows')


def on_failure(destination: DestinationConfig, service: ServiceConfig) -> OnFailure:
    """What is in force for a destination of a configuration that was checked."""
    word = destination.on_failure or service.on_failure
    if word is not None:
        return OnFailure(word)
    if service.check is not None and cuts_the_demoted(service):
        return OnFailure.CUT
    udp = service_key(service).protocol is Protocol.UDP
    return OnFailure.REMOVE if udp and service.check is not None else OnFailure.QUIESCE


def cuts_the_demoted(service: ServiceConfig) -> bool:
    """Whether its law ends the flows of a server that has lost the first place."""
    return service.law == "failover" and service.law_options.get("cut", "never") != "never"


def removes(config: MasterConfig) -> bool:
    """Whether any destination is taken out of the table when it fails."""
    return any(how is not OnFailure.QUIESCE for how in _ways_out(config))


def cuts(config: MasterConfig) -> bool:
    """Whether any destination's clients are told when it fails."""
    return any(how is OnFailure.CUT for how in _ways_out(config))


def _ways_out(config: MasterConfig) -> Iterator[OnFailure]:
    if config.ownership == "table":
        for service in config.service:
            yield from (on_failure(destination, service) for destination in service.destination)
            if cuts_the_demoted(service):
                yield OnFailure.CUT


def service_key(service: ServiceConfig, where: str = "service") -> ServiceKey:
    try:
        return ServiceKey.parse(service.virtual)
    except ValueError as error:
        raise ConfigError(f"{where}.virtual: {error}") from None


def default_scheduler(key: ServiceKey) -> str:
    """`sed` looks at active connections only, and the kernel never counts a UDP flow as active: UDP gets `wrr`."""
    return "wrr" if key.protocol == "udp" else "sed"


def to_service(config: ServiceConfig, where: str = "service") -> Service:
    """Raises ConfigError."""
    key = service_key(config, where)
    flags = ServiceFlags.PERSISTENT if config.persistence_seconds else ServiceFlags(0)
    for i, word in enumerate(config.flags):
        check_word(word, set(FLAG_WORDS), f"{where}.flags[{i}]")
        flags |= FLAG_WORDS[word]
    limit = 32 if key.family is Family.IPV4 else 128
    if config.persistence_prefix is not None and config.persistence_prefix > limit:
        raise ConfigError(f"{where}.persistence_prefix: {config.persistence_prefix} is more than {limit}")
    if config.pe is not None:
        _check_engine(config, key, where)
    return Service(
        key=key,
        scheduler=config.scheduler or default_scheduler(key),
        flags=flags,
        timeout_seconds=config.persistence_seconds,
        netmask=config.persistence_prefix,
        pe_name=config.pe,
    )


def _check_engine(config: ServiceConfig, key: ServiceKey, where: str) -> None:
    """What would have no effect is refused: ip_vs_pe_sip.c only works with UDP, and into persistent services."""
    check_word(config.pe or "", ENGINES, f"{where}.pe")
    if not config.persistence_seconds:
        raise ConfigError(f"{where}.pe: {config.pe}: needs persistence_seconds, the longest pause within a call")
    if key.protocol not in (None, Protocol.UDP):
        raise ConfigError(f"{where}.pe: {config.pe}: only works with UDP, and {key} is {key.protocol}")


def to_destination(config: DestinationConfig, service: ServiceConfig, where: str = "destination") -> Destination:
    """Raises ConfigError."""
    forward = config.forward if config.forward is not None else service.forward
    check_word(forward, set(FORWARD_WORDS), f"{where}.forward")
    check_word(config.tunnel, set(TUNNEL_WORDS), f"{where}.tunnel")
    if config.lower > config.upper:  # the kernel refuses it, also without an upper one
        raise ConfigError(f"{where}.lower: {config.lower} is more than upper, which is {config.upper}")
    port = config.port if config.port is not None else service_key(service).port
    return Destination(
        key=DestinationKey(check_address(config.address, f"{where}.address"), port),
        weight=config.weight,
        forward=FORWARD_WORDS[forward],
        upper=config.upper,
        lower=config.lower,
        tunnel_type=TUNNEL_WORDS[config.tunnel],
        tunnel_port=config.tunnel_port,
    )
