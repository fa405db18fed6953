"""TOML -> typed configuration. An error is one line: the file, the key's path, what was wrong and what was expected.

Configuration is strict: an unknown key, a wrong type or a value out of range is refused, and nothing is guessed. What
a key means is said in docs/configuration.md. Reading the file is the only I/O here.
"""

from __future__ import annotations

import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from feedback.model import (
    THRESHOLD_MAX,
    WEIGHT_MAX,
    Address,
    Destination,
    DestinationKey,
    Family,
    Forward,
    Service,
    ServiceFlags,
    ServiceKey,
    TunnelType,
    parse_endpoint,
)
from feedback.wire import Name

MASTER_PATH = Path("/etc/feedback/master.toml")
AGENT_PATH = Path("/etc/feedback/agent.toml")

Weight = Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_MAX)]
Threshold = Annotated[int, msgspec.Meta(ge=0, le=THRESHOLD_MAX)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

FORWARD_WORDS = {"route": Forward.ROUTE, "masquerade": Forward.MASQUERADE, "tunnel": Forward.TUNNEL}
TUNNEL_WORDS = {"ipip": TunnelType.IPIP, "gue": TunnelType.GUE, "gre": TunnelType.GRE}
FLAG_WORDS = {
    "one-packet": ServiceFlags.ONE_PACKET,
    "sched-flag-1": ServiceFlags.SCHED1,
    "sched-flag-2": ServiceFlags.SCHED2,
    "sched-flag-3": ServiceFlags.SCHED3,
    "fallback": ServiceFlags.SCHED1,  # sh and mh
    "port": ServiceFlags.SCHED2,  # sh and mh
}


class ConfigError(ValueError):
    """One line for the operator: `FILE: KEY.PATH: what was wrong, what was expected`."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class MasterLink(_Strict, frozen=True):
    """Where the agent finds one master: its endpoint and the master's public key (40 characters, Z85)."""

    endpoint: str
    public_key: Annotated[str, msgspec.Meta(min_length=40, max_length=40)]


class ListenerConfig(_Strict, frozen=True):
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class AgentConfig(_Strict, frozen=True):
    """A real server's agent. `addresses` are the RIPs it speaks for; `cgroup` is the directory of the cgroup that
    bounds the real server (the host if absent) and `service_cgroup` the one of the service inside it; `socket` is the
    datagram socket where applications speak."""

    name: Name
    addresses: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    master: Annotated[tuple[MasterLink, ...], msgspec.Meta(min_length=1, max_length=16)]
    key: Path = Path("/etc/feedback/agent.key_secret")
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.2
    idle_interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=600)] = 1.0
    cgroup: Path | None = None
    service_cgroup: Path | None = None
    ports: Annotated[tuple[int, ...], msgspec.Meta(max_length=64)] = ()
    socket: Path | None = None


class DestinationConfig(_Strict, frozen=True):
    """`address` is the RIP, `port` the service's own if absent. `weight` is the static weight: the one to fall back to,
    and 0 means that the operator has quiesced it. `priority` (the highest first) and `pool` (service, spill) are for
    the laws of priority pools."""

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


class ServiceConfig(_Strict, frozen=True):
    """A virtual service: `virtual` is `tcp:10.0.0.100:80` or `fwmark:7`."""

    virtual: str
    destination: tuple[DestinationConfig, ...] = ()
    scheduler: str | None = None
    forward: str = "route"
    law: str = "capacity"
    persistence_seconds: Annotated[int, msgspec.Meta(ge=0, le=86400 * 31)] = 0
    persistence_prefix: Annotated[int, msgspec.Meta(ge=0, le=128)] | None = None
    flags: tuple[str, ...] = ()
    thresholds: str | None = None  # static | learned | off; the law's own default
    latency_seconds: Positive = 0.25  # what a connection may take at full load: sizes learned thresholds


class Guards(_Strict, frozen=True):
    """The bounds that no law can cross; what each means is said where feedback/master/guard.py applies it."""

    floor: Share = 0.02  # no destination in service gets less than this part of an equal share
    dead_band: Share = 0.05  # relative change of a weight below which nothing is written
    change_per_second: Positive = 4.0  # a share at most multiplies or divides by this in a second
    slow_start_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    stale_seconds: Positive = 2.0  # a report older than this freezes what is known
    lost_seconds: Positive = 15.0  # and after this the policy below holds
    lost_policy: str = "hold"  # hold | static | quiesce
    panic: Share = 0.5  # when at least this part of the fleet falls silent at once, everything is held


class MasterConfig(_Strict, frozen=True):
    """A director's master. With ownership `table` it makes the services below and owns them; with `weights` it takes
    the services that the kernel has (those below, or all if none is named) and touches weights and thresholds only."""

    listen: tuple[str, ...] = ("tcp://0.0.0.0:7433",)
    key: Path = Path("/etc/feedback/master.key_secret")
    enrolled: Path = Path("/etc/feedback/agents")
    ownership: str = "table"
    control: Path = Path("/run/feedback/master.sock")
    state: Path = Path("/var/lib/feedback/master.json")
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.2
    netns: str | None = None
    law: str = "capacity"
    service: tuple[ServiceConfig, ...] = ()
    guards: Guards = Guards()


