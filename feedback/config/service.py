"""[[service]] and [[service.destination]] of master.toml, and how they become the model's types."""

from __future__ import annotations

import typing
from typing import Annotated, Any

import msgspec

from feedback.config.exporter import Exporter
from feedback.config.match import TEXT_MAX
from feedback.config.probe import AgentSource, Check
from feedback.config.strict import ConfigError, Port, Positive, Strict, check_address, check_word
from feedback.model import (
    THRESHOLD_MAX,
    WEIGHT_MAX,
    Destination,
    DestinationKey,
    Family,
    Forward,
    Protocol,
    Service,
    ServiceFlags,
    ServiceKey,
    TunnelType,
)

Weight = Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_MAX)]
Threshold = Annotated[int, msgspec.Meta(ge=0, le=THRESHOLD_MAX)]

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


class Services(typing.Protocol):
    """A file that lists services: the master's."""

    @property
    def ownership(self) -> str: ...

    @property
    def service(self) -> tuple[ServiceConfig, ...]: ...


def check_destinations(service: ServiceConfig, where: str) -> None:
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
    """Refuse settings without effect: ip_vs_pe_sip.c only works with UDP, and with persistence."""
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