C = TypeVar("C", AgentConfig, MasterConfig)


def load(path: Path, kind: type[C]) -> C:
    """Read and check a file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file: see examples/ for one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse(text, kind, source=str(path))


def parse(text: str, kind: type[C], source: str = "configuration") -> C:
    """TOML text -> checked configuration. Raises ConfigError."""
    try:
        config = msgspec.convert(tomllib.loads(text), kind, dec_hook=_path_hook)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_readable(str(error))}") from None
    if isinstance(config, MasterConfig):
        _check_master(config, source)
    else:
        _check_agent(config, source)
    return config


def _path_hook(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected a path as a string, got {type(value).__name__}")


def _readable(error: str) -> str:
    """msgspec says `Expected `int`, got `str` - at `$.service[0].weight``; people read the place first."""
    what, _, where = error.rpartition(" - at `$")
    return f"{where.strip('.`')}: {what}" if what else error


def _address(text: str, where: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not an IPv4 or IPv6 address") from None


def _word(word: str, words: dict[str, object] | set[str], where: str) -> None:
    if word not in words:
        raise ConfigError(f"{where}: {word!r}: expected one of {', '.join(sorted(words))}")


def _check_endpoint(endpoint: str, where: str) -> None:
    scheme, _, rest = endpoint.partition("://")
    if scheme != "tcp":
        raise ConfigError(f"{where}: {endpoint!r}: expected tcp://ADDRESS:PORT")
    try:
        parse_endpoint(rest)
    except ValueError as error:
        raise ConfigError(f"{where}: {endpoint!r}: expected tcp://ADDRESS:PORT: {error}") from None


def _check_agent(config: AgentConfig, source: str) -> None:
    for i, text in enumerate(config.addresses):
        _address(text, f"{source}: addresses[{i}]")
    for i, link in enumerate(config.master):
        _check_endpoint(link.endpoint, f"{source}: master[{i}].endpoint")
    for i, port in enumerate(config.ports):
        if not 1 <= port <= 65535:
            raise ConfigError(f"{source}: ports[{i}]: {port} is not in 1..65535")
    if config.service_cgroup is not None and config.cgroup is None:
        raise ConfigError(f"{source}: service_cgroup: needs cgroup, the directory that bounds it")


def _check_master(config: MasterConfig, source: str) -> None:
    _word(config.ownership, {"table", "weights"}, f"{source}: ownership")
    _word(config.guards.lost_policy, {"hold", "static", "quiesce"}, f"{source}: guards.lost_policy")
    for i, endpoint in enumerate(config.listen):
        _check_endpoint(endpoint, f"{source}: listen[{i}]")
    if config.guards.lost_seconds <= config.guards.stale_seconds:
        raise ConfigError(f"{source}: guards.lost_seconds: must be more than guards.stale_seconds")
    if config.ownership == "table" and not config.service:
        raise ConfigError(f'{source}: service: ownership "table" needs at least one [[service]]')
    seen: set[ServiceKey] = set()
    for i, service in enumerate(config.service):
        where = f"{source}: service[{i}]"
        key = service_key(service, where)
        if key in seen:
            raise ConfigError(f"{where}.virtual: {key} is there twice")
        seen.add(key)
        to_service(service, where)
        _check_destinations(service, where)


def _check_destinations(service: ServiceConfig, where: str) -> None:
    if service.thresholds is not None:
        _word(service.thresholds, {"static", "learned", "off"}, f"{where}.thresholds")
    seen: set[DestinationKey] = set()
    for j, destination in enumerate(service.destination):
        here = f"{where}.destination[{j}]"
        _word(destination.pool, {"service", "spill"}, f"{here}.pool")
        made = to_destination(destination, service, here)
        if made.key in seen:
            raise ConfigError(f"{here}.address: {made.key} is there twice")
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
        _word(word, set(FLAG_WORDS), f"{where}.flags[{i}]")
        flags |= FLAG_WORDS[word]
    limit = 32 if key.family is Family.IPV4 else 128
    if config.persistence_prefix is not None and config.persistence_prefix > limit:
        raise ConfigError(f"{where}.persistence_prefix: {config.persistence_prefix} is more than {limit}")
    return Service(
        key=key,
        scheduler=config.scheduler or default_scheduler(key),
        flags=flags,
        timeout_seconds=config.persistence_seconds,
        netmask=config.persistence_prefix,
    )


def to_destination(config: DestinationConfig, service: ServiceConfig, where: str = "destination") -> Destination:
    """Raises ConfigError."""
    forward = config.forward if config.forward is not None else service.forward
    _word(forward, set(FORWARD_WORDS), f"{where}.forward")
    _word(config.tunnel, set(TUNNEL_WORDS), f"{where}.tunnel")
    if config.upper and config.lower > config.upper:
        raise ConfigError(f"{where}.lower: {config.lower} is more than upper, which is {config.upper}")
    port = config.port if config.port is not None else service_key(service).port
    return Destination(
        key=DestinationKey(_address(config.address, f"{where}.address"), port),
        weight=config.weight,
        forward=FORWARD_WORDS[forward],
        upper=config.upper,
        lower=config.lower,
        tunnel_type=TUNNEL_WORDS[config.tunnel],
        tunnel_port=config.tunnel_port,
    )
